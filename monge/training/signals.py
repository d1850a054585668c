"""SIGINT and SIGTERM during training, for the loop to act on between steps."""

import math
import signal
import threading
import time
from typing import Any

from monge.training.distributed import max_over_ranks

EXCHANGE_SECONDS = 5.0
"""Maximum time between exchanges of signals by the ranks, since torchrun kills them 30 seconds after it has been stopped."""


class Signals:
    """The SIGINT or SIGTERM received, if any, for the loop to act on between steps. A second one has its usual effect."""

    def __init__(self, world: int) -> None:
        self.number, self.world = 0, world
        self._before: dict[int, Any] = {}
        self._last, self._every = (0, -math.inf), 1  # step and time of the last exchange, and steps until the next

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # other threads may not set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _received(self, number: int, _: object) -> None:
        self.number = number
        self.__exit__()

    def due(self, step: int) -> bool:
        """True if ranks exchange signals at this step: about every EXCHANGE_SECONDS. The same on all ranks."""
        return step % self._every == 0

    def agreed(self, step: int) -> int:
        """The signal's number if any rank has received one, else 0. Every rank must call it."""
        if self.world > 1:
            (before, since), now = self._last, time.monotonic()
            seconds = max_over_ranks((now - since) / max(1, step - before), self.world)
            self._last, self._every = (step, now), max(1, int(EXCHANGE_SECONDS / max(seconds, 1e-6)))
        return int(max_over_ranks(self.number, self.world))
