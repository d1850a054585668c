"""Entropic plans: monge against POT and log-domain loops in torch, to the same marginal error and at the same count.

    OMP_NUM_THREADS=1 python benchmarks/sinkhorn.py        # about five minutes

Bar: N = 256, epsilon 0.05: four times faster than POT numpy, twelve times than the plain logsumexp loop, same plan to 1e-4.
Costs are squared distances of two point clouds divided by their mean, so epsilon is in units of the mean cost. What is
timed ends in the plan itself; errors are those of the plans that were timed.
"""

import side_by_side as side  # it sets one thread

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
"""L1 marginal errors: at the first the plans of the bar agree to 1e-4, the second is monge's default."""
Solved = tuple[object, int]
"""(plan, iterations)."""


@dataclass(frozen=True)
class Problem:
    """A cost in float32 and its solvers, each Solved by (threshold, limit on iterations)."""

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
        found = sinkhorn(self.tensor, self.epsilon, tolerance=tolerance, max_iterations=limit)
        return found.matrix, int(found.iterations)

    def pot(self, threshold: float, limit: int, *, method: str = "sinkhorn") -> Solved:
        """POT in float64; it looks at the L2 error of the columns after 1, 11, 21... iterations."""
        return pot(self.mass, self.double, self.epsilon, threshold, limit, method)

    def pot_torch(self, threshold: float, limit: int) -> Solved:
        """POT on float32 tensors."""
        return pot(torch.full((self.n,), 1 / self.n), self.tensor, self.epsilon, threshold, limit, "sinkhorn")

    def loop(self, tolerance: float, limit: int) -> Solved:
        return log_loop(self.tensor, self.epsilon, tolerance, limit)

    def annealed_loop(self, tolerance: float, limit: int) -> Solved:
        return log_loop(self.tensor, self.epsilon, tolerance, limit, start=1.0)

    def loosest(self, solver: Callable[[float, int], Solved], error: float, limit: int) -> float:
        """The L2 threshold by which a POT solver stops as early as it may: the L1 error of its plan is still within `error`."""
        threshold = strictest = error / math.sqrt(self.n)  # L1 <= sqrt(n) L2
        for factor in (1, 1.25, 1.5, 2, 3, 4):
            plan, _ = solver(factor * strictest, limit)
            if not marginal_error(self.matrix(plan)) <= error:
                break
            threshold = factor * strictest
        return threshold

    def matrix(self, found: object) -> np.ndarray:
        """What a solver found as a plan in float64."""
        return np.asarray(found, np.float64)


def pot(mass, cost, epsilon: float, threshold: float, limit: int, method: str) -> Solved:
    plan, log = ot.sinkhorn(mass, mass, cost, epsilon, method=method, numItermax=limit, stopThr=threshold, log=True)
    return plan, 1 + (log["niter"] if "niter" in log else log["n_iter"])  # it counts from 0


def log_loop(cost: torch.Tensor, epsilon: float, tolerance: float, limit: int, start: float | None = None) -> Solved:
    """Log-domain iterations in torch, with epsilon halved from `start` down if given, as geomloss does; 0 never stops."""
    (n, m), smooth = cost.shape, max(epsilon, start or epsilon)
    f, g, count = cost.new_zeros(n), cost.new_zeros(m), 0
    for _ in range(limit):
        count += 1
        f = -smooth * (torch.logsumexp((g - cost) / smooth, 1) - math.log(m))
        new = -smooth * (torch.logsumexp((f[:, None] - cost) / smooth, 0) - math.log(n))
        # the rows of (f, g) are exact, and this is the error of its columns
        if smooth == epsilon and tolerance and (torch.exp((g - new) / smooth) - 1).abs().mean() <= tolerance:
            break
        g, smooth = new, max(smooth / 2, epsilon)
    return torch.exp((f[:, None] + g - cost) / epsilon) / (n * m), count


def marginal_error(plan: np.ndarray) -> float:
    """The L1 distance of both marginals from uniform, added up."""
    n, m = plan.shape
    return float(np.abs(plan.sum(0) - 1 / m).sum() + np.abs(plan.sum(1) - 1 / n).sum())


