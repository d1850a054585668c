"""Distances between sets of samples, and straightness of a flow. Point sets are (n, D); the caller owns the randomness.

The distances raise ValueError if a point is not finite or the sets differ in D.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from monge.math.cost import squared_euclidean
from monge.math.ot import magnitude, optimal_permutation
from monge.math.solve import time_grid
from monge.math.types import Velocity, floating


def _points(name: str, *sets: Shaped[Tensor, "..."], least: int = 0) -> tuple[list[Tensor], float]:
    """Sets of points in a common dtype, divided by a unit, and that unit: 1, or their size if float32 cannot square it.

    ValueError if a point is not finite, the sets differ in their dimension, or one has fewer than `least` points.
    """
    if len({points.shape[1:] for points in sets}) > 1 or any(points.ndim != 2 for points in sets):
        shapes = " and ".join(str(tuple(points.shape)) for points in sets)
        raise ValueError(f"{name}: points of shape {shapes}; give sets of points (n, D) with the same D")
    if min(map(len, sets)) < least:
        sizes = " and ".join(str(len(points)) for points in sets)
        raise ValueError(f"{name}: sets of {sizes} points; the unbiased estimate needs at least {least} in each")
    points = floating(*sets)
    size = max(magnitude(f"{name}: set {k}", part) for k, part in enumerate(points))
    if 1e-15 < size < 1e15:
        return points, 1.0
    return [part.double() / size for part in points], size


def squared_w2(x: Shaped[Tensor, "n D"], y: Shaped[Tensor, "n D"]) -> float:
    """The squared 2-Wasserstein distance between two sets of equal size, by the exact assignment.

    >>> squared_w2(torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [1.0]]))
    1.0
    """
    (x, y), unit = _points("squared_w2", x, y)
    return float((x - y[optimal_permutation(x, y)]).square().sum(1).mean()) * unit * unit


def sliced_w2(
    x: Shaped[Tensor, "n D"], y: Shaped[Tensor, "n D"], *, slices: int = 256, generator: torch.Generator | None = None
) -> float:
    """Root mean squared W2 over `slices` random one-dimensional projections of equal-sized sets. Bonneel et al. 2015.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> sliced_w2(x, x + 2)
    2.0
    """
    if len(x) != len(y):
        raise ValueError(f"sliced_w2: {len(x)} points against {len(y)}; give sets of equal size")
    dtype = floating(x, y)[0].dtype
    (x, y), unit = _points("sliced_w2", x, y)
    directions = torch.randn(x.shape[1], slices, generator=generator, dtype=dtype, device=x.device).to(x.dtype)
    directions = directions / directions.norm(dim=0)
    return float(((x @ directions).sort(0).values - (y @ directions).sort(0).values).square().mean().sqrt()) * unit


def mmd(x: Shaped[Tensor, "n D"], y: Shaped[Tensor, "m D"], *, bandwidth: float | None = None) -> float:
    """Squared maximum mean discrepancy, unbiased, Gaussian kernel. Gretton et al. 2012, eq. 3.

    `bandwidth` defaults to the median distance between the first 1,000 points of y, so give the reference set second.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> mmd(x, x + 10) > mmd(x, x + 1)
    True
    """
    (x, y), unit = _points("mmd", x, y, least=2)
    width = bandwidth / unit if bandwidth is not None else float(torch.pdist(y[:1000]).median())
    if not width > 0:
        raise ValueError(
            f"mmd: the bandwidth is {width:g}; give a positive one (the default is 0 if y is mostly duplicates)"
        )
    return _unbiased_mmd(x, y, lambda a, b: torch.exp(-squared_euclidean(a, b) / (2 * width**2)))


def kernel_distance(x: Shaped[Tensor, "n D"], y: Shaped[Tensor, "m D"]) -> float:
    """KID on given features: squared MMD, unbiased, kernel (a . b / D + 1)^3. Binkowski et al. 1801.01401.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> kernel_distance(x, x + 2) > kernel_distance(x, x + 1)
    True
    """
    (x, y), unit = _points("kernel_distance", x, y, least=2)
    if unit != 1:
        raise ValueError(
            f"kernel_distance: features of size {unit:.0e}; rescale them, since the kernel depends on their scale"
        )
    return _unbiased_mmd(x, y, lambda a, b: (a @ b.mT / a.shape[1] + 1) ** 3)


def _unbiased_mmd(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> float:
    x, y = x.double(), y.double()

    def within(a: Tensor) -> Tensor:
        gram = kernel(a, a)
        return (gram.sum() - gram.diagonal().sum()) / (len(a) * (len(a) - 1))

    return float(within(x) + within(y) - 2 * kernel(x, y).mean())


def frechet(x: Shaped[Tensor, "n D"], y: Shaped[Tensor, "m D"]) -> float:
    """Squared Frechet distance between the Gaussians of two sets of features. Heusel et al. 1706.08500, eq. 6.

    tr sqrt(A B), where A = U^T U and B = V^T V for centred and scaled features U and V, is the sum of the singular values
    of U V^T, which is n x m. With more points than features, U and V are replaced by D x D roots. The SVD takes on the
    order of min(n, D)^3 operations, and singular covariances need no offset. ValueError for fewer than two points in a set.

    >>> x = torch.tensor([[0.0], [1.0]])
    >>> round(frechet(x, x + 2), 6)
    4.0
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"frechet: {len(x)} and {len(y)} points have no covariance; give at least two in each set")
    (x, y), unit = _points("frechet", x.double(), y.double())
    roots = [_root(points) for points in (x, y)]
    cross = torch.linalg.svdvals(roots[0] @ roots[1].mT).sum()
    spread = sum(root.square().sum() for root in roots)
    return float((x.mean(0) - y.mean(0)).square().sum() + spread - 2 * cross) * unit * unit


