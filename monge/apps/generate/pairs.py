"""Batches of coupled noise and data. Batch k is a function of k alone, in any order and from any thread."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.apps.generate.data import stratified_labels
from monge.apps.generate.dataset import Dataset
from monge.apps.generate.sample import Generator
from monge.math.coupling import Coupling, identity
from monge.math.path import Affine
from monge.math.random import seeded
from monge.math.types import Condition, Pair
from monge.training.batches import Batches, shuffled
from monge.training.distributed import world_size


@dataclass
class NoisePairs:
    """Normalised data with fresh Gaussian noise, `size` pairs per batch.

    Groups of `factor` batches are coupled together; groups that start before batch `after` are left uncoupled. After coupling,
    a random fraction `label_dropout` of the labels is replaced by `classes`, which means no class, as classifier-free guidance
    requires.
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
    _groups: dict[int, Pair] = field(default_factory=dict[int, Pair], repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __call__(self, number: int) -> Pair:
        if self.factor == 1:
            return self._coupled(number, number)
        with self._lock:  # one thread couples a group of batches; the others wait for it
            group, part = divmod(number, self.factor)
            if group not in self._groups:
                self._groups = {k: v for k, v in self._groups.items() if k == group - 1}
                self._groups[group] = self._coupled(group, group * self.factor)
            return self._groups[group].rows(slice(part * self.size, (part + 1) * self.size))

    def _coupled(self, group: int, first: int) -> Pair:
        """All pairs of a group of batches, of which batch `first` is the first."""
        size, generator = self.size * self.factor, seeded(self.seed, 1, group)
        index = shuffled(group, size, len(self.x), self.seed)
        x_1 = self.x[index]
        cond = {"index": index} if self.labels is None else {"index": index, "label": self.labels[index]}
        pair = Pair(torch.randn(x_1.shape, generator=generator), x_1, cond=cond)
        if first >= self.after:
            pair = self.coupling(pair, generator=generator)
        return without_labels(pair, self.label_dropout, self.classes, generator)


@dataclass
class StoredPairs:
    """Fixed pairs in shuffled batches of `size`, not re-coupled, for reflow. Liu et al. 2209.03003, alg. 1.

    Labels are dropped as in NoisePairs.
    """

    pairs: Pair
    size: int
    classes: int = 0
    label_dropout: float = 0.1
    seed: int = 0

    def __call__(self, number: int) -> Pair:
        index = shuffled(number, self.size, len(self.pairs), self.seed)
        pair = self.pairs.take(index, index)
        return without_labels(pair, self.label_dropout, self.classes, seeded(self.seed, 1, number))


def ending(batches: Batches[Pair], end: int) -> Batches[Pair]:
    """The batches, of which those from number `end` on, on all ranks at once, have no cond["index"] and so no alignment."""

    def call(number: int) -> Pair:
        pair = batches(number)
        if number - number % world_size() < end:
            return pair
        return replace(pair, cond={name: value for name, value in pair.condition.items() if name != "index"})

    return call


def teacher_pairs(teacher: Generator, data: Dataset, n: int, seed: int) -> tuple[Pair, Pair]:
    """(n training pairs, n / 10 held-out pairs) that a trained flow generates with the class frequencies of the data."""
    count = n + -(-n // 10)
    pairs = teacher.pairs(stratified_labels(data, count, seed), count, generator=seeded(seed, 5))
    return pairs.rows(slice(n)), pairs.rows(slice(n, None))


def without_labels(pair: Pair, share: float, classes: int, generator: torch.Generator) -> Pair:
    """The pair with a random fraction `share` of its labels, if it has any, replaced by `classes`, which means no class."""
    if "label" not in pair.cond or not share:
        return pair
    dropped = torch.rand(len(pair), generator=generator) < share
    return replace(pair, cond=pair.cond | {"label": pair.cond["label"].masked_fill(dropped, classes)})


def held_out_pairs(
    x: Float[Tensor, "n *s"], labels: Int[Tensor, "n"] | None, coupling: Coupling, *, size: int = 512
) -> Pair:
    """Held-out data paired with noise, coupled in batches of `size`; the same at every call."""
    x_0 = torch.randn(x.shape, generator=seeded(1781))
    pair = Pair(x_0, x, cond={} if labels is None else {"label": labels})
    generator = seeded(1782)
    parts = [coupling(pair.rows(slice(start, start + size)), generator=generator) for start in range(0, len(x), size)]
    cond = {name: torch.cat([part.cond[name] for part in parts]) for name in pair.cond}
    return Pair(torch.cat([part.x_0 for part in parts]), torch.cat([part.x_1 for part in parts]), cond=cond)


def held_out_loss(pairs: Pair, loss: Callable[[Pair, Tensor], Tensor], *, size: int = 512) -> float:
    """The mean of `loss(pairs, t)` over all pairs, in batches of `size` with evenly spaced times."""
    total = 0.0
    for start in range(0, len(pairs), size):
        part = pairs.rows(slice(start, start + size))
        t = ((torch.arange(len(part)) + 0.5) / len(part)).to(part.x_1)
        total += float(loss(part, t)) * len(part)
    return total / len(pairs)


def on_path(path: Affine, pair: Pair, t: Tensor) -> tuple[Tensor, Condition]:
    """The point of a pair's path at time t, and the conditions of the pair."""
    return path(pair.x_0, pair.x_1, t).x_t, pair.condition
