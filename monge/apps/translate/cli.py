"""The verbs of `monge translate`."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from monge.apps.translate import pictures, prepare
from monge.apps.translate.calibrate import Calibration
from monge.apps.translate.couple import Packed, matches
from monge.apps.translate.data import read_texts
from monge.apps.translate.evaluate import evaluate as evaluate_run
from monge.apps.translate.metrics import Interval
from monge.apps.translate.pair import ENDS, Longer, Pairs, origin
from monge.apps.translate.recipes import HERMES, Translate, Translator, stored, translator_of
from monge.files import ensure_absent, write_json
from monge.lm.load import encoder
from monge.lm.store import Row, Vectors, write
from monge.math.path import Affine
from monge.math.solvers import SOLVERS, SolverName
from monge.pretrain import Pretrain
from monge.run import fit
from monge.runs import Opened, reopen
from monge.train.distributed import device_called
from monge.train.log import read_records

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


def hermes(
    recipe: Annotated[Translate, tyro.conf.arg(name="")] = HERMES,
    *,
    out: Path = Path("runs/hermes"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """`train` with the seed's configuration, 313 M parameters for vectors of 2,048 entries: for a GPU.

    Args:
        out: The run directory, made here.
        resume: Go on from the last checkpoint in it.
        tensorboard: Write event files too (needs monge[tensorboard]).
    """
    train(recipe, out=out, resume=resume, tensorboard=tensorboard)


def run(
    run: tyro.conf.Positional[Path],
    vectors: tyro.conf.Positional[Path],
    *,
    out: Path,
    back: bool = False,
    longer: Longer = "refuse",
    steps: int | None = None,
    solver: SolverName = "euler",
    dtype: Literal["float16", "bfloat16", "float32"] = "float16",
    checkpoint: str = "last",
    device: str = "auto",
) -> None:
    """Translate a file of vectors.

    Args:
        run: A run directory.
        vectors: A .parquet file of sequences by id.
        out: The .parquet file to write.
        back: From the target's side to the source's.
        longer: What to do with a sequence of more vectors than the run's container holds.
        steps: Steps of the solver; as many as the run was taught if not said.
        solver: How a step is taken.
    """
    ensure_absent(out)
    source, opened = Vectors(vectors), reopen(run, app="translate")
    if source.width != (width := int(opened.constants["width"])):
        raise ValueError(
            f"{vectors}: vectors of width {source.width}, the run's have {width}; embed by the same model and layer"
        )
    start, end = ENDS[back], ENDS[not back]
    if (made := origin(source.fingerprint)) != int(opened.constants[f"{start}_origin"]):
        other = made == int(opened.constants[f"{end}_origin"])
        raise ValueError(
            f"{vectors}: "
            + (
                f"these are vectors of the {end}; {'leave out' if back else 'give'} --back"
                if other
                else f"not made as the run's {start} was; embed by the same model and layer, in the same way"
            )
        )
    translator = translator_of(opened, which=checkpoint, device=device_called(device))
    steps = translator.steps if steps is None else steps
    if solver != "euler" and translator.recipe.how == "events":
        raise ValueError(f"--solver {solver}: events go by steps of their own; leave it out")
    empty: list[str] = []
    long: list[str] = []
    step, start = SOLVERS[solver][0](Affine()), perf_counter()

    def groups() -> Iterator[list[Row]]:
        for _, group in source.portions():
            most = int(opened.constants["capacity"])
            for key, row in group:
                if len(row) > most and longer == "refuse":
                    raise ValueError(
                        f"{vectors}: id {key!r}: {len(row)} vectors do not fit {most}; say --longer drop or truncate"
                    )
            long.extend(key for key, row in group if len(row) > most)
            group = [(key, row[:most]) for key, row in group if len(row) <= most or longer == "truncate"]
            if not group:
                continue
            found = translator.translate([row.float() for _, row in group], back=back, steps=steps, step=step)
            pairs = list(zip([key for key, _ in group], found, strict=True))
            empty.extend(key for key, row in pairs if not len(row))
            yield [(key, row) for key, row in pairs if len(row)]

    how = {"steps": steps, "solver": solver, "back": back, "input": source.fingerprint}
    count = write(out, groups(), dtype=dtype, fingerprint={"run": str(run), "checkpoint": checkpoint, **how})
    rate = (count + len(empty)) / (perf_counter() - start)
    console.print(
        f"{count} translated, {rate:.0f} a second: {out}"
        + (f"; {len(long)} were longer ({longer})" if long else "")
        + (f"; {len(empty)} came out empty: {', '.join(empty[:5])}" if empty else "")
    )


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    steps: int | None = None,
    budgets: tuple[int, ...] | None = None,
    beside: tuple[Path, ...] = (),
    texts: Path | None = None,
    most: int = 1000,
    pool: int = 1000,
    checkpoint: str = "last",
    device: str = "auto",
) -> None:
    """Translate the test pairs both ways and compare with the truth, beside what does without a flow.

    Args:
        run: A run directory; its pairs must still be where they were.
        steps: Euler steps of the flow; as many as it was taught if not said.
        budgets: Other numbers of steps to show; 1, 2, 4 and 16 if not said and the run was taught more than one.
        beside: Other runs on the same pairs, for a row each.
        texts: What `monge translate data` wrote (nl to formal), for a picture of some couplings with their words.
        most: Test pairs at most.
        pool: Candidates of a retrieval.
    """
    opened = reopen(run, app="translate")
    translator = translator_of(opened, which=checkpoint, device=device_called(device))
    steps = translator.steps if steps is None else steps
    if budgets is None:
        budgets = () if translator.steps == 1 else (1, 2, 4, 16)
    if pool < 2:
        raise ValueError(f"--pool {pool}: a retrieval takes at least 2 candidates")
    if len({path.name for path in beside} | {run.name}) <= len(beside):
        raise ValueError("--beside: runs of one name cannot be told apart in a table; rename one")
    pairs = Pairs(Path(stored(opened).pairs))
    if pairs.fingerprint != int(opened.constants.get("pairs", torch.tensor(0))):
        raise ValueError(f"{pairs.directory}: not the pairs that {run} was trained on; put them back, or train anew")
    others = {path.name: translator_of(_same(path, opened), device=device_called(device)) for path in beside}
    tables = {
        name: evaluate_run(
            pairs, translator, back=back, most=most, steps=steps, budgets=budgets, beside=others, pool=pool
        )
        for name, back in (("source to target", False), ("target to source", True))
    }
    for name, table in tables.items():
        console.print(_table(table.rows, f"{run.name}: {name}"))
    found = {
        name: {row: {k: asdict(v) for k, v in cells.items()} for row, cells in t.rows.items()}
        for name, t in tables.items()
    }
    write_json(run / "evaluation.json", {"steps": steps, "checkpoint": checkpoint, "tables": found})
    seen = {name: (table.true, table.found) for name, table in tables.items()}
    drawn = [pictures.curves(run / "curves.png", read_records(run / "metrics.jsonl"), seen)]
    if texts is not None:
        drawn.append(pictures.plan(run / "plan.png", _arcs(pairs, translator, texts)))
    console.print(
        f"All metrics with their intervals: {run / 'evaluation.json'}; pictures: {', '.join(map(str, drawn))}"
    )


def _arcs(pairs: Pairs, translator: Translator, texts: Path, *, count: int = 3) -> list[pictures.Arcs]:
    """The couplings of a few test pairs, with their words."""
    packed = Packed(pairs, translator.calibration, translator.container)
    rows = {text.id: text for text in read_texts(texts)}
    about = pairs.about["fingerprint"]
    if not all({"model", "max_length"} <= about[end].keys() for end in ENDS):
        raise ValueError(f"{pairs.directory}: its vectors do not say which model made them; leave --texts out")
    encoders = {end: encoder(about[end]["model"]) for end in ENDS}
    found: list[pictures.Arcs] = []
    for number in pairs.side("test")[:count].tolist():
        key, pair = pairs.ids[number], packed([number])
        if key not in rows:
            raise ValueError(
                f"{texts}: no text {key!r}, which {pairs.directory} has; give the texts that were embedded"
            )
        words = [
            pictures.token_texts(encoders[end], text, int(about[end]["max_length"]))
            for end, text in zip(ENDS, (rows[key].nl, rows[key].formal), strict=True)
        ]
        match = matches(packed, translator.recipe.prices, pair)[0]
        found.append(pictures.Arcs.of(key, pair, packed.container, match, words))
    return found


def _same(path: Path, opened: Opened) -> Opened:
    """The run in `path`. ValueError unless it was trained on the same pairs in the same units."""
    other = reopen(path, app="translate")
    for name in ("pairs", *Calibration.of(opened.constants).tensors()):
        one, two = (run.constants.get(name, torch.tensor(torch.nan)) for run in (other, opened))
        if one.shape != two.shape or not torch.allclose(one, two, rtol=1e-3, atol=1e-4):
            raise ValueError(f"{path}: its {name} is not that of {opened.directory}; compare runs on the same pairs")
    return other


def demo(*, out: Path = Path("runs/demo-translate"), pairs: int = 2000, steps: int = 400, lm_steps: int = 200) -> None:
    """English to Metamath and back on real theorems: data, vectors of both sides, a flow, its table. Goes on where it stopped.

    Args:
        out: Where everything goes.
        pairs: How many theorems.
        steps: Training steps of the flow.
        lm_steps: Training steps of the formal side's language model.
    """
    console.print("monge: learning to carry English comments onto Metamath statements (vectors onto vectors, not text)")
    lm = Pretrain(
        train=replace(Pretrain().train, steps=lm_steps, save_every=max(1, lm_steps // 2), warmup=lm_steps // 10)
    )
    recipe = Translate(pairs=str(prepare.whole(out, most=pairs, recipe=lm)))
    recipe = replace(recipe, train=replace(recipe.train, steps=steps, save_every=max(1, steps // 2)))
    train(recipe, out=out / "run", resume=(out / "run" / "recipe.json").exists())
    evaluate(out / "run", texts=out / "texts.jsonl")


def _table(rows: dict[str, dict[str, Interval]], title: str) -> Table:
    """A line for each prediction with what counts most; all of it is in evaluation.json."""
    table = Table(title=title, title_justify="left")
    retrieval = [name for name in next(iter(rows.values())) if name.startswith(("R@1 ", "R@10 ", "Chamfer R@1 "))]
    names = [*retrieval, "length exact", "length error", "matched cosine"]
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    for row, cells in rows.items():
        found = [cells.get(name) for name in names]
        table.add_row(row, *("" if c is None else f"{c.value:.2g} ±{(c.high - c.low) / 2:.1g}" for c in found))
    return table


VERBS = {
    "data": prepare.data,
    "pretrain": prepare.pretrain,
    "embed": prepare.embed,
    "pair": prepare.pair,
    "calibrate": prepare.calibrate,
    "couple": prepare.couple,
    "train": train,
    "hermes": hermes,
    "run": run,
    "evaluate": evaluate,
    "demo": demo,
}
