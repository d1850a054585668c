"""Baselines for a flow: predictions from the training pairs that use less information, or no flow."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.apps.translate.calibrate import rotation
from monge.math.cost import Whitening

Sequences = Sequence[Float[Tensor, "_ D"]]


@dataclass(frozen=True)
class Prediction:
    """Predicted sequences, or only their pooled vectors or lengths; a field that is None is not predicted."""

    sequences: Sequences | None = None
    pooled: Float[Tensor, "B D"] | None = None
    lengths: Int[Tensor, "B"] | None = None


def mean_vector(target: Float[Tensor, "n D"], count: int) -> Prediction:
    """The same for all: the mean of the training targets."""
    return Prediction(pooled=target.mean(0).expand(count, -1))


def length_only(source: Int[Tensor, "n"], target: Int[Tensor, "n"], asked: Int[Tensor, "B"]) -> Prediction:
    """The most frequent length of the targets whose sources are as long; of the nearest length that training has seen."""
    seen = source.unique()
    modes = torch.stack([target[source == length].mode().values for length in seen])
    nearest = (asked[:, None] - seen[None]).abs().argmin(1)
    return Prediction(lengths=modes[nearest])


def ridge(
    source: Float[Tensor, "n D"], target: Float[Tensor, "n D"], asked: Float[Tensor, "B D"], *, folds: int = 5
) -> Prediction:
    """Linear regression of pooled vectors; the penalty is chosen by cross-validation on the training pairs."""
    x_mean, y_mean = source.mean(0), target.mean(0)
    x, y = source - x_mean, target - y_mean
    part = torch.arange(len(x)) % folds

    def fit(rows: Tensor, penalty: float) -> Tensor:
        gram = x[rows].mT @ x[rows]
        scale = penalty * gram.diagonal().mean()
        return torch.linalg.solve(gram + scale * torch.eye(len(gram)), x[rows].mT @ y[rows])

    def error(penalty: float) -> float:
        return sum(float((x[part == k] @ fit(part != k, penalty) - y[part == k]).square().sum()) for k in range(folds))

    best = min((10.0**k for k in range(-4, 3)), key=error)
    return Prediction(pooled=(asked - x_mean) @ fit(part >= 0, best) + y_mean)


def procrustes(source: Float[Tensor, "n D"], target: Float[Tensor, "n D"], asked: Float[Tensor, "B D"]) -> Prediction:
    """The rotation of centred pooled vectors that fits best."""
    x_mean, y_mean = source.mean(0), target.mean(0)
    return Prediction(pooled=(asked - x_mean) @ rotation(source - x_mean, target - y_mean) + y_mean)


def canonical(
    source: Float[Tensor, "n D"], target: Float[Tensor, "n D"], asked: Float[Tensor, "B D"], *, floor: float = 1e-2
) -> Prediction:
    """The linear map that retrieves best: each canonical direction weighs as much as it correlates. Hotelling 1936.

    The prediction is not the mean of a target but a vector whose cosine with that mean is large.
    """
    x, y = (Whitening.measure(side, floor=floor) for side in (source, target))
    u, correlation, v = torch.linalg.svd(x.apply(source).mT @ y.apply(target) / len(source))
    return Prediction(pooled=x.apply(asked) @ (u * correlation) @ v @ y.matrix + target.mean(0))
