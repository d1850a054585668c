"""The Gibbs kernel exp((f + g - cost) / epsilon) of potentials, and one fused Sinkhorn iteration on it."""

import math
from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from monge.kernels.compiled import compiled
from monge.kernels.rows import two_smallest


def _bits(typing, bits):
    return types.float32(types.int32), lambda context, b, sig, args: b.bitcast(args[0], ir.FloatType())


_float_of_bits: Callable = intrinsic(_bits)
"""Return the float32 with the bits of an int32."""


def _exp2(t, like):
    """Return 2^t for t <= 0 in the precision of `like`; t is clamped to at least -125."""
    raise NotImplementedError


@overload(_exp2, inline="always")
def _exp2_in(t, like):
    return _exp2_single if like == types.float32 else _exp2_double


def _exp2_single(t, like):
    # Minimax polynomial of 2^r - 1 on [-1/2, 1/2], times the power of two whose exponent is round(t).
    t = max(t, -125.0)
    integer = (t + 6755399441055744.0) - 6755399441055744.0  # adding 1.5 * 2^52 rounds to an integer
    r = np.float32(t - integer)
    p = np.float32(0.00015403530393381608)
    p = p * r + np.float32(0.0013333558146428443)
    p = p * r + np.float32(0.009618129107628477)
    p = p * r + np.float32(0.05550410866482158)
    p = p * r + np.float32(0.2402265069591007)
    p = p * r + np.float32(0.6931471805599453)
    p = p * r + np.float32(1.0)
    return p * _float_of_bits(np.int32((np.int32(integer) + np.int32(127)) << np.int32(23)))


def _exp2_double(t, like):
    return math.exp(max(t, -125.0) * 0.6931471805599453)


def _gibbs(cost, epsilon, f, g, kernel):
    per_bit = 1.4426950408889634 / epsilon
    like = kernel.dtype.type(0)
    for i in range(cost.shape[0]):
        row, out, f_i = cost[i], kernel[i], f[i]
        for j in range(cost.shape[1]):
            out[j] = _exp2((f_i - np.float64(row[j]) + g[j]) * per_bit, like)


gibbs = compiled(_gibbs, fastmath={"contract"})
"""Fill `kernel` with exp((f + g - cost) / epsilon): the exponent in float64, the exponential in the precision of `kernel`."""


@compiled
def transform(cost, g, f):
    """Set f_i = min_j(cost[i, j] - g_j), then g_j = min_i(cost[i, j] - f_i).

    The kernel of these potentials is at most 1, with a 1 in each row and each column.
    """
    for i in range(len(f)):
        f[i] = two_smallest(cost, i, g, 1.0)[0]
    best = np.full(len(g), np.inf)
    for i in range(len(f)):
        row, f_i = cost[i], f[i]
        for j in range(len(g)):
            c = np.float64(row[j]) - f_i
            best[j] = c if c < best[j] else best[j]
    g[:] = best


def _iterate(kernel, v, u, column):
    n, m = kernel.shape
    column[:] = 0
    zero, mean = kernel.dtype.type(0), kernel.dtype.type(m)
    for i in range(0, n - n % 4, 4):
        k0, k1, k2, k3 = kernel[i], kernel[i + 1], kernel[i + 2], kernel[i + 3]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for j in range(m):
            s0 += k0[j] * v[j]
            s1 += k1[j] * v[j]
            s2 += k2[j] * v[j]
            s3 += k3[j] * v[j]
        u0, u1, u2, u3 = mean / s0, mean / s1, mean / s2, mean / s3
        u[i], u[i + 1], u[i + 2], u[i + 3] = u0, u1, u2, u3
        for j in range(m):
            column[j] += (k0[j] * u0 + k1[j] * u1) + (k2[j] * u2 + k3[j] * u3)
    for i in range(n - n % 4, n):
        k0, s0 = kernel[i], zero
        for j in range(m):
            s0 += k0[j] * v[j]
        u0 = mean / s0
        u[i] = u0
        for j in range(m):
            column[j] += k0[j] * u0


iterate = compiled(_iterate, fastmath={"contract", "reassoc"})
"""Set u so that the rows of u K v average 1, and `column` to u K, four rows at a time while they are in cache."""
