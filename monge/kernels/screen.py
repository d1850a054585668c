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
    total, inexact = np.zeros(d), np.empty(d, np.float32)
    exact_bits = inexact.view(np.uint32)
    low = np.empty(d, np.float32)
    low_bits = low.view(np.uint32)
    for row in x:
        for k in range(d):
            total[k] += row[k]
    for k in range(d):
        centre[k] = total[k] / n
    for i in range(n):
        row, out, length, lost = x[i], bits[i], 0.0, 0.0
        for k in range(d):
            inexact[k] = row[k] - centre[k]
        for k in range(d):  # to the nearest, ties to even
            low_bits[k] = exact_bits[k] + np.uint32(0x7FFF) + ((exact_bits[k] >> np.uint32(16)) & np.uint32(1))
        for k in range(d):
            low_bits[k] &= np.uint32(0xFFFF0000)
            out[k] = low_bits[k] >> np.uint32(16)
        for k in range(d):
            y, r = np.float64(inexact[k]), np.float64(inexact[k] - low[k])
            length += y * y
            lost += r * r
        norm[i] = np.sqrt(length) * (1 + 2 * _SINGLE)
        error[i] = np.sqrt(lost) + norm[i] * _SINGLE  # the difference x - centre is rounded too


_round = compiled(_round, fastmath={"reassoc", "contract"})


@compiled
def _widen(product, norm, error, largest, error_1, d, cost, bound):
    """Fill cost with minus the product and bound with how far a row of it may be off; return whether all is of a fit size."""
    for i in range(len(bound)):
        bits, row = product[i], cost[i].view(np.uint32)
        peak = np.zeros(1, np.uint32)
        for j in range(len(bits)):
            magnitude = (np.uint32(bits[j]) << np.uint32(16)) & np.uint32(0x7FFFFFFF)
            peak[0] = max(peak[0], magnitude)
        for j in range(len(bits)):
            row[j] = (np.uint32(bits[j]) << np.uint32(16)) ^ np.uint32(0x80000000)
        points = error[i] * largest + (norm[i] + error[i]) * error_1
        sums = 2 * (d + 8) * (_SINGLE * norm[i] * largest + 2.0**-126 * (1 + norm[i] + largest))  # the least are flushed
        bound[i] = np.float32(1.01 * (points + sums + _UNIT * peak.view(np.float32)[0]))
        if not bound[i] < 1e30:
            return False
    return True


def _exact(x_0, x_1, centre_0, centre_1):
    total = 0.0
    for k in range(len(x_0)):
        total += (np.float64(x_0[k]) - np.float64(centre_0[k])) * (np.float64(x_1[k]) - np.float64(centre_1[k]))
    return -total


_exact = compiled(_exact, fastmath={"reassoc", "contract"})
"""Return minus the product of two points less their centres, in float64."""


def _least_of_blocks(row, prices, least):
    for b in range(len(least)):
        start, a = b * BLOCK, np.float32(np.inf)
        for j in range(start, min(start + BLOCK, len(row))):
            h = row[j] - prices[j]
            a = h if h < a else a
        least[b] = a


_least_of_blocks = compiled(_least_of_blocks, fastmath={"reassoc", "nnan", "nsz"})
BLOCK = 64


@compiled
def _sharpen_near(cost, prices, x_0, x_1, centre_0, centre_1, bound):
    """Make exact what is within two bounds of the least of its row, at these prices; return whether that was few.

    A sixteenth of all entries takes as long as the full product would.
    """
    n, g, count = len(bound), prices.astype(np.float32), 0
    least = np.empty((n + BLOCK - 1) // BLOCK, np.float32)
    for i in range(n):
        row = cost[i]
        _least_of_blocks(row, g, least)
        bar = least.min() + np.float32(2 * bound[i])
        for b in range(len(least)):
            if least[b] <= bar:
                for j in range(b * BLOCK, min(b * BLOCK + BLOCK, n)):
                    if row[j] - g[j] <= bar:
                        row[j] = bound[i] + _exact(x_0[i], x_1[j], centre_0, centre_1)
                        count += 1
        if 16 * count > n * (i + n // 16):
            return False
    return True


@compiled
def _sharpen_matched(cost, columns, x_0, x_1, centre_0, centre_1, bound):
    """Make the matched entries exact; return how many were not."""
    changed = 0
    for i, j in enumerate(columns):
        exact = np.float32(bound[i] + _exact(x_0[i], x_1[j], centre_0, centre_1))
        changed += cost[i, j] != exact
        cost[i, j] = exact
    return changed
