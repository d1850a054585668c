"""Map a function over shards in this process, in a pool of processes, or on a Ray cluster, with one interface."""

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


class WorkerCrashed(ChildProcessError):
    """A worker process crashed; `shard` is the number of the shard it was processing, None if unknown."""

    def __init__(self, shard: int | None = None) -> None:
        super().__init__("fleet: a worker process crashed (out of memory?); use fewer workers")
        self.shard = shard


class Fleet(Protocol):
    """Calls `function` on each shard and yields (shard number, result) as they finish, in any order.

    Exceptions raised by `function` propagate in place of that result; the shard's number is added as a note. Each process
    receives `function` once, so attributes set on it persist between shards.
    """

    def __call__(self, function: Callable[[S], R], shards: Iterable[S]) -> Iterator[tuple[int, R]]: ...


def sequential(function: Callable[[S], R], shards: Iterable[S]) -> Iterator[tuple[int, R]]:
    """Processes the shards one by one in this process."""
    for number, shard in enumerate(shards):
        try:
            yield number, function(shard)
        except Exception as error:
            error.add_note(f"fleet: in shard {number}")
            raise


def processes(workers: int, *, start: Callable[[], None] | None = None) -> Fleet:
    """A pool of `workers` processes on this machine, each of which runs `start` first. Function and shards must be picklable.

    WorkerCrashed if a process crashes (e.g. out of memory), after the finished shards have been yielded. The processes exit
    with this one, even if it is killed, and immediately if the iteration stops early (Ctrl-C, an error). ValueError if
    `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"fleet: workers must be at least 1, got {workers}")

    def run(function: Callable[[S], R], shards: Iterable[S]) -> Iterator[tuple[int, R]]:
        # spawn, not fork: the threads of torch and numba do not survive a fork
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=partial(_initialise_worker, start, function)
        ) as pool:
            try:
                waiting = {pool.submit(_call, shard): number for number, shard in enumerate(shards)}
                for future in as_completed(waiting):
                    number = waiting.pop(future)  # so that its result can be freed
                    try:
                        yield number, future.result()
                    except Exception as error:
                        error.add_note(f"fleet: in shard {number}")
                        raise
            except BrokenProcessPool as error:
                raise WorkerCrashed from error
            except BaseException:
                for worker in list((pool._processes or {}).values()):  # `kill_workers` of Python 3.14
                    worker.kill()
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    return run


_worker: dict[str, Callable[[Any], Any]] = {}
"""The function of a worker process, set once when the process starts."""


def _call(shard: Any) -> Any:
    return _worker["function"](shard)


def _initialise_worker(start: Callable[[], None] | None, function: Callable[[Any], Any]) -> None:
    """Set the function of a worker process, run `start`, and exit with the parent, even if that is killed."""
    _worker["function"] = function
    parent = multiprocessing.parent_process()

    def exit_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    if start is not None:
        start()


def ray(address: str | None = None, *, workers: int | None = None) -> Fleet:
    """A Ray cluster at `address`, or a local one; runs at most `workers` shards at once, if given. Needs monge[ray].

    WorkerCrashed if workers repeatedly crash on the same shard.
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

        def call(shard: S) -> R:  # Ray rejects partials, methods and builtins; a worker unpickles this closure once
            return function(shard)

        remote, remaining = cluster.remote(call), enumerate(shards)
        waiting: dict[Any, int] = {}
        try:
            while True:
                for number, shard in islice(remaining, None if workers is None else workers - len(waiting)):
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
                    raise WorkerCrashed(number) from error
        finally:
            for reference in waiting:
                cluster.cancel(reference)

    return run


def of(workers: int, address: str | None = None) -> Fleet:
    """The Ray cluster at `address`, if given; otherwise a pool of `workers` processes, or this process for a single one."""
    if address is not None:
        return ray(address)
    return sequential if workers == 1 else processes(workers)
