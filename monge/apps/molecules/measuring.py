"""The verbs of `monge molecules` that use a trained run: sampling, and scores next to those of real molecules."""

import importlib.util
import json
import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rdkit import Chem
from rich.console import Console
from rich.table import Table

from monge.apps.molecules import page, pictures
from monge.apps.molecules.atoms import TYPES
from monge.apps.molecules.bonds import Perceived, perceived
from monge.apps.molecules.conformers import Molecule
from monge.apps.molecules.dataset import Molecules
from monge.apps.molecules.generator import Drawn, Generator
from monge.apps.molecules.geometry import completed
from monge.apps.molecules.recipes import Molecular, opened
from monge.apps.molecules.sampling import ETA
from monge.apps.molecules.scores import BETTER, Reference, flat_smiles, scores
from monge.files import atomic_write, finite_json, write_json, write_text
from monge.flags import at_least_one
from monge.math.random import seeded
from monge.run import fingerprint
from monge.runs import reopen
from monge.training.distributed import device_named

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets


@dataclass(frozen=True)
class DeviceOptions:
    """Device and CPU threads of the sampling."""

    device: str = "auto"
    """Device to compute on: cpu, cuda, cuda:N, or auto, which takes a GPU if there is one."""
    threads: int = 0
    """Torch threads per operation on the CPU; 0 keeps torch's default."""

    def opened(self, run: Path, which: str) -> tuple[Molecular, Generator]:
        """(recipe, generator) of a run, on this device. Sets torch's number of threads."""
        if self.threads < 0:
            raise ValueError(f"--threads {self.threads}: give at least 1, or 0 for torch's default")
        if self.threads:
            torch.set_num_threads(self.threads)
        return opened(reopen(run, app="molecules"), which=which, device=device_named(self.device))


DEVICE = DeviceOptions()
DeviceFlags = Annotated[DeviceOptions, tyro.conf.arg(name="")]


def sample(
    run: tyro.conf.Positional[Path],
    *,
    num_samples: int = 60,
    num_atoms: int | None = None,
    solver_steps: int | None = None,
    eta: float = ETA,
    checkpoint: str = "best",
    seed: int = 0,
    out: Path | None = None,
    device_options: DeviceFlags = DEVICE,
) -> None:
    """Draw molecules from a run. Writes molecules.sdf (the valid ones, with hydrogens), molecules.jsonl (all), a grid of the
    first 60 structures, the flow of four molecules, and a page on which the first 200 molecules can be turned.

    Args:
        run: Run directory.
        num_samples: Number of molecules to draw.
        num_atoms: Number of heavy atoms per molecule (with explicit hydrogens, of all atoms; before fake atoms are added), at
            most twice that of the largest training molecule; by default sizes are drawn from those of the training molecules.
        solver_steps: Number of steps from noise to molecules; by default that of the run's evaluations.
        eta: Fresh noise of the positions in each step: 0 gives Euler steps, 1 ancestral sampling (DDIM), and larger values more
            noise, which favours likelier molecules.
        checkpoint: Checkpoint to sample from: best, last or a step number.
        seed: Random seed of the noise and the sizes.
        out: Output directory; default: RUN/samples.
    """
    at_least_one(
        num_samples=num_samples,
        num_atoms=1 if num_atoms is None else num_atoms,
        solver_steps=1 if solver_steps is None else solver_steps,
    )
    _check_eta(eta)
    recipe, generator = device_options.opened(run, checkpoint)
    largest = len(generator.sizes) - 1
    if num_atoms is not None and num_atoms > 2 * largest:
        raise ValueError(f"--num-atoms {num_atoms}: give at most {2 * largest}, twice the largest training molecule")
    out, random, began = out or run / "samples", seeded(seed, 7), time.perf_counter()
    mask = generator.mask(num_samples, atoms=num_atoms, generator=random)
    states: list[list[Drawn]] = []
    drawn: list[Drawn] = []
    for drawn in generator.film(mask, steps=solver_steps or recipe.solver_steps, eta=eta, generator=random):
        states.append(drawn[:4])
    results = [one.molecule() for one in drawn]
    seconds = time.perf_counter() - began
    write_samples(results, out)
    pictures.grid(results[:60], out / "molecules.png")
    pictures.film(states, out / "film.png")
    page.write(results[:200], out / "molecules.html", title=f"Samples of {run.resolve().name}")
    console.print(
        f"{sum(one.valid for one in results)} valid molecules of {num_samples} in {seconds:.1f} s in {out}: "
        "molecules.sdf, molecules.jsonl, molecules.png, film.png, molecules.html"
    )


def _check_eta(eta: float) -> None:
    if not 0 <= eta < math.inf:
        raise ValueError(f"--eta {eta}: give a finite number that is not negative")


