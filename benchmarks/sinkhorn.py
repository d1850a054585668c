"""Entropic plans: monge against POT and log-domain loops in torch, at a fixed count and to a fixed marginal error.

    OMP_NUM_THREADS=1 python benchmarks/sinkhorn.py        # about three minutes

Costs are squared distances of two point clouds divided by their mean, so epsilon is in units of the mean cost.
"""

import side_by_side as side  # it sets one thread

# isort: split

import warnings

import numpy as np
import ot
import torch
from coupling import points

from monge.kernels.sinkhorn import sinkhorn

EPSILONS = (0.05, 0.01, 0.001, 0.0001)
TOLERANCE = 1e-3


def normalised(n, d, seed):
    x, y = (x.numpy().astype(np.float64) for x in points(n, d, seed))
    cost = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return (cost / cost.mean()).astype(np.float32)


def log_loop(cost, epsilon, iterations, tolerance=0.0, start=None):
    """The plan of log-domain iterations in torch, with epsilon halved from `start` down if given, as geomloss does."""
    (n, m), smooth = cost.shape, max(epsilon, start or epsilon)
    f, g = cost.new_zeros(n), cost.new_zeros(m)
    for _ in range(iterations):
        g_old = g
        f = -smooth * (torch.logsumexp((g - cost) / smooth, 1) - np.log(m))
        g = -smooth * (torch.logsumexp((f[:, None] - cost) / smooth, 0) - np.log(n))
        if smooth == epsilon and tolerance and (torch.exp((g_old - g) / smooth) - 1).abs().mean() <= tolerance:
            break
        smooth = max(smooth / 2, epsilon)
    return (torch.exp((f[:, None] + g - cost) / epsilon) / (n * m)).double().numpy()


def plan(cost, epsilon, found):
    return np.exp((found.f[:, None] + found.g - cost.astype(np.float64)) / epsilon) / cost.size


def marginal_error(matrix):
    n, m = matrix.shape
    return float(np.abs(matrix.sum(0) - 1 / m).sum() + np.abs(matrix.sum(1) - 1 / n).sum())


def fixed_count(n, d, iterations=50, epsilon=0.05):
    cost = normalised(n, d, seed=0)
    exact, single, mass = cost.astype(np.float64), torch.from_numpy(cost), np.full(n, 1 / n)
    calls = {
        "monge": lambda: sinkhorn(cost, epsilon, tolerance=1e-5, max_iterations=iterations),
        "POT numpy": lambda: ot.sinkhorn(mass, mass, exact, epsilon, numItermax=iterations, stopThr=0),
        "POT torch": lambda: ot.sinkhorn(
            torch.from_numpy(mass).float(),
            torch.from_numpy(mass).float(),
            single,
            epsilon,
            numItermax=iterations,
            stopThr=0,
        ),
        "torch log loop": lambda: log_loop(single, epsilon, iterations),
    }
    figures = side.compare(side.interleave(calls, rounds=100, seconds=12))
    found = calls["monge"]()
    reference = log_loop(torch.from_numpy(exact), epsilon, 20000, tolerance=1e-12)
    close = sinkhorn(cost, epsilon, tolerance=1e-5, max_iterations=20000)
    row = {"kind": f"{iterations} iterations", "n": n, "d": d, "epsilon": epsilon, "monge iterations": found.iterations}
    row |= {
        "monge error": found.marginal_error,
        "max |n (P - reference)|": float(n * np.abs(plan(cost, epsilon, close) - reference).max()),
    }
    return row | figures


def to_tolerance(n, d, epsilon):
    """Each solver to an L1 marginal error of 1e-3, within a cap on its iterations; its plan gives the error."""
    cost = normalised(n, d, seed=0)
    exact, single, mass = cost.astype(np.float64), torch.from_numpy(cost), np.full(n, 1 / n)
    strict = TOLERANCE / np.sqrt(n)  # POT measures the L2 norm
    peers = {
        "POT sinkhorn": lambda: ot.sinkhorn(mass, mass, exact, epsilon, numItermax=20000, stopThr=strict),
        "POT log": lambda: ot.sinkhorn(
            mass, mass, exact, epsilon, method="sinkhorn_log", numItermax=1000, stopThr=strict
        ),
        "POT stabilized": lambda: ot.sinkhorn(
            mass, mass, exact, epsilon, method="sinkhorn_stabilized", numItermax=5000, stopThr=strict
        ),
        "annealed torch loop": lambda: log_loop(single, epsilon, 1000, TOLERANCE, start=1.0),
    }
    found = sinkhorn(cost, epsilon, tolerance=TOLERANCE, max_iterations=50000)
    calls = {"monge": lambda: sinkhorn(cost, epsilon, tolerance=TOLERANCE, max_iterations=50000)} | peers
    figures = side.compare(side.interleave(calls, rounds=20, seconds=3))
    row = {"kind": "to 1e-3", "n": n, "d": d, "epsilon": epsilon, "monge iterations": found.iterations}
    row |= {"monge error": marginal_error(plan(cost, epsilon, found))}
    return row | {f"{name} error": marginal_error(call()) for name, call in peers.items()} | figures


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # POT says where it fails; the errors below show it
    np.seterr(all="ignore")
    fixed = [fixed_count(n, d) for n in (256, 512) for d in (2, 784)]
    side.print_table("Epsilon 0.05, at most 50 iterations", fixed)
    small = [to_tolerance(256, d, epsilon) for d in (2, 784) for epsilon in EPSILONS]
    side.print_table("To a marginal error of 1e-3 (L1)", small)
    side.write_result("sinkhorn", [row | {"seed": 0} for row in fixed + small], ("numpy", "numba", "torch", "POT"))


if __name__ == "__main__":
    main()
