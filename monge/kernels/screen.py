"""Exact assignment of points from a bfloat16 product of them: only what can matter is computed in full.

Minus the inner product of two points is known from the product of their roundings to within a bound per row. A matrix
that holds exact costs, raised by the bound of their row, among approximate ones is a lower bound of the costs raised by
those bounds, which no permutation can see. Where all entries of its optimum are exact, that is the optimum of the costs.
"""

from typing import NamedTuple

import numpy as np

from monge.kernels.assignment import Assignment, approach, assign, checked_start
from monge.kernels.compiled import compiled
from monge.kernels.rows import two_smallest

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


def crowded(x_1: np.ndarray, low_0: Rounded, low_1: Rounded) -> bool:
    """Whether many targets are so alike, seen from a typical source, that bfloat16 cannot tell them apart; by a sample."""
    return _alike(x_1, low_0.norm.mean(), low_0.error.mean(), low_1.norm.max(), low_1.error.max()) > 1 / 16


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
    for _ in range(ROUNDS):
        if not _sharpen_near(cost, near, x_0, x_1, low_0.centre, low_1.centre, bound):
            return None
        found = assign(cost, near)
        near = found.prices
        if not _sharpen_matched(cost, found.permutation, x_0, x_1, low_0.centre, low_1.centre, bound):
            return found
    return None


@compiled
def centre(x):
    """Return the mean of some 64 points, and whether subtracting it halves their squares."""
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
    """Return the most that float32 rounds off the products of matched points less the centres, and the matching's cost."""
    (n, d), eps = x_0.shape, 2.0**-23
    lengths, longest, cost = 0.0, 0.0, 0.0
    for i in range(n):
        lengths += np.sqrt(_squared_distance(x_0[i], centre_0))
        longest = max(longest, _squared_distance(x_1[i], centre_1))
        cost += _squared_distance(x_0[i], x_1[columns[i]])
    return eps * lengths * np.sqrt(longest) + n * d * 2.0**-126, cost  # products below 2^-126 may be flushed to zero


ROUNDS = 16
"""Solutions with an approximate entry, each a few exact costs away from the next, before the full product is as cheap."""


@compiled
def _round(x, bits, centre, norm, error):
    n, d = x.shape
    low, stride = np.empty(d, np.uint32), max(n // 64, 1)  # any centre is right: the mean of some points is good enough
    inexact, single, none = np.empty(d, np.float32), low.view(np.float32), np.zeros(d, np.float32)
    centre[:] = 0
    for i in range(0, n, stride):
        _add(x[i], centre)
    for k in range(d):
        centre[k] /= np.float32((n - 1) // stride + 1)
    for i in range(n):
        _subtract(x[i], centre, inexact)
        _to_bfloat16(inexact.view(np.uint32), low, bits[i])
        norm[i] = _at_most(_squares(inexact, none), d)
        error[i] = _at_most(_squares(inexact, single), d) + norm[i] * _SINGLE  # x - centre is rounded as well


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
    """Round float32 to bfloat16, to the nearest, ties away from zero; low has it as float32, out its 16 bits."""
    for k in range(len(bits)):  # two short loops take 60 ns where one takes 110
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
def _alike(x, source, error_0, largest, error_1):
    """Return the part of some pairs of points that differ less, seen from a source so far, than the errors."""
    (n, d), near, count = x.shape, 0, 0
    square = d * (error_0 / source * largest + error_1) ** 2
    for i in range(0, n, n // 16 + 1):
        for j in range(1, n, n // 32 + 1):
            near += i != j and _squares(x[i], x[j]) < square
            count += 1
    return near / count


@compiled
def _at_most(squares, d):
    """An upper bound of the length whose d squares were added up in float32, where they round and underflow."""
    return np.sqrt(squares * (1 + 2 * (d + 8) * _SINGLE) + d * 2.0**-125) * (1 + 2 * _SINGLE)


@compiled
def _widen(product, norm, error, largest, error_1, d, cost, bound):
    """Fill cost with minus the product and bound with how far a row of it may be off; return whether all is of a fit size."""
    for i in range(len(bound)):
        peak = _minus(product[i], cost[i].view(np.uint32))
        points = error[i] * largest + (norm[i] + error[i]) * error_1
        # float32 sums, in which the least numbers may be flushed to zero
        sums = 2 * (d + 8) * (_SINGLE * norm[i] * largest + 2.0**-126 * (1 + norm[i] + largest))
        bound[i] = np.float32(1.01 * (points + sums + _UNIT * peak))
        if not bound[i] < 1e30:
            return False
    return True


@compiled
def _minus(bits, out):
    """Fill out with minus the bfloat16 numbers, as bits of float32; return the largest magnitude."""
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
    """Fill out with x less its centre, in float64; return its product with the other centre."""
    for k in range(len(x)):
        out[k] = np.float64(x[k]) - np.float64(centre[k])
    return _inner(out, other)


@compiled
def _sharpen_near(cost, prices, x_0, x_1, centre_0, centre_1, bound):
    """Make exact what is within two bounds of the least of its row, at these prices; return whether that was few.

    A sixteenth of all entries takes as long as the full product would.
    """
    n, g, count, size = len(bound), prices.astype(np.float32), 0, 16
    x = np.empty(x_0.shape[1])
    for i in range(n):
        row = cost[i]
        bar = two_smallest(cost, i, g, np.float32(1))[0] + np.float32(2 * bound[i])
        offset = bound[i] + _centred(x_0[i], centre_0, centre_1, x)
        for start in range(0, n, size):
            if _within(row[start : start + size], g[start : start + size], bar):
                for j in range(start, min(start + size, n)):
                    if row[j] - g[j] <= bar:
                        row[j] = offset - _inner(x, x_1[j])
                        count += 1
        if 16 * count > n * (i + n // 16):
            return False
    return True


@compiled
def _within(row, prices, bar):
    """Return how many reduced costs reach down to the bar."""
    count = np.int32(0)
    for j in range(len(row)):
        count += np.int32(row[j] - prices[j] <= bar)
    return count


@compiled
def _sharpen_matched(cost, columns, x_0, x_1, centre_0, centre_1, bound):
    """Make the matched entries exact; return how many were not."""
    x, changed = np.empty(x_0.shape[1]), 0
    for i, j in enumerate(columns):
        if cost[i].view(np.uint32)[j] & np.uint32(0xFFFF):  # no bfloat16: it is exact already
            continue
        exact = np.float32(bound[i] + _centred(x_0[i], centre_0, centre_1, x) - _inner(x, x_1[j]))
        changed += cost[i, j] != exact
        cost[i, j] = exact
    return changed
