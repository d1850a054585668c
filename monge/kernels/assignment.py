"""Exact linear assignment: an auction for the prices, shortest augmenting paths for the optimum, a dual certificate."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import frexp, isnan
from typing import NamedTuple

import numpy as np

from monge.kernels.auction import auction, extremes
from monge.kernels.augment import claim, extend, slack
from monge.kernels.compiled import compiled


class Assignment(NamedTuple):
    """A minimum-cost assignment, with its certificate."""

    permutation: np.ndarray
    """int64 (n,): row i is assigned to column permutation[i]; -1 if it has none."""
    prices: np.ndarray
    """float64, one per column: the column duals g, in units of cost; the row duals are min_j(cost[i, j] - g[j])."""
    gap: float
    """Primal minus dual, in units of cost: the assignment is at most this far from the optimum. Non-negative."""


def assign(cost: np.ndarray, prices: np.ndarray | None = None) -> Assignment:
    """Return the permutation of minimum total cost of a square float32 or float64 matrix, exact in float64.

    `prices` are initial column duals; any finite values lead to an optimum, good ones faster. Bertsekas' auction with
    epsilon scaling finds prices, and Jonker and Volgenant's shortest augmenting paths complete the assignment; both are
    bounded, with n^3 operations at worst. Falls back to scipy if the result is not a permutation (no known input triggers
    this). ValueError for another shape or dtype, and if a cost or price is not finite.
    """
    n = len(cost)
    if cost.shape != (n, n):
        raise ValueError(f"assign: cost has shape {cost.shape}; give a square matrix")
    if cost.dtype.char not in "fd":
        raise ValueError(f"assign: cost is {cost.dtype}; give float32 or float64")
    start = _COLD if prices is None else checked_start(prices, n)
    permutation, duals = np.empty(n, np.int64), np.empty(n)
    # numba would compile again for read-only or strided arrays; a copy is cheaper
    gap = _solve(cost if cost.flags.carray else cost.copy(), start, permutation, duals)
    if isnan(gap):
        _check_finite(cost)
        return _fallback(cost)
    return Assignment(permutation, duals, gap)


def assign_many(costs: Sequence[np.ndarray], *, workers: int = 1) -> list[Assignment]:
    """Return the assignment of each matrix, `workers` in parallel with one thread each; sizes may differ."""
    if workers <= 1 or len(costs) <= 1:
        return [assign(cost) for cost in costs]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(assign, costs))


_COLD = np.empty(0)


def checked_start(prices: np.ndarray | None, n: int) -> np.ndarray:
    """Return prices in the form that the kernels take: n finite float64 values, or an empty array."""
    if prices is None:
        return _COLD
    prices = np.ascontiguousarray(prices, dtype=np.float64)
    if prices.shape != (n,):
        raise ValueError(f"assign: prices have shape {prices.shape}; give one for each of the {n} columns")
    if not np.isfinite(prices).all():
        j = int(np.argmin(np.isfinite(prices)))
        raise ValueError(f"assign: prices[{j}] is {prices[j]}; give finite prices")
    return prices


def _check_finite(cost):
    nonfinite = np.argwhere(~np.isfinite(cost))
    if len(nonfinite):
        i, j = nonfinite[0]
        raise ValueError(
            f"assign: cost[{i}, {j}] is {cost[i, j]}; give finite costs, with a large one to forbid a pair"
        )


def _fallback(cost):
    from scipy.optimize import linear_sum_assignment

    exact = cost.astype(np.float64)
    permutation, prices = linear_sum_assignment(exact)[1], exact.min(0)
    return Assignment(permutation, prices, float(slack(exact, 1.0, prices, permutation)))


@compiled
def _solve(cost, start, columns, prices):
    """Fill columns and prices, return the gap; nan if a cost is not finite or the result is not a permutation."""
    n = cost.shape[0]
    if n == 0:
        return 0.0
    # few allocations: in small problems each costs as much as a lot of arithmetic
    reals, integers = np.empty((4, n)), np.empty((4, n), np.int32)
    vacant, rows, free = reals[0], integers[0], integers[1]
    if n == 1:  # no second column to bid against
        columns[0], prices[0] = 0, cost[0, 0]
        return 0.0 * cost[0, 0]
    scale, left = _approach(cost, start, columns, prices, rows, vacant, free)
    if left < 0:
        return np.nan
    if left > 0:
        extend(cost, scale, prices, columns, rows, vacant, free[:left], reals[1:], integers[2:])
    gap = slack(cost, scale, prices, columns) / scale
    for j in range(n):
        prices[j] /= scale
    return gap if _valid(columns, rows) else np.nan


@compiled
def _approach(cost, start, columns, prices, rows, vacant, free):
    """Fill near-optimal prices and assign all but a few rows; return the scale and the number of free rows.

    The number is -1 if a cost is not finite.
    """
    n = cost.shape[0]
    ends = np.empty((2, n), cost.dtype)
    least, rough = ends[0], ends[1]
    if not extremes(cost, least, rough):
        return 1.0, -1
    scale = _scale(least, rough)
    single = cost.dtype.type(scale)
    for j in range(n):
        rough[j] = least[j] * single
    if len(start) == n:
        top = start.max()
        for j in range(n):  # optimal prices of costs below 1 differ by at most 4
            rough[j] = max((start[j] - top) * scale, -4.0)
    prices[:] = rough
    few = n // 4 + 16  # with at most this many free rows, shortest paths are faster without an auction first
    left = claim(cost, scale, prices, columns, rows, vacant, free, few)
    if left > few:
        auction(cost, single, rough, columns, rows, free)
        prices[:] = rough
        left = claim(cost, scale, prices, columns, rows, vacant, free, n)
    return scale, left


@compiled
def approach(cost, start):
    """Return near-optimal prices of a finite float32 or float64 matrix of at least two rows."""
    n = cost.shape[0]
    columns, prices, rows = np.empty(n, np.int64), np.empty(n), np.empty(n, np.int32)
    scale, _ = _approach(cost, start, columns, prices, rows, np.empty(n), np.empty(n, np.int32))
    return prices / scale


@compiled
def _scale(least, greatest):
    """Return the power of two that brings the largest cost near 1, within the range of the dtype."""
    largest = max(np.abs(least).max(), np.abs(greatest).max())
    bound = 120 if least.itemsize == 4 else 1000
    exponent = min(max(frexp(largest)[1], -bound), bound)
    return 2.0**-exponent


@compiled
def _valid(columns, rows):
    """Return True if columns is a permutation."""
    rows[:] = -1
    for i, j in enumerate(columns):
        if j < 0 or j >= len(rows) or rows[j] >= 0:
            return False
        rows[j] = i
    return True
