"""Sample quality by number of network evaluations on scikit-learn's digits, five seeds: couplings, reflow, DDPM and DDIM.

Every arm has the same network, data, optimizer and number of steps; they differ in the regression target or its pairs
(reflow spends half of its steps on the teacher and half on the student). The Frechet distance uses features of a separately
trained classifier, and the floor is the distance between two halves of the real data. Finished arms are saved in
benchmarks/results/digits/, so an interrupted command resumes.

    python benchmarks/digits.py [--seeds 5] [--steps 3000] [--workers 2] [--arms ...]
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
import tyro
from over_seeds import interval, shown
from side_by_side import print_table, read_result, write_result
from torch import Tensor, nn

from monge.apps.generate.data import Dataset, digits, stratified_labels
from monge.apps.generate.evaluate import Evaluator
from monge.apps.generate.pairs import StoredPairs
from monge.apps.generate.recipes import PATHS, Generate
from monge.apps.generate.sample import Generator, Sampling
from monge.fleet import processes
from monge.math.cost import Units
from monge.math.random import seeded
from monge.math.types import Pair, VelocityModel
from monge.objective.base import Loss, Objective
from monge.training.config import TrainConfig
from monge.training.distributed import Ranks
from monge.training.loop import Run, prepare, train

BUDGETS = (1, 2, 4, 8, 20, 25, 32, 50)
SAVED = Path(__file__).parent / "results" / "digits"
COUPLINGS: dict[str, dict] = {
    "independent": {"coupling": "independent"},
    "OT": {"coupling": "ot"},
    "OT of 8 batches": {"coupling": "ot", "ot_factor": 8},
    "OT across classes": {"coupling": "ot-across"},
    "semidiscrete OT": {"coupling": "semidiscrete"},
}
TIMES: dict[str, dict] = {
    "logit-normal times, 0.5": {"times": "logit-normal", "times_std": 0.5},
    "logit-normal times, 1.0": {"times": "logit-normal", "times_std": 1.0},
}
"""Distributions of t, with OT; the arm "OT" has uniform times."""


@dataclass(frozen=True)
class Arm:
    """A method with a seed: one training run, or for reflow two in sequence."""

    name: str
    conditional: bool
    seed: int
    steps: int

    @property
    def path(self) -> Path:
        kind = "conditional" if self.conditional else "unconditional"
        return SAVED / f"{kind} {self.name} {self.seed} {self.steps}.json".replace(" ", "-")

    def recipe(self, **changes) -> Generate:
        config = TrainConfig(steps=self.steps, seed=self.seed, loader_threads=0)
        return Generate(conditional=self.conditional, train=config, **changes)


class Diffusion(Objective):
    """Noise prediction at a random step of DDPM's chain, by diffusers' scheduler. Ho et al. 2006.11239, alg. 1."""

    def __init__(self, scheduler) -> None:
        super().__init__()
        self.scheduler = scheduler

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        step = torch.randint(0, 1000, (len(batch),))
        noisy = self.scheduler.add_noise(batch.x_1, batch.x_0, step)
        value = (model(noisy, step / 1000, batch.cond) - batch.x_0).square().mean()
        return Loss(value, {"loss": value.detach()})


def fitted(run: Run) -> nn.Module:
    """The averaged network after training."""
    where = Ranks(0, 1, torch.device("cpu"))
    state, step = prepare(run, where)
    for _ in train(run, state, step, where):
        pass
    assert state.ema
    parameters = dict(state.model.named_parameters())
    with torch.no_grad():
        for name, value in state.ema.weights.items():
            parameters[name].copy_(value)
    return state.model.eval()


def generator_of(run: Run, model: nn.Module, data: Dataset) -> Generator:
    """The generator that `monge generate` uses, for a trained model."""
    units = Units(run.constants["centre"], run.constants["scale"])
    return Generator(model, PATHS["linear"], units, data.shape, data.classes, data.levels or 0.0)


def chain(model: nn.Module, scheduler, x: Tensor, labels: Tensor | None, steps: int, draws: torch.Generator) -> Tensor:
    """Samples in `steps` steps of one of diffusers' schedulers, from noise `x`."""
    scheduler.set_timesteps(steps)
    cond = {} if labels is None else {"label": labels}
    with torch.no_grad():
        for step in scheduler.timesteps:
            noise = model(x, torch.full((len(x),), float(step) / 1000), cond)
            x = scheduler.step(noise, step, x, generator=draws).prev_sample
    return x


@cache
def evaluator() -> Evaluator:
    """The evaluator shared by all arms of a process; it has the labels even if the arm is unconditional."""
    return Evaluator.of(digits())


