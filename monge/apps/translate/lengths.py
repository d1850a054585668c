"""Lengths of translations by ridge regression on the sum of a sequence's vectors and its length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.apps.translate.baselines import ridge_map
from monge.apps.translate.calibrate import means
from monge.apps.translate.pair import ENDS, Pairs
from monge.apps.translate.space import Space
from monge.math.random import seeded


@dataclass(frozen=True)
class LengthRidge:
    """A linear function of the sum of a sequence's calibrated vectors, and of its length.

    Sums are linear in the counts of token types, so lengths that are a weighted count of the types can be exact.
    """

    weight: Float[Tensor, "D+1"]
    bias: Float[Tensor, ""]

    @staticmethod
    def fit(
        means: Float[Tensor, "n D"], lengths: Int[Tensor, "n"], targets: Int[Tensor, "n"], *, folds: int = 5
    ) -> "LengthRidge":
        """The regression of target lengths on sequences with these means and lengths."""
        x = features(means, lengths)
        y = targets[:, None].to(x.dtype)
        matrix, x_mean, y_mean = ridge_map(x, y, folds=folds)
        return LengthRidge(matrix[:, 0], (y_mean - x_mean @ matrix)[0])

    def __call__(self, means: Float[Tensor, "B D"], lengths: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The predicted lengths, rounded; at least 1."""
        return (features(means, lengths) @ self.weight + self.bias).round().long().clamp_min(1)

    def of_sequences(self, sequences: Sequence[Float[Tensor, "_ D"]]) -> Int[Tensor, "B"]:
        """The predicted lengths of the translations of calibrated sequences."""
        rows = torch.stack([x.sum(0) / max(1, len(x)) for x in sequences]).to(self.weight.dtype)
        return self(rows, torch.tensor([len(x) for x in sequences]))


def features(means: Float[Tensor, "n D"], lengths: Int[Tensor, "n"]) -> Float[Tensor, "n D+1"]:
    """Sums of the vectors, and lengths."""
    counts = lengths[:, None].to(means.dtype)
    return torch.cat([means * counts, counts], 1)


def fitted(pairs: Pairs, space: Space, *, limit: int = 20_000) -> tuple[LengthRidge, LengthRidge]:
    """The regressions of both directions, forward first, on up to `limit` training pairs, drawn at random."""
    train = torch.from_numpy(pairs.split("train"))
    numbers = train[torch.randperm(len(train), generator=seeded(1781))[:limit]].tolist()
    sides = [
        (
            space.calibration.side(end).apply(means(pairs, end, numbers, entries=limit * pairs.width)),
            torch.from_numpy(pairs.lengths(end)[numbers]).long(),
        )
        for end in ENDS
    ]
    (x, n), (y, m) = sides
    return LengthRidge.fit(x, n, m), LengthRidge.fit(y, m, n)


def tensors(both: tuple[LengthRidge, LengthRidge]) -> dict[str, Tensor]:
    """The regressions as constants of a run."""
    return {f"length_{name}": torch.stack([getattr(one, name) for one in both]) for name in ("weight", "bias")}


def of_constants(constants: Mapping[str, Tensor]) -> tuple[LengthRidge, LengthRidge] | None:
    """The regressions of a run; None if it has none."""
    if "length_weight" not in constants:
        return None
    first, second = (
        LengthRidge(*one) for one in zip(constants["length_weight"], constants["length_bias"], strict=True)
    )
    return first, second
