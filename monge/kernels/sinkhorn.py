"""Entropic transport between uniform marginals: fused iterations, absorbed potentials. Peyre & Cuturi 2019, 4.4."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from monge.kernels.auction import extremes
from monge.kernels.compiled import compiled
from monge.kernels.gibbs import gibbs, iterate, transform


class Solution(NamedTuple):
    """The plan exp((f_i + g_j - cost_ij) / epsilon) / (n m), whose mass is 1, with its dual potentials."""

    plan: np.ndarray
    """(n, m), float32, or float64 if tolerance < 1e-5."""

    f: np.ndarray
    """float64 (n,), in units of cost."""
    g: np.ndarray
    """float64 (m,), in units of cost."""
    marginal_error: float
    """L1 distance of the plan's column marginals from uniform; the row marginals are exact up to rounding."""
    iterations: int


def sinkhorn(
    cost: np.ndarray,
    epsilon: float,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 1000,
    f: np.ndarray | None = None,
    g: np.ndarray | None = None,
) -> Solution:
    """Return the entropic plan between uniform marginals of a float32 or float64 cost (n, m).

    The loop stops at a marginal error of `tolerance` (L1) or after `max_iterations`; the returned error shows which. The
    kernel is stored in float32, or in float64 if tolerance < 1e-5. Small epsilons are approached from larger ones, unless
    an initial `f` or `g` is given; with `g`, `f` is ignored. ValueError if epsilon is not positive, or if the cost is empty
    or not finite.
    """
    if not epsilon > 0 or not np.isfinite(epsilon):
        raise ValueError(f"sinkhorn: epsilon is {epsilon}; give a positive number, in units of cost")
    if cost.ndim != 2 or 0 in cost.shape:
        raise ValueError(f"sinkhorn: cost has shape {cost.shape}; give a matrix with rows and columns")
    if not cost.flags.carray:  # numba would compile again for a read-only or strided array
        cost = cost.copy()
    n, m = cost.shape
    kernel = np.empty((n, m), np.float32 if tolerance >= 1e-5 else np.float64)
    start_f, start_g = _start("f", f, n), _start("g", g, m)
    potential_f, potential_g, error, iterations = _solve(
        cost, float(epsilon), float(tolerance), max_iterations, start_f, start_g, kernel
    )
    if iterations < 0:
        i, j = np.argwhere(~np.isfinite(cost))[0]
        raise ValueError(f"sinkhorn: cost[{i}, {j}] is {cost[i, j]}; give finite costs")
    return Solution(kernel, potential_f, potential_g, error, iterations)


def sinkhorn_many(
    costs: Sequence[np.ndarray],
    epsilon: float,
    *,
    tolerance: float = 1e-3,
    max_iterations: int = 1000,
    workers: int = 1,
) -> list[Solution]:
    """Return the plan of each matrix, `workers` in parallel with one thread each; sizes may differ."""

    def solve(cost):
        return sinkhorn(cost, epsilon, tolerance=tolerance, max_iterations=max_iterations)

    if workers <= 1 or len(costs) <= 1:
        return [solve(cost) for cost in costs]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(solve, costs))


_NO_START = np.empty(0)


def _start(name, potential, size):
    if potential is None:
        return _NO_START
    potential = np.ascontiguousarray(potential, dtype=np.float64)
    if potential.shape != (size,) or not np.isfinite(potential).all():
        raise ValueError(f"sinkhorn: {name} must be {size} finite numbers; its shape is {potential.shape}")
    return potential


