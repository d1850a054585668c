"""Entropic plans: monge against POT and log-domain loops in torch, at equal marginal error and at equal iterations.

    OMP_NUM_THREADS=1 python benchmarks/sinkhorn.py        # about five minutes

Target, for N = 256 and epsilon 0.05: four times as fast as POT numpy, twelve times as fast as the plain logsumexp loop, same
plan to 1e-4. Costs are squared distances of two point clouds divided by their mean, so epsilon is in units of the mean cost.
Times include forming the plan matrix; errors are those of the timed plans.
"""

import side_by_side as side  # sets the number of threads to one

# isort: split

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import ot
import torch
from coupling import points

from monge.math.ot import sinkhorn

EPSILONS = (0.05, 0.01, 0.001, 0.0001)
SAME_PLAN, USUAL = 1e-4, 1e-3
"""L1 marginal errors: at the first, plans agree to 1e-4, as the target above requires; the second is monge's default."""
Solved = tuple[object, int]
"""(plan, iterations)."""


@dataclass(frozen=True)
class Problem:
    """A cost in float32 and its solvers: each method takes a stopping threshold and a limit on iterations, and returns a
    Solved."""

    n: int
    d: int
    epsilon: float

    @cached_property
    def cost(self) -> np.ndarray:
        x, y = (x.numpy().astype(np.float64) for x in points(self.n, self.d, seed=0))
        cost = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
        return (cost / cost.mean()).astype(np.float32)

    @cached_property
    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.cost)

    @cached_property
    def double(self) -> np.ndarray:
        return self.cost.astype(np.float64)

    @cached_property
    def mass(self) -> np.ndarray:
        return np.full(self.n, 1 / self.n)

    def monge(self, tolerance: float, limit: int) -> Solved:
        plan = sinkhorn(self.tensor, self.epsilon, tolerance=tolerance, max_iterations=limit)
        return plan.matrix, int(plan.iterations)

    def pot(self, threshold: float, limit: int, *, method: str = "sinkhorn") -> Solved:
        """POT in float64; it checks the L2 error of the columns after 1, 11, 21... iterations (1, 21, 41... for
        sinkhorn_stabilized)."""
        return pot(self.mass, self.double, self.epsilon, threshold, limit, method)

    def pot_torch(self, threshold: float, limit: int) -> Solved:
        """POT on float32 tensors."""
        return pot(torch.full((self.n,), 1 / self.n), self.tensor, self.epsilon, threshold, limit, "sinkhorn")

    def loop(self, tolerance: float, limit: int) -> Solved:
        return log_loop(self.tensor, self.epsilon, tolerance, limit)

    def annealed_loop(self, tolerance: float, limit: int) -> Solved:
        return log_loop(self.tensor, self.epsilon, tolerance, limit, start=1.0)

    def loosest(self, solver: Callable[[float, int], Solved], error: float, limit: int) -> float:
        """The largest L2 threshold of those tried at which a POT solver's plan still has an L1 error of at most `error`;
        the strictest if there is none."""
        threshold = strictest = error / math.sqrt(self.n)  # L1 <= sqrt(n) L2
        for factor in (1, 1.25, 1.5, 2, 3, 4):
            plan, _ = solver(factor * strictest, limit)
            if not marginal_error(self.matrix(plan)) <= error:
                break
            threshold = factor * strictest
        return threshold

    def matrix(self, plan: object) -> np.ndarray:
        """A solver's plan as a float64 array."""
        return np.asarray(plan, np.float64)


def pot(mass, cost, epsilon: float, threshold: float, limit: int, method: str) -> Solved:
    plan, log = ot.sinkhorn(mass, mass, cost, epsilon, method=method, numItermax=limit, stopThr=threshold, log=True)
    return plan, 1 + (log["niter"] if "niter" in log else log["n_iter"])  # POT counts from 0


def log_loop(cost: torch.Tensor, epsilon: float, tolerance: float, limit: int, start: float | None = None) -> Solved:
    """Log-domain iterations in torch, to the limit if the tolerance is 0.

    With `start`, epsilon is annealed as in geomloss: it starts there and is divided by two after each iteration (by four
    in geomloss, by default).
    """
    (n, m), smooth = cost.shape, max(epsilon, start or epsilon)
    f, g, count = cost.new_zeros(n), cost.new_zeros(m), 0
    for _ in range(limit):
        count += 1
        f = -smooth * (torch.logsumexp((g - cost) / smooth, 1) - math.log(m))
        new = -smooth * (torch.logsumexp((f[:, None] - cost) / smooth, 0) - math.log(n))
        # the row marginals of (f, g) are exact, so this column error is the total
        if smooth == epsilon and tolerance and (torch.exp((g - new) / smooth) - 1).abs().mean() <= tolerance:
            break
        g, smooth = new, max(smooth / 2, epsilon)
    return torch.exp((f[:, None] + g - cost) / epsilon) / (n * m), count


def marginal_error(plan: np.ndarray) -> float:
    """Sum over both marginals of their L1 distances from uniform."""
    n, m = plan.shape
    return float(np.abs(plan.sum(0) - 1 / m).sum() + np.abs(plan.sum(1) - 1 / n).sum())


