"""A process and its descendants: their memory, their CPU time, and how to kill them."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

import psutil

SLOWEST = 0.05
"""Share of a core below which a process counts as idle, rather than slowed down by others."""
WINDOW = 2.0
"""Seconds over which that share is measured."""
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


class Deadline:
    """A time limit for processes, from now on: it has passed once wall-clock time and CPU time exceed it, or once they are idle
    after it. Processes that others slow down thus get more time, up to `seconds` / SLOWEST."""

    def __init__(self, processes: ProcessTree, seconds: float) -> None:
        self._processes, self.seconds = processes, seconds
        self._start, self._used = time.monotonic(), processes.processor
        self._mark: tuple[float, float] | None = None
        """Wall-clock time and CPU time at the start of the current window, after the limit."""

    @property
    def pause(self) -> float:
        """Seconds to wait before the next check."""
        return min(max(self._start + self.seconds - time.monotonic(), 0.05), 0.25)

    @property
    def passed(self) -> bool:
        """True if the limit has passed."""
        now = time.monotonic()
        if now - self._start < self.seconds:
            return False
        used = self._processes.processor - self._used
        since, before = self._mark = self._mark or (now, used)
        if now - since >= WINDOW:
            if used - before < SLOWEST * (now - since):
                return True
            self._mark = (now, used)
        return used >= self.seconds
