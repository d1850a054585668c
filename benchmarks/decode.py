"""Texts from vectors: formal statements decoded from English, next to the nearest known statements and to controls.

    python benchmarks/decode.py metamath [--steps 2000] [--decoder-steps 2000] [--seeds 3] [--workers 2]
    python benchmarks/decode.py lean

`metamath` translates the comments of set.mm, `lean` the theorems of Lean's library in controlled English, which is synthetic.
A flow translates vectors of the English text, and a decoder that was trained on true vectors with noise generates the
statement. The controls: the nearest English text's statement, the known statement nearest to the translation, the same decoder
on the translation of another row ("other English"), and a decoder that does not see vectors. All texts are greedy. Every arm
has the same data and number of steps; a regression trains 16 pairs per step in both directions, a flow 32 in one. Lean decides
which of its statements elaborate and which are equal to the true ones. Results of finished arms are kept in benchmarks/results,
so an interrupted benchmark resumes. It takes one to two hours of a core for each arm and seed.
"""

import side_by_side as side  # sets one thread

# isort: split

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from over_seeds import interval, shown
from scipy.stats import wilcoxon
from torch import Tensor

from monge.apps.prove.check import ELABORATES, check
from monge.apps.prove.exports import export_english
from monge.apps.prove.report import mcnemar
from monge.apps.translate.calibrate import means
from monge.apps.translate.data import read_texts
from monge.apps.translate.decode import Bank, token_f1
from monge.apps.translate.decoder_recipe import OpenedDecoder, TrainDecoder, opened_decoder
from monge.apps.translate.grammar import Grammar
from monge.apps.translate.metamath import INSTALLED
from monge.apps.translate.metrics import pooled_scores
from monge.apps.translate.pair import Pairs
from monge.apps.translate.prepare import SMALL
from monge.apps.translate.prepared import prepare_all
from monge.apps.translate.recipes import Translate, translator_of
from monge.files import locked
from monge.fleet import processes
from monge.math.random import seeded
from monge.run import fit
from monge.runs import reopen

Corpus = Literal["metamath", "lean"]
NAMES = {"metamath": "set.mm", "lean": "controlled English, which is synthetic, to Lean"}
Scores = dict[str, list[float]]
"""Values of each score, one per test pair."""
ARMS: dict[str, dict[str, Any]] = {
    "one step": {},
    "one step, ridge lengths": {"lengths": "ridge"},
    "flow matching, contrast": {"method": "flow-matching", "batch_size": 32},
    "flow matching, source, contrast": {
        "method": "flow-matching",
        "batch_size": 32,
        "source_condition": True,
        "sigma": 0.5,
    },
    "noise to target": {"method": "conditional", "batch_size": 32},
}
DECODED, OTHER = "decoded", "decoded, other English"


def prepared(corpus: Corpus, work: Path, limit: int | None) -> Path:
    """The directory of pairs, made once."""
    texts = work / "texts.jsonl"
    if corpus == "lean" and not texts.exists():
        work.mkdir(parents=True, exist_ok=True)
        export_english(out=texts, limit=limit)
    model = replace(SMALL, train=replace(SMALL.train, threads=1))
    return prepare_all(work, limit=limit, recipe=model)


def trained(work: Path, arm: str, seed: int, steps: int, decoder_steps: int) -> tuple[Path, dict[str, Path]]:
    """(run of the flow, its decoders with and without vectors), trained to the end."""
    name = f"{arm} {seed} {steps}".replace(",", "").replace(" ", "-")
    recipe = Translate(pairs=str(work / "pairs"), **ARMS[arm])
    config = replace(recipe.train, steps=steps, save_every=500, seed=seed, threads=1, loader_threads=0)
    fit(replace(recipe, train=config), work / name, resume=True)
    decoders: dict[str, Path] = {}
    for kind, use_vectors in (("vectors", True), ("none", False)):
        out = work / f"{name if use_vectors else f'no-vectors-{seed}'}-decoder-{decoder_steps}"
        made = TrainDecoder(str(work / name), str(work / "texts.jsonl"), use_vectors=use_vectors)
        train = replace(made.train, steps=decoder_steps, save_every=500, seed=seed, threads=1)
        with locked(work / f"{out.name}-training", wait=True):  # arms with one seed share the control
            fit(replace(made, train=train), out, resume=True)
        decoders[kind] = out
    return work / name, decoders


