"""Limits for tests of real processes on a machine that may be busy, and waiting for an event instead of for a time."""

import time
from collections.abc import Callable

from monge.apps.prove.state import Budget, Limits

PATIENT = Budget(heartbeats=200_000, seconds=600.0)
"""Budget of a tactic that is sure to finish."""
SLOW = Limits(start_seconds=1200.0)
"""Limits of a server that may take long to start on a busy machine."""


def until(happened: Callable[[], object], *, seconds: float = 300.0) -> bool:
    """True as soon as `happened()` is true; False after `seconds`, which suffice even on a busy machine."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
