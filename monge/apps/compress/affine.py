"""The affine map between hidden states at two depths, by least squares: a student that needs no training."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class AffineMap(NamedTuple):
    """The displacement x_1 - x_0 as matrix x_0 + bias, for states x_0 before and x_1 after the replaced layers."""

    matrix: Float[Tensor, "D D"]
    bias: Float[Tensor, "D"]

    def apply(self, x_0: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """The predicted state x_1."""
        return x_0 + x_0 @ self.matrix.mT + self.bias


class Moments:
    """Sums over pairs (x, d) from which the least-squares map x -> d follows, in float64."""

    def __init__(self) -> None:
        self.count, self._sums, self._squares = 0, None, 0.0

    def add(self, x: Float[Tensor, "*b D"], d: Float[Tensor, "*b D"]) -> None:
        """Add pairs."""
        x, d = (part.reshape(-1, part.shape[-1]).double() for part in (x, d))
        parts = torch.stack([x.sum(0), d.sum(0)]), x.mT @ x, x.mT @ d
        self._sums = parts if self._sums is None else tuple(a + b for a, b in zip(self._sums, parts, strict=True))
        self.count += len(x)
        self._squares = self._squares + d.square().sum(0)

    def spread(self) -> Float[Tensor, "D"]:
        """Root mean square of each dimension of d. ValueError without pairs."""
        if not self.count:
            raise ValueError("least squares: there are no pairs of states; give at least one sequence")
        return torch.as_tensor(self._squares / self.count).sqrt().float()

    def solve(self, *, ridge: float = 1e-3, bias: bool = True) -> AffineMap:
        """The map that minimises the mean squared error. ValueError without pairs.

        `ridge` penalises the matrix in units of the variance of each dimension (its mean square without a bias), so that
        dimensions with large activations are not favoured.
        """
        if self._sums is None or not self.count:
            raise ValueError("least squares: there are no pairs of states; give at least one sequence")
        means, xx, xd = (part / self.count for part in self._sums)
        if not bias:
            means = torch.zeros_like(means)
        covariance = xx - torch.outer(means[0], means[0])
        scale = covariance.diagonal().clamp_min(torch.finfo(torch.float64).tiny).sqrt()
        correlation = covariance / torch.outer(scale, scale)
        correlation += ridge * torch.eye(len(scale), dtype=torch.float64, device=scale.device)
        cross = (xd - torch.outer(means[0], means[1])) / scale[:, None]
        # a pseudo-inverse where fewer tokens than dimensions leave the problem undetermined
        solution = (
            torch.linalg.solve(correlation, cross)
            if ridge
            else torch.linalg.lstsq(correlation, cross, driver="gelsd").solution
        )
        matrix = (solution / scale[:, None]).mT
        return AffineMap(matrix.float(), (means[1] - matrix @ means[0]).float())


def least_squares(
    pairs: Iterable[tuple[Float[Tensor, "*b D"], Float[Tensor, "*b D"]]], *, ridge: float = 1e-3
) -> AffineMap:
    """The map that minimises the mean squared error over pairs (x_0, x_1), streamed and summed in float64.

    `ridge` as in `Moments.solve`. ValueError without pairs. ReplaceMe (Shopkhoev et al. 2505.02819, eq. 6) solves the same
    problem at the last projection.

    >>> x_0 = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> (least_squares([(x_0, 3 * x_0 + 1)], ridge=0).matrix - 2 * torch.eye(3)).abs().max() < 1e-5
    tensor(True)
    """
    moments = Moments()
    for x_0, x_1 in pairs:
        moments.add(x_0, x_1 - x_0)
    return moments.solve(ridge=ridge)
