"""The verb `finetune` of `monge prove`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from monge.apps.prove.finetune import PRESETS, FineTune, loss_of, trained
from monge.apps.prove.pairs import as_rows
from monge.files import write_json
from monge.flags import bind
from monge.run import fit
from monge.runs import reopen, with_stored_recipe

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets
EMPTY = FineTune()


def finetune(
    runs: tyro.conf.Positional[tuple[Path, ...]] = (),
    recipe: Annotated[FineTune, tyro.conf.arg(name="")] = EMPTY,
    *,
    pairs: tuple[Path, ...] = (),
    out: Path = Path("runs/policy"),
    preset: Literal["scratch", "smollm2-135m", "deepseek-prover-7b"] = "scratch",
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Fine-tune a language model on states and the tactics that led to proofs, for `monge prove search --policy local`.

    Args:
        runs: Run directories of `monge prove replay` and `monge prove search`; with --resume, those of the run by default.
        pairs: Files of published pairs (.jsonl or .parquet) with fields state_before (or state, or goal) and tactic, to mix in.
        out: Run directory; created if needed. The model is saved in OUT/model.
        preset: Settings that flags override: a small model from scratch, or LoRA on SmolLM2-135M or DeepSeek-Prover-V2-7B.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    given = {"runs": runs or recipe.runs, "pairs": pairs or recipe.pairs}
    recipe = replace(recipe, **{name: tuple(map(str, paths)) for name, paths in given.items()})
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    data, model = trained(recipe, reopen(out, app=FineTune.app))
    losses = {
        source: {"examples": len(part), "loss": loss_of(model, part, recipe.length, data.pad)}
        for source, part in data.held_out_by_source().items()
    }
    model.save_pretrained(out / "model")
    data.tokenizer.save_pretrained(out / "model")
    rows = as_rows(data.counts)
    sizes = {"training": len(data.training), "held-out": len(data.held_out)}
    write_json(out / "policy.json", {"sources": rows, "examples": sizes, "held-out loss": losses})
    table = Table(title=f"{sizes['training']} examples for training, {sizes['held-out']} held out")
    for name in (*rows[0], "held-out loss"):
        table.add_column(name, justify="left" if name == "source" else "right")
    for row in rows:
        loss = losses.get(row["source"], {}).get("loss")
        table.add_row(*map(str, row.values()), "" if loss is None else f"{loss:.3f}")
    console.print(table)
    console.print(
        f"The model is in {out / 'model'}; next: monge prove search --policy local --model {quote(str(out / 'model'))}"
    )


def with_preset(arguments: Sequence[str]) -> Callable[..., None]:
    """`finetune` whose flags default to the settings of the run to resume, or to those of `--preset`."""
    _, named = bind(finetune, arguments, "monge prove finetune")
    if named.get("resume") and (stored := with_stored_recipe(finetune, arguments)) is not finetune:
        return stored
    return partial(finetune, recipe=replace(EMPTY, **PRESETS[named.get("preset", "scratch")]))
