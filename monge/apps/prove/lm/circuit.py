"""A circuit breaker: after repeated failures requests pause for a while, then a single one is tried."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock


class Lost(ConnectionError):
    """A request that failed after all its retries; later requests may succeed."""


class Circuit:
    """Opens for `rest` seconds after `most` consecutive lost requests; then a trial request decides if it closes."""

    def __init__(self, name: str, most: int, rest: float, clock: Callable[[], float]) -> None:
        self.name, self.most, self.rest, self._clock = name, most, rest, clock
        self._lock, self._trial = Lock(), Lock()
        self._failures, self._reason = 0, ""
        self._opened: float | None = None

    def check(self) -> None:
        """Raise ConnectionError while it is open."""
        opened = self._opened
        if opened is not None and self._clock() - opened < self.rest:
            raise ConnectionError(
                f"{self.name}: requests failed ({self._failures} in a row, last error: {self._reason}); "
                f"check that the server is running; requests resume after {self.rest:g} seconds"
            )

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Context manager for a request; counts it if it is Lost. After a pause, other requests wait for the trial request."""
        with self._trial if self._opened is not None else nullcontext():
            self.check()
            try:
                yield
            except Lost as lost:
                with self._lock:
                    self._failures, self._reason = self._failures + 1, str(lost)
                    if self._failures >= self.most:
                        self._opened = self._clock()
                self.check()
                raise
            except ConnectionError:  # other requests opened the circuit in the meantime
                raise
            except BaseException:
                self._answered()
                raise
            self._answered()

    def _answered(self) -> None:
        with self._lock:
            self._failures, self._opened = 0, None
