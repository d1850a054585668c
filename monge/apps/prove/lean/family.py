"""A process and those below it: what they hold, what they spend, and their end."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

import psutil

FRESH = 1.0
"""Seconds for which the list of them is good: to make it takes milliseconds."""


class Family:
    """Of a process that leads a session of its own."""

    def __init__(self, pid: int) -> None:
        self._pid, self._ended = pid, False
        self._members: list[psutil.Process] = []
        self._seen = 0.0

    @property
    def memory(self) -> float:
        """GB resident."""
        return sum(self._each(lambda process: process.memory_info().rss)) / 1e9

    @property
    def processor(self) -> float:
        """Seconds of processor time so far."""
        return sum(self._each(lambda process: sum(process.cpu_times()[:2])))

    def members(self) -> list[psutil.Process]:
        """The processes, as of a second ago at most."""
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
        """Kill its group and what has left that, once: later their numbers may be others'."""
        if not self._ended:
            self._ended = True
            members = self.members()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            for member in members:
                with contextlib.suppress(psutil.Error):
                    member.kill()
