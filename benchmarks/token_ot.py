"""Transport of tokens in a container of 256 slots, width 2048: monge and POT; planted matches with raw and calibrated prices.

    OMP_NUM_THREADS=1 python benchmarks/token_ot.py        # about six minutes

Targets: the exact assignment takes a twentieth of the time of POT in float64 to a marginal error of 1e-3, and the entropic plan
to the same error a seventh; neither is slower while another process loads the other core. Calibrated prices recover 58 of 60
planted matches and the length; for 60 source tokens, the raw prices of HERMES recover no match, and the length of their
barycentres is 0 or 196. (Under the exact assignment the coupled target always has the target's length.)

One sample at a time, epsilon 0.05 in units of a typical match. "cost + solve" includes building the four blocks, in float32 for
monge and in float64 for POT; "solve" excludes it. "POT to 0.001" uses the loosest L2 threshold tried at which its plan has
an L1 error of at most 1e-3; POT checks it every ten iterations.
"""

import side_by_side as side  # sets one thread

# isort: split

import itertools
import multiprocessing
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from coupling import in_turn
from sinkhorn import USUAL, Problem, Solved, marginal_error, pot
from torch import Tensor

from monge.apps.translate.calibrate import measure, measured, token_cost
from monge.apps.translate.data import Split
from monge.apps.translate.pair import Pairs
from monge.apps.translate.prices import Prices
from monge.apps.translate.space import Packed, Space
from monge.math.container import Container
from monge.math.cost import FourBlock, calibrate, cosine
from monge.math.ot import assignment, sinkhorn
from monge.math.random import seeded
from monge.math.types import Pair

CONTAINER, WIDTH, EPSILON, SAMPLES, LIMIT = Container(256), 2048, 0.05, 8, 20_000
NOISE = 0.5
"""Standard deviation of a copy's noise; entries have variance 1. Below 0.34 raw prices recover matches in all sets, since
creating a token costs a tenth of its squared norm."""
SETS, CALIBRATED = ((60, 60), (60, 120), (196, 120)), 100
"""(source, target) lengths, and the number of such pairs for the calibration; the first SAMPLES of them are evaluated."""
RAW = Prices(create_norm=0.1, priority=0.0, raw=True)


@dataclass(frozen=True)
class Planted:
    """Two sequences; token i[k] of the source matches token j[k] of the target."""

    source: Tensor
    target: Tensor
    i: Tensor
    j: Tensor


def planted(n: int, m: int, number: int) -> Planted:
    """min(n, m) noisy copies, moved by up to three places, among unmatched tokens."""
    draws, count = seeded(0, n, m, number), min(n, m)
    chosen, j = (torch.randperm(length, generator=draws)[:count].sort().values for length in (n, m))
    i = chosen[(torch.arange(count) + 3 * torch.rand(count, generator=draws)).argsort()]
    x = torch.randn(n, WIDTH, generator=draws)
    y = torch.randn(m, WIDTH, generator=draws) * (1 + NOISE**2) ** 0.5
    y[j] = x[i] + NOISE * torch.randn(count, WIDTH, generator=draws)
    return Planted(x, y, i, j)


@dataclass(frozen=True)
class InMemory(Pairs):
    """Pairs in memory; all of them are training pairs."""

    pairs: Sequence[Planted]

    @cached_property
    def metadata(self) -> dict[str, Any]:
        return {"width": WIDTH, "capacity": CONTAINER.capacity}

    def split(self, split: Split) -> np.ndarray:
        return np.arange(len(self.pairs))

    def lengths(self, end: str) -> np.ndarray:
        return np.array([len(getattr(pair, end)) for pair in self.pairs])

    def sequence(self, end: str, number: int) -> Tensor:
        return getattr(self.pairs[number], end)


@dataclass(frozen=True)
class Tokens(Problem):
    """The four-block cost of a pair, and its states in float32 and float64."""

    blocks: FourBlock
    states: Pair
    double_states: Pair

    @cached_property
    def cost(self) -> np.ndarray:
        return token_cost(CONTAINER, self.blocks, self.states)[0].numpy()

    @cached_property
    def threshold(self) -> float:
        return self.loosest(self.pot, USUAL, LIMIT)

    def single(self, fresh: bool) -> Tensor:
        """The cost as passed to monge, rebuilt if `fresh`."""
        return token_cost(CONTAINER, self.blocks, self.states)[0] if fresh else self.tensor

    def peer(self, fresh: bool) -> np.ndarray:
        """The cost as passed to POT, rebuilt if `fresh`."""
        return token_cost(CONTAINER, self.blocks, self.double_states)[0].numpy() if fresh else self.double


