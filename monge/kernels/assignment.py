"""Exact linear assignment: an auction for the prices, shortest augmenting paths for the optimum, a dual certificate."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from monge.kernels.auction import auction, contested, extremes, spread
from monge.kernels.augment import augment, slack
from monge.kernels.compiled import compiled


class Assignment(NamedTuple):
    """A permutation of least cost, with its certificate."""

    permutation: np.ndarray
    """int64 (n,): row i goes to column permutation[i]."""
    prices: np.ndarray
    """float64 (n,): the column duals g, in units of cost; the row duals are min_j(cost[i, j] - g[j])."""
    gap: float
    """Primal minus dual, in units of cost: the assignment is at most this far from the optimum. At least 0, up to rounding."""


def assign(cost: np.ndarray, prices: np.ndarray | None = None) -> Assignment:
    """Return the permutation of least total cost of a square float32 or float64 matrix, exact in float64.

    `prices` are column duals to start from; any finite values give an optimum, good ones sooner. Bertsekas' auction with epsilon
    scaling finds prices, Jonker and Volgenant's shortest augmenting paths finish; both run under a bound, n^3 operations at worst.
    Should the result not be a permutation, which no input is known to cause, scipy's solver gives it.
    """
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1]:
        raise ValueError(f"assign: cost has shape {cost.shape}; give a square matrix")
    if cost.dtype != np.float32 and cost.dtype != np.float64:
        raise ValueError(f"assign: cost is {cost.dtype}; give float32 or float64")
    start = _COLD if prices is None else _checked_prices(prices, len(cost))
    valid, permutation, duals, gap = _solve(np.ascontiguousarray(cost), start)
    if valid:
        return Assignment(permutation, duals, gap)
    _refuse_nonfinite(cost)
    return _fallback(cost, duals)


def assign_many(costs: Sequence[np.ndarray], *, workers: int = 1) -> list[Assignment]:
    """Return the assignment of each matrix, `workers` at a time with one thread each; sizes may differ."""
    if workers <= 1 or len(costs) <= 1:
        return [assign(cost) for cost in costs]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(assign, costs))


_COLD = np.empty(0)


def _checked_prices(prices, n):
    prices = np.ascontiguousarray(prices, dtype=np.float64)
    if prices.shape != (n,):
        raise ValueError(f"assign: prices have shape {prices.shape}; give one for each of the {n} columns")
    if not np.isfinite(prices).all():
        j = int(np.argmin(np.isfinite(prices)))
        raise ValueError(f"assign: prices[{j}] is {prices[j]}; give finite prices")
    return prices


def _refuse_nonfinite(cost):
    bad = np.argwhere(~np.isfinite(cost))
    if len(bad):
        i, j = bad[0]
        raise ValueError(
            f"assign: cost[{i}, {j}] is {cost[i, j]}; give finite costs, a large one where a pair is forbidden"
        )


def _fallback(cost, duals):
    from scipy.optimize import linear_sum_assignment

    permutation = linear_sum_assignment(cost.astype(np.float64))[1]
    return Assignment(permutation, duals, float(slack(np.ascontiguousarray(cost), 1.0, duals, permutation)))


@compiled
def _solve(cost, start):
    """Return (valid, permutation, prices, gap); not valid where a cost is not finite."""
    n = cost.shape[0]
    columns, rows, prices = np.empty(n, np.int32), np.empty(n, np.int32), np.zeros(n)
    if n == 0:
        return True, columns.astype(np.int64), prices, 0.0
    least, greatest = np.empty(n, cost.dtype), np.empty(n, cost.dtype)
    if not extremes(cost, least, greatest):
        return False, columns.astype(np.int64), prices, np.nan
    scale = _scale(least, greatest)
    rough, rough_scale = least * cost.dtype.type(scale), cost.dtype.type(scale)
    if len(start) == n:
        top = start.max()
        for j in range(n):  # optimal prices of costs below 2 lie within 8 of one another
            rough[j] = max((start[j] - top) * scale, -8.0)
    if n == 1:  # no second column to bid against
        return True, np.zeros(1, np.int64), np.full(1, np.float64(cost[0, 0])), 0.0
    if n > 32 and contested(cost, rough_scale, rough, rows, max(n // 64, 1)) > 0.05:
        unit = spread(cost, rough_scale, rough)
        least_step = 2.0**-20  # below this a step may vanish in float32
        auction(cost, rough_scale, rough, columns, rows, max(0.1 * unit, least_step), max(0.001 * unit, least_step))
    prices[:] = rough
    augment(cost, scale, prices, columns, rows)
    gap = slack(cost, scale, prices, columns) / scale
    return _valid(columns, rows), columns.astype(np.int64), prices / scale, gap


@compiled
def _scale(least, greatest):
    """Return the power of two that brings the largest cost near 1, as far as float32 can hold it."""
    largest = max(np.abs(least).max(), np.abs(greatest).max())
    bound = 120 if least.itemsize == 4 else 1000
    exponent = min(max(math.frexp(largest)[1], -bound), bound)
    return 2.0**-exponent


@compiled
def _valid(columns, rows):
    """Whether columns is a permutation."""
    rows[:] = -1
    for i, j in enumerate(columns):
        if j < 0 or j >= len(rows) or rows[j] >= 0:
            return False
        rows[j] = i
    return True
