"""Exact assignment of rectangular matrices and of matrices with forbidden pairs. Crouse 2016."""

from math import frexp

import numpy as np

from monge.kernels.assignment import Assignment
from monge.kernels.augment import claim, extend, slack
from monge.kernels.compiled import compiled


def assign_rectangular(cost: np.ndarray) -> Assignment:
    """Return the assignment of minimum total cost of a float32 or float64 matrix (n, m), min(n, m) pairs, exact in float64.

    An infinite cost forbids a pair. With more rows than columns, unassigned rows have -1. ValueError if a cost is nan or
    -inf, or if no finite assignment exists.
    """
    tall = cost.shape[0] > cost.shape[1]
    wide = cost.T if tall else cost
    columns, prices = np.empty(len(wide), np.int64), np.empty(wide.shape[1])
    gap = _solve(wide if wide.flags.carray else wide.copy(order="C"), columns, prices)
    if not gap >= 0:
        _raise(cost, gap)
    solved = Assignment(columns, prices, gap)
    return _transposed(solved, cost) if tall else solved


def _transposed(solved: Assignment, cost: np.ndarray) -> Assignment:
    """Return the assignment of the matrix whose transpose was solved."""
    rows = np.full(len(cost), -1, np.int64)
    rows[solved.permutation] = np.arange(cost.shape[1])
    return Assignment(rows, (cost - solved.prices[:, None]).min(0, initial=np.inf), solved.gap)


def _raise(cost: np.ndarray, gap: float) -> None:
    invalid = np.argwhere(np.isnan(cost) | (cost == -np.inf))
    if len(invalid):
        i, j = invalid[0]
        raise ValueError(f"assign: cost[{i}, {j}] is {cost[i, j]}; give finite costs, or inf to forbid a pair")
    raise ValueError(
        f"assign: the {cost.shape} cost is infeasible: its infinite entries rule out every assignment of "
        f"{min(cost.shape)} pairs; allow more pairs"
    )


@compiled
def _solve(cost, columns, prices):
    """Fill columns and prices, return the gap; -1 if a cost is nan or -inf, -2 if no finite assignment exists."""
    n, m = cost.shape
    prices[:] = 0.0
    if n == 0:
        return 0.0
    largest = 0.0
    for i in range(n):
        finite = 0
        for j in range(m):
            c = np.float64(cost[i, j])
            if not c > -np.inf:
                return -1.0
            if c < np.inf:
                finite += 1
                largest = max(largest, abs(c))
        if finite == 0:
            return -2.0
    bound = 120 if cost.itemsize == 4 else 1000
    scale = 2.0 ** -min(max(frexp(largest)[1], -bound), bound)
    rows, free, integers = np.empty(m, np.int32), np.empty(n, np.int32), np.empty((2, m), np.int32)
    vacant, reals = np.empty(m), np.empty((3, m))
    left = claim(cost, scale, prices, columns, rows, vacant, free, n)
    if not extend(cost, scale, prices, columns, rows, vacant, free[:left], reals, integers):
        return -2.0
    gap = slack(cost, scale, prices, columns) / scale
    for j in range(m):
        prices[j] /= scale
    return gap