def run(arm: Arm) -> dict[str, dict[str, float]]:
    """Frechet distance, recall, memorisation and class accuracy of an arm by sampler and budget, trained or read from disk."""
    if arm.path.exists():
        return json.loads(arm.path.read_text())
    torch.set_num_threads(1)
    torch.manual_seed(arm.seed)
    data = digits() if arm.conditional else replace(digits(), labels=None)
    reference, n = evaluator(), len(data.x)
    labels = stratified_labels(data, n, arm.seed)
    metrics: dict[str, dict[str, float]] = {}

    def record(name: str, x: Tensor, generator: Generator) -> None:
        fake = generator.units.apply(generator.restore(x).flatten(1))
        rows = reference.rows(fake, labels)
        metrics[name] = {k: rows[k].value for k in ("frechet", "recall", "memorisation", "class accuracy") if k in rows}
        metrics["floor"] = {k: rows[k].floor for k in metrics[name]}

    if arm.name == "diffusion":
        from diffusers import DDIMScheduler, DDPMScheduler

        options = {"num_train_timesteps": 1000, "clip_sample": False, "timestep_spacing": "trailing"}
        scheduler = DDPMScheduler(**options)
        built = arm.recipe(coupling="independent").build()
        generator = generator_of(built, fitted(replace(built, objective=Diffusion(scheduler))), data)
        noise = generator.noise(n, generator=seeded(arm.seed, 3))
        for name, sampler, budgets in (("ddim", DDIMScheduler(**options), BUDGETS), ("ddpm", scheduler, (1000,))):
            for budget in budgets:
                draws = seeded(arm.seed, 4)
                x = chain(generator.model, sampler, noise, labels, budget, draws)
                record(f"{name} {budget}", x, generator)
    else:
        reflow = arm.name == "reflow"
        built = arm.recipe(**(COUPLINGS | TIMES)["independent" if reflow else arm.name]).build()
        if reflow:
            built = replace(built, train=replace(built.train, steps=arm.steps // 2))
        generator = generator_of(built, fitted(built), data)
        if reflow:  # the student starts from the teacher's weights
            pair_labels = stratified_labels(data, 10_000, arm.seed)
            pairs = generator.pairs(pair_labels, 10_000, generator=seeded(arm.seed, 5))
            batches = StoredPairs(pairs, 128, classes=data.classes, seed=arm.seed)
            student = replace(built, batches=batches, model=generator.model.train())
            generator = generator_of(built, fitted(student), data)
        noise = generator.noise(n, generator=seeded(arm.seed, 3))
        for name, solver, budgets in (("euler", "euler", BUDGETS), ("heun", "heun", (50,))):
            for budget in budgets:
                x = generator.end(noise, labels, Sampling(budget // (1 + (name == "heun")), solver))
                record(f"{name} {budget}", x, generator)
    arm.path.parent.mkdir(parents=True, exist_ok=True)
    arm.path.write_text(json.dumps(metrics))
    return metrics


ALL = (*COUPLINGS, *TIMES, "reflow", "diffusion")


def main(seeds: int = 5, steps: int = 3000, workers: int = 2, arms: tuple[str, ...] = ALL) -> None:
    """Run arms and print the tables of all results.

    Args:
        seeds: Number of seeds per arm, counted from 0.
        steps: Number of training steps per arm.
        workers: Number of arms to run at a time, with one thread each.
        arms: Arms to run; the results of others are kept.
    """
    if unknown := set(arms) - set(ALL):
        raise SystemExit(f"--arms {', '.join(unknown)}: choose from {', '.join(ALL)}")
    unconditional = {*COUPLINGS, "reflow", "diffusion"} - {"OT across classes"}
    names = {True: arms, False: [name for name in arms if name in unconditional]}
    tasks = [Arm(name, kind, seed, steps) for seed in range(seeds) for kind in (True, False) for name in names[kind]]
    by_arm: dict[Arm, dict[str, dict[str, float]]] = {}
    for number, result in processes(workers)(run, tasks):
        by_arm[tasks[number]] = result
        print(f"{len(by_arm)}/{len(tasks)}  {tasks[number].path.stem}", flush=True)
    rows = [row for row in read_result("digits") if row["arm"] not in arms and row["steps"] == steps]
    for kind in (True, False):
        for name in names[kind]:
            results = [by_arm[arm] for arm in tasks if (arm.name, arm.conditional) == (name, kind)]
            for sampler in results[0]:
                figures = {key: interval([r[sampler][key] for r in results]) for key in results[0][sampler]}
                rows.append(
                    {"conditional": kind, "arm": name, "sampler": sampler, "seeds": seeds, "steps": steps, **figures}
                )
    for kind in (True, False):
        for metric in ("frechet", "class accuracy", "recall", "memorisation"):
            print_table(
                f"{metric}, {'conditional' if kind else 'unconditional'}", shown(_by_budget(rows, kind, metric))
            )
    title = "frechet, unconditional: DDPM, DDIM, CFM and OT-CFM"
    print_table(title, shown(_methods(rows)))
    write_result("digits", rows, packages=["torch", "numba", "diffusers", "scikit-learn"])


def _by_budget(rows: list[dict], conditional: bool, metric: str) -> list[dict]:
    table: dict[str, dict] = {}
    for row in rows:
        if row["conditional"] == conditional and metric in row and row["sampler"].split()[0] in ("euler", "ddim"):
            line = table.setdefault(row["arm"], {"arm": row["arm"]})
            line[row["sampler"].split()[1]] = row[metric]
    return list(table.values())


def _methods(rows: list[dict]) -> list[dict]:
    wanted: dict[str, Callable[[dict], bool]] = {
        "DDPM, 1000 steps": lambda r: r["sampler"] == "ddpm 1000",
        "DDIM, 50 steps": lambda r: r["sampler"] == "ddim 50",
        "CFM, 50 Euler steps": lambda r: (r["arm"], r["sampler"]) == ("independent", "euler 50"),
        "OT-CFM, 50 Euler steps": lambda r: (r["arm"], r["sampler"]) == ("OT", "euler 50"),
        "OT-CFM, 25 Heun steps": lambda r: (r["arm"], r["sampler"]) == ("OT", "heun 50"),
        "real against real": lambda r: r["sampler"] == "floor",
    }
    table = []
    for name, match in wanted.items():
        if row := next((r for r in rows if not r["conditional"] and match(r)), None):
            table.append({"method": name, "frechet": row["frechet"]})
    return table


if __name__ == "__main__":
    tyro.cli(main)
