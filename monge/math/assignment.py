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
"""Integers below it are exact in float64."""


def assignment(cost: Shaped[Tensor, "*b n m"], *, prices: Float[Tensor, "*b m"] | None = None) -> Int[Tensor, "*b n"]:
    """The column of each row in the assignment of least total cost: p minimises sum_i cost[i, p[i]].

    With n = m it is a permutation, with n < m every row has a column of its own. With n > m every column has a row of its
    own, and rows without a column have -1. An infinite cost forbids a pair. Exact for the matrix given, whatever its scale,
    integers included. `prices`, duals of the columns of a square cost without forbidden pairs, are a start for the search.
    ValueError if an entry is nan or -inf, or if the forbidden pairs leave no assignment of min(n, m) pairs.

    >>> assignment(torch.tensor([[4.0, 1.0, 9.0], [2.0, 0.0, 5.0]]))
    tensor([1, 0])
    """
    if cost.ndim < 2:
        raise ValueError(f"assignment: the cost has shape {tuple(cost.shape)}; give a matrix, or a batch of them")
    shape, (n, m) = cost.shape[:-1], cost.shape[-2:]
    if prices is not None and n != m:
        raise ValueError(f"assignment: prices are a start for square costs, this one is {n} x {m}; leave them out")
    if not cost.numel():
        return torch.full(shape, -1, dtype=torch.long, device=cost.device)
    whole = None if cost.is_floating_point() else _reduced(cost)
    costs = problems(cost if whole is None else whole)
    start = None if prices is None else prices.detach().cpu().double().reshape(-1, m).numpy()
    found = _each(costs) if n != m else _square(costs, start)
    if whole is not None and int(whole.abs().max()) > _EXACT // (4 * max(n, m)):
        for matrix, solution in zip(whole.cpu().reshape(-1, n, m).numpy(), found, strict=True):
            _certify(matrix, solution)
    return torch.from_numpy(np.stack([f.permutation for f in found])).reshape(shape).to(cost.device)


def solved(costs: list[np.ndarray], prices: np.ndarray | None = None) -> list[Assignment]:
    """The assignments of finite square matrices, as many at a time as torch has threads."""
    if prices is None:
        return assign_many(costs, workers=torch.get_num_threads())
    return [assign(cost, start) for cost, start in zip(costs, prices, strict=True)]


def _square(costs: list[np.ndarray], prices: np.ndarray | None) -> list[Assignment]:
    """`solved`, where infinite costs forbid a pair."""
    try:
        return solved(costs, prices)
    except ValueError:
        if all(np.isfinite(cost).all() for cost in costs):
            raise
        return _each(costs)


def _each(costs: list[np.ndarray]) -> list[Assignment]:
    if len(costs) == 1 or torch.get_num_threads() == 1:
        return [assign_rectangular(cost) for cost in costs]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(assign_rectangular, costs))


def problems(cost: Tensor) -> list[np.ndarray]:
    """The matrices of a batch, contiguous, as numpy float32 or, for float64 and integers, float64."""
    dtype = torch.float32 if cost.is_floating_point() and cost.dtype != torch.float64 else torch.float64
    flat = cost.detach().to("cpu", dtype).reshape(-1, *cost.shape[-2:]).contiguous()
    return list(flat.numpy())


def _reduced(cost: Shaped[Tensor, "*b n m"]) -> Int[Tensor, "*b n m"]:
    """Integer costs that float64 holds exactly: as they are, or less the minimum of each row (of each column if n > m)."""
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
            "divide them or give a floating dtype"
        )
    return cost


def _certify(cost: np.ndarray, found: Assignment) -> None:
    """ValueError unless duals of integers, found in float64, prove in exact arithmetic that the assignment is optimal."""
    n, m = cost.shape
    g = np.rint(found.prices).astype(np.int64)
    g = np.minimum(g, 0) if n < m else g
    f = (cost - g).min(1)
    f = np.minimum(f, 0) if n > m else f
    rows = np.flatnonzero(found.permutation >= 0)
    least = sum(map(int, f)) + sum(map(int, g))
    if sum(map(int, cost[rows, found.permutation[rows]])) != least:
        raise ValueError(
            f"assignment: integer costs up to {int(cost.max())} of {n} x {m} pairs are too large to be solved exactly in "
            "float64; divide them or give a floating dtype"
        )