def exact(problem: Tokens, fresh: bool = False) -> Solved:
    columns = assignment(problem.single(fresh))
    return columns, 0


def entropic(problem: Tokens, fresh: bool = False) -> Solved:
    plan = sinkhorn(problem.single(fresh), EPSILON, tolerance=USUAL, max_iterations=LIMIT)
    return plan.matrix, int(plan.iterations)


def pot_to(problem: Tokens, fresh: bool = False) -> Solved:
    return pot(problem.mass, problem.peer(fresh), EPSILON, problem.threshold, LIMIT, "sinkhorn")


def pot_200(problem: Tokens, fresh: bool = False) -> Solved:
    return pot(problem.mass, problem.peer(fresh), EPSILON, 0.0, 200, "sinkhorn")


def pot_log_200(problem: Tokens, fresh: bool = False) -> Solved:
    return pot(problem.mass, problem.peer(fresh), EPSILON, 0.0, 200, "sinkhorn_log")


PEER = f"POT to {USUAL:g}"
SOLVERS = {
    "monge exact": exact,
    f"monge to {USUAL:g}": entropic,
    PEER: pot_to,
    "POT 200 iterations": pot_200,
    "POT log 200 iterations": pot_log_200,
}
OURS = {"monge exact": 20, f"monge to {USUAL:g}": 7}
"""Target speed-up over the peer."""


def problems(*, default: bool) -> list[Tokens]:
    """Pairs of 40 to 200 tokens at the prices of `--prices.rule quantile`, or with creation and deletion at the price of a
    typical match."""
    instances = []
    for number in range(SAMPLES):
        n, m = torch.randint(40, 201, (2,), generator=seeded(1, number)).tolist()
        pair = planted(n, m, number)
        unit, price = calibrate(1 - torch.nn.functional.cosine_similarity(pair.source[pair.i], pair.target[pair.j]))
        price, priority = (price, Prices().priority) if default else (1.0, 0.0)
        blocks = FourBlock(unit, delete=price, create=price, priority=priority, content=cosine)
        states, double = (
            Pair(CONTAINER.pack([pair.source.to(dtype)]), CONTAINER.pack([pair.target.to(dtype)]))
            for dtype in (torch.float32, torch.float64)
        )
        instances.append(Tokens(CONTAINER.capacity, WIDTH, EPSILON, blocks, states, double))
    return instances


def solvers(name: str, instances: Sequence[Tokens], *, seconds: float) -> Iterator[dict[str, object]]:
    """A row of times per solver, without and with the cost."""
    calls = {
        f"{solver}{', with cost' * fresh}": in_turn(call, [(problem, fresh) for problem in instances])
        for solver, call in SOLVERS.items()
        for fresh in (False, True)
    }
    times = side.interleave(calls, rounds=200, seconds=seconds)
    ms = {key: 1e3 * statistics.median(taken) for key, taken in times.items()}
    for solver, call in SOLVERS.items():
        solved = [call(problem) for problem in instances]
        errors = [] if call is exact else [marginal_error(np.asarray(plan, np.float64)) for plan, _ in solved]
        alone, both = ms[solver], ms[f"{solver}, with cost"]
        yield {
            "prices": name,
            "solver": solver,
            "iterations": statistics.median(count for _, count in solved),
            "marginal error": max(errors, default=0.0),
            "solve ms": alone,
            "speed-up over POT": ms[PEER] / alone,
            "cost + solve ms": both,
            "speed-up over POT, with cost": ms[f"{PEER}, with cost"] / both,
            "target": OURS.get(solver, ""),
            "rounds": len(times[solver]),
        }


def neighbour(costs: list[np.ndarray], busy: Event, ready: Event) -> None:
    """Solve repeatedly while `busy` is set."""
    torch.set_num_threads(1)
    for cost in itertools.cycle(map(torch.from_numpy, costs)):
        busy.wait()
        assignment(cost)
        sinkhorn(cost, EPSILON, max_iterations=LIMIT)
        ready.set()


