"""A circuit breaker: who has failed often enough in a row is left alone for a while, then tried once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock


class Lost(ConnectionError):
    """A request that failed with all its retries; the next one may not."""


class Circuit:
    """Open after `most` lost requests in a row, for `rest` seconds; then one of them tries whether it may close."""

    def __init__(self, name: str, most: int, rest: float, clock: Callable[[], float]) -> None:
        self.name, self.most, self.rest, self._clock = name, most, rest, clock
        self._lock, self._trial = Lock(), Lock()
        self._row, self._reason = 0, ""
        self._opened: float | None = None

    def check(self) -> None:
        """ConnectionError while it is open."""
        opened = self._opened
        if opened is not None and self._clock() - opened < self.rest:
            raise ConnectionError(
                f"{self.name}: requests fail, {self._row} in a row, the last with: {self._reason}; "
                f"see that the server runs, it is asked again after {self.rest:g} seconds"
            )

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around a request: sees whether it was Lost. After a rest the others wait for the first."""
        with self._trial if self._opened is not None else nullcontext():
            self.check()
            try:
                yield
            except Lost as lost:
                with self._lock:
                    self._row, self._reason = self._row + 1, str(lost)
                    if self._row >= self.most:
                        self._opened = self._clock()
                self.check()
                raise
            except ConnectionError:  # opened by others in the meantime
                raise
            except BaseException:
                self._answered()
                raise
            self._answered()

    def _answered(self) -> None:
        with self._lock:
            self._row, self._opened = 0, None
