"""Exact assignment of points from their bfloat16 product: only the entries that can matter are computed in full.

The product of the rounded points gives the cost -x_0 . x_1 to within a bound per row. Adding
these bounds to the rows of the exact costs does not change the optimal permutation. A matrix that mixes such raised
costs with approximate costs is a lower bound of the raised costs. If all entries that its
optimal permutation selects are raised exact costs, this permutation is optimal for the exact costs as well.
"""

from typing import NamedTuple

import numpy as np

from monge.kernels.assignment import Assignment, approach, assign, checked_start
from monge.kernels.compiled import compiled
from monge.kernels.rows import two_smallest

_UNIT, _SINGLE = 2.0**-8, 2.0**-24
"""Half a unit in the last place of 1, in bfloat16 and in float32."""


class Rounded(NamedTuple):
    """Points minus a centre, rounded to bfloat16."""

    bits: np.ndarray
    """uint16 (n, d): the bfloat16 numbers."""
    centre: np.ndarray
    """float32 (d,): the mean of a sample of the points."""
    norm: np.ndarray
    """float64 (n,): an upper bound of the norm of each point."""
    error: np.ndarray
    """float64 (n,): an upper bound of the norm of each point's rounding error."""


def rounded(x: np.ndarray) -> Rounded:
    """Return points x, contiguous float32 (n, d), minus a centre, as bfloat16. Non-finite points give non-finite norms."""
    n, d = x.shape
    result = Rounded(np.empty((n, d), np.uint16), np.empty(d, np.float32), np.empty(n), np.empty(n))
    _round(x, *result)
    return result


def too_close(x_1: np.ndarray, low_0: Rounded, low_1: Rounded) -> bool:
    """Return True if more than 1/16 of sampled pairs of targets are too close for bfloat16 products to separate."""
    return _fraction_close(x_1, low_0.norm.mean(), low_0.error.mean(), low_1.norm.max(), low_1.error.max()) > 1 / 16


def match(
    product: np.ndarray,
    x_0: np.ndarray,
    x_1: np.ndarray,
    low_0: Rounded,
    low_1: Rounded,
    prices: np.ndarray | None = None,
) -> Assignment | None:
    """Return the assignment that minimises -x_0 . x_1, or None if the full product is cheaper or an error bound too large.

    The full product is cheaper if so many pairs are close that much of it would have to be computed exactly.
    `product` holds the bits of low_0 @ low_1.T in bfloat16, accumulated in float32. `prices` are duals of the centred
    points; the costs are exact up to their final rounding to float32.
    """
    n = len(x_0)
    cost, bound = np.empty((n, n), np.float32), np.empty(n)
    largest, error = float(low_1.norm.max()), float(low_1.error.max())
    if not _widen(product, low_0.norm, low_0.error, largest, error, x_0.shape[1], cost, bound):
        return None
    duals = approach(cost, checked_start(prices, n))
    for _ in range(ROUNDS):
        if not _sharpen_near(cost, duals, x_0, x_1, low_0.centre, low_1.centre, bound):
            return None
        solution = assign(cost, duals)
        duals = solution.prices
        if not _sharpen_matched(cost, solution.permutation, x_0, x_1, low_0.centre, low_1.centre, bound):
            return solution
    return None


