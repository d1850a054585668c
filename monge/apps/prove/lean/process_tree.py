"""A process and its descendants: their memory, their CPU time, and killing them."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

import psutil

FRESH = 1.0
"""Seconds for which the list of members is reused: listing them takes milliseconds."""


class ProcessTree:
    """The tree below a process that leads its own session."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended = pid, False
        self._members: list[psutil.Process] = []
        self._seen = 0.0

    @property
    def memory(self) -> float:
        """Resident memory in GB."""
        return sum(self._each(lambda process: process.memory_info().rss)) / 1e9

    @property
    def processor(self) -> float:
        """CPU time so far in seconds."""
        return sum(self._each(lambda process: sum(process.cpu_times()[:2])))

    def members(self) -> list[psutil.Process]:
        """The processes, listed at most a second ago."""
        if time.monotonic() - self._seen > FRESH or not self._members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(self._pid)
                self._members = [process, *process.children(recursive=True)]
                self._seen = time.monotonic()
        return self._members

    def _each(self, read: Callable[[psutil.Process], float]) -> list[float]:
        found: list[float] = []
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(read(member))
        return found

    def kill(self) -> None:
        """Kill the process group and members that left it, once: later their numbers may belong to other processes."""
        if not self._ended:
            self._ended = True
            members = self.members()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            for member in members:
                with contextlib.suppress(psutil.Error):
                    member.kill()
