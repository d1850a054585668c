"""The affine map between hidden states at two depths, by least squares: a student that needs no training."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class AffineMap(NamedTuple):
    """The displacement x_1 - x_0 as matrix x_0 + bias, for states x_0 before and x_1 after the replaced layers.

    In general, a map from vectors of width D to vectors of width E.
    """

    matrix: Float[Tensor, "E D"]
    bias: Float[Tensor, "E"]

    def apply(self, x_0: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """The predicted state x_1."""
        return x_0 + x_0 @ self.matrix.mT + self.bias


class Moments:
    """Sums over pairs (x, d) from which the least-squares map x -> d follows, in float64. d may have another width than x."""

    def __init__(self) -> None:
        self.count, self._sums = 0.0, None

    def add(
        self, x: Float[Tensor, "*b D"], d: Float[Tensor, "*b E"], *, weight: Float[Tensor, "*b"] | None = None
    ) -> None:
        """Add pairs, with a weight for each."""
        x, d = (part.reshape(-1, part.shape[-1]).double() for part in (x, d))
        w = torch.ones_like(x[:, 0]) if weight is None else weight.reshape(-1).double()
        xw = x * w[:, None]
        parts = xw.sum(0), w @ d, xw.mT @ x, xw.mT @ d, w @ d.square()
        self._sums = parts if self._sums is None else tuple(a + b for a, b in zip(self._sums, parts, strict=True))
        self.count += float(w.sum())

    def first(self, width: int) -> "Moments":
        """The sums for the first `width` entries of x alone."""
        result = Moments()
        if self._sums is not None:
            x, d, xx, xd, dd = self._sums
            result.count, result._sums = self.count, (x[:width], d, xx[:width, :width], xd[:width], dd)
        return result

    def spread(self) -> Float[Tensor, "E"]:
        """Root mean square of each dimension of d. ValueError without pairs."""
        if self._sums is None:
            raise ValueError("least squares: there are no pairs of states; give at least one sequence")
        return (self._sums[-1] / self.count).sqrt().float()

    def solve(self, *, ridge: float = 1e-3, bias: bool = True) -> AffineMap:
        """The map that minimises the mean squared error. ValueError without pairs.

        `ridge` penalises the matrix in units of the variance of each dimension (its mean square without a bias), so that
        dimensions with large activations are not favoured.
        """
        if self._sums is None:
            raise ValueError("least squares: there are no pairs of states; give at least one sequence")
        x, d, xx, xd, _ = (part / self.count for part in self._sums)
        if not bias:
            x, d = torch.zeros_like(x), torch.zeros_like(d)
        covariance = xx - torch.outer(x, x)
        scale = covariance.diagonal().clamp_min(torch.finfo(torch.float64).tiny).sqrt()
        correlation = covariance / torch.outer(scale, scale)
        correlation += ridge * torch.eye(len(scale), dtype=torch.float64, device=scale.device)
        cross = (xd - torch.outer(x, d)) / scale[:, None]
        if ridge:
            solution = torch.linalg.solve(correlation, cross)
        else:  # with fewer tokens than dimensions the problem is underdetermined; CUDA has no driver for it
            solution = torch.linalg.lstsq(correlation.cpu(), cross.cpu(), driver="gelsd").solution.to(cross.device)
        matrix = (solution / scale[:, None]).mT
        return AffineMap(matrix.float(), (d - matrix @ x).float())


def least_squares(
    pairs: Iterable[tuple[Float[Tensor, "*b D"], Float[Tensor, "*b D"]]], *, ridge: float = 1e-3
) -> AffineMap:
    """The map that minimises the mean squared error over pairs (x_0, x_1), streamed and summed in float64.

    `ridge` as in `Moments.solve`. ValueError without pairs. ReplaceMe (Shopkhoev et al. 2505.02819, eq. 6) solves the same
    problem for the feed-forward output of the layer before the removed ones.

    >>> x_0 = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    >>> (least_squares([(x_0, 3 * x_0 + 1)], ridge=0).matrix - 2 * torch.eye(3)).abs().max() < 1e-5
    tensor(True)
    """
    moments = Moments()
    for x_0, x_1 in pairs:
        moments.add(x_0, x_1 - x_0)
    return moments.solve(ridge=ridge)
