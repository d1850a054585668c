"""A process and its descendants: their memory, their CPU time, and how to kill them."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

import psutil

FRESH = 1.0
"""Seconds for which the list of members is reused, since listing them takes milliseconds."""


class ProcessTree:
    """The tree rooted at a process that leads its own session."""

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
        """CPU time used so far in seconds."""
        return sum(self._each(lambda process: sum(process.cpu_times()[:2])))

    def members(self) -> list[psutil.Process]:
        """The processes of the tree, listed at most FRESH seconds ago."""
        if time.monotonic() - self._seen > FRESH or not self._members:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(self._pid)
                self._members = [process, *process.children(recursive=True)]
                self._seen = time.monotonic()
        return self._members

    def _each(self, read: Callable[[psutil.Process], float]) -> list[float]:
        values: list[float] = []
        for member in self.members():
            with contextlib.suppress(psutil.NoSuchProcess):
                values.append(read(member))
        return values

    def kill(self) -> None:
        """Kill the process group and members that left it. Further calls do nothing, since their ids may have been reused."""
        if not self._ended:
            self._ended = True
            members = self.members()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            for member in members:
                with contextlib.suppress(psutil.Error):
                    member.kill()