def rows_of(
    kind: str, problem: Problem, calls: Mapping[str, Callable[[], Solved]], *, rounds: int, seconds: float
) -> list[dict[str, object]]:
    """A row for each solver: its time, its iterations, and how right its plan is."""
    times = side.compare(side.interleave(calls, rounds=rounds, seconds=seconds))
    solved = {name: call() for name, call in calls.items()}
    plans = {name: problem.matrix(found) for name, (found, _) in solved.items()}
    # POT does not solve smaller epsilons to 1e-9
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
    """POT's plan in float64, of an L1 marginal error of 1e-9."""
    plan = problem.matrix(problem.pot(1e-9 / math.sqrt(problem.n), 100_000)[0])
    if not (error := marginal_error(plan)) <= 1e-9:
        raise RuntimeError(f"reference: POT ends at a marginal error of {error}; raise its limit")
    return plan


def same_count(problem: Problem, iterations: int = 50) -> list[dict[str, object]]:
    """All are made to take the same number of iterations: no error is small enough for them."""
    solvers = {
        "monge": problem.monge,  # a tolerance of 0 keeps its kernel in float64, as POT numpy's
        "POT numpy": problem.pot,
        "POT torch": problem.pot_torch,
        "torch log loop": problem.loop,
    }
    calls = {name: lambda s=solver: s(0.0, iterations) for name, solver in solvers.items()}
    return rows_of(f"{iterations} iterations", problem, calls, rounds=100, seconds=12)


def same_error(problem: Problem, error: float = SAME_PLAN) -> list[dict[str, object]]:
    """All stop at the same L1 marginal error, by their own rules."""
    at, at_torch = (problem.loosest(solver, error, 20_000) for solver in (problem.pot, problem.pot_torch))
    calls = {
        "monge": lambda: problem.monge(error, 20_000),
        "POT numpy": lambda: problem.pot(at, 20_000),
        "POT torch": lambda: problem.pot_torch(at_torch, 20_000),
        "torch log loop": lambda: problem.loop(error, 20_000),
    }
    return rows_of(f"to {error:g}", problem, calls, rounds=100, seconds=12)


def small_epsilon(problem: Problem, error: float = USUAL) -> list[dict[str, object]]:
    """The same within a limit on iterations, for not all arrive where epsilon is small: their error tells."""
    limits = {"sinkhorn": 20_000, "sinkhorn_log": 1000, "sinkhorn_stabilized": 5000}
    calls: dict[str, Callable[[], Solved]] = {
        "monge": lambda: problem.monge(error, 50_000),
    }
    for method, limit in limits.items():

        def peer(threshold: float, limit: int, method: str = method) -> Solved:
            return problem.pot(threshold, limit, method=method)

        at, name = problem.loosest(peer, error, limit), method.replace("sinkhorn_", "").replace("sinkhorn", "numpy")
        calls[f"POT {name}"] = lambda peer=peer, at=at, limit=limit: peer(at, limit)
    calls["annealed torch loop"] = lambda: problem.annealed_loop(error, 1000)
    return rows_of(f"to {error:g}", problem, calls, rounds=20, seconds=3)


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # POT says where it fails; the errors below show it
    np.seterr(all="ignore")
    large = [Problem(n, d, max(EPSILONS)) for n in (256, 512) for d in (2, 784)]
    close = [row for problem in large for row in same_error(problem)]
    side.print_table(f"Epsilon 0.05, all to a marginal error of {SAME_PLAN:g} (L1)", close)
    fixed = [row for problem in large for row in same_count(problem)]
    side.print_table("Epsilon 0.05, all take 50 iterations", fixed)
    small = [row for d in (2, 784) for epsilon in EPSILONS for row in small_epsilon(Problem(256, d, epsilon))]
    side.print_table(f"All to a marginal error of {USUAL:g} (L1)", small)
    rows = [row | {"seed": 0} for row in close + fixed + small]
    side.write_result("sinkhorn", rows, ("numpy", "numba", "torch", "POT"))


if __name__ == "__main__":
    main()