def texts_of(decoder: OpenedDecoder, sequences: Sequence[Tensor], *, size: int = 64) -> list[str]:
    """The greedy text of each calibrated sequence."""
    parts = [decoder.texts(sequences[k : k + size]) for k in range(0, len(sequences), size)]
    return [text for part in parts for text, _ in part]


def decoded(work: Path, run: Path, decoders: Mapping[str, Path], keys: Sequence[int]) -> dict[str, list[str]]:
    """The statements that each method gives to the test pairs `keys`."""
    pairs, translator = Pairs(work / "pairs"), translator_of(reopen(run, app="translate"))
    known = {text.id: text.formal for text in read_texts(work / "texts.jsonl")}
    train = pairs.split("train").tolist()
    source, target = (translator.space.calibration.side(end) for end in ("source", "target"))
    with torch.no_grad():
        ends = translator.carry([source.apply(pairs.sequence("source", n)) for n in keys])
    english = [
        source.apply(means(pairs, "source", part, entries=len(part) * pairs.width)) for part in (list(keys), train)
    ]
    centre = english[1].mean(0)
    nearest = pooled_scores(english[0] - centre, english[1] - centre).argmax(1).tolist()
    bank = Bank.of(pairs, translator.space, "target", train)
    filled = [x for x in ends if len(x)]

    def with_empty(texts: Sequence[str]) -> list[str]:
        """These texts, and an empty one for each empty sequence."""
        rest = iter(texts)
        return [next(rest) if len(x) else "" for x in ends]

    closest = with_empty([known[row[0][0]] for row in bank.nearest([target.undo(x) for x in filled], 1)])
    ours = with_empty(texts_of(opened_decoder(decoders["vectors"], which="best"), filled))
    free = with_empty(texts_of(opened_decoder(decoders["none"], which="best"), filled))
    return {
        DECODED: ours,
        OTHER: [*ours[1:], ours[0]],
        "without vectors": free,
        "nearest English": [known[pairs.ids[train[k]]] for k in nearest],
        "nearest translation": closest,
    }


@cache
def grammar() -> Grammar:
    """The grammar of set.mm."""
    return Grammar.of(INSTALLED)


def scored(corpus: Corpus, texts: Sequence[str], true: Mapping[str, str], work: Path) -> Scores:
    """The scores of a text for each id of `true`, in order."""
    pairs = list(zip(texts, true.values(), strict=True))
    values = {"exact": [float(a == b) for a, b in pairs], "token F1": [token_f1(a, b) for a, b in pairs]}
    if corpus == "metamath":
        return values | {"well-formed": [float(grammar().well_formed(text)) for text in texts]}
    return values | checked(dict(zip(true, texts, strict=True)), work)


def checked(texts: Mapping[str, str], work: Path) -> Scores:
    """Lean's verdicts on statements by the theorem's id; nan where the true statement does not elaborate. A statement that
    crashes Lean counts as wrong."""
    rows, out, theorems = (work / name for name in ("rows.jsonl", "verdicts.jsonl", "theorems.jsonl"))
    lines = (work.parent / "texts.jsonl").read_text().splitlines()
    theorems.write_text("".join(f"{line}\n" for line in lines if json.loads(line)["id"] in texts))
    rows.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in texts.items()))
    out.unlink(missing_ok=True)
    check(rows, theorems=theorems, out=out, statements=True)
    kinds = {row["id"]: row["verdicts"][0]["kind"] for row in map(json.loads, out.read_text().splitlines())}
    known = {key: float("nan") if kind == "truth" else 0.0 for key, kind in kinds.items()}
    return {
        name: [known[key] + (kinds[key] in good) for key in texts]
        for name, good in {"elaborates": ELABORATES, "equal": ("equal",)}.items()
    }


def against(ours: Sequence[float], other: Sequence[float]) -> float:
    """The p-value of a paired test: McNemar's exact test of shares, Wilcoxon's signed-rank test of other scores. Pairs with
    nan are left out."""
    pairs = [(a, b) for a, b in zip(ours, other, strict=True) if not math.isnan(a + b)]
    ours, other = [a for a, _ in pairs], [b for _, b in pairs]
    if {*ours, *other} <= {0.0, 1.0}:
        return mcnemar(sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))
    return float(wilcoxon(ours, other).pvalue) if ours != other else 1.0