@compiled
def centre(x):
    """Return the mean of a sample of the points, and True if subtracting it more than halves the sum of their squares."""
    (n, d), squares = x.shape, 0.0
    mean, stride, origin = np.zeros(d), max(n // 64, 1), np.zeros(d)
    for i in range(0, n, stride):
        squares += _squared_distance(x[i], origin)
        _add(x[i], mean)
    count = (n - 1) // stride + 1
    for k in range(d):
        mean[k] /= count
    return mean, 2 * count * _squared_distance(mean, origin) > squares


def _squared_distance(x, y):
    total = 0.0
    for k in range(len(x)):
        total += (np.float64(x[k]) - np.float64(y[k])) ** 2
    return total


_squared_distance = compiled(_squared_distance, fastmath={"reassoc", "contract"})


@compiled
def rounding(x_0, x_1, centre_0, centre_1, columns):
    """Return a bound on float32 rounding in the products of matched points minus the centres, and the matching's cost."""
    (n, d), eps = x_0.shape, 2.0**-23
    lengths, longest, cost = 0.0, 0.0, 0.0
    for i in range(n):
        lengths += np.sqrt(_squared_distance(x_0[i], centre_0))
        longest = max(longest, _squared_distance(x_1[i], centre_1))
        cost += _squared_distance(x_0[i], x_1[columns[i]])
    return eps * lengths * np.sqrt(longest) + n * d * 2.0**-126, cost  # products below 2^-126 may be flushed to zero


ROUNDS = 16
"""Maximum number of solves. Each computes a few more exact costs; beyond this many, the full product is as cheap."""


@compiled
def _round(x, bits, centre, norm, error):
    n, d = x.shape
    low, stride = np.empty(d, np.uint32), max(n // 64, 1)  # any centre is valid: the mean of a sample is good enough
    inexact, single, none = np.empty(d, np.float32), low.view(np.float32), np.zeros(d, np.float32)
    centre[:] = 0
    for i in range(0, n, stride):
        _add(x[i], centre)
    for k in range(d):
        centre[k] /= np.float32((n - 1) // stride + 1)
    for i in range(n):
        _subtract(x[i], centre, inexact)
        _to_bfloat16(inexact.view(np.uint32), low, bits[i])
        norm[i] = _norm_bound(_squares(inexact, none), d)
        error[i] = _norm_bound(_squares(inexact, single), d) + norm[i] * _SINGLE  # x - centre is rounded as well


@compiled
def _add(row, total):
    for k in range(len(total)):
        total[k] += row[k]


@compiled
def _subtract(row, centre, out):
    for k in range(len(out)):
        out[k] = row[k] - centre[k]


@compiled
def _to_bfloat16(bits, low, out):
    """Round float32 bits to the nearest bfloat16, ties away from zero: as float32 bits in `low`, as 16 bits in `out`."""
    for k in range(len(bits)):  # two short loops take 60 ns, a single one 110
        low[k] = (bits[k] + np.uint32(0x8000)) & np.uint32(0xFFFF0000)
    for k in range(len(bits)):
        out[k] = (bits[k] + np.uint32(0x8000)) >> np.uint32(16)


def _squares_of_difference(x, y):
    total = np.float32(0)
    for k in range(len(x)):
        total += (x[k] - y[k]) * (x[k] - y[k])
    return total


_squares = compiled(_squares_of_difference, fastmath={"reassoc", "contract"})


@compiled
def _fraction_close(x, source, error_0, largest, error_1):
    """Return the fraction of sampled pairs of points too close to tell apart, given the errors and a source's norm."""
    (n, d), near, count = x.shape, 0, 0
    square = d * (error_0 / source * largest + error_1) ** 2
    for i in range(0, n, n // 16 + 1):
        for j in range(1, n, n // 32 + 1):
            near += i != j and _squares(x[i], x[j]) < square
            count += 1
    return near / count


@compiled
def _norm_bound(squares, d):
    """Return an upper bound of a norm whose d squares were added in float32, where they round and underflow."""
    return np.sqrt(squares * (1 + 2 * (d + 8) * _SINGLE) + d * 2.0**-125) * (1 + 2 * _SINGLE)


@compiled
def _widen(product, norm, error, largest, error_1, d, cost, bound):
    """Fill cost with minus the product, and bound with the error bound of each row; return False if a bound is too large."""
    for i in range(len(bound)):
        peak = _minus(product[i], cost[i].view(np.uint32))
        points = error[i] * largest + (norm[i] + error[i]) * error_1
        # float32 sums, in which the smallest numbers may be flushed to zero
        sums = 2 * (d + 8) * (_SINGLE * norm[i] * largest + 2.0**-126 * (1 + norm[i] + largest))
        bound[i] = np.float32(1.01 * (points + sums + _UNIT * peak))
        if not bound[i] < 1e30:
            return False
    return True


@compiled
def _minus(bits, out):
    """Fill out with the negated bfloat16 numbers, as bits of float32; return the largest magnitude."""
    peak = np.zeros(1, np.uint32)
    largest = np.uint32(0)
    for j in range(len(bits)):
        largest = max(largest, np.uint32(bits[j]) & np.uint32(0x7FFF))
        out[j] = (np.uint32(bits[j]) << np.uint32(16)) ^ np.uint32(0x80000000)
    peak[0] = largest << np.uint32(16)
    return peak.view(np.float32)[0]


def _inner(x, y):
    total = 0.0
    for k in range(len(x)):
        total += x[k] * y[k]
    return total


_inner = compiled(_inner, fastmath={"reassoc", "contract"})


@compiled
def _centred(x, centre, other, out):
    """Fill out with x minus its centre, in float64; return its product with the other centre."""
    for k in range(len(x)):
        out[k] = np.float64(x[k]) - np.float64(centre[k])
    return _inner(out, other)


@compiled
def _sharpen_near(cost, prices, x_0, x_1, centre_0, centre_1, bound):
    """Compute exactly the entries within two bounds of their row's minimum at these prices; False if there are too many.

    Computing a sixteenth of all entries takes as long as the full product.
    """
    n, g, count, size = len(bound), prices.astype(np.float32), 0, 16
    x = np.empty(x_0.shape[1])
    for i in range(n):
        row = cost[i]
        threshold = two_smallest(cost, i, g, np.float32(1))[0] + np.float32(2 * bound[i])
        offset = bound[i] + _centred(x_0[i], centre_0, centre_1, x)
        for start in range(0, n, size):
            if _within(row[start : start + size], g[start : start + size], threshold):
                for j in range(start, min(start + size, n)):
                    if row[j] - g[j] <= threshold:
                        row[j] = offset - _inner(x, x_1[j])
                        count += 1
        if 16 * count > n * (i + n // 16):
            return False
    return True


@compiled
def _within(row, prices, threshold):
    """Return the number of reduced costs at or below the threshold."""
    count = np.int32(0)
    for j in range(len(row)):
        count += np.int32(row[j] - prices[j] <= threshold)
    return count


@compiled
def _sharpen_matched(cost, columns, x_0, x_1, centre_0, centre_1, bound):
    """Compute the matched entries exactly; return the number that changed."""
    x, changed = np.empty(x_0.shape[1]), 0
    for i, j in enumerate(columns):
        if cost[i].view(np.uint32)[j] & np.uint32(0xFFFF):  # not a bfloat16 number, so already exact
            continue
        exact = np.float32(bound[i] + _centred(x_0[i], centre_0, centre_1, x) - _inner(x, x_1[j]))
        changed += cost[i, j] != exact
        cost[i, j] = exact
    return changed
