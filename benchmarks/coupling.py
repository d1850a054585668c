"""Exact minibatch couplings: monge against torchcfm end to end, and against scipy, lapjv and POT on cost matrices.

OMP_NUM_THREADS=1 python benchmarks/coupling.py        # about six minutes
"""

import side_by_side as side  # sets the number of threads to one

# isort: split

import lapjv
import numpy as np
import ot
import torch
from scipy.optimize import linear_sum_assignment
from torchcfm.optimal_transport import OTPlanSampler

from monge.apps.generate.toys import gaussians, moons
from monge.kernels.assignment import assign
from monge.kernels.rectangular import assign_rectangular
from monge.math.ot import optimal_permutation

POINTS = (
    (16, 2),
    (16, 784),
    (64, 2),
    (64, 784),
    (256, 2),
    (256, 784),
    (512, 2),
    (1024, 2),
    (1024, 784),
    (1024, 3072),
    (2048, 784),
    (4096, 784),
)
SHAPES = ((512, 1024, 64), (200, 4000, 64), (4000, 200, 64), (1000, 1100, 64))
"""Rectangular problems: rows, columns, dimension of the points."""
SEEDS = 5
"""Number of instances for each (n, d), used in turn; a single one for n above 1024."""


def seeds(n):
    return range(SEEDS if n <= 1024 else 1)


def seed_range(seeds):
    return f"{seeds[0]}..{seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"


def mixture(n, d, rng):
    """n draws from a standard Gaussian, and n from a mixture of ten with standard deviation 1/2 and standard normal centres."""
    centres = rng.normal(size=(10, d))
    return rng.normal(size=(n, d)), centres[rng.integers(0, 10, n)] + 0.5 * rng.normal(size=(n, d))


def points(n, d, seed):
    if d == 2:  # the data of torchcfm's OT-CFM tutorial
        generator = torch.Generator().manual_seed(seed)
        return gaussians(n, generator), moons(n, generator)
    return tuple(torch.from_numpy(x.astype(np.float32)) for x in mixture(n, d, np.random.default_rng(seed)))


def squared_distance(x, y):
    return ((x[:, None, :] - y[None]) ** 2).sum(-1).astype(np.float32)