def rows_of(
    kind: str, problem: Problem, calls: Mapping[str, Callable[[], Solved]], *, rounds: int, seconds: float
) -> list[dict[str, object]]:
    """One row per solver: its time, its iterations and the errors of its plan."""
    times = side.compare(side.interleave(calls, rounds=rounds, seconds=seconds))
    solved = {name: call() for name, call in calls.items()}
    plans = {name: problem.matrix(plan) for name, (plan, _) in solved.items()}
    # POT does not reach 1e-9 at smaller epsilons
    exact = reference(problem) if problem.epsilon == max(EPSILONS) else None
    rows = []
    for name, plan in plans.items():
        row = {"kind": kind, "n": problem.n, "d": problem.d, "epsilon": problem.epsilon, "solver": name}
        row |= {"iterations": solved[name][1], "marginal error": marginal_error(plan)}
        if exact is not None:
            row |= {
                "n max|P - reference|": problem.n * float(np.abs(plan - exact).max()),
                "n max|P - POT|": problem.n * float(np.abs(plan - plans["POT numpy"]).max()),
            }
        rows.append(row | {"ms": times[f"{name} ms"], "/ monge": times.get(f"{name} / monge", 1.0)})
    return rows


def reference(problem: Problem) -> np.ndarray:
    """POT's plan in float64 with an L1 marginal error of at most 1e-9; RuntimeError if POT does not reach it."""
    plan = problem.matrix(problem.pot(1e-9 / math.sqrt(problem.n), 100_000)[0])
    if not (error := marginal_error(plan)) <= 1e-9:
        raise RuntimeError(f"reference: POT stopped at a marginal error of {error}; raise its limit of iterations")
    return plan


def same_count(problem: Problem, iterations: int = 50) -> list[dict[str, object]]:
    """Every solver takes the same number of iterations, since a tolerance of 0 is never reached."""
    solvers = {
        "monge": problem.monge,  # a tolerance of 0 makes its kernel use float64, as POT numpy does
        "POT numpy": problem.pot,
        "POT torch": problem.pot_torch,
        "torch log loop": problem.loop,
    }
    calls = {name: lambda s=solver: s(0.0, iterations) for name, solver in solvers.items()}
    return rows_of(f"{iterations} iterations", problem, calls, rounds=100, seconds=12)


def same_error(problem: Problem, error: float = SAME_PLAN) -> list[dict[str, object]]:
    """Every solver stops at the same L1 marginal error, by its own criterion."""
    threshold, threshold_torch = (problem.loosest(solver, error, 20_000) for solver in (problem.pot, problem.pot_torch))
    calls = {
        "monge": lambda: problem.monge(error, 20_000),
        "POT numpy": lambda: problem.pot(threshold, 20_000),
        "POT torch": lambda: problem.pot_torch(threshold_torch, 20_000),
        "torch log loop": lambda: problem.loop(error, 20_000),
    }
    return rows_of(f"to {error:g}", problem, calls, rounds=100, seconds=12)


def small_epsilon(problem: Problem, error: float = USUAL) -> list[dict[str, object]]:
    """The same with a limit on iterations: for small epsilon not all solvers converge, as their marginal errors show."""
    limits = {"sinkhorn": 20_000, "sinkhorn_log": 1000, "sinkhorn_stabilized": 5000}
    calls: dict[str, Callable[[], Solved]] = {
        "monge": lambda: problem.monge(error, 50_000),
    }
    for method, limit in limits.items():

        def peer(threshold: float, limit: int, method: str = method) -> Solved:
            return problem.pot(threshold, limit, method=method)

        loosest = problem.loosest(peer, error, limit)
        name = method.replace("sinkhorn_", "").replace("sinkhorn", "numpy")
        calls[f"POT {name}"] = lambda peer=peer, loosest=loosest, limit=limit: peer(loosest, limit)
    calls["annealed torch loop"] = lambda: problem.annealed_loop(error, 1000)
    return rows_of(f"to {error:g}", problem, calls, rounds=20, seconds=3)


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # POT warns where it fails; the table shows its errors
    np.seterr(all="ignore")
    large = [Problem(n, d, max(EPSILONS)) for n in (256, 512) for d in (2, 784)]
    close = [row for problem in large for row in same_error(problem)]
    side.print_table(f"Epsilon 0.05, all to a marginal error of {SAME_PLAN:g} (L1)", close)
    fixed = [row for problem in large for row in same_count(problem)]
    side.print_table("Epsilon 0.05, 50 iterations each", fixed)
    small = [row for d in (2, 784) for epsilon in EPSILONS for row in small_epsilon(Problem(256, d, epsilon))]
    side.print_table(f"All to a marginal error of {USUAL:g} (L1)", small)
    rows = [row | {"seed": 0} for row in close + fixed + small]
    side.write_result("sinkhorn", rows, ("numpy", "numba", "torch", "POT"))


if __name__ == "__main__":
    main()
