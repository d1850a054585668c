"""The linear assignment problem on tensors: batched, rectangular, with forbidden pairs, exact for integers."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from monge.kernels.assignment import Assignment, assign, assign_many
from monge.kernels.rectangular import assign_rectangular

_EXACT = 2**53
"""Integers of smaller magnitude are exact in float64."""


def assignment(cost: Shaped[Tensor, "*b n m"], *, prices: Float[Tensor, "*b m"] | None = None) -> Int[Tensor, "*b n"]:
    """The column assigned to each row at minimum total cost: p minimises sum_i cost[i, p[i]].

    With n = m, p is a permutation. With n < m, each row gets a distinct column; with n > m, each column gets a distinct
    row, and rows without a column have -1. An infinite cost forbids a pair. Exact for the given matrix at any scale,
    integers included. `prices`, column duals, warm-start the search; they require a square cost, and are ignored if pairs are
    forbidden.
    ValueError if an entry is nan or -inf, if the forbidden pairs rule out every assignment of min(n, m) pairs, or if
    integers are too large to be solved exactly in float64.

    >>> assignment(torch.tensor([[4.0, 1.0, 9.0], [2.0, 0.0, 5.0]]))
    tensor([1, 0])
    """
    if cost.ndim < 2:
        raise ValueError(f"assignment: the cost has shape {tuple(cost.shape)}; give a matrix or a batch of matrices")
    shape, (n, m) = cost.shape[:-1], cost.shape[-2:]
    if prices is not None and n != m:
        raise ValueError(f"assignment: prices require a square cost, got {n} x {m}; leave them out")
    if not cost.numel():
        return torch.full(shape, -1, dtype=torch.long, device=cost.device)
    integers = None if cost.is_floating_point() else _reduced(cost)
    costs = cost_matrices(cost if integers is None else integers)
    start = None if prices is None else prices.detach().cpu().double().reshape(-1, m).numpy()
    solutions = _solve_each(costs) if n != m else _solve_square(costs, start)
    if integers is not None and int(integers.abs().max()) > _EXACT // (4 * max(n, m)):
        for matrix, solution in zip(integers.cpu().reshape(-1, n, m).numpy(), solutions, strict=True):
            _certify(matrix, solution)
    return torch.from_numpy(np.stack([solution.permutation for solution in solutions])).reshape(shape).to(cost.device)


def solve_squares(costs: list[np.ndarray], prices: np.ndarray | None = None) -> list[Assignment]:
    """The assignments of finite square matrices, in parallel on torch's number of threads.

    `prices` holds initial column duals, one row per matrix; with it, the matrices are solved one after another.

    >>> [int(j) for j in solve_squares([np.array([[4.0, 1.0], [2.0, 0.0]])])[0].permutation]
    [1, 0]
    """
    if prices is None:
        return assign_many(costs, workers=torch.get_num_threads())
    return [assign(cost, start) for cost, start in zip(costs, prices, strict=True)]


def _solve_square(costs: list[np.ndarray], prices: np.ndarray | None) -> list[Assignment]:
    """Like `solve_squares`, but infinite costs forbid a pair."""
    try:
        return solve_squares(costs, prices)
    except ValueError:
        if all(np.isfinite(cost).all() for cost in costs):
            raise
        return _solve_each(costs)


def _solve_each(costs: list[np.ndarray]) -> list[Assignment]:
    if len(costs) == 1 or torch.get_num_threads() == 1:
        return [assign_rectangular(cost) for cost in costs]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(assign_rectangular, costs))


def cost_matrices(cost: Tensor) -> list[np.ndarray]:
    """The matrices of a batch as contiguous numpy arrays: float64 for float64 and integers, otherwise float32.

    >>> [matrix.shape for matrix in cost_matrices(torch.zeros(2, 3, 4))]
    [(3, 4), (3, 4)]
    """
    dtype = torch.float32 if cost.is_floating_point() and cost.dtype != torch.float64 else torch.float64
    flat = cost.detach().to("cpu", dtype).reshape(-1, *cost.shape[-2:]).contiguous()
    return list(flat.numpy())


def _reduced(cost: Shaped[Tensor, "*b n m"]) -> Int[Tensor, "*b n m"]:
    """Integer costs that float64 holds exactly: unchanged, or minus the minimum of each row (of each column if n > m)."""
    if cost.dtype == torch.uint64:
        raise ValueError("assignment: the cost is uint64; give int64 or a floating dtype")
    cost = cost.long()
    low, high = int(cost.min()), int(cost.max())
    if low > -_EXACT and high < _EXACT:
        return cost
    if high - low < 2**63:
        cost = cost - cost.amin(-1 if cost.shape[-2] <= cost.shape[-1] else -2, keepdim=True)
    if high - low >= 2**63 or int(cost.max()) >= _EXACT:
        raise ValueError(
            f"assignment: integer costs from {low} to {high} differ by more than 2^53, above which float64 is not exact; "
            "scale them down or give a floating dtype"
        )
    return cost


def _certify(cost: np.ndarray, solution: Assignment) -> None:
    """ValueError unless the duals, rounded to integers, prove in exact arithmetic that the assignment is optimal."""
    n, m = cost.shape
    g = np.rint(solution.prices).astype(np.int64)
    g = np.minimum(g, 0) if n < m else g
    f = (cost - g).min(1)
    f = np.minimum(f, 0) if n > m else f
    rows = np.flatnonzero(solution.permutation >= 0)
    lower_bound = sum(map(int, f)) + sum(map(int, g))
    if sum(map(int, cost[rows, solution.permutation[rows]])) != lower_bound:
        raise ValueError(
            f"assignment: integer costs of magnitude {int(abs(cost).max())} in a {n} x {m} matrix are too large to be solved "
            "exactly in float64; scale them down or give a floating dtype"
        )