def structured(n, seed):
    """Float32 cost matrices by name, on which assignment solvers differ most."""
    rng = np.random.default_rng(seed)
    x, y = (point.numpy() for point in points(n, 2, seed))
    noisy = x[rng.permutation(n)] + 0.01 * rng.normal(size=x.shape)
    lines = [10.0 * rng.integers(0, 5, (n, 1)) + rng.normal(size=(n, 1)) for _ in range(2)]
    coarse, fine = ([rng.integers(0, side, (n, 2)).astype(float) for _ in range(2)] for side in (8, 40))
    return {
        "nearly a permutation": squared_distance(x, noisy),
        "permutation, noise 0.1": squared_distance(x, noisy + 0.1 * rng.normal(size=x.shape)),
        "clusters on a line": squared_distance(*lines),
        "clusters on a line, |x-y|": np.abs(lines[0] - lines[1].T).astype(np.float32),
        "lattice 8x8, ties": squared_distance(*coarse),
        "lattice 40x40, ties": squared_distance(*fine),
        "points four times each": squared_distance(np.repeat(x[: n // 4], 4, 0), np.repeat(y[: n // 4], 4, 0)),
        "constant": np.full((n, n), 3.5, np.float32),
        "identity optimal": squared_distance(x, x),
    }


def earth_mover(cost):
    mass = np.full(len(cost), 1 / len(cost))
    return ot.emd(mass, mass, cost, numItermax=10**8).argmax(1)


SOLVERS = {
    "monge": lambda cost: assign(cost).permutation,
    "scipy": lambda cost: linear_sum_assignment(cost)[1],
    "lapjv": lambda cost: lapjv.lapjv(cost)[0],
    "POT emd": earth_mover,
}


def in_turn(call, instances):
    """A callable that applies `call` to the next instance each time, cyclically."""
    state = iter(())

    def next_call():
        nonlocal state
        instance = next(state, None)
        if instance is None:
            state = iter(instances)
            instance = next(state)
        return call(*instance)

    return next_call


def optimum(cost):
    """The minimum total cost of a permutation, by scipy in float64."""
    exact = cost.astype(np.float64)
    return exact[linear_sum_assignment(exact)].sum()


def excess(total, best):
    """Relative excess of a total cost over the best."""
    return float((total - best) / max(abs(best), 1e-300))


def excess_of_pairs(pairs):
    """Maximum relative excess over the optimal sum of |x - y|^2, in float64: of monge's permutation and of torchcfm's plan."""
    ours, theirs = [], []
    for x, y in pairs:
        cost = torch.cdist(x.double(), y.double()).square_().numpy()
        best = optimum(cost)
        ours.append(excess((x.double() - y[optimal_permutation(x, y)].double()).square().sum().item(), best))
        theirs.append(excess(len(x) * (OTPlanSampler("exact").get_map(x, y) * cost).sum(), best))
    return {"monge max excess / optimum": max(ours), "torchcfm max excess / optimum": max(theirs)}


def end_to_end():
    sample = OTPlanSampler("exact").sample_plan
    for n, d in POINTS:
        pairs = [points(n, d, seed) for seed in seeds(n)]
        calls = {"monge": in_turn(optimal_permutation, pairs), "torchcfm": in_turn(sample, pairs)}
        times = side.interleave(calls, rounds=2000 if n < 256 else 200, seconds=8)
        row = {"kind": "end to end", "n": n, "d": d, "seeds": seed_range(seeds(n)), "rounds": len(times["monge"])}
        yield row | side.compare(times) | excess_of_pairs(pairs)


def solve(kind, n, d, seeds, costs, seconds):
    calls = {name: in_turn(solver, [(cost,) for cost in costs]) for name, solver in SOLVERS.items()}
    rounds = 10000 if n < 64 else 500
    times = side.interleave(calls, rounds=rounds, seconds=seconds)
    figures = side.compare(times)
    best = min(SOLVERS.keys() - {"monge"}, key=lambda name: figures[f"{name} ms"])
    row = {"kind": kind, "n": n, "d": d, "seeds": seed_range(seeds), "rounds": len(times["monge"])} | {
        k: v for k, v in figures.items() if k.endswith("ms")
    }
    row |= {"best peer": best, "monge / best": figures["monge ms"] / figures[f"{best} ms"]}
    solved = [assign(cost) for cost in costs]
    totals = [cost[np.arange(n), s.permutation].sum(dtype=np.float64) for cost, s in zip(costs, solved, strict=True)]
    row["max excess / optimum"] = max(excess(total, optimum(cost)) for total, cost in zip(totals, costs, strict=True))
    return row | {"max gap": max(s.gap for s in solved)}


def solve_alone():
    for n, d in POINTS:
        pairs = [points(n, d, seed) for seed in seeds(n)]
        yield solve("points", n, d, seeds(n), [-(x_0 @ x_1.T).numpy() for x_0, x_1 in pairs], seconds=3)
    for n in (256, 1024):
        for kind, cost in structured(n, seed=0).items():
            yield solve(kind, n, "", [0], [cost], seconds=1.5)


def rectangular():
    """Squared distances of n points to m, with every row matched, or every column if there are more rows than columns."""
    for n, m, d in SHAPES:
        costs = []
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
            costs.append((np.square(x).sum(1)[:, None] - 2 * x @ y.T + np.square(y).sum(1)).astype(np.float32))
        solvers = {"monge": assign_rectangular, "scipy": linear_sum_assignment}
        calls = {name: in_turn(solver, [(cost,) for cost in costs]) for name, solver in solvers.items()}
        times = side.interleave(calls, rounds=200, seconds=3)
        row = {"kind": "rectangular", "n": n, "m": m, "d": d, "seeds": f"0..{SEEDS - 1}", "rounds": len(times["monge"])}
        columns = [assign_rectangular(cost).permutation for cost in costs]  # -1 where a row is unmatched
        totals = [cost[j >= 0, j[j >= 0]].sum(dtype=np.float64) for cost, j in zip(costs, columns, strict=True)]
        worst = max(excess(total, optimum(cost)) for total, cost in zip(totals, costs, strict=True))
        yield row | side.compare(times) | {"max excess / optimum": worst}


def main():
    torch.set_num_threads(1)
    complete = list(end_to_end())
    side.print_table("End to end: float32 points to permutation", complete)
    alone = list(solve_alone())
    side.print_table("Solve alone: float32 cost matrix to permutation", alone)
    oblong = list(rectangular())
    side.print_table("Rectangular: float32 cost matrix to assignment", oblong)
    packages = ("numpy", "numba", "torch", "torchcfm", "POT", "scipy", "lapjv")
    side.write_result("coupling", complete + alone + oblong, packages)


if __name__ == "__main__":
    main()
