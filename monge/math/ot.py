"""Optimal transport between equally weighted points: the exact permutation and the entropic plan.

On the CPU the hot loops are monge.kernels (numba, one thread per problem, as many problems at a time as torch has
threads); on another device the Sinkhorn loop runs there and the exact assignment is solved on the CPU and sent back.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from monge.kernels import screen
from monge.kernels.sinkhorn import relaxation, sinkhorn_many
from monge.math.assignment import assignment as assignment
from monge.math.assignment import problems, solved
from monge.math.types import floating


@dataclass(frozen=True)
class Plan:
    """A coupling of n points with m points, of mass one: log_plan_ij = (f_i + g_j - cost_ij) / epsilon - log(n m)."""

    matrix: Float[Tensor, "*b n m"]
    cost: Float[Tensor, "*b n m"]  # the caller's, which log_plan reads: leave it as it is
    epsilon: float
    f: Float[Tensor, "*b n"]  # in the precision in which they were found, float64 on the CPU
    g: Float[Tensor, "*b m"]
    marginal_error: Float[Tensor, "*b"]  # L1 distance of both marginals from uniform, added up
    iterations: Int[Tensor, "*b"]

    @cached_property
    def log_plan(self) -> Float[Tensor, "*b n m"]:
        """The logarithm of the plan."""
        return log_plan(self.cost, self.epsilon, self.f, self.g)

    def barycentre(self, x_1: Float[Tensor, "*b m D"]) -> Float[Tensor, "*b n D"]:
        """The mean target of each source point. Peyre & Cuturi 2019, rem. 4.11."""
        return self.matrix @ x_1 / self.matrix.sum(-1, keepdim=True)

    def sample(self, *, generator: torch.Generator | None = None) -> Int[Tensor, "*b n"]:
        """For each source point a target drawn from its row; targets can repeat."""
        rows = self.matrix.flatten(0, -2)
        return torch.multinomial(rows, 1, generator=generator).reshape(self.matrix.shape[:-1])


def optimal_permutation(
    x_0: Shaped[Tensor, "n D"], x_1: Shaped[Tensor, "n D"], *, prices: Float[Tensor, "n"] | None = None
) -> Int[Tensor, "n"]:
    """The permutation p that minimises sum_i |x_0[i] - x_1[p[i]]|^2, exact up to float32 rounding of the costs.

    Where that rounding is not small compared with the costs, as for tight clusters far apart or points too small or too
    large for float32, the products are taken in float64. `prices`, duals of the columns of -x_0 . x_1, are a start for the
    search. Where the processor multiplies bfloat16, a large float32 problem is screened by such a product, twice as fast,
    and only the pairs that can matter are computed in full.
    """
    if x_0.shape != x_1.shape or x_0.ndim != 2:
        raise ValueError(f"match: x_0 has shape {tuple(x_0.shape)}, x_1 {tuple(x_1.shape)}; give (n, D) twice")
    if not len(x_0):
        return torch.zeros(0, dtype=torch.long, device=x_1.device)
    if _screens(x_0, x_1):
        found = screened(x_0, x_1, prices)
        if found is not None:
            return found
    x_0, x_1 = floating(x_0, x_1)
    if x_0.dtype == torch.float64:
        return _match_double(x_0, x_1, prices)
    centres = _centre(x_0), _centre(x_1)
    try:
        found = _permutation(x_0, x_1, prices, centres)
        return found if not _coarse(x_0, x_1, found, centres) else _match_double(x_0.double(), x_1.double(), prices)
    except ValueError:
        return _match_double(x_0.double(), x_1.double(), prices)


def _centre(x: Float[Tensor, "n D"]) -> Float[Tensor, "D"] | None:
    """The mean of some points; None if they are so near the origin that subtracting it would not halve their squares."""
    points = x.detach().cpu().contiguous().numpy()
    centre, halved = screen.centre(points)
    return torch.from_numpy(centre).to(x) if halved else None


def _permutation(
    x_0: Tensor, x_1: Tensor, prices: Tensor | None, centres: tuple[Tensor | None, Tensor | None]
) -> Tensor:
    """The permutation by the products of the points less these centres, which no permutation can see."""
    c_0, c_1 = centres
    y_0, y_1 = x_0 if c_0 is None else x_0 - c_0, x_1 if c_1 is None else x_1 - c_1
    start = None
    if prices is not None:
        duals = prices if c_0 is None else prices + y_1 @ c_0
        start = duals.detach().cpu().double()[None].numpy()
    (found,) = solved(problems((y_0 @ y_1.mT).neg_()), start)
    return torch.from_numpy(found.permutation).to(x_1.device)


def _match_double(x_0: Tensor, x_1: Tensor, prices: Tensor | None) -> Tensor:
    """`match` of float64 points, each side in units of its own, since the best permutation does not depend on them."""
    units = [magnitude(name, x) for name, x in (("match: x_0", x_0), ("match: x_1", x_1))]
    if not all(1e-75 < unit < 1e75 for unit in units):
        x_0, x_1, prices = x_0 / units[0], x_1 / units[1], None
    return _permutation(x_0, x_1, prices, (_centre(x_0), _centre(x_1)))


def magnitude(name: str, x: Float[Tensor, "n *s"]) -> float:
    """The power of two next above the largest entry; 1 for zeros. ValueError where a point is not finite."""
    largest = float(x.abs().max()) if x.numel() else 0.0
    if not math.isfinite(largest):
        at = tuple((~torch.isfinite(x)).nonzero()[0].tolist())
        raise ValueError(f"{name}{list(at)} is {float(x[at])}; give finite points")
    return 2.0 ** max(min(math.frexp(largest)[1], 1023), -1022) if largest else 1.0


def _coarse(x_0: Tensor, x_1: Tensor, found: Tensor, centres: tuple[Tensor | None, Tensor | None]) -> bool:
    """True if float32 rounds products of points less their centres by more than a thousandth of the cost of this matching."""
    x, y, columns = (part.detach().cpu().contiguous().numpy() for part in (x_0, x_1, found))
    about = (torch.zeros(x_0.shape[1]) if c is None else c.detach().cpu() for c in centres)
    rounding, cost = screen.rounding(x, y, *(c.numpy() for c in about), columns)
    return 0 < 1e-3 * cost < rounding


def _screens(x_0: Tensor, x_1: Tensor) -> bool:
    """True if a bfloat16 product of these points is available, by oneDNN, which adds up in float32, and pays.

    The rest of the screen runs on one thread: the full product on three threads or more is faster.
    """
    large = min(x_0.shape) >= 256 and x_0.numel() >= 200_000
    if not large or any(x.dtype != torch.float32 for x in (x_0, x_1)):
        return False
    if any(x.device.type != "cpu" for x in (x_0, x_1)) or torch.get_num_threads() > 2:
        return False
    product = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return product and torch.cpu._is_avx512_bf16_supported()  # pyright: ignore[reportPrivateUsage]


def screened(
    x_0: Float[Tensor, "n D"], x_1: Float[Tensor, "n D"], prices: Float[Tensor, "n"] | None = None
) -> Int[Tensor, "n"] | None:
    """What `match` returns, by way of a bfloat16 product; None where the points are too close together for it, or too large."""
    x, y = x_0.detach().contiguous().numpy(), x_1.detach().contiguous().numpy()
    low_0, low_1 = screen.rounded(x), screen.rounded(y)
    if screen.crowded(y, low_0, low_1):
        return None
    b_0, b_1 = (torch.from_numpy(low.bits).view(torch.bfloat16) for low in (low_0, low_1))
    product = torch.mm(b_0, b_1.mT).view(torch.uint16).numpy()
    start = None
    if prices is not None:  # the duals of the centred points
        start = prices.detach().cpu().double().numpy() + (y - low_1.centre) @ low_0.centre
    found = screen.match(product, x, y, low_0, low_1, start)
    return None if found is None else torch.from_numpy(found.permutation)


def sinkhorn(
    cost: Shaped[Tensor, "*b n m"], epsilon: float, *, tolerance: float = 1e-3, max_iterations: int = 1000
) -> Plan:
    """The entropic plan with uniform marginals, in the log domain. Peyre & Cuturi 2019, sec. 4.4.

    epsilon is in units of cost. The loop ends when the marginal error is below `tolerance` or after `max_iterations`:
    the plan says which. Integer costs are solved in float64, and the plan of half-precision costs is float32. No gradient
    flows through the loop; at the optimum d(cost of the plan) = plan * d(cost).
    """
    cost = floating(cost)[0]
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"sinkhorn: epsilon must be a positive number, got {epsilon}; for the limit 0 use assignment")
    n, m = cost.shape[-2:]
    if not cost.numel():
        raise ValueError(f"sinkhorn: the cost is empty, {tuple(cost.shape)}; give at least one point on each side")
    if cost.device.type == "cpu":
        solved = sinkhorn_many(
            problems(cost),
            epsilon,
            tolerance=tolerance,
            max_iterations=max_iterations,
            workers=torch.get_num_threads(),
        )
        batch = cost.shape[:-2]
        matrix = _stacked([s.plan for s in solved]).reshape(cost.shape).to(cost.dtype)
        f, g = _stacked([s.f for s in solved]).reshape(*batch, n), _stacked([s.g for s in solved]).reshape(*batch, m)
        error = torch.tensor([s.marginal_error for s in solved], dtype=torch.float64).reshape(batch)
        iterations = torch.tensor([s.iterations for s in solved]).reshape(batch)
        return Plan(matrix, cost.detach(), epsilon, f, g, error, iterations)
    f, g, error, iterations = sinkhorn_on_device(cost, epsilon, tolerance, max_iterations)
    matrix = log_plan(cost.detach(), epsilon, f, g).exp()
    return Plan(matrix, cost.detach(), epsilon, f, g, error, iterations)


def sinkhorn_on_device(
    cost: Float[Tensor, "*b n m"], epsilon: float, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Potentials f and g, marginal error and iterations, by plain tensor operations on any device; all problems at once.

    epsilon falls to its value by quarters from the largest cost, which takes far fewer iterations when it is small
    (Schmitzer 2019, sec. 3.2), and the columns are over-relaxed near the end, as the CPU's kernel does. The error is looked
    at, which waits for the device, every tenth iteration.
    """
    cost = cost.detach()
    if not bool(torch.isfinite(cost).all()):
        raise ValueError("sinkhorn: the cost holds nan or infinite entries; give finite costs")
    n, m = cost.shape[-2:]
    f, g = cost.new_zeros(cost.shape[:-1]), cost.new_zeros((*cost.shape[:-2], m))
    error = cost.new_full(cost.shape[:-2], math.inf)
    at, omega, mark, step = max(epsilon, float(cost.max() - cost.min()) / 4), 1.0, math.inf, 0
    for step in range(1, max_iterations + 1):
        if step % 5 == 0 or 2 * step >= max_iterations:
            at = epsilon if 2 * step >= max_iterations else max(epsilon, at / 4)
        f = -at * (torch.logsumexp((g[..., None, :] - cost) / at, -1) - math.log(m))
        # log of (column mass * m) is this + g / at
        columns = torch.logsumexp((f[..., :, None] - cost) / at, -2) - math.log(n)
        excess = columns + g / at
        if at == epsilon and (step % 10 == 0 or step == max_iterations):
            error = (torch.exp(excess) - 1).abs().mean(-1)  # the rows are exact here
            worst = float(error.max())
            if worst <= tolerance:
                break
            if mark < math.inf:
                omega = relaxation(omega, (worst / mark) ** 0.1)
            mark = worst
        # beyond a third the linear theory of over-relaxation does not hold
        g = g - at * torch.where(excess.abs() < 1 / 3, omega, 1.0) * excess
    return f, g, error.double(), torch.full(error.shape, step, device=cost.device)


def log_plan(
    cost: Float[Tensor, "*b n m"], epsilon: float, f: Float[Tensor, "*b n"], g: Float[Tensor, "*b m"]
) -> Float[Tensor, "*b n m"]:
    """The logarithm of the plan that the potentials f and g make of a cost."""
    # the potentials are added up before they are rounded: divided by epsilon, an error of theirs is large
    return ((f[..., :, None] + g[..., None, :] - cost) / epsilon - math.log(cost.shape[-2] * cost.shape[-1])).to(
        cost.dtype
    )


def _stacked(parts: list[np.ndarray]) -> Tensor:
    """The arrays as one tensor; a single one is not copied."""
    return torch.from_numpy(parts[0][None] if len(parts) == 1 else np.stack(parts))
