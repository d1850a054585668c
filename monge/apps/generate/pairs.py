"""Batches of (noise, data), coupled. Batch k is a function of k alone."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from threading import Lock

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.math.coupling import Coupling, MinibatchOT, given
from monge.math.types import Pair
from monge.train.batches import seeded, shuffled


@dataclass
class NoisePairs:
    """Normalised data with fresh Gaussian noise, `size` pairs a batch.

    The coupling sees `factor` batches at once and begins with batch number `after`, or the next that it sees whole. A tenth
    of the labels, `label_dropout`, is replaced by `classes`, "no class", after coupling: classifier-free guidance needs it.
    """

    x: Float[Tensor, "n *s"]
    labels: Int[Tensor, "n"] | None
    size: int
    coupling: Coupling = given
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
        with self._lock:  # one thread couples a large batch, the others wait and take their part
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
            # an entropic coupling draws from its plan: with this batch's draws, whoever makes the batch
            coupling = self.coupling
            pair = (replace(coupling, generator=generator) if isinstance(coupling, MinibatchOT) else coupling)(pair)
        if self.labels is not None and self.label_dropout:
            dropped = torch.rand(len(pair), generator=generator) < self.label_dropout
            pair.cond["label"] = pair.cond["label"].masked_fill(dropped, self.classes)
        return pair


@dataclass
class StoredPairs:
    """Given pairs, dealt in batches and never re-coupled: reflow's teacher pairs. Liu et al. 2209.03003, alg. 1."""

    pairs: Pair
    size: int
    seed: int = 0

    def __call__(self, number: int) -> Pair:
        index = shuffled(number, self.size, len(self.pairs), self.seed)
        return self.pairs.take(index, index)


def held_out_loss(
    x: Float[Tensor, "n *s"],
    labels: Int[Tensor, "n"] | None,
    loss: Callable[[Pair, Tensor], Tensor],
    *,
    size: int = 512,
) -> float:
    """The mean of `loss` over held-out data with noise and times that are the same at every call."""
    total = 0.0
    for number, start in enumerate(range(0, len(x), size)):
        part = slice(start, start + size)
        x_1, generator = x[part], seeded(1781, number)
        x_0 = torch.randn(x_1.shape, generator=generator).to(x_1)
        t = ((torch.arange(len(x_1)) + 0.5) / len(x_1)).to(x_1)
        cond = {} if labels is None else {"label": labels[part]}
        total += float(loss(Pair(x_0, x_1, cond=cond), t)) * len(x_1)
    return total / len(x)
