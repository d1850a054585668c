"""Straightness and few-step quality in two dimensions: 8 Gaussians to moons and back, 20,000 steps, five seeds.

monge and torchcfm 1.0.7 train the same network (torchcfm's MLP of width 64) with the same optimizer on the same draws.
Finished arms are saved in benchmarks/results/toy/, so an interrupted command resumes.

    python benchmarks/toy.py [--seeds 5] [--steps 20000] [--workers 2]
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from over_seeds import interval, shown
from side_by_side import print_table, write_result
from torch import Tensor

from monge.apps.generate.toys import TOYS
from monge.fleet import processes
from monge.math.coupling import MinibatchOT, identity
from monge.math.metrics import normalised_path_energy, path_energy, squared_w2
from monge.math.random import seeded
from monge.math.solve import integrate, time_grid
from monge.math.steps import euler
from monge.math.types import Condition, Pair
from monge.objective.flow_matching import FlowMatching

TASKS = {"gaussians to moons": ("gaussians", "moons"), "moons to gaussians": ("moons", "gaussians")}
ARMS = ("monge independent", "monge OT", "torchcfm independent", "torchcfm OT")
BUDGETS = (1, 4, 10, 100)
SAVED = Path(__file__).parent / "results" / "toy"


@dataclass(frozen=True)
class Arm:
    """One training run of a library and coupling with a seed."""

    task: str
    name: str
    seed: int
    steps: int

    @property
    def path(self) -> Path:
        return SAVED / f"{self.task} {self.name} {self.seed} {self.steps}.json".replace(" ", "-")


class Field(torch.nn.Module):
    """torchcfm's tutorial network as a VelocityModel."""

    def __init__(self) -> None:
        super().__init__()
        from torchcfm.models import MLP

        self.mlp = MLP(dim=2, w=64, time_varying=True)

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        return self.mlp(torch.cat([x_t, t[:, None]], 1))


def loss_of(name: str) -> Callable[[Field, Tensor, Tensor], Tensor]:
    """The loss of an arm as a function of network, sources and targets."""
    library, coupling = name.split()
    if library == "monge":
        objective = FlowMatching(coupling=MinibatchOT() if coupling == "OT" else identity)
        return lambda field, x_0, x_1: objective(field, Pair(x_0, x_1)).value
    from torchcfm import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher

    matcher = (ExactOptimalTransportConditionalFlowMatcher if coupling == "OT" else ConditionalFlowMatcher)(sigma=0.0)

    def loss(field: Field, x_0: Tensor, x_1: Tensor) -> Tensor:
        t, x_t, u_t = matcher.sample_location_and_conditional_flow(x_0, x_1)
        return (field(x_t, t) - u_t).square().mean()

    return loss


def run(arm: Arm) -> dict[str, float]:
    """The metrics of an arm, trained or read from disk."""
    if arm.path.exists():
        return json.loads(arm.path.read_text())
    torch.set_num_threads(1)
    torch.manual_seed(arm.seed)
    np.random.seed(arm.seed)  # torchcfm samples its plan with numpy's global generator
    source, target = (TOYS[name] for name in TASKS[arm.task])
    field, draws, loss = Field(), seeded(arm.seed, 1), loss_of(arm.name)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-3)
    for _ in range(arm.steps):
        optimizer.zero_grad()
        loss(field, source(256, draws), target(256, draws)).backward()
        optimizer.step()
    metrics = measure(field, source, target, seeded(arm.seed, 2))
    arm.path.parent.mkdir(parents=True, exist_ok=True)
    arm.path.write_text(json.dumps(metrics))
    return metrics


def measure(field: Field, source, target, draws: torch.Generator, *, n: int = 2048) -> dict[str, float]:
    """Normalised path energy, squared W2 to fresh targets by number of Euler steps, and its floor between two target sets."""
    x_0, x_1, many = source(n, draws), target(n, draws), target(16 * n, draws)
    other = many[torch.randperm(len(many), generator=draws)[:n]]  # moons() spaces its points evenly, unlike samples
    with torch.no_grad():
        _, energy = path_energy(field, x_0, steps=100)
        metrics = {"path energy": normalised_path_energy(energy, squared_w2(x_0, x_1))}
        for budget in BUDGETS:
            x = integrate(field, x_0, time_grid(budget, x_0), step=euler)
            metrics[f"W2^2, {budget} steps"] = squared_w2(x, x_1)
    return metrics | {"W2^2 floor": squared_w2(other, x_1)}


def main(seeds: int = 5, steps: int = 20_000, workers: int = 2) -> None:
    """Run all arms and print the table.

    Args:
        seeds: Number of seeds per arm, counted from 0.
        steps: Number of training steps per arm.
        workers: Number of arms to run at a time, with one thread each.
    """
    arms = [Arm(task, name, seed, steps) for seed in range(seeds) for task in TASKS for name in ARMS]
    by_arm: dict[Arm, dict[str, float]] = {}
    for number, result in processes(workers)(run, arms):
        by_arm[arms[number]] = result
        print(
            f"{len(by_arm)}/{len(arms)}  {arms[number].task}, {arms[number].name}, seed {arms[number].seed}", flush=True
        )
    rows = []
    for task in TASKS:
        for name in ARMS:
            results = [by_arm[arm] for arm in arms if (arm.task, arm.name) == (task, name)]
            figures = {key: interval([result[key] for result in results]) for key in results[0]}
            rows.append({"task": task, "arm": name, "seeds": seeds, "steps": steps, **figures})
    print_table(f"{seeds} seeds, {steps} steps: mean +- half the 95 % interval", shown(rows))
    write_result("toy", rows, packages=["torch", "numba", "torchcfm", "POT"])


if __name__ == "__main__":
    tyro.cli(main)
