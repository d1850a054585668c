"""Crashes of Lean processes: exception types, exit codes of external kills, and the last line of standard error."""

import os
import signal
from typing import IO


class ServerCrashed(OSError):
    """The process exited on its own, or was killed because it exceeded a limit or broke the protocol."""


class ServerKilled(ServerCrashed):
    """The process was killed externally, for example by the OOM killer or by an operator, or exceeded its limit of CPU time."""


KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
"""Exit codes of a process that was killed externally, directly or under bubblewrap. Exceeding the limit of CPU time gives
the same codes."""
TRACES = ("[DEBUG", "  - /", "  mainModule?")
"""Prefixes of debugging lines that Lean's WebAssembly build always prints."""


def last_line(errors: IO[bytes]) -> str:
    """The last line of a process's standard error that is not debugging output; empty if there is none."""
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - 2000))
    lines = errors.read().decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip() and not line.startswith(TRACES)), "")
