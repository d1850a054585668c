"""`monge generate evaluate` and `monge generate likelihood`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.table import Table

from monge.apps.generate import pictures
from monge.apps.generate.evaluate import Row, curve, curve_metric
from monge.apps.generate.evaluate import evaluate as evaluate_run
from monge.apps.generate.options import DEFAULT_DEVICE, DeviceFlags, check_guidance, console, data_of
from monge.apps.generate.sample import Guidance, Sampling
from monge.files import finite_json, write_json
from monge.flags import at_least_one
from monge.math.random import seeded
from monge.math.solvers import SolverName
from monge.runs import reopen


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    solver_steps: int = 20,
    solver: SolverName = "euler",
    num_samples: int | None = None,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    weak: str | None = None,
    checkpoint: str = "last",
    curve_: Annotated[bool, tyro.conf.arg(name="curve")] = False,
    seed: int = 0,
    data: Path | None = None,
    device_options: DeviceFlags = DEFAULT_DEVICE,
) -> None:
    """Compare samples with the real data. The reference for most metrics is the same metric between halves of the real data.

    Args:
        run: Run directory of the trained flow.
        solver_steps: Number of solver steps from noise to data.
        solver: Numerical solver of the flow ODE.
        num_samples: Number of samples to draw; default: the number of real items, at most 10000.
        guidance: Guidance weight; 1 disables guidance.
        interval: Range of flow time t in which guidance applies, within 0 (noise) to 1 (data).
        weak: Step of an early checkpoint to guide against (autoguidance); default: the same network without the class.
        checkpoint: Checkpoint to evaluate: last, best or a step number.
        curve_: Also plot sample quality against the number of network evaluations, for several solvers.
        seed: Random seed of the noise.
        data: Current path of the run's training data, if they have moved.
    """
    at_least_one(num_samples=1 if num_samples is None else num_samples, solver_steps=solver_steps)
    check_guidance(guidance, interval, weak)
    opened = reopen(run, app="generate")
    generator = device_options.generator_of(opened, which=checkpoint, weak=weak)
    items = data_of(opened, data)
    sampling = Sampling(solver_steps, solver, Guidance(guidance, interval))
    rows = evaluate_run(generator, items, sampling, samples=num_samples, seed=seed)
    options = asdict(sampling) | {"samples": num_samples, "weak": weak, "checkpoint": checkpoint, "seed": seed}
    write_json(run / "evaluation.json", finite_json(options | {"rows": {k: asdict(v) for k, v in rows.items()}}))
    console.print(_table(rows, f"{run.resolve().name}: {solver}, {solver_steps} steps"), soft_wrap=False)
    if curve_:
        samplings = [replace(sampling, solver=name) for name in ("euler", "midpoint", "ab2", "dpm2m")]
        lines = curve(generator, items, [1, 2, 4, 8, 16, 32], samplings, samples=num_samples, seed=seed)
        write_json(run / "curve.json", lines)
        metric = curve_metric(items)
        path = pictures.curves(lines, run / "curve.png", x="evaluations", y=metric, floor=rows[metric].floor)
        console.print(f"Quality against network evaluations: {path}")


def likelihood(
    run: tyro.conf.Positional[Path],
    *,
    limit: int = 256,
    solver_steps: int = 50,
    solver: SolverName = "midpoint",
    probes: int | None = 4,
    checkpoint: str = "last",
    data: Path | None = None,
    device_options: DeviceFlags = DEFAULT_DEVICE,
) -> None:
    """Estimate the log-likelihood of held-out data under the flow.

    Args:
        run: Run directory of the trained flow.
        limit: Maximum number of held-out items to evaluate.
        solver_steps: Number of solver steps from data to noise.
        solver: Numerical solver of the flow ODE.
        probes: Number of Hutchinson probes for the divergence; None computes it exactly.
        checkpoint: Checkpoint to evaluate: last, best or a step number.
        data: Current path of the run's training data, if they have moved.
    """
    at_least_one(limit=limit, solver_steps=solver_steps, probes=1 if probes is None else probes)
    opened = reopen(run, app="generate")
    generator = device_options.generator_of(opened, which=checkpoint)
    _, held_out = data_of(opened, data).split()
    held_out = held_out.rows(torch.arange(min(limit, len(held_out.x))))
    labels = held_out.labels if generator.classes else None
    density, bits = generator.log_likelihood(
        held_out.x, labels, steps=solver_steps, solver=solver, probes=probes, generator=seeded(1787)
    )
    standard_error = float(density.log_prob.std() / len(bits) ** 0.5) if len(bits) > 1 else float("nan")
    console.print(
        f"log p = {float(density.log_prob.mean()):.3f} +- {standard_error:.3f} nats over {len(bits)} held-out items"
        f" (mean standard error of an item's estimate: {float(density.standard_error.mean()):.3f});"
        f" {float(bits.mean()):.4f} bits per dimension; {density.evaluations} network evaluations"
    )


def _table(rows: dict[str, Row], title: str) -> Table:
    """The metrics as a table. On a narrow terminal, names wrap between words and nothing is truncated."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    longest = max(len(word) for name in rows for word in name.split())
    table.add_column("metric", min_width=longest)
    for column in ("value", "reference"):
        table.add_column(column, justify="right", no_wrap=True, overflow="fold")
    table.add_column("better", no_wrap=True)
    for name, row in rows.items():
        table.add_row(name, _format(row.value), _format(row.floor), row.better.replace("floor", "close"))
    return table


def _format(value: float) -> str:
    """A number with four significant digits, or two and an exponent, in at most eight characters."""
    text = f"{value:.4g}"
    return text if len(text) <= 8 else f"{value:.1e}"