def write_samples(results: list[Perceived], out: Path) -> None:
    """Write the valid molecules with hydrogens to molecules.sdf, and a line per result to molecules.jsonl."""
    rows: list[dict[str, Any]] = []
    with atomic_write(out / "molecules.sdf") as path, Chem.SDWriter(str(path)) as writer:
        for number, one in enumerate(results):
            if one.valid and one.molecule is not None:
                full = Chem.Mol(completed(one))
                full.SetProp("_Name", f"sample-{number}")
                full.SetProp("SMILES", Chem.MolToSmiles(one.molecule))
                writer.write(full)
            smiles = None if one.molecule is None else Chem.MolToSmiles(one.molecule)
            rows.append(
                {
                    "id": f"sample-{number}",
                    "valid": one.valid,
                    "connected": one.connected,
                    "smiles": smiles,
                    "reason": one.reason,
                    "types": [str(TYPES[kind]) for kind in one.types],
                    "positions": np.round(one.positions, 4).tolist(),
                }
            )
    write_text(out / "molecules.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    num_samples: int = 500,
    solver_steps: int | None = None,
    eta: float = ETA,
    checkpoint: str = "best",
    seed: int = 0,
    data: Path | None = None,
    held_out: Path | None = None,
    posebusters: bool = False,
    ani: bool = False,
    device_options: DeviceFlags = DEVICE,
) -> None:
    """Score generated molecules next to as many training molecules, which go through the same perception of bonds.

    Args:
        run: Run directory.
        num_samples: Number of molecules to draw.
        solver_steps: Number of steps from noise to molecules; by default that of the run's evaluations.
        eta: Fresh noise of the positions in each step: 0 gives Euler steps, 1 ancestral sampling (DDIM), and larger values more
            noise, which favours likelier molecules.
        checkpoint: Checkpoint to evaluate: best, last or a step number.
        seed: Random seed of the noise, the sizes and the choice of training molecules.
        data: Current path of the run's prepared molecules, if they have moved.
        held_out: Prepared set of molecules to compare with, such as one of moses-scaffolds, without those that are also in the
            run's training set; default: the test split of the run's molecules.
        posebusters: Also run the checks of PoseBusters, about a second per molecule (pip install posebusters).
        ani: Also measure the strain with ANI-2xt, about a second per molecule (pip install --no-deps auto3d torchani); not for
            runs aligned with it.
    """
    at_least_one(num_samples=num_samples, solver_steps=1 if solver_steps is None else solver_steps)
    _check_eta(eta)
    stored = reopen(run, app="molecules")
    recipe, generator = device_options.opened(run, checkpoint)
    if ani and recipe.align == "ani":
        raise ValueError(f"--ani: {run} is aligned with ANI-2xt, which therefore cannot judge it")
    steps = solver_steps or recipe.solver_steps
    for name, install, wanted in (
        ("posebusters", "posebusters", posebusters),
        ("torchani", "--no-deps auto3d torchani", ani),
        ("Auto3D", "--no-deps auto3d torchani", ani),
    ):
        if wanted and importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed; pip install {install}")
    recipe = replace(recipe, data=str(data or recipe.data))
    training = recipe.molecules("train")
    if not torch.equal(fingerprint(recipe.encoded().x), stored.constants["molecules"]):
        raise ValueError(
            f"{recipe.data}: not the molecules that {run} was trained on; prepare them with the same settings"
        )
    chosen = torch.randperm(len(training), generator=seeded(seed, 8))[:num_samples].tolist()
    real = [perceived_from(training[number]) for number in chosen]
    names = frozenset(flat_name(one) for one in training)
    others = recipe.molecules("test") if held_out is None else Molecules(held_out).split("all")
    found = [one.molecule for one in map(perceived_from, others) if one.valid and one.molecule]
    if held_out is not None:
        found = [molecule for molecule in found if flat_smiles(molecule) not in names]
    if not found:
        reason = f"--held-out {held_out}: no molecule that is not in the training set of {run}"
        raise ValueError(reason if held_out else f"{recipe.data}: bonds of no test molecule can be perceived")
    reference = Reference(names, found)
    random, began = seeded(seed, 7), time.perf_counter()
    drawn = generator.draw(generator.mask(num_samples, generator=random), steps=steps, eta=eta, generator=random)
    results, uncorrected = [one.molecule() for one in drawn], [one.molecule(limit=1) for one in drawn]
    seconds = time.perf_counter() - began
    judges = {"with_posebusters": posebusters, "with_ani": ani}
    columns = {name: scores(part, reference, **judges) for name, part in (("generated", results), ("real", real))}
    columns["real"] |= {name: float("nan") for name in ("novel of valid", "valid, unique and novel")}
    rows = {
        name: {column: values[name] for column, values in columns.items()} | {"better": better}
        for name, better in BETTER.items()
        if name in columns["generated"]
    }
    before = sum(one.valid for one in uncorrected) / num_samples
    reasons = Counter(one.reason or "several parts" for one in results if not one.valid)
    options = {"samples": num_samples, "solver_steps": steps, "eta": eta, "checkpoint": checkpoint, "seed": seed}
    options |= {"held_out": None if held_out is None else str(held_out), "num_held_out": len(found)}
    content = {"rows": rows, "valid without correction of types": before, "invalid": dict(reasons)}
    write_json(run / "evaluation.json", finite_json({**options, **content, "seconds": seconds}))
    title = f"{run.resolve().name}: {num_samples} molecules, {steps} steps, {len(found)} held-out molecules"
    console.print(_table(rows, title), soft_wrap=False)
    console.print(
        f"Bond perception recovers {Molecules(Path(recipe.data)).settings['round_trip']:.1%} of the prepared molecules. "
        f"Valid with the most probable types alone, without correction: {before:.3f}. "
        f"Invalid: {', '.join(f'{reason} {count}' for reason, count in reasons.most_common()) or 'none'}."
    )


def perceived_from(one: Molecule) -> Perceived:
    """The molecule that the atoms of a prepared one form."""
    return perceived(one.types.tolist(), one.positions)


def flat_name(one: Molecule) -> str:
    """The SMILES of a prepared molecule as `perceived` finds it, without stereochemistry."""
    molecule = perceived_from(one).molecule
    return flat_smiles(molecule or Chem.MolFromSmiles(one.smiles))


def _table(rows: dict[str, dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("metric")
    for column in ("generated", "real"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("better", no_wrap=True)
    for name, row in rows.items():
        values = (row["generated"], row["real"])
        table.add_row(name, *("-" if np.isnan(value) else f"{value:.3g}" for value in values), row["better"])
    return table
