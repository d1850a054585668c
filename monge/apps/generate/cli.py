"""The verbs of `monge generate`."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from monge.apps.generate import pictures
from monge.apps.generate.drawing import sample
from monge.apps.generate.encoders import Pretrain
from monge.apps.generate.measuring import evaluate, likelihood
from monge.apps.generate.options import console
from monge.apps.generate.recipes import Generate, Reflow, generator_of
from monge.flags import at_least_one
from monge.run import fit
from monge.runs import reopen
from monge.training.distributed import is_first
from monge.training.log import read_records


def train(
    recipe: Annotated[Generate, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/generate"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train a flow from noise to data. The run directory holds its checkpoints, settings and log.

    Args:
        out: Run directory; created if needed.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    _fit(recipe, out, resume=resume, tensorboard=tensorboard)


def _fit(recipe: Generate | Reflow, out: Path, *, resume: bool, tensorboard: bool = False) -> None:
    """Train a recipe, plot its losses, and print the next command."""
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if not is_first():
        return
    pictures.losses(read_records(out / "metrics.jsonl"), out / "loss.png")
    opened = reopen(out, app="generate")
    error = opened.constants.get("potentials_error")
    if error is not None:
        console.print(f"Semidiscrete potentials: the marginal of the data points has an L1 error of {float(error):.3f}")
    classes = generator_of(opened).layout.classes
    if classes:
        suffix = f", ... ({len(classes)} in all)" if len(classes) > 20 else ""
        console.print(f"Classes: {', '.join(map(repr, classes[:20]))}{suffix}")
    console.print(f"Trained. The run is in {out}; next: monge generate evaluate {quote(str(out))}")


def pretrain(
    recipe: Annotated[Pretrain, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/encoder"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train an image encoder for `train --align` (REPA).

    Args:
        out: Run directory; created if needed.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if is_first():
        data = f"--data {quote(recipe.data)}" + (
            f" --data-range {recipe.data_range}" if recipe.data_range != "auto" else ""
        )
        words = f"monge generate train {data} --network dit --align {quote(str(out))}"
        console.print(f"Trained. The run is in {out}; next: {words}")


def reflow(
    run: tyro.conf.Positional[Path | None] = None,
    *,
    out: Path,
    steps: int | None = None,
    num_pairs: int | None = None,
    data: Path | None = None,
    resume: bool = False,
) -> None:
    """Straighten a trained flow: train a student on pairs of noise and the samples that the flow maps it to (rectified flow).

    Args:
        run: Run directory of the teacher; not needed with --resume.
        out: Run directory of the student.
        steps: Number of training steps of the student; default: 4000.
        num_pairs: Number of training pairs that the teacher generates; default: 10000.
        data: Current path of the teacher's training data, if they have moved.
        resume: Continue from the student's last checkpoint; options that are not given keep their stored values.
    """
    at_least_one(steps=1 if steps is None else steps, num_pairs=1 if num_pairs is None else num_pairs)
    if resume and (out / "recipe.json").exists():
        recipe = reopen(out, app="generate").rebuilt(Reflow)
        recipe = replace(
            recipe, teacher=str(run.resolve()) if run else recipe.teacher, num_pairs=num_pairs or recipe.num_pairs
        )
        recipe = replace(recipe, train=replace(recipe.train, steps=steps or recipe.train.steps))
    elif run is None:
        raise ValueError("reflow: give the run directory of the teacher, as in monge generate reflow RUN --out OUT")
    else:
        recipe = Reflow.of(run, steps=steps or 4000, num_pairs=num_pairs or 10_000)
    _fit(replace(recipe, data=str(data)) if data else recipe, out, resume=resume)


def demo(*, out: Path = Path("runs/demo"), steps: int = 3000) -> None:
    """Train OT-CFM on the built-in digits, then sample and evaluate: about three minutes. Resumes an interrupted run.

    Args:
        out: Run directory; created if needed.
        steps: Number of training steps.
    """
    recipe = Generate(train=replace(Generate().train, steps=steps))
    console.print("monge: training a flow from noise to handwritten digits (OT-CFM, 1,438 images; 2 cores are enough)")
    train(recipe, out=out, resume=(out / "recipe.json").exists())
    sample(out)
    evaluate(out)
    console.print(f"Samples: {out}/samples/samples.png. The flow from noise to digits: {out}/samples/film.png")


VERBS = {
    "train": train,
    "pretrain": pretrain,
    "sample": sample,
    "evaluate": evaluate,
    "likelihood": likelihood,
    "reflow": reflow,
    "demo": demo,
}
