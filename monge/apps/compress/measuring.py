"""The verbs of `monge compress` that measure: criteria for the choice of layers, and the quality and cost of a student."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from monge.apps.compress.corpus import DOCUMENTATION, corpus, ensure_exists
from monge.apps.compress.cost import costs_of
from monge.apps.compress.evaluate import Quality, Student, qualities
from monge.apps.compress.generation import generation
from monge.apps.compress.graft import FlowSolver, graft
from monge.apps.compress.pictures import heat_maps
from monge.apps.compress.recipes import opened_student
from monge.apps.compress.select import (
    Candidate,
    as_json,
    candidates,
    criteria,
    equivalent_skip,
    ranges_of,
    removal_curve,
)
from monge.files import finite_json, read_json, write_json
from monge.flags import at_least_one
from monge.lm.blocks import blocks_of, shared_copy
from monge.lm.load import causal
from monge.runs import reopen
from monge.training.distributed import device_named

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets


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
    """Measure which layers can be replaced: five criteria that need no training, for all ranges of the given sizes.

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
        seed: Seed of the choice of the tokens that the recoupling ratio matches.
    """
    ensure_exists(data)
    at_least_one(limit=limit, eval_sequences=eval_sequences, batch_size=batch_size, length=length)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; choose another path")
    language_model = causal(teacher, device=device_named(device))
    model = language_model.model
    depth = len(blocks_of(model))
    ranges = ranges_of(depth, num_layers or (max(1, depth // 3),))
    texts = corpus(data, language_model.tokenizer, length)
    ids, options = texts.training[:limit], {"batch_size": batch_size}
    passes = criteria(model, ids, ranges, tokens=num_tokens, seed=seed, **options)
    progress = partial(track, description="removal and maps")
    *_, measured = track(passes, "criteria", total=-(-len(ids) // batch_size) + 1)
    assert measured is not None
    results = candidates(model, texts.held_out[:eval_sequences], measured, progress=progress, **options)
    rows = sorted(results, key=lambda row: row.mapped.kl)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "select.json", as_json(language_model.fingerprint(), measured, rows))
    mean = measured.recoupling.nanmean(0)
    angle = torch.where(mean.isnan(), mean, measured.angle)
    heat_maps({"recoupling ratio": mean, "angular distance": angle}, out / "criteria.png")
    console.print(_candidates(rows[:12], f"{teacher}, {len(ranges)} ranges, {ids.numel()} tokens; best maps first"))
    best = rows[0]
    console.print(
        f"All ranges are in {out}; next: monge compress train --teacher {quote(teacher)} --data {quote(str(data))} "
        f"--start {best.start} --end {best.end}"
    )


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    limit: int = 32,
    checkpoint: str = "best",
    flow_steps: tuple[int, ...] = (),
    solvers: tuple[FlowSolver, ...] = (),
    prompts: int = 8,
    select: Path | None = None,
) -> None:
    """Compare a trained flow with its teacher, with skipping the layers, and with the least-squares map, on held-out text.

    Args:
        run: Run directory.
        limit: Number of held-out sequences.
        checkpoint: Checkpoint to evaluate: best, last, or a step.
        flow_steps: Numbers of solver steps to evaluate; those used in training by default.
        solvers: Solvers to evaluate, with each number of steps; the one used in training by default.
        prompts: Number of held-out texts to continue by 48 tokens; 0 leaves out generation.
        select: File select.json of `monge compress select` on the same teacher, for the number of layers whose removal costs as
            much as the flow.
    """
    at_least_one(limit=limit)
    if prompts < 0:
        raise ValueError(f"--prompts {prompts}: give at least 0")
    selection = None if select is None else read_json(select, "teacher", "ranges")
    opened = reopen(run, app="compress")
    recipe, prepared, estimator = opened_student(opened, which=checkpoint)
    teacher = prepared.language_model.fingerprint()
    if selection is not None and any(
        selection["teacher"].get(name) != teacher[name] for name in ("weights", "tokenizer")
    ):
        raise ValueError(f"--select {select}: of another teacher; run `monge compress select` on {recipe.teacher}")
    matrix, bias = opened.constants["map.matrix"], opened.constants["map.bias"]
    students: dict[str, Student | None] = {
        "teacher": None,
        "skip the layers": lambda x_0: x_0,
        "least-squares map": lambda x_0: x_0 + x_0 @ matrix.mT + bias,
    }
    for step in solvers or (recipe.solver,):
        for steps in flow_steps or (recipe.flow_steps,):
            students[f"flow, {steps} {step}"] = replace(recipe, flow_steps=steps, solver=step).student(estimator)
    held_out = prepared.texts.held_out
    others = held_out[: -recipe.eval_sequences]  # those after them selected the checkpoint
    if not len(others):
        console.print(
            f"The checkpoint was selected on all {len(held_out)} held-out sequences, so the scores favour it; give more text."
        )
    ids = (others if len(others) else held_out)[:limit]
    rows = qualities(prepared.teacher, ids, students, size=recipe.batch_size)
    model, tokenizer = prepared.language_model.model, prepared.language_model.tokenizer
    estimators = {"flow": estimator}
    if recipe.single_pass:
        estimators["flow, merged"] = copy.deepcopy(estimator).merge()
    models: dict[str, nn.Module] = {"teacher": model}
    for name, part in estimators.items():
        models[name] = shared_copy(model)
        graft(models[name], part, recipe.start, recipe.end, steps=recipe.flow_steps, solver=recipe.solver)
    texts = [tokenizer.decode(row[:64]) for row in ids[:prompts]]
    measured = {name: dict(cost._asdict()) for name, cost in costs_of(models, ids[:1]).items()}
    for name in ("teacher", "flow") if texts else ():
        measured[name] |= generation(models[name], tokenizer, texts)._asdict()
    content: dict[str, Any] = {"quality": {name: row._asdict() for name, row in rows.items()}, "models": measured}
    if selection is not None:
        curve = removal_curve(selection["ranges"])
        content["equivalent_skip"] = {
            name: equivalent_skip(row.kl, curve) for name, row in rows.items() if name.startswith("flow")
        }
    write_json(run / "evaluation.json", finite_json(content))
    title = f"{recipe.teacher}, layers [{recipe.start}, {recipe.end}), {ids.numel()} held-out tokens"
    console.print(_qualities(rows, title, content.get("equivalent_skip")))
    console.print(_models(measured))


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


def _qualities(rows: Mapping[str, Quality], title: str, skips: Mapping[str, float] | None) -> Table:
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for column in ("KL (nats)", "perplexity", "top-1", "error", "median", *(("skip",) if skips else ())):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row.kl:.3f}",
            f"{row.perplexity:.1f}",
            f"{row.agreement:.3f}",
            f"{row.error:.3f}",
            f"{row.median_error:.3f}",
            *((f"{skips[name]:.1f}" if name in skips else "",) if skips else ()),
        )
    return table


def _models(measured: Mapping[str, Mapping[str, float]]) -> Table:
    """Cost and generation, one row for each measure."""
    table = Table()
    table.add_column("", no_wrap=True)
    for name in measured:
        table.add_column(name, justify="right", no_wrap=True)
    shown = {
        "parameters": ("parameters (million)", 1e6),
        "flops": ("GFLOP per token", 1e9),
        "cache_bytes": ("cache per token (kB)", 1e3),
        "scoring": ("tokens/s, scoring", 1.0),
        "prefill": ("tokens/s, prefill", 1.0),
        "decode": ("tokens/s, decode", 1.0),
        "repetition": ("repeated 4-grams", 1.0),
        "brackets": ("matching brackets", 1.0),
        "sums": ("one-digit sums", 1.0),
    }
    for key, (title, unit) in shown.items():
        if any(key in row for row in measured.values()):
            table.add_row(title, *(f"{row[key] / unit:.3g}" if key in row else "" for row in measured.values()))
    return table