def loaded(instances: Sequence[Tokens], *, rounds: int) -> Iterator[dict[str, object]]:
    """Times of monge's solvers while a second process is solving and while it waits, alternating."""
    context = multiprocessing.get_context("spawn")
    busy, ready = context.Event(), context.Event()
    other = context.Process(target=neighbour, args=([problem.cost for problem in instances], busy, ready), daemon=True)
    busy.set()
    other.start()
    ready.wait()
    calls = {name: in_turn(SOLVERS[name], [(problem, True) for problem in instances]) for name in OURS}
    times: dict[tuple[str, bool], list[tuple[float, float]]] = defaultdict(list)
    for number in range(2 * rounds):
        (busy.set if number % 2 else busy.clear)()
        time.sleep(0.03)  # until the process has started, or finished its current solve
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            times[name, bool(number % 2)].append((time.perf_counter() - wall, time.process_time() - cpu))
    other.kill()
    for name in OURS:
        (alone, cpu_alone), (both, cpu_both) = (
            [1e3 * statistics.median(column) for column in zip(*times[name, state], strict=True)]
            for state in (False, True)
        )
        yield {
            "cost + solve": name,
            "alone ms": alone,
            "both cores loaded ms": both,
            "loaded / alone": both / alone,
            "CPU time, loaded / alone": cpu_both / cpu_alone,  # excludes other jobs on the machine
            "rounds": rounds,
        }


def recovered(n: int, m: int) -> Iterator[dict[str, object]]:
    """Planted matches recovered with calibrated and with raw prices, and the length of the coupled target."""
    pairs = InMemory(Path(), [planted(n, m, number) for number in range(CALIBRATED)])
    for name, prices in {"calibrated": Prices(rule="quantile"), "raw": RAW}.items():
        calibration = measured(pairs, prices) if prices.raw else measure(pairs)  # `measured` would store it
        packed = Packed(pairs, Space(calibration, CONTAINER, prices))
        states = packed(range(SAMPLES))
        cost = token_cost(CONTAINER, packed.space.calibration.cost(prices), states)
        source, target = CONTAINER.active(states.x_0), CONTAINER.active(states.x_1)
        for plan in ("exact", "entropic"):
            if plan == "exact":
                match, error = assignment(cost), 0.0
                lengths = target.gather(1, match).sum(1)
            else:
                soft = sinkhorn(cost, EPSILON, max_iterations=LIMIT)
                match, error = soft.matrix.argmax(-1), float(soft.marginal_error.max())
                lengths = CONTAINER.active(soft.barycentre(states.x_1)).sum(1)
            arrives = target.gather(1, match)
            true = [int((row[pair.i] == pair.j).sum()) for row, pair in zip(match, pairs.pairs[:SAMPLES], strict=True)]
            yield {
                "set": f"{n} to {m}",
                "prices": name,
                "plan": plan,
                "marginal error": error,
                "true matches, minimum": min(true),
                "mean": statistics.mean(true),
                "of": min(n, m),
                "deleted": float((source & ~arrives).sum(1).double().mean()),
                "created": float((~source & arrives).sum(1).double().mean()),
                "length": "..".join(map(str, sorted({int(lengths.min()), int(lengths.max())}))),
                "pairs": SAMPLES,
            }


def main(*, seconds: float = 90) -> None:
    """Run the benchmark.

    Args:
        seconds: Time limit for each of the two sets of prices, in seconds. The table under load has twice as many rounds as
            this number.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # POT warns when it stops early
    sets = {"a match": problems(default=False), "monge's": problems(default=True)}
    timed = [row for name, instances in sets.items() for row in solvers(name, instances, seconds=seconds)]
    side.print_table("Cost and coupling of one sample, 256 slots, epsilon 0.05, medians", timed)
    shared = list(loaded(sets["a match"], rounds=round(2 * seconds)))
    side.print_table("The same next to a second process that solves, medians", shared)
    matches = [row for n, m in SETS for row in recovered(n, m)]
    side.print_table("Planted matches", matches)
    rows = [row | {"seed": 0} for row in timed + shared + matches]
    side.write_result("token_ot", rows, ("numpy", "numba", "torch", "POT"))


if __name__ == "__main__":
    tyro.cli(main)
