"""The verbs of `monge translate`."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from monge.apps.translate import prepare
from monge.apps.translate.evaluate import evaluate as evaluate_run
from monge.apps.translate.metrics import Interval
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translate, stored, translator_of
from monge.lm.pretrain import Pretrain
from monge.lm.store import Row, Vectors, write
from monge.run import fit, reopen
from monge.train.checkpoint import write_json
from monge.train.distributed import device_called

console = Console(soft_wrap=True)


def train(
    recipe: Annotated[Translate, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/translate"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Learn the flow between both sides.

    Args:
        out: The run directory, made here.
        resume: Go on from the last checkpoint in it.
        tensorboard: Write event files too (needs monge[tensorboard]).
    """
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    console.print(f"Trained. The run is in {out}; next: monge translate evaluate {out}")


def run(
    run: tyro.conf.Positional[Path],
    vectors: tyro.conf.Positional[Path],
    *,
    out: Path,
    back: bool = False,
    steps: int = 8,
    checkpoint: str = "last",
    device: str = "auto",
) -> None:
    """Translate a file of vectors.

    Args:
        run: A run directory.
        vectors: A .parquet file of sequences by id.
        out: The .parquet file to write.
        back: From the target's side to the source's.
        steps: Euler steps.
    """
    translator = translator_of(reopen(run, app="translate"), which=checkpoint, device=device_called(device))
    empty: list[str] = []

    def groups() -> Iterator[list[Row]]:
        for group in Vectors(vectors).groups():
            found = translator.translate([row.float() for _, row in group], back=back, steps=steps)
            pairs = list(zip([key for key, _ in group], found, strict=True))
            empty.extend(key for key, row in pairs if not len(row))
            yield [(key, row) for key, row in pairs if len(row)]

    count = write(out, groups(), dtype="float16", fingerprint={"run": str(run), "checkpoint": checkpoint})
    console.print(
        f"{count} translated: {out}" + (f"; {len(empty)} came out empty: {', '.join(empty[:5])}" if empty else "")
    )


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    steps: int = 8,
    budgets: tuple[int, ...] = (1, 2, 4, 16),
    most: int = 1000,
    pool: int = 1000,
    checkpoint: str = "last",
    device: str = "auto",
) -> None:
    """Translate the test pairs both ways and compare with the truth, beside what does without a flow.

    Args:
        run: A run directory; its pairs must still be where they were.
        steps: Euler steps of the flow.
        budgets: Other numbers of steps to show.
        most: Test pairs at most.
        pool: Candidates of a retrieval.
    """
    opened = reopen(run, app="translate")
    translator = translator_of(opened, which=checkpoint, device=device_called(device))
    pairs = Pairs(Path(stored(opened).pairs))
    tables = {
        name: evaluate_run(pairs, translator, back=back, most=most, steps=steps, budgets=budgets, pool=pool)
        for name, back in (("source to target", False), ("target to source", True))
    }
    for name, table in tables.items():
        console.print(_table(table, f"{run.name}: {name}"))
    found = {
        name: {row: {k: asdict(v) for k, v in cells.items()} for row, cells in t.items()} for name, t in tables.items()
    }
    write_json(run / "evaluation.json", {"steps": steps, "checkpoint": checkpoint, "tables": found})


def demo(*, out: Path = Path("runs/demo-translate"), pairs: int = 2000, steps: int = 1000, lm_steps: int = 200) -> None:
    """English to Metamath and back on real theorems: data, vectors of both sides, a flow, its table. Goes on where it stopped.

    Args:
        out: Where everything goes.
        pairs: How many theorems.
        steps: Training steps of the flow.
        lm_steps: Training steps of the formal side's language model.
    """
    console.print("monge: learning to carry English comments onto Metamath statements (vectors onto vectors, not text)")
    texts, formal = out / "texts.jsonl", out / "formal"
    if not texts.exists():
        prepare.data("metamath", out=texts, most=pairs)
    lm = Pretrain(
        train=replace(Pretrain().train, steps=lm_steps, save_every=max(1, lm_steps // 2), warmup=lm_steps // 10)
    )
    if not (formal / "model").exists():
        prepare.pretrain(texts, out=formal, recipe=lm, resume=(formal / "recipe.json").exists())
    if not (out / "nl.parquet").exists():
        prepare.embed(texts, model="all-MiniLM-L6-v2", layer=6, out=out / "nl.parquet", field="nl")
    if not (out / "formal.parquet").exists():
        prepare.embed(texts, model=str(formal / "model"), layer=3, out=out / "formal.parquet", field="formal")
    if not (out / "pairs" / "pairs.json").exists():
        prepare.pair(out / "nl.parquet", out / "formal.parquet", out=out / "pairs", texts=texts, longer="drop")
    recipe = Translate(pairs=str(out / "pairs"), width=192, depth=3)
    recipe = replace(recipe, train=replace(recipe.train, steps=steps, save_every=max(1, steps // 2)))
    train(recipe, out=out / "run", resume=(out / "run" / "recipe.json").exists())
    evaluate(out / "run")


def _table(rows: dict[str, dict[str, Interval]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right")
    for name in names:
        cells = [rows[row].get(name) for row in rows]
        table.add_row(
            name, *("" if cell is None else f"{cell.value:.3g} ({cell.low:.3g}, {cell.high:.3g})" for cell in cells)
        )
    return table


VERBS = {
    "data": prepare.data,
    "pretrain": prepare.pretrain,
    "embed": prepare.embed,
    "pair": prepare.pair,
    "calibrate": prepare.calibrate,
    "couple": prepare.couple,
    "train": train,
    "run": run,
    "evaluate": evaluate,
    "demo": demo,
}
