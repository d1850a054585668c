"""Molecules from flows that train for the same CPU time, or the same number of steps: the default, a transformer, and variants.

    monge molecules prepare small --out runs/molecules-data
    python benchmarks/molecules.py [--data runs/molecules-data] [--seconds 600] [--seeds 3] [--workers 2]
    python benchmarks/molecules.py --steps 2000

Each arm trains on one thread. Without --steps, the number of steps is --seconds over the measured time of a step. Runs are kept
in --work, and an interrupted benchmark resumes; arms and seeds whose scores are in benchmarks/results are not trained again.
The row "real" scores training molecules in place of samples. The transformer trains at a learning rate of 1e-3, all other arms
at 2e-3; neither was tuned.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import side_by_side as side
import torch
import tyro
from over_seeds import interval, shown

from monge.apps.molecules.cli import prepare
from monge.apps.molecules.dataset import Molecules
from monge.apps.molecules.generator import Drawn
from monge.apps.molecules.measuring import flat_name, perceived_from
from monge.apps.molecules.recipes import Molecular, opened
from monge.apps.molecules.scores import Reference, scores
from monge.fleet import processes
from monge.math.random import seeded
from monge.run import fit
from monge.runs import reopen

ARMS: dict[str, dict[str, Any]] = {
    "default": {},
    "transformer": {"architecture": "transformer", "train": replace(Molecular().train, lr=1e-3)},
    "without Kabsch": {"coupling": "independent"},
    "without atom index": {"atom_index": False},
    "permutation, without atom index": {"atom_index": False, "coupling": "permutation"},
    "without self-conditioning": {"self_conditioning": False},
    "distortion": {"distortion": 0.3},
    "type loss 0.2": {"type_weight": 0.2},
    "x_1 prediction": {"prediction": "x_1"},
    "velocity prediction": {"prediction": "velocity"},
    "fake atoms": {"fake_atoms": 0.3},
    "explicit hydrogens": {},
}
"""Settings of the recipe by arm; explicit hydrogens are in the data, DATA-hydrogens."""
RUNNING: dict[str, Any] = {"steps": 1, "save_every": 1, "log_every": 1, "seed": 0, "threads": 1}
"""Training settings that a benchmark sets for each run."""
COLUMNS = ("valid", "connected", "unique of valid", "novel of valid", "bond lengths, divergence (bits)")
COLUMNS += ("bond angles, divergence (bits)", "strain, median (kcal/mol)", "PoseBusters of valid")


def seconds_per_step(recipe: Molecular, *, steps: int = 20) -> float:
    """The CPU time of a training step, without the checkpoints: the mean over `steps` steps after two warm-up steps."""
    run = recipe.build()
    optimizer = torch.optim.AdamW([*run.model.parameters(), *run.objective.parameters()])
    times: list[float] = []
    for number in range(steps + 2):
        began = time.process_time()
        run.objective(run.model, run.batches(number)).value.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - began)
    return sum(times[2:]) / steps


def trained(
    work: Path, data: Path, seconds: float, steps: int, samples: int, posebusters: bool, task: tuple[str, int]
) -> dict[str, Any]:
    """The scores of an arm with one seed, trained for `steps` steps, or if that is 0, for this CPU time."""
    arm, seed = task
    length = f"{steps}-steps" if steps else f"{seconds:.0f}"
    out = work / data.name / f"{arm.replace(' ', '-').replace(',', '')}-{seed}-{length}"
    recipe = Molecular(f"{data}-hydrogens" if arm == "explicit hydrogens" else str(data), **ARMS[arm])
    cost = seconds_per_step(recipe)
    if not (out / "recipe.json").exists():
        steps = steps or max(2, int(seconds / cost))
        train = replace(recipe.train, steps=steps, save_every=max(1, steps // 2), log_every=50, seed=seed, threads=1)
        recipe = replace(recipe, train=train)
    else:
        stored = reopen(out, app="molecules").rebuilt(Molecular)
        if _compared(stored) != _compared(recipe):
            raise ValueError(f"{out}: trained with other settings; remove it, or choose another --work")
        recipe = stored
    fit(recipe, out, resume=True)
    _, generator = opened(reopen(out, app="molecules"), which="last")
    random = seeded(seed, 7)
    drawn: list[Drawn] = generator.draw(
        generator.mask(samples, generator=random), steps=recipe.solver_steps, generator=random
    )
    values = scores([one.molecule() for one in drawn], reference(recipe), with_posebusters=posebusters)
    uncorrected = sum(one.molecule(limit=1).valid for one in drawn) / samples
    row = {"arm": arm, "seed": seed, "steps": recipe.train.steps, "CPU s per step": cost}
    return {**row, "uncorrected": uncorrected, **values}


def _compared(recipe: Molecular) -> tuple[Molecular, Any]:
    """The settings of a recipe that the benchmark does not set for each run."""
    return replace(recipe, train=Molecular().train), replace(recipe.train, **RUNNING)


def reference(recipe: Molecular) -> Reference:
    """The training and test molecules of a recipe."""
    parts = {name: Molecules(Path(recipe.data)).split(name) for name in ("train", "test")}
    held_out = [result.molecule for one in parts["test"] if (result := perceived_from(one)).valid and result.molecule]
    return Reference(frozenset(map(flat_name, parts["train"])), held_out)


def main(
    data: Path = Path("runs/molecules-data"),
    work: Path = Path("runs/benchmark-molecules"),
    seconds: float = 600,
    steps: int = 0,
    seeds: int = 3,
    samples: int = 500,
    arms: tuple[str, ...] = tuple(ARMS),
    posebusters: bool = False,
    workers: int = 2,
) -> None:
    """Train each arm for the same CPU time or the same number of steps, and score its samples.

    Args:
        data: Directory of prepared molecules.
        work: Directory for the runs; finished ones are not trained again.
        seconds: CPU seconds of training for each arm and seed.
        steps: Number of training steps for each arm and seed, instead of --seconds; 0 for none.
        seeds: Number of seeds per arm.
        samples: Number of molecules to draw and score.
        arms: Arms to train.
        posebusters: Also run the checks of PoseBusters, about a second per molecule.
        workers: Number of worker processes, one thread each.
    """
    if unknown := set(arms) - set(ARMS):
        raise SystemExit(f"--arms {', '.join(unknown)}: choose from {', '.join(ARMS)}")
    with_hydrogens = data.with_name(f"{data.name}-hydrogens")
    if "explicit hydrogens" in arms and not with_hydrogens.exists():
        made = {name: Molecules(data).settings[name] for name in ("source", "min_atoms", "max_atoms", "limit", "seed")}
        prepare(**made, out=with_hydrogens, explicit_hydrogens=True, workers=workers)
    length = {"steps per run": steps} if steps else {"seconds": seconds}
    settings = {**length, "samples": samples, "data": data.name, "posebusters": posebusters}
    rows, others = side.stored_rows("molecules", settings)
    settings |= side.origin()
    finished = {(row["arm"], row.get("seed")) for row in rows}
    tasks = [(arm, seed) for seed in range(seeds) for arm in arms if (arm, seed) not in finished]
    call = partial(trained, work, data.resolve(), seconds, steps, samples, posebusters)
    for _, row in processes(workers, start=partial(torch.set_num_threads, 1))(call, tasks):
        rows.append({**row, **settings})
        side.write_result("molecules", [*others, *rows], packages=("torch", "rdkit"))
        print(f"{row['arm']}, seed {row['seed']}: valid {row['valid']:.3f}", flush=True)
    if ("real", None) not in finished:
        training = Molecules(data).split("train")
        chosen = torch.randperm(len(training), generator=seeded(0, 8))[:samples].tolist()
        known = reference(Molecular(str(data)))
        values = scores([perceived_from(training[k]) for k in chosen], known, with_posebusters=posebusters)
        rows.append({"arm": "real", **values, **settings})
        side.write_result("molecules", [*others, *rows], packages=("torch", "rdkit"))
    real = next(row for row in rows if row["arm"] == "real")
    shown_of_real = (name for name in COLUMNS if name in real and name != "novel of valid")
    table = [{"arm": "real", **{name: real[name] for name in shown_of_real}}]
    for arm in arms:
        part = [row for row in rows if row["arm"] == arm and row["seed"] < seeds]
        table.append({"arm": arm, "steps per run": part[0]["steps"], **_means(part)})
    shown_length = f"{steps} steps" if steps else f"{seconds:.0f} CPU seconds"
    side.print_table(f"{shown_length} per run, {seeds} seeds, {samples} samples each", shown(table))


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    names = ("CPU s per step", "uncorrected", *COLUMNS)
    return {name: interval(known) for name in names if (known := [row[name] for row in rows if name in row])}


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
