"""Map a function over shards: in this process, in a pool of processes, or on a Ray cluster. One interface."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

S = TypeVar("S")
R = TypeVar("R")


class WorkerDied(ChildProcessError):
    """A worker is gone; `shard` is the number of what it had in hand, None where nobody knows."""

    def __init__(self, shard: int | None = None) -> None:
        super().__init__("fleet: a worker died, out of memory perhaps; use fewer workers")
        self.shard = shard


class Fleet(Protocol):
    """Calls `function` on each shard and yields (shard number, result) as they are done, in any order.

    An error in the function is raised here, at its turn, with the shard's number in a note.
    """

    def __call__(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[tuple[int, R]]: ...


def here(function: Callable[[S], R], shards: Iterable[S]) -> Iterator[tuple[int, R]]:
    """The shards one after the other, in this process."""
    for number, shard in enumerate(shards):
        try:
            yield number, function(shard)
        except Exception as error:
            error.add_note(f"fleet: in shard {number}")
            raise


def processes(workers: int, *, start: Callable[[], None] | None = None) -> Fleet:
    """Up to `workers` processes on this machine; each runs `start` first. Function and shards must be picklable.

    WorkerDied if a process dies (out of memory, say): the shards that were done have been yielded. They end with this process,
    also if it is killed, and at once where the walk is left before its end (Ctrl-C, an error).
    """
    if workers < 1:
        raise ValueError(f"fleet: at least one worker, got {workers}")

    def run(function: Callable[[S], R], shards: Iterable[S]) -> Iterator[tuple[int, R]]:
        # spawned, not forked: torch and numba hold threads that a fork would leave behind
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=partial(_begin, start)) as pool:
            try:
                waiting = {pool.submit(function, shard): number for number, shard in enumerate(shards)}
                for future in as_completed(waiting):
                    number = waiting.pop(future)  # nor is its result kept here
                    try:
                        yield number, future.result()
                    except Exception as error:
                        error.add_note(f"fleet: in shard {number}")
                        raise
            except BrokenProcessPool as error:
                raise WorkerDied from error
            except BaseException:
                for worker in list((pool._processes or {}).values()):  # `kill_workers` of Python 3.14
                    worker.kill()
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    return run


def _begin(start: Callable[[], None] | None) -> None:
    """A worker's start. A thread of it waits for the parent's end: one that is killed takes nobody with it by itself."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    if start is not None:
        start()


def ray(address: str | None = None, *, workers: int | None = None) -> Fleet:
    """A Ray cluster at `address`, or one started here; at most `workers` shards at once if it is said. Needs monge[ray].

    WorkerDied if a worker dies with a shard again and again.
    """
    try:
        import ray as cluster
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise ValueError("fleet: Ray is not installed; pip install 'monge[ray]'") from error

    def run(function: Callable[[S], R], shards: Iterable[S]) -> Iterator[tuple[int, R]]:
        if not cluster.is_initialized():
            settings: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "num_cpus": workers}
            cluster.init(address=address, **(settings if address is None else {}))

        def call(shard: S) -> R:  # Ray itself takes no partial, no method and no builtin
            return function(shard)

        remote, left = cluster.remote(call), enumerate(shards)
        waiting: dict[Any, int] = {}
        try:
            while True:
                for number, shard in islice(left, None if workers is None else workers - len(waiting)):
                    waiting[remote.remote(shard)] = number
                if not waiting:
                    return
                (done, *_), _ = cluster.wait(list(waiting), num_returns=1)
                number = waiting.pop(done)
                try:
                    yield number, cluster.get(done)
                except RayTaskError as error:
                    cause = error.as_instanceof_cause()
                    cause.add_note(f"fleet: in shard {number}")
                    raise cause from None
                except RayError as error:
                    raise WorkerDied(number) from error
        finally:
            for reference in waiting:
                cluster.cancel(reference)

    return run