@compiled
def _solve(cost, epsilon, tolerance, max_iterations, start_f, start_g, kernel):
    """Return (f, g, error, iterations) and leave the plan in `kernel`; -1 iterations if a cost is not finite."""
    n, m = cost.shape
    f, g = np.empty(n), np.empty(m)
    least, greatest = np.empty(m, cost.dtype), np.empty(m, cost.dtype)
    if not extremes(cost, least, greatest):
        return f, g, np.nan, -1
    smooth = epsilon
    if len(start_g):
        g[:] = start_g
    elif len(start_f):
        g[:] = np.inf
        for i in range(n):
            g[:] = np.minimum(g, cost[i] - start_f[i])
    else:
        g[:] = least
        smooth = max(epsilon, _slack(cost, g) / 25)
    done = 0
    while smooth > epsilon and max_iterations - done > 1:  # converging at larger epsilons saves far more than it costs
        done += descend(cost, smooth, max(2 * tolerance, 0.002), (max_iterations - done) // 2, f, g, kernel, 0.0)[1]
        smooth = max(smooth / 4, epsilon)
    error, count = descend(cost, epsilon, tolerance, max_iterations - done, f, g, kernel, 1.0)
    return f, g, error, done + count


@compiled
def _slack(cost, g):
    """Return the mean of cost - f - g over a sample of rows, with f the c-transform of g."""
    total, count = 0.0, 0
    for i in range(0, len(cost), max(len(cost) // 32, 1)):
        reduced = cost[i] - g
        total += reduced.mean() - reduced.min()
        count += 1
    return total / count


@compiled
def descend(cost, epsilon, tolerance, limit, f, g, kernel, mass):
    """Run over-relaxed iterations at one epsilon from g; set f and g, return the marginal error and the iterations.

    With a mass above 0, `kernel` becomes the plan of that mass.
    """
    n = len(f)
    u, v, column = np.ones_like(kernel[:, 0]), np.empty_like(kernel[0]), np.empty_like(kernel[0])
    absorb(cost, epsilon, f, g, v, kernel)
    omega, error, last_error, count = 1.0, np.inf, np.inf, 0
    while True:
        iterate(kernel, v, u, column)
        count += 1
        error = excess(v, column, n)
        if error <= tolerance or count >= limit:
            break
        if count % 8 == 0:
            omega = relaxation(omega, (error / last_error) ** 0.125)
            last_error = error
        least, greatest = correct(v, column, n, omega)
        if least < 1e-15 or greatest > 1e15:
            fold(f, g, u, v, epsilon)
            absorb(cost, epsilon, f, g, v, kernel)
    fold(f, g, u, v, epsilon)
    if mass > 0:
        share = mass / kernel.size
        for i in range(n):
            scale = kernel.dtype.type(u[i] * share)
            for j in range(len(g)):
                kernel[i, j] *= scale * v[j]
    return error, count


@compiled
def relaxation(omega, rate):
    """Return the over-relaxation factor for the observed rate. Young 1954; for Sinkhorn, Lehmann et al. 2021."""
    if rate >= 1:
        return 1 + (omega - 1) / 2
    if rate <= omega - 1:
        return omega
    squared = (rate + omega - 1) ** 2 / (rate * omega**2)
    return min(2 / (1 + np.sqrt(max(1 - squared, 0.0))), 1.99)


def _excess(v, column, n):
    error, one, mass = v.dtype.type(0), v.dtype.type(1), v.dtype.type(n)
    for j in range(len(v)):
        error += abs(v[j] * column[j] / mass - one)
    return np.float64(error) / len(v)


excess = compiled(_excess, fastmath={"reassoc", "contract"})
"""Return the L1 error of the column marginals."""


def _correct(v, column, n, omega):
    one, mass, omega = v.dtype.type(1), v.dtype.type(n), v.dtype.type(omega)
    least, greatest = v.dtype.type(1), v.dtype.type(1)
    for j in range(len(v)):
        ratio = mass / (v[j] * column[j])
        step = one + omega * (ratio - one)
        w = v[j] * (step if ratio > 0.7 and ratio < 1.5 else ratio)
        least = w if w < least else least
        greatest = w if w > greatest else greatest
        v[j] = w
    return least, greatest


correct = compiled(_correct, fastmath={"reassoc", "contract", "nnan", "nsz"})
"""Move v towards, or beyond, the scaling that corrects its columns; return its minimum and maximum, with 1 included."""


@compiled
def fold(f, g, u, v, epsilon):
    """Absorb the scalings u and v into the potentials f and g."""
    for i in range(len(f)):
        f[i] += epsilon * np.log(np.float64(u[i]))
    for j in range(len(g)):
        g[j] += epsilon * np.log(np.float64(v[j]))


@compiled
def absorb(cost, epsilon, f, g, v, kernel):
    """Set f and g to c-transforms of each other, v to the scaling that restores the old g, and fill the kernel."""
    before = g.copy()
    transform(cost, g, f)
    for j in range(len(g)):
        v[j] = np.exp(max((before[j] - g[j]) / epsilon, -30.0))
    gibbs(cost, epsilon, f, g, kernel)