def measured(
    corpus: Corpus, work: Path, steps: int, decoder_steps: int, tests: int, task: tuple[str, int]
) -> dict[str, Any]:
    """The scores of an arm and a seed, with the p-values of the decoded texts against the others."""
    torch.set_num_threads(1)
    arm, seed = task
    run, decoders = trained(work, arm, seed, steps, decoder_steps)
    pairs = Pairs(work / "pairs")
    numbers = torch.from_numpy(pairs.split("test"))
    keys = numbers[torch.randperm(len(numbers), generator=seeded(1787))[:tests]].tolist()
    known = {text.id: text.formal for text in read_texts(work / "texts.jsonl")}
    true = {pairs.ids[n]: known[pairs.ids[n]] for n in keys}
    (scratch := work / f"scores-{arm}-{seed}").mkdir(exist_ok=True)
    methods = decoded(work, run, decoders, keys)
    scores = {name: scored(corpus, texts, true, scratch) for name, texts in methods.items()}
    if corpus == "lean":
        scores["true text"] = scored(corpus, list(true.values()), true, scratch)
    rows = [
        {
            "row": name,
            **{score: float(np.nanmean(part)) for score, part in values.items()},
            **{
                f"{score}, p": against(scores[DECODED][score], part)
                for score, part in values.items()
                if name != DECODED
            },
        }
        for name, values in scores.items()
    ]
    return {"arm": arm, "seed": seed, "test pairs": len(keys), "rows": rows}


def main(
    corpus: tyro.conf.Positional[Corpus],
    *,
    work: Path = Path("runs/benchmark-decode"),
    steps: int = 2000,
    decoder_steps: int = 2000,
    tests: int = 1000,
    seeds: int = 3,
    limit: int | None = None,
    arms: tuple[str, ...] = tuple(ARMS),
    workers: int = 2,
) -> None:
    """Train the arms that are missing, decode test pairs, and print the scores.

    Args:
        corpus: Theorems of set.mm with their comments, or of Lean's library in controlled English.
        work: Directory of all data and runs.
        steps: Number of training steps of a flow.
        decoder_steps: Number of training steps of a decoder.
        tests: Maximum number of test pairs.
        seeds: Number of seeds per arm, counted from 0.
        limit: Maximum number of theorems (default: all).
        arms: Names of the arms to run.
        workers: Number of arms to run at a time, with one thread each.
    """
    if unknown := set(arms) - set(ARMS):
        raise SystemExit(f"--arms {', '.join(unknown)}: choose from {', '.join(ARMS)}")
    work = (work / (corpus if limit is None else f"{corpus}-{limit}")).resolve()
    prepared(corpus, work, limit)
    settings = {"corpus": corpus, "steps": steps, "decoder steps": decoder_steps, "tests": tests, "limit": limit}
    results, others = side.stored_rows("decode", settings)
    finished = {(row["arm"], row["seed"]) for row in results}
    tasks = [(arm, seed) for seed in range(seeds) for arm in arms if (arm, seed) not in finished]
    call: Callable[..., dict[str, Any]] = partial(measured, corpus, work, steps, decoder_steps, tests)
    for _, row in processes(workers, start=partial(torch.set_num_threads, 1))(call, tasks):
        results.append({**row, **settings, **side.origin()})
        side.write_result("decode", [*others, *results], packages=("torch", "transformers", "tokenizers"))
    for arm in arms:
        of_seeds = [row["rows"] for row in results if row["arm"] == arm and row["seed"] < seeds]
        table: list[dict[str, Any]] = []
        for number, row in enumerate(of_seeds[0]):
            values = {key: [rows[number][key] for rows in of_seeds] for key in row if key != "row"}
            worst = {key: max(part) for key, part in values.items() if key.endswith(", p")}
            means_of = {key: interval(part) for key, part in values.items() if key not in worst}
            table.append(
                {"row": row["row"], **means_of, **{f"{key}, largest of the seeds": p for key, p in worst.items()}}
            )
        side.print_table(f"{NAMES[corpus]}, {arm}, {len(of_seeds)} seeds", shown(table))


if __name__ == "__main__":
    tyro.cli(main)
