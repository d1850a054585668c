"""A circuit breaker: after repeated failures requests pause for a while, then a single one is tried."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock


class RequestFailed(ConnectionError):
    """A request that failed after all its retries; later requests may succeed."""


class Circuit:
    """Opens for `cooldown` seconds after `failures` consecutive failed requests; then a trial request decides if it closes."""

    def __init__(self, name: str, failures: int, cooldown: float, clock: Callable[[], float]) -> None:
        self.name, self.failures, self.cooldown, self._clock = name, failures, cooldown, clock
        self._lock, self._trial = Lock(), Lock()
        self._failures, self._reason = 0, ""
        self._opened: float | None = None

    def check(self) -> None:
        """Raise ConnectionError while it is open."""
        opened = self._opened
        if opened is not None and self._clock() - opened < self.cooldown:
            raise ConnectionError(
                f"{self.name}: requests failed ({self._failures} in a row, last error: {self._reason}); "
                f"check that the server is running; requests resume after {self.cooldown:g} seconds"
            )

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Context manager for a request, which counts as failed if it raises RequestFailed.

        ConnectionError while the circuit is open. After the cooldown, other requests wait for the trial request.
        """
        with self._trial if self._opened is not None else nullcontext():
            self.check()
            try:
                yield
            except RequestFailed as error:
                with self._lock:
                    self._failures, self._reason = self._failures + 1, str(error)
                    if self._failures >= self.failures:
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
