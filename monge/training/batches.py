"""Batches as functions of their number, so that resuming, prefetching and sharding need no state."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TypeAlias, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from monge.math.random import seeded

B = TypeVar("B")
Batches: TypeAlias = Callable[[int], B]


def shuffled(number: int, size: int, count: int, seed: int) -> Int[Tensor, "size"]:
    """The indices of batch `number`: `size` items out of `count`, reshuffled in every epoch.

    A batch may span several epochs; every item occurs exactly once per epoch.
    """
    first, parts = number * size, []
    while size:
        epoch, offset = divmod(first, count)
        parts.append(_order(count, seed, epoch)[offset : offset + size])
        first, size = first + len(parts[-1]), size - len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=4)
def _order(count: int, seed: int, epoch: int) -> Int[Tensor, "count"]:
    return torch.randperm(count, generator=seeded(seed, epoch))


def prefetched(batches: Batches[B], numbers: Iterator[int], *, workers: int) -> Iterator[B]:
    """Yields batches(n) for each n in `numbers`, in order, while threads prepare the next `workers` batches.

    Threads are sufficient, since the coupling kernels and torch's operations release the GIL.
    """
    if workers < 1:
        yield from map(batches, numbers)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="batches") as pool:
        waiting: list[Future[B]] = []
        try:
            for number in numbers:
                waiting.append(pool.submit(batches, number))
                if len(waiting) > workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
