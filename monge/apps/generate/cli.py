"""The verbs of `monge generate`."""

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from monge.apps.generate import pictures
from monge.apps.generate.data import Dataset, load
from monge.apps.generate.evaluate import Row, curve, curve_metric
from monge.apps.generate.evaluate import evaluate as evaluate_run
from monge.apps.generate.output import save_samples
from monge.apps.generate.recipes import Generate, data_fingerprint, generator_of, stored
from monge.apps.generate.sample import Generator, Guidance, Walk
from monge.files import write_json
from monge.math.random import seeded
from monge.run import fit
from monge.runs import Opened, reopen
from monge.train.distributed import device_called, is_first
from monge.train.log import read_records

Solver = Literal["euler", "midpoint", "heun", "rk4", "ab2", "ab3", "dpm2m", "dopri5"]
console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Machine:
    """Where to compute."""

    device: str = "auto"
    """cpu, cuda, or auto: a GPU if there is one."""
    threads: int = 1
    """Torch's threads per operation on the CPU: one is fastest for small networks. 0 leaves torch's own choice."""

    def generator_of(self, opened: Opened, *, which: str, weak: str | None = None) -> Generator:
        """The run's generator, here."""
        if self.threads < 0:
            raise ValueError(f"--threads {self.threads}: give at least 1, or 0 for torch's own choice")
        if self.threads:
            torch.set_num_threads(self.threads)
        return generator_of(opened, which=which, weak=weak, device=device_called(self.device))


On = Annotated[Machine, tyro.conf.arg(name="")]
HERE = Machine()


