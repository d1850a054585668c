"""Optimal transport between equally weighted points: the exact permutation and the entropic plan.

On the CPU the hot loops are in monge.kernels (numba, one thread per problem, as many problems in parallel as torch has
threads). On other devices the Sinkhorn loop runs on the device; the exact assignment is solved on the CPU and copied back.
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
from monge.math.assignment import cost_matrices, solve_squares
from monge.math.types import floating


@dataclass(frozen=True)
class Plan:
    """A coupling of n points with m points, of mass one: log_plan_ij = (f_i + g_j - cost_ij) / epsilon - log(n m).

    >>> plan = sinkhorn(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=0.1)
    >>> plan.barycentre(torch.tensor([[0.0], [1.0]])).flatten().round(decimals=2)
    tensor([0., 1.])
    """

    matrix: Float[Tensor, "*b n m"]
    cost: Float[Tensor, "*b n m"]  # the caller's tensor, which log_plan reads: do not modify it
    epsilon: float
    f: Float[Tensor, "*b n"]  # in the precision of the solver, float64 on the CPU
    g: Float[Tensor, "*b m"]
    marginal_error: Float[Tensor, "*b"]  # sum of the L1 distances of both marginals from uniform
    iterations: Int[Tensor, "*b"]

    @cached_property
    def log_plan(self) -> Float[Tensor, "*b n m"]:
        """The logarithm of the plan."""
        return log_plan(self.cost, self.epsilon, self.f, self.g)

    def barycentre(self, x_1: Float[Tensor, "*b m D"]) -> Float[Tensor, "*b n D"]:
        """The mean target of each source point. Peyre & Cuturi 2019, rem. 4.11."""
        return self.matrix @ x_1 / self.matrix.sum(-1, keepdim=True)

    def sample(self, *, generator: torch.Generator | None = None) -> Int[Tensor, "*b n"]:
        """A target for each source point, drawn from its row of the plan; targets can repeat."""
        rows = self.matrix.flatten(0, -2)
        return torch.multinomial(rows, 1, generator=generator).reshape(self.matrix.shape[:-1])


def optimal_permutation(
    x_0: Shaped[Tensor, "n D"], x_1: Shaped[Tensor, "n D"], *, prices: Float[Tensor, "n"] | None = None
) -> Int[Tensor, "n"]:
    """The permutation p that minimises sum_i |x_0[i] - x_1[p[i]]|^2, exact up to float32 rounding of the costs.

    If that rounding is not small compared with the costs (tight clusters far apart, points too small or too large for
    float32), products are computed in float64. `prices`, column duals of -x_0 . x_1, warm-start the search. On CPUs with
    bfloat16 multiplication and at most two threads, large float32 problems are screened with a bfloat16 product, which is
    twice as fast, and only the pairs that can matter are computed in full. ValueError if the shapes differ or a point is not
    finite.

    >>> optimal_permutation(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.5], [-0.5]]))
    tensor([1, 0])
    """
    if x_0.shape != x_1.shape or x_0.ndim != 2:
        raise ValueError(
            f"optimal_permutation: x_0 has shape {tuple(x_0.shape)}, x_1 {tuple(x_1.shape)}; give the same (n, D) for both"
        )
    if not len(x_0):
        return torch.zeros(0, dtype=torch.long, device=x_1.device)
    if _can_screen(x_0, x_1):
        permutation = screened_permutation(x_0, x_1, prices)
        if permutation is not None:
            return permutation
    x_0, x_1 = floating(x_0, x_1)
    if x_0.dtype == torch.float64:
        return _permutation_double(x_0, x_1, prices)
    centres = _centre(x_0), _centre(x_1)
    try:
        permutation = _permutation(x_0, x_1, prices, centres)
        imprecise = _imprecise(x_0, x_1, permutation, centres)
        return _permutation_double(x_0.double(), x_1.double(), prices) if imprecise else permutation
    except ValueError:
        return _permutation_double(x_0.double(), x_1.double(), prices)


def _centre(x: Float[Tensor, "n D"]) -> Float[Tensor, "D"] | None:
    """The mean of a sample of the points; None if subtracting it would not halve their squares."""
    points = x.detach().cpu().contiguous().numpy()
    centre, halved = screen.centre(points)
    return torch.from_numpy(centre).to(x) if halved else None


def _permutation(
    x_0: Tensor, x_1: Tensor, prices: Tensor | None, centres: tuple[Tensor | None, Tensor | None]
) -> Tensor:
    """The optimal permutation from products of the points minus these centres, which do not change the optimum."""
    c_0, c_1 = centres
    y_0, y_1 = x_0 if c_0 is None else x_0 - c_0, x_1 if c_1 is None else x_1 - c_1
    start = None
    if prices is not None:
        duals = prices if c_0 is None else prices + y_1 @ c_0
        start = duals.detach().cpu().double()[None].numpy()
    (solution,) = solve_squares(cost_matrices((y_0 @ y_1.mT).neg_()), start)
    return torch.from_numpy(solution.permutation).to(x_1.device)


def _permutation_double(x_0: Tensor, x_1: Tensor, prices: Tensor | None) -> Tensor:
    """The optimal permutation of float64 points. Each side may be in its own units, which do not change the optimum."""
    units = [magnitude(name, x) for name, x in (("optimal_permutation: x_0", x_0), ("optimal_permutation: x_1", x_1))]
    if not all(1e-75 < unit < 1e75 for unit in units):
        x_0, x_1, prices = x_0 / units[0], x_1 / units[1], None
    return _permutation(x_0, x_1, prices, (_centre(x_0), _centre(x_1)))


def magnitude(name: str, x: Float[Tensor, "n *s"]) -> float:
    """The next power of two above the largest absolute entry; 1 for zeros. ValueError if a point is not finite.

    >>> magnitude("x", torch.tensor([0.3, -5.0]))
    8.0
    """
    largest = float(x.abs().max()) if x.numel() else 0.0
    if not math.isfinite(largest):
        index = tuple((~torch.isfinite(x)).nonzero()[0].tolist())
        raise ValueError(f"{name}{list(index)} is {float(x[index])}; give finite points")
    return 2.0 ** max(min(math.frexp(largest)[1], 1023), -1022) if largest else 1.0


def _imprecise(x_0: Tensor, x_1: Tensor, permutation: Tensor, centres: tuple[Tensor | None, Tensor | None]) -> bool:
    """True if float32 may round the centred products by more than a thousandth of the cost of this matching."""
    x, y, columns = (part.detach().cpu().contiguous().numpy() for part in (x_0, x_1, permutation))
    offsets = (torch.zeros(x_0.shape[1]) if c is None else c.detach().cpu() for c in centres)
    rounding, cost = screen.rounding(x, y, *(c.numpy() for c in offsets), columns)
    return 0 < 1e-3 * cost < rounding


def _can_screen(x_0: Tensor, x_1: Tensor) -> bool:
    """True if a bfloat16 product of these points, by oneDNN with float32 accumulation, is available and pays off.

    The rest of the screening runs on one thread, so with three or more threads the full product is faster.
    """
    large = min(x_0.shape) >= 256 and x_0.numel() >= 200_000
    if not large or any(x.dtype != torch.float32 for x in (x_0, x_1)):
        return False
    if any(x.device.type != "cpu" for x in (x_0, x_1)) or torch.get_num_threads() > 2:
        return False
    product = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return product and torch.cpu._is_avx512_bf16_supported()  # pyright: ignore[reportPrivateUsage]


def screened_permutation(
    x_0: Float[Tensor, "n D"], x_1: Float[Tensor, "n D"], prices: Float[Tensor, "n"] | None = None
) -> Int[Tensor, "n"] | None:
    """The result of `optimal_permutation` from a bfloat16 product; None if the points are too close together or too large.

    >>> x = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(screened_permutation(x, x.flip(0)), torch.arange(64).flip(0))
    True
    """
    x, y = x_0.detach().contiguous().numpy(), x_1.detach().contiguous().numpy()
    low_0, low_1 = screen.rounded(x), screen.rounded(y)
    if screen.too_close(y, low_0, low_1):
        return None
    b_0, b_1 = (torch.from_numpy(low.bits).view(torch.bfloat16) for low in (low_0, low_1))
    product = torch.mm(b_0, b_1.mT).view(torch.uint16).numpy()
    start = None
    if prices is not None:  # the duals of the centred points
        start = prices.detach().cpu().double().numpy() + (y - low_1.centre) @ low_0.centre
    solution = screen.match(product, x, y, low_0, low_1, start)
    return None if solution is None else torch.from_numpy(solution.permutation)


def sinkhorn(
    cost: Shaped[Tensor, "*b n m"], epsilon: float, *, tolerance: float = 1e-3, max_iterations: int = 1000
) -> Plan:
    """The entropic plan with uniform marginals, by stabilised Sinkhorn iterations. Peyre & Cuturi 2019, sec. 4.4.

    epsilon is in units of cost. The loop stops when the marginal error is below `tolerance` or after `max_iterations`; the
    plan reports its marginal error and iterations. Integer costs give a float64 plan, half-precision costs a float32 one.
    Gradients do not flow through the loop; at the optimum the gradient of the entropic cost with respect to `cost` is the
    plan. ValueError if epsilon is not positive, or if the cost is empty or not finite.

    >>> sinkhorn(torch.zeros(2, 4), epsilon=1.0).matrix
    tensor([[0.1250, 0.1250, 0.1250, 0.1250],
            [0.1250, 0.1250, 0.1250, 0.1250]])
    """
    cost = floating(cost)[0]
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise ValueError(f"sinkhorn: epsilon must be a positive number, got {epsilon}; for the limit 0 use assignment")
    n, m = cost.shape[-2:]
    if not cost.numel():
        raise ValueError(f"sinkhorn: the cost is empty, {tuple(cost.shape)}; give at least one point on each side")
    if cost.device.type == "cpu":
        solutions = sinkhorn_many(
            cost_matrices(cost),
            epsilon,
            tolerance=tolerance,
            max_iterations=max_iterations,
            workers=torch.get_num_threads(),
        )
        batch = cost.shape[:-2]
        matrix = _stacked([s.plan for s in solutions]).reshape(cost.shape).to(cost.dtype)
        f = _stacked([s.f for s in solutions]).reshape(*batch, n)
        g = _stacked([s.g for s in solutions]).reshape(*batch, m)
        error = torch.tensor([s.marginal_error for s in solutions], dtype=torch.float64).reshape(batch)
        iterations = torch.tensor([s.iterations for s in solutions]).reshape(batch)
        return Plan(matrix, cost.detach(), epsilon, f, g, error, iterations)
    f, g, error, iterations = sinkhorn_on_device(cost, epsilon, tolerance, max_iterations)
    matrix = log_plan(cost.detach(), epsilon, f, g).exp()
    return Plan(matrix, cost.detach(), epsilon, f, g, error, iterations)


def sinkhorn_on_device(
    cost: Float[Tensor, "*b n m"], epsilon: float, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Potentials f and g, marginal error and iterations, by plain tensor operations on any device; all problems at once.

    epsilon starts at a quarter of the range of the costs and is divided by four until it reaches its final value, which
    takes far fewer iterations when that is small (Schmitzer 2019, sec. 3.2). The columns are over-relaxed near the end, as
    in the CPU kernel. The error is checked every tenth iteration, since the check waits for the device.

    >>> f, g, error, iterations = sinkhorn_on_device(torch.zeros(2, 3), 1.0, 1e-3, 100)
    >>> tuple(f.shape), tuple(g.shape), float(error) <= 1e-3
    ((2,), (3,), True)
    """
    cost = cost.detach()
    if not bool(torch.isfinite(cost).all()):
        raise ValueError("sinkhorn: the cost holds nan or infinite entries; give finite costs")
    n, m = cost.shape[-2:]
    f, g = cost.new_zeros(cost.shape[:-1]), cost.new_zeros((*cost.shape[:-2], m))
    error = cost.new_full(cost.shape[:-2], math.inf)
    smooth, omega, last_worst, step = max(epsilon, float(cost.max() - cost.min()) / 4), 1.0, math.inf, 0
    for step in range(1, max_iterations + 1):
        if step % 5 == 0 or 2 * step >= max_iterations:
            smooth = epsilon if 2 * step >= max_iterations else max(epsilon, smooth / 4)
        f = -smooth * (torch.logsumexp((g[..., None, :] - cost) / smooth, -1) - math.log(m))
        # the log of m times the mass of a column is columns + g / smooth
        columns = torch.logsumexp((f[..., :, None] - cost) / smooth, -2) - math.log(n)
        excess = columns + g / smooth
        if smooth == epsilon and (step % 10 == 0 or step == max_iterations):
            error = (torch.exp(excess) - 1).abs().mean(-1)  # the rows are exact here
            worst = float(error.max())
            if worst <= tolerance:
                break
            if last_worst < math.inf:
                omega = relaxation(omega, (worst / last_worst) ** 0.1)
            last_worst = worst
        # beyond a third the linear theory of over-relaxation does not hold
        g = g - smooth * torch.where(excess.abs() < 1 / 3, omega, 1.0) * excess
    return f, g, error.double(), torch.full(error.shape, step, device=cost.device)


def log_plan(
    cost: Float[Tensor, "*b n m"], epsilon: float, f: Float[Tensor, "*b n"], g: Float[Tensor, "*b m"]
) -> Float[Tensor, "*b n m"]:
    """The logarithm of the plan that the potentials f and g define for a cost.

    >>> log_plan(torch.zeros(2, 2), 1.0, torch.zeros(2), torch.zeros(2)).exp()
    tensor([[0.2500, 0.2500],
            [0.2500, 0.2500]])
    """
    # round only after the sum: division by epsilon amplifies a rounding error of the potentials
    return ((f[..., :, None] + g[..., None, :] - cost) / epsilon - math.log(cost.shape[-2] * cost.shape[-1])).to(
        cost.dtype
    )


def _stacked(parts: list[np.ndarray]) -> Tensor:
    """The arrays as one tensor; a single one is not copied."""
    return torch.from_numpy(parts[0][None] if len(parts) == 1 else np.stack(parts))
