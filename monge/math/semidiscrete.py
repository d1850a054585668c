"""Semidiscrete optimal transport from noise to the points of a full data set, with one dual potential per point."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.kernels.assignment import assign
from monge.math.ot import cost_matrices, magnitude


def semidiscrete(
    noise: Callable[[int], Tensor],
    data: Float[Tensor, "N D"],
    *,
    groups: Int[Tensor, "N"] | None = None,
    steps: int = 1000,
    batch: int = 512,
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "N"], float]:
    """(potentials, marginal_error): one dual per data point, such that noise is assigned to each point equally often.

    Noise x is assigned to argmax_j x . data_j - |data_j|^2 / 2 + potentials_j. With `groups`, each draw is assigned to a
    random group, in proportion to its size, and to a point of that group, so labels stay independent of the noise.
    `noise(n)` returns n draws, (n, D).

    Groups of at most 4,096 points start from the mean duals of eight exact assignments. Averaged stochastic ascent on the
    semidual follows, whose gradient is 1 / N minus the frequency of j (Genevay et al. 1605.08527, alg. 2; Mousavi-Hosseini
    et al. 2509.25519). The error is the L1 distance between the frequencies and uniform on 64 N new draws (at least 4,096
    and at most 100,000), minus its expected value for a perfect fit (Poisson counts). ValueError for data that are not
    finite, or whose squares float32 cannot hold.

    >>> data, generator = torch.tensor([[-1.0], [1.0]]), torch.Generator().manual_seed(0)
    >>> noise = lambda n: torch.randn(n, 1, generator=generator)
    >>> potentials, error = semidiscrete(noise, data, steps=10, generator=generator)
    >>> tuple(potentials.shape), error < 0.1
    ((2,), True)
    """
    unit = magnitude("semidiscrete: data", data)
    if not 1e-15 < unit < 1e15:
        raise ValueError(
            f"semidiscrete: the data are of size {unit:.0e}, whose squares float32 cannot hold; rescale them"
        )
    group_of = torch.zeros(len(data), dtype=torch.long, device=data.device) if groups is None else groups

    def frequencies(n: int, duals: Tensor) -> Tensor:
        counts, size = data.new_zeros(len(data)), max(1, min(n, 2**26 // len(data)))  # at most 256 MB of scores
        for start in range(0, n, size):
            count = min(size, n - start)
            drawn = torch.randint(len(data), (count,), generator=generator).to(data.device)
            assigned = semidiscrete_assign(noise(count), data, duals, groups=group_of, group=group_of[drawn])
            counts += torch.bincount(assigned, minlength=len(data))
        return counts / n

    potentials = torch.zeros(len(data), dtype=data.dtype, device=data.device)
    for group in group_of.unique():
        members = (group_of == group).nonzero().squeeze(-1)
        if len(members) <= 4096:
            potentials[members] = _mean_duals(noise, data[members], rounds=8)
    # a cell is about as wide as the distance to the nearest point; a good step moves its border by a fraction of that
    squared_gap = _squared_gap(data)
    average, start = potentials.clone(), steps // 2
    for step in range(steps):
        rate = 0.2 * squared_gap * min(batch, len(data)) / (1 + step / 10) ** 0.5
        potentials += rate * (1 / len(data) - frequencies(batch, potentials))
        if step >= start:
            average += (potentials - average) / (step - start + 1)
    draws = max(4096, min(64 * len(data), 100_000))
    measured = frequencies(draws, average)
    floor = _poisson_deviation(draws / len(data)) * len(data) / draws
    return average, max(0.0, float((measured - 1 / len(data)).abs().sum()) - floor)


def _poisson_deviation(mean: float) -> float:
    """E |X - mean| of a Poisson variable. De Moivre; Johnson, Univariate Discrete Distributions, sec. 4.3."""
    below = math.floor(mean)
    return 2 * math.exp(-mean + (below + 1) * math.log(mean) - math.lgamma(below + 1))


def _squared_gap(data: Tensor) -> Tensor:
    """Median, over the first 512 points, of the squared distance to the nearest distinct point; 1 if all coincide."""
    squares = torch.cdist(data[:512], data).square()
    apart = squares > 1e-5 * squares.mean()  # False for duplicates, up to float32 rounding
    nearest = torch.where(apart, squares, math.inf).amin(1)
    return nearest[nearest < math.inf].median() if bool(apart.any()) else data.new_ones(())


def _mean_duals(noise: Callable[[int], Tensor], data: Tensor, *, rounds: int) -> Tensor:
    """Potentials from the column duals of exact assignments of draws to the data, centred and averaged.

    Fewer than 512 points are repeated to at least 512, since the duals of few points are biased.
    """
    copies = -(-512 // len(data))
    total = torch.zeros(len(data), dtype=torch.float64)
    for _ in range(rounds):
        draws, points = noise(copies * len(data)).to(data), (data - data.mean(0)).repeat(copies, 1)
        (problem,) = cost_matrices(-(draws @ points.mT))
        duals = torch.from_numpy(assign(problem).prices).reshape(copies, -1).mean(0)
        total += duals - duals.mean()
    return (total / rounds).to(data) + data.square().sum(-1) / 2


def semidiscrete_assign(
    x_0: Float[Tensor, "B D"],
    data: Float[Tensor, "N D"],
    potentials: Float[Tensor, "N"],
    *,
    groups: Int[Tensor, "N"] | None = None,
    group: Int[Tensor, "B"] | None = None,
) -> Int[Tensor, "B"]:
    """The data point that the plan assigns to each x_0: a maximum inner product search, within the group of x_0 if given.

    ValueError if a group has no data points.

    >>> semidiscrete_assign(torch.tensor([[0.5], [-2.0]]), torch.tensor([[-1.0], [1.0]]), torch.zeros(2))
    tensor([1, 0])
    """
    score = x_0 @ data.mT + (potentials - data.square().sum(-1) / 2)
    if groups is None or group is None:
        return score.argmax(-1)
    j = score.masked_fill_(group[:, None] != groups[None, :], -math.inf).argmax(-1)
    if not torch.equal(groups[j], group):
        missing = group[groups[j] != group].unique().tolist()
        raise ValueError(f"semidiscrete_assign: no data point is in group {missing}; use groups that occur in the data")
    return j
