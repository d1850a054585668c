"""Batches of (noise, data), coupled. Batch k is a function of k alone."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.apps.generate.data import dealt_labels
from monge.apps.generate.dataset import Dataset
from monge.apps.generate.sample import Generator
from monge.math.coupling import Coupling, identity
from monge.math.random import seeded
from monge.math.types import Pair
from monge.train.batches import shuffled


@dataclass
class NoisePairs:
    """Normalised data with fresh Gaussian noise, `size` pairs a batch.

    The coupling sees `factor` batches at once. It begins with batch number `after`, or with the next group of `factor`
    batches. After coupling, a share `label_dropout` of the labels is replaced by `classes`, which stands for no class:
    classifier-free guidance needs it.
    """

    x: Float[Tensor, "n *s"]
    labels: Int[Tensor, "n"] | None
    size: int
    coupling: Coupling = identity
    factor: int = 1
    after: int = 0
    classes: int = 0
    label_dropout: float = 0.1
    seed: int = 0
    _held: dict[int, Pair] = field(default_factory=dict[int, Pair], repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __call__(self, number: int) -> Pair:
        if self.factor == 1:
            return self._coupled(number, number)
        with self._lock:  # one thread couples a group of batches; the others wait for their part
            large, part = divmod(number, self.factor)
            if large not in self._held:
                self._held = {k: v for k, v in self._held.items() if k == large - 1}
                self._held[large] = self._coupled(large, large * self.factor)
            return self._held[large].rows(slice(part * self.size, (part + 1) * self.size))

    def _coupled(self, number: int, first: int) -> Pair:
        size, generator = self.size * self.factor, seeded(self.seed, 1, number)
        index = shuffled(number, size, len(self.x), self.seed)
        x_1 = self.x[index]
        cond = {"index": index} if self.labels is None else {"index": index, "label": self.labels[index]}
        pair = Pair(torch.randn(x_1.shape, generator=generator), x_1, cond=cond)
        if first >= self.after:
            pair = self.coupling(pair, generator=generator)
        return without_labels(pair, self.label_dropout, self.classes, generator)


@dataclass
class StoredPairs:
    """Given pairs in shuffled batches, never re-coupled: the pairs of reflow. Liu et al. 2209.03003, alg. 1."""

    pairs: Pair
    size: int
    classes: int = 0
    label_dropout: float = 0.1
    seed: int = 0

    def __call__(self, number: int) -> Pair:
        index = shuffled(number, self.size, len(self.pairs), self.seed)
        pair = self.pairs.take(index, index)
        return without_labels(pair, self.label_dropout, self.classes, seeded(self.seed, 1, number))


def teacher_pairs(teacher: Generator, data: Dataset, n: int, seed: int) -> tuple[Pair, Pair]:
    """(n pairs to train on, a tenth as many held out) that a trained flow draws, with labels as frequent as in the data."""
    count = n + -(-n // 10)
    pairs = teacher.pairs(dealt_labels(data, count, seed), count, generator=seeded(seed, 5))
    return pairs.rows(slice(n)), pairs.rows(slice(n, None))


def without_labels(pair: Pair, share: float, classes: int, generator: torch.Generator) -> Pair:
    """The pair with `share` of its labels, if it has any, replaced by `classes`: no class."""
    if "label" not in pair.cond or not share:
        return pair
    dropped = torch.rand(len(pair), generator=generator) < share
    return replace(pair, cond=pair.cond | {"label": pair.cond["label"].masked_fill(dropped, classes)})


def held_out_pairs(
    x: Float[Tensor, "n *s"], labels: Int[Tensor, "n"] | None, coupling: Coupling, *, size: int = 512
) -> Pair:
    """Held-out data with noise, coupled `size` at a time; the same at every call."""
    x_0 = torch.randn(x.shape, generator=seeded(1781))
    pair = Pair(x_0, x, cond={} if labels is None else {"label": labels})
    draws = seeded(1782)
    parts = [coupling(pair.rows(slice(start, start + size)), generator=draws) for start in range(0, len(x), size)]
    cond = {name: torch.cat([part.cond[name] for part in parts]) for name in pair.cond}
    return Pair(torch.cat([part.x_0 for part in parts]), torch.cat([part.x_1 for part in parts]), cond=cond)


def held_out_loss(pairs: Pair, loss: Callable[[Pair, Tensor], Tensor], *, size: int = 512) -> float:
    """The mean of `loss` over the pairs. Times are evenly spread within each part of `size`, and the same at every call."""
    total = 0.0
    for start in range(0, len(pairs), size):
        part = pairs.rows(slice(start, start + size))
        t = ((torch.arange(len(part)) + 0.5) / len(part)).to(part.x_1)
        total += float(loss(part, t)) * len(part)
    return total / len(pairs)
