"""Exact assignment of points from a bfloat16 product of them: only what can matter is computed in full.

Minus the inner product of two points is known from the product of their roundings to within a bound per row. A matrix
that holds exact costs, raised by the bound of their row, among approximate ones is a lower bound of the costs raised by
those bounds, which no permutation can see. Where all entries of its optimum are exact, that is the optimum of the costs.
"""

from typing import NamedTuple

import numpy as np

from monge.kernels.assignment import Assignment, approach, assign, checked_start
from monge.kernels.compiled import compiled

_UNIT, _SINGLE = 2.0**-8, 2.0**-24
"""Half a unit in the last place of 1 in bfloat16 and in float32."""


class Rounded(NamedTuple):
    """Points less their mean, rounded to bfloat16."""

    bits: np.ndarray
    """uint16 (n, d): the bfloat16 numbers."""
    centre: np.ndarray
    """float32 (d,): the mean."""
    norm: np.ndarray
    """float64 (n,): an upper bound of the length of each point."""
    error: np.ndarray
    """float64 (n,): an upper bound of the length of what the rounding took from each."""


def rounded(x: np.ndarray) -> Rounded:
    """Return float32 points (n, d), contiguous, less their mean and in bfloat16. Not finite points give norms that are not."""
    n, d = x.shape
    result = Rounded(np.empty((n, d), np.uint16), np.empty(d, np.float32), np.empty(n), np.empty(n))
    _round(x, *result)
    return result


def match(
    product: np.ndarray,
    x_0: np.ndarray,
    x_1: np.ndarray,
    low_0: Rounded,
    low_1: Rounded,
    prices: np.ndarray | None = None,
) -> Assignment | None:
    """Return the assignment of least -x_0 . x_1, or None where so many pairs are close that the full product is cheaper.

    `product` holds the bits of low_0 @ low_1.T in bfloat16, accumulated in float32. The prices are duals of the centred
    points; the costs are exact up to their last rounding to float32.
    """
    n = len(x_0)
    cost, bound = np.empty((n, n), np.float32), np.empty(n)
    largest, error = float(low_1.norm.max()), float(low_1.error.max())
    if not _widen(product, low_0.norm, low_0.error, largest, error, x_0.shape[1], cost, bound):
        return None
    near = approach(cost, checked_start(prices, n))
    if not _sharpen_near(cost, near, x_0, x_1, low_0.centre, low_1.centre, bound):
        return None
    for _ in range(ROUNDS):
        found = assign(cost, near)
        near = found.prices
        if not _sharpen_matched(cost, found.permutation, x_0, x_1, low_0.centre, low_1.centre, bound):
            return found
    return None


ROUNDS = 16
"""Solutions with an approximate entry, each a few exact costs away from the next, before the full product is as cheap."""


def _round(x, bits, centre, norm, error):
    n, d = x.shape
    total = np.zeros(d)
    for i in range(n):
        for k in range(d):
            total[k] += x[i, k]
    for k in range(d):
        centre[k] = total[k] / n
    y = np.empty(d, np.float32)
    y_bits, z_bits = y.view(np.uint32), np.empty(d, np.uint32)
    z = z_bits.view(np.float32)
    for i in range(n):
        length, lost = np.float64(0), np.float64(0)
        for k in range(d):
            y[k] = x[i, k] - centre[k]
        for k in range(d):  # to the nearest, ties to even
            above = (y_bits[k] + np.uint32(0x7FFF) + ((y_bits[k] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
            z_bits[k] = above << np.uint32(16)
            bits[i, k] = above
        for k in range(d):
            length += np.float64(y[k]) * np.float64(y[k])
            lost += np.float64(y[k] - z[k]) * np.float64(y[k] - z[k])
        norm[i] = np.sqrt(length) * (1 + 2 * _SINGLE)
        error[i] = np.sqrt(lost) * (1 + 2 * _SINGLE) + norm[i] * _SINGLE  # the difference x - centre is rounded too


_round = compiled(_round, fastmath={"reassoc", "contract"})


def _widen(product, norm, error, largest, error_1, d, cost, bound):
    n = len(bound)
    bits = cost.view(np.uint32)
    for i in range(n):
        peak = np.float32(0)
        for j in range(n):
            bits[i, j] = (np.uint32(product[i, j]) << np.uint32(16)) ^ np.uint32(0x80000000)
        for j in range(n):
            c = abs(cost[i, j])
            peak = c if c > peak else peak
        points = error[i] * largest + (norm[i] + error[i]) * error_1
        sums = (
            2 * (d + 8) * (_SINGLE * norm[i] * largest + 2.0**-126 * (1 + norm[i] + largest))
        )  # the least are flushed
        bound[i] = np.float32(1.01 * (points + sums + _UNIT * peak))
        if not bound[i] < 1e30:
            return False
    return True


_widen = compiled(_widen, fastmath={"reassoc"})
"""Fill cost with minus the product and bound with how far a row of it may be off; return whether all is of a fit size."""


def _inner(x, y):
    total = 0.0
    for k in range(len(x)):
        total += x[k] * y[k]
    return total


_inner = compiled(_inner, fastmath={"reassoc", "contract"})


@compiled
def _centred(x, centre, other, out):
    """Fill out with x less its centre, in float64; return its product with the other centre."""
    for k in range(len(x)):
        out[k] = np.float64(x[k]) - np.float64(centre[k])
    return _inner(out, other)


def _least(row, prices):
    least = np.float32(np.inf)
    for j in range(len(row)):
        h = row[j] - prices[j]
        least = h if h < least else least
    return least


_least = compiled(_least)


@compiled
def _sharpen_near(cost, prices, x_0, x_1, centre_0, centre_1, bound):
    """Make exact what is within 1.5 bounds of the least of its row, at these prices; return whether that was few.

    A sixteenth of all entries takes as long as the full product would.
    """
    n, x, g, count = len(bound), np.empty(x_0.shape[1]), prices.astype(np.float32), 0
    for i in range(n):
        row = cost[i]
        bar = _least(row, g) + np.float32(1.5 * bound[i])
        offset = bound[i] + _centred(x_0[i], centre_0, centre_1, x)
        for j in range(n):
            if row[j] - g[j] <= bar:
                row[j] = offset - _inner(x, x_1[j])
                count += 1
        if 16 * count > n * (i + n // 16):
            return False
    return True


@compiled
def _sharpen_matched(cost, columns, x_0, x_1, centre_0, centre_1, bound):
    """Make the matched entries exact; return how many were not."""
    x, changed = np.empty(x_0.shape[1]), 0
    for i, j in enumerate(columns):
        offset = bound[i] + _centred(x_0[i], centre_0, centre_1, x)
        exact = np.float32(offset - _inner(x, x_1[j]))
        changed += cost[i, j] != exact
        cost[i, j] = exact
    return changed