def _root(x: Float[Tensor, "n D"]) -> Float[Tensor, "rank D"]:
    """A matrix U of min(n, D) rows whose U^T U is the covariance."""
    centred = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    return centred if len(x) <= x.shape[1] else torch.linalg.qr(centred, mode="r").R


class Manifold(NamedTuple):
    """Precision and recall (Kynkaanniemi et al. 1904.06991), density and coverage (Naeem et al. 2002.09797)."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: Shaped[Tensor, "n D"], fake: Shaped[Tensor, "m D"], *, k: int = 5) -> Manifold:
    """Agreement of `fake` with `real`, using balls around each point whose radius is the distance to its k-th neighbour.

    ValueError unless each set has more than k points.

    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> manifold(x, x, k=1)
    Manifold(precision=1.0, recall=1.0, density=2.0, coverage=1.0)
    """
    (real, fake), _ = _points("manifold", real, fake)
    real_ball, fake_ball = _ball(real, k), _ball(fake, k)
    distance = torch.cdist(real, fake)
    inside = distance <= real_ball[:, None]
    return Manifold(
        precision=float(inside.any(0).double().mean()),
        recall=float((distance <= fake_ball[None, :]).any(1).double().mean()),
        density=float(inside.double().sum(0).mean()) / k,
        coverage=float(inside.any(1).double().mean()),
    )


def _ball(points: Tensor, k: int) -> Tensor:
    if len(points) <= k:
        raise ValueError(f"manifold: {len(points)} points have no {k}-th neighbour; give more points or a smaller k")
    return torch.cdist(points, points).kthvalue(k + 1, dim=1).values  # the nearest point is the point itself


def memorisation(fake: Shaped[Tensor, "n D"], train: Shaped[Tensor, "m D"], held_out: Shaped[Tensor, "l D"]) -> float:
    """Median distance from generated points to the nearest training point, divided by that from held-out real points.

    1 means as novel as held-out data, 0 means copies; nan if most held-out points are also training points.

    >>> train = torch.tensor([[0.0], [8.0]])
    >>> memorisation(train + 1, train, train + 2)
    0.5
    """

    (fake, train, held_out), _ = _points("memorisation", fake, train, held_out)

    def nearest(x: Tensor) -> float:
        size = max(1, 2**24 // max(len(train), 1))  # distances of 64 MB at a time
        return float(torch.cat([torch.cdist(part, train).amin(1) for part in x.split(size)]).median())

    reference = nearest(held_out)
    return nearest(fake) / reference if reference else math.nan


def path_energy(v: Velocity, x_0: Float[Tensor, "B *s"], *, steps: int = 100) -> tuple[Tensor, float]:
    """(x at t = 1, the mean of the squared speed along the flow), by `steps` Euler steps.

    With w2, the squared W2 between the ends, |energy - w2| / w2 is the normalised path energy of Tong et al. 2302.00482,
    eq. 20: 0 for OT.

    >>> x, energy = path_energy(lambda x, t: torch.ones_like(x), torch.zeros(1, 2))
    >>> round(energy, 4)
    2.0
    """
    x, energy = x_0, 0.0
    knots = time_grid(steps, x)
    for t, s in zip(knots[:-1], knots[1:], strict=True):
        v_t = v(x, t.expand(len(x)))
        energy += float(v_t.square().flatten(1).sum(1).mean()) * float(s - t)
        x = x + (s - t) * v_t
    return x, energy


def straightness(v: Velocity, x_0: Float[Tensor, "B *s"], *, steps: int = 100) -> float:
    """Mean of |(x_1 - x_0) - v_t|^2 along the flow: 0 if all trajectories are straight. Liu et al. 2209.03003, eq. 4.

    >>> abs(straightness(lambda x, t: torch.ones_like(x), torch.zeros(1, 2))) < 1e-4
    True
    """
    x, squares, sum_v = x_0, torch.zeros(()), torch.zeros_like(x_0)
    knots = time_grid(steps, x)
    for t in knots[:-1]:
        v_t = v(x, t.expand(len(x)))
        x = x + v_t / steps
        sum_v = sum_v + v_t / steps
        squares = squares + v_t.square().flatten(1).sum(1).mean().cpu() / steps
    # mean of the squares minus square of the mean
    return float(squares - sum_v.square().flatten(1).sum(1).mean().cpu())


def nmse(x: Float[Tensor, "B *s"], x_1: Float[Tensor, "B *s"], *, origin: Float[Tensor, "B *s"] | None = None) -> float:
    """|x - x_1|^2 / |x_1 - origin|^2, summed before dividing. With origin x_0 the identity scores 1; default: origin 0.

    >>> nmse(torch.tensor([[1.0]]), torch.tensor([[2.0]]))
    0.25
    """
    reference = x_1 if origin is None else x_1 - origin
    return float((x - x_1).square().sum() / reference.square().sum())


def recoupling_ratio(x_0: Float[Tensor, "n D"], x_1: Float[Tensor, "n D"]) -> float:
    """Fraction of the given pairs that exact OT pairs differently: 1 - E[tr M] / n. Wu et al. 2505.14513, eq. 7.

    Exchanging equal points changes nothing, and does not count.

    >>> recoupling_ratio(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]))
    1.0
    """
    matched = optimal_permutation(x_0, x_1)
    same = [(x[matched] == x).all(-1) for x in (x_0, x_1)]
    return 1 - float((same[0] | same[1]).double().mean())


def normalised_path_energy(energy: float, squared_w2: float) -> float:
    """|energy - squared_w2| / squared_w2, from `path_energy` and the squared W2 between source and target. 2302.00482, app. D.

    >>> normalised_path_energy(3.0, 2.0)
    0.5
    """
    return abs(energy - squared_w2) / squared_w2 if squared_w2 else math.inf
