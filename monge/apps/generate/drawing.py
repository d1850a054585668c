"""`monge generate sample`."""

import time
from pathlib import Path

import torch
import tyro

from monge.apps.generate.options import DEFAULT_DEVICE, DeviceFlags, check_guidance, console
from monge.apps.generate.output import Samples, save_samples
from monge.apps.generate.prepared import examples_of
from monge.apps.generate.sample import Guidance, Sampling
from monge.flags import at_least_one
from monge.math.random import seeded
from monge.math.solvers import SolverName
from monge.runs import reopen


def sample(
    run: tyro.conf.Positional[Path],
    *,
    num_samples: int = 100,
    solver_steps: int = 25,
    solver: SolverName = "euler",
    label: str | None = None,
    guidance: float = 1.0,
    interval: tuple[float, float] = (0.0, 1.0),
    weak: str | None = None,
    checkpoint: str = "last",
    seed: int = 0,
    out: Path | None = None,
    save_images: bool = False,
    device_options: DeviceFlags = DEFAULT_DEVICE,
) -> None:
    """Draw samples from a run. Writes samples.npz and, for arrays and tables, a file in the format of the data; plots the
    samples next to real data and along the flow.

    Args:
        run: Run directory of the trained flow.
        num_samples: Number of samples to draw.
        solver_steps: Number of solver steps from noise to data.
        solver: Numerical solver of the flow ODE.
        label: Class to draw: its name or, unless all names are numbers, its number counted from 0; default: all in turn.
        guidance: Guidance weight; 1 disables guidance.
        interval: Range of flow time t in which guidance applies, within 0 (noise) to 1 (data).
        weak: Step of an early checkpoint to guide against (autoguidance); default: the same network without the class.
        checkpoint: Checkpoint to sample from: last, best or a step number.
        seed: Random seed of the noise.
        out: Output directory; default: RUN/samples.
        save_images: Also write each image as a PNG file, in one folder per class.
    """
    at_least_one(num_samples=num_samples, solver_steps=solver_steps)
    check_guidance(guidance, interval, weak)
    opened = reopen(run, app="generate")
    generator = device_options.generator_of(opened, which=checkpoint, weak=weak)
    if label is not None and not generator.classes:
        raise ValueError(f"label {label}: the run has no classes; leave --label out")
    labels = (
        generator.labels(num_samples) if label is None else torch.full((num_samples,), generator.label_number(label))
    )
    out = out or run / "samples"
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    x_0 = generator.noise(num_samples, generator=seeded(seed, 3))
    sampling = Sampling(solver_steps, solver, Guidance(guidance, interval))
    x = generator.restore(generator.end(x_0, labels, sampling))
    seconds = time.perf_counter() - started
    shown = slice(8 if len(generator.shape) == 3 else 2000)
    film = [
        generator.restore(state)
        for state in generator.states(x_0[shown], None if labels is None else labels[shown], sampling)
    ]
    names = save_samples(generator, Samples(x, labels, film), examples_of(opened), out, single_images=save_images)
    console.print(
        f"{num_samples} samples in {seconds:.2f} s ({num_samples / seconds:.0f}/s) in {out}: {', '.join(names)}"
    )