def train(
    recipe: Annotated[Generate, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/generate"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Learn a flow from noise to data; the run directory holds all of it.

    Args:
        out: The run directory, made here.
        resume: Go on from the last checkpoint in it.
        tensorboard: Write event files too (needs monge[tensorboard]).
    """
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if not is_first():
        return
    pictures.losses(read_records(out / "metrics.jsonl"), out / "loss.png")
    error = reopen(out, app="generate").constants.get("potentials_error")
    if error is not None:
        console.print(
            f"Semidiscrete potentials: the shares of the data points are off by {float(error):.3f} in all (L1)"
        )
    console.print(f"Trained. The run is in {out}; next: monge generate evaluate {out}")


def sample(
    run: tyro.conf.Positional[Path],
    *,
    n: int = 100,
    steps: int = 25,
    solver: Solver = "euler",
    label: int | None = None,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    weak: str | None = None,
    checkpoint: str = "last",
    seed: int = 0,
    out: Path | None = None,
    on: On = HERE,
) -> None:
    """Draw samples: an array, a picture, and a film strip of how noise becomes data.

    Args:
        run: A run directory.
        n: How many.
        steps: Steps of the solver.
        label: Draw this class only.
        guidance: Weight of guidance; 1 is none.
        interval: Where in t, from 0 (noise) to 1 (data), guidance acts.
        weak: A checkpoint's step: guide by this early self (autoguidance), not by leaving out the class.
        checkpoint: last, best or a step.
        out: Where to write; RUN/samples if not said.
    """
    _at_least_one(n=n, steps=steps)
    _check_guidance(guidance, interval, weak)
    generator = on.generator_of(reopen(run, app="generate"), which=checkpoint, weak=weak)
    if label is not None and not 0 <= label < generator.classes:
        raise ValueError(f"label {label}: the run has {generator.classes} classes, numbered from 0")
    labels = generator.labels(n) if label is None else torch.full((n,), label)
    out = out or run / "samples"
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    x_0 = generator.noise(n, generator=seeded(seed, 3))
    walk = Walk(steps, solver, Guidance(guidance, interval))
    x = generator.restore(generator.end(x_0, labels, walk))
    seconds = time.perf_counter() - started
    shown = slice(8 if generator.levels else 2000)
    film = [
        generator.restore(state)
        for state in generator.states(x_0[shown], None if labels is None else labels[shown], walk)
    ]
    save_samples(generator, x, film, labels, out)
    console.print(f"{n} samples in {seconds:.2f} s ({n / seconds:.0f}/s): {out}/samples.png, film.png, samples.npz")


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    steps: int = 20,
    solver: Solver = "euler",
    samples: int | None = None,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    weak: str | None = None,
    checkpoint: str = "last",
    curve_: Annotated[bool, tyro.conf.arg(name="curve")] = False,
    seed: int = 0,
    on: On = HERE,
) -> None:
    """Compare samples with the real data, every number beside its floor between two halves of the real data.

    Args:
        run: A run directory; its data must still be where they were.
        samples: How many; as many as there are real items if not said.
        curve_: Also draw quality against evaluations of the network, by solver.
    """
    _at_least_one(samples=1 if samples is None else samples, steps=steps)
    _check_guidance(guidance, interval, weak)
    opened = reopen(run, app="generate")
    generator = on.generator_of(opened, which=checkpoint, weak=weak)
    data = _data_of(opened)
    walk = Walk(steps, solver, Guidance(guidance, interval))
    rows = evaluate_run(generator, data, walk, samples=samples, seed=seed)
    said = asdict(walk) | {"samples": samples, "weak": weak, "checkpoint": checkpoint, "seed": seed}
    write_json(run / "evaluation.json", said | {"rows": {k: asdict(v) for k, v in rows.items()}})
    console.print(_table(rows, f"{run.name}: {solver}, {steps} steps"))
    if curve_:
        walks = [replace(walk, solver=name) for name in ("euler", "midpoint", "ab2", "dpm2m")]
        found = curve(generator, data, [1, 2, 4, 8, 16, 32], walks, samples=samples, seed=seed)
        write_json(run / "curve.json", found)
        metric = curve_metric(data)
        path = pictures.curves(found, run / "curve.png", x="evaluations", y=metric, floor=rows[metric].floor)
        console.print(f"Quality against evaluations: {path}")


def likelihood(
    run: tyro.conf.Positional[Path],
    *,
    n: int = 256,
    steps: int = 50,
    solver: Solver = "midpoint",
    probes: int | None = 4,
    checkpoint: str = "last",
    on: On = HERE,
) -> None:
    """The log-likelihood of held-out data under the flow.

    Args:
        run: A run directory; its data must still be where they were.
        n: How many held-out items.
        probes: Hutchinson probes; `None` takes the exact divergence.
    """
    _at_least_one(n=n, steps=steps, probes=1 if probes is None else probes)
    opened = reopen(run, app="generate")
    generator = on.generator_of(opened, which=checkpoint)
    _, held_out = _data_of(opened).split()
    held_out = held_out.rows(torch.arange(min(n, len(held_out.x))))
    labels = held_out.labels if generator.classes else None
    density, bits = generator.log_likelihood(
        held_out.x, labels, steps=steps, solver=solver, probes=probes, generator=seeded(1787)
    )
    spread = float(density.log_prob.std() / len(bits) ** 0.5) if len(bits) > 1 else float("nan")
    console.print(
        f"log p = {float(density.log_prob.mean()):.3f} +- {spread:.3f} nats over {len(bits)} held-out items"
        f" (standard error of one item's estimate {float(density.standard_error.mean()):.3f});"
        f" {float(bits.mean()):.4f} bits per dimension; {density.evaluations} evaluations"
    )


def reflow(
    run: tyro.conf.Positional[Path], *, out: Path, steps: int = 4000, pairs: int = 10_000, resume: bool = False
) -> None:
    """Straighten a trained flow: learn it again from its own pairs (rectified flow).

    Args:
        run: The teacher, a run directory.
        out: The student's run directory.
        steps: Training steps of the student.
        pairs: How many pairs the teacher draws.
        resume: Go on from the student's last checkpoint.
    """
    _at_least_one(steps=steps, pairs=pairs)
    recipe = stored(reopen(run, app="generate"))
    config = replace(recipe.train, steps=steps, milestones=())
    teacher = str(run.resolve())
    student = replace(recipe, reflow=teacher, reflow_pairs=pairs, coupling="independent", ot_warm=False, path="linear")
    train(replace(student, train=config), out=out, resume=resume)


def demo(*, out: Path = Path("runs/demo"), steps: int = 3000) -> None:
    """Train OT-CFM on the built-in digits, sample, evaluate, and say what came out. Goes on where it was stopped.

    Args:
        out: The run directory.
        steps: Training steps.
    """
    recipe = Generate(train=replace(Generate().train, steps=steps))
    console.print("monge: learning to turn noise into handwritten digits (OT-CFM, 1,437 images, 2 cores are enough)")
    train(recipe, out=out, resume=(out / "recipe.json").exists())
    sample(out, n=100)
    evaluate(out)
    console.print(f"The picture is {out}/samples/samples.png; how it came about is {out}/samples/film.png")


def _at_least_one(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"--{name} {number}: give at least 1")


def _check_guidance(weight: float, interval: tuple[float, float], weak: str | None) -> None:
    if not math.isfinite(weight):
        raise ValueError(f"--guidance {weight}: give a number; 1 is no guidance")
    if not interval[0] < interval[1]:
        raise ValueError(f"--interval {interval[0]} {interval[1]}: give the lower end first")
    if weak is not None and weight == 1:
        raise ValueError(f"--weak {weak} does nothing at --guidance 1; give a larger weight")


def _data_of(opened: Opened) -> Dataset:
    """The data of a run, as they were when it began."""
    recipe = stored(opened)
    data, was = load(recipe.data), opened.constants.get("data")
    if was is None:
        raise ValueError(
            f"{opened.directory}: made by an earlier version of monge, which did not store its data's fingerprint"
        )
    if int(was) != int(data_fingerprint(data)):
        raise ValueError(
            f"{recipe.data}: not the data that {opened.directory} was trained on; put them back as they were"
        )
    return data


def _table(rows: dict[str, Row], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("metric", "value", "reference", "better"):
        table.add_column(column, justify="left" if column in ("metric", "better") else "right")
    for name, row in rows.items():
        table.add_row(name, f"{row.value:.4g}", f"{row.floor:.4g}", row.better)
    return table


VERBS = {
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "likelihood": likelihood,
    "reflow": reflow,
    "demo": demo,
}
