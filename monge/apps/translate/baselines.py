"""Baselines without a flow: predictions that are fitted on the training pairs."""

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
    """The mean of the training targets, for every source."""
    return Prediction(pooled=target.mean(0).expand(count, -1))


def length_only(source: Int[Tensor, "n"], target: Int[Tensor, "n"], queries: Int[Tensor, "B"]) -> Prediction:
    """The most frequent target length of training pairs with the query's source length, or with the nearest one in training."""
    seen = source.unique()
    modes = torch.stack([target[source == length].mode().values for length in seen])
    nearest = (queries[:, None] - seen[None]).abs().argmin(1)
    return Prediction(lengths=modes[nearest])


def ridge(
    source: Float[Tensor, "n D"], target: Float[Tensor, "n D"], queries: Float[Tensor, "B D"], *, folds: int = 5
) -> Prediction:
    """Linear regression of pooled vectors; the penalty is chosen by cross-validation on the training pairs."""
    matrix, x_mean, y_mean = ridge_map(source, target, folds=folds)
    return Prediction(pooled=(queries - x_mean) @ matrix + y_mean)


def ridge_map(
    source: Float[Tensor, "n D"], target: Float[Tensor, "n E"], *, folds: int = 5
) -> tuple[Float[Tensor, "D E"], Float[Tensor, "D"], Float[Tensor, "E"]]:
    """The matrix of a ridge regression and the means of both sides, with the penalty of the lowest cross-validation error."""
    x_mean, y_mean = source.mean(0), target.mean(0)
    x, y = source - x_mean, target - y_mean
    fold = torch.arange(len(x)) % folds

    def fit(rows: Tensor, penalty: float) -> Tensor:
        gram = x[rows].mT @ x[rows]
        scale = penalty * (float(gram.diagonal().mean()) or 1.0)  # a single pair has a zero matrix
        return torch.linalg.solve(gram + scale * torch.eye(len(gram)), x[rows].mT @ y[rows])

    def error(penalty: float) -> float:
        return sum(float((x[fold == k] @ fit(fold != k, penalty) - y[fold == k]).square().sum()) for k in range(folds))

    best = min((10.0**k for k in range(-4, 3)), key=error)
    return fit(fold >= 0, best), x_mean, y_mean


def procrustes(source: Float[Tensor, "n D"], target: Float[Tensor, "n D"], queries: Float[Tensor, "B D"]) -> Prediction:
    """Orthogonal Procrustes on centred pooled vectors. Schoenemann 1966."""
    x_mean, y_mean = source.mean(0), target.mean(0)
    return Prediction(pooled=(queries - x_mean) @ rotation(source - x_mean, target - y_mean) + y_mean)


def canonical(
    source: Float[Tensor, "n D"], target: Float[Tensor, "n D"], queries: Float[Tensor, "B D"], *, floor: float = 1e-2
) -> Prediction:
    """Canonical correlation analysis: each canonical direction is weighted by its correlation. Hotelling 1936.

    The prediction does not estimate the mean of a target; it is a vector with a large cosine to that mean.
    """
    x, y = (Whitening.measure(side, floor=floor) for side in (source, target))
    u, correlation, v = torch.linalg.svd(x.apply(source).mT @ y.apply(target) / len(source))
    return Prediction(pooled=x.apply(queries) @ (u * correlation) @ v @ y.matrix + target.mean(0))
