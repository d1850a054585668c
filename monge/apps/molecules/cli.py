"""The verbs of `monge molecules`."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from monge.apps.molecules.dataset import Molecules
from monge.apps.molecules.dataset import prepare as write_set
from monge.apps.molecules.measuring import DEVICE, console, evaluate, sample
from monge.apps.molecules.message_passing import Pretrain
from monge.apps.molecules.recipes import Molecular
from monge.apps.molecules.sources import records
from monge.files import ensure_new
from monge.flags import at_least_one
from monge.fleet import of
from monge.run import fit
from monge.training.distributed import is_first

DATA = Path("runs/molecules-data")


def prepare(
    source: tyro.conf.Positional[str] = "small",
    *,
    out: Path = DATA,
    min_atoms: int = 4,
    max_atoms: int = 12,
    limit: int | None = None,
    seed: int = 0,
    explicit_hydrogens: bool = False,
    workers: int = 1,
    ray: str | None = None,
) -> None:
    """Prepare molecules for training: one conformer each (ETKDG, then MMFF94), types of atoms, and a split by scaffold.

    Molecules that cannot be used are listed with the reason in OUT/failures.jsonl. Molecules of an SDF file with 3D coordinates
    keep their conformers.

    Args:
        source: File of SMILES (.smi, .txt), SDF, or table with a column of SMILES (.csv, .parquet), or a packaged set: small
            (NCI and fragments of MOSES), nci, moses, moses-test, moses-scaffolds.
        out: Directory to create.
        min_atoms: Minimum number of heavy atoms of a molecule.
        max_atoms: Maximum number of heavy atoms of a molecule.
        limit: Maximum number of molecules; all by default.
        seed: Seed of the conformers.
        explicit_hydrogens: Make hydrogens atoms of their own, instead of counting them in the types of the heavy atoms.
        workers: Number of worker processes.
        ray: Address of a Ray cluster to run on, instead of local processes.
    """
    at_least_one(min_atoms=min_atoms, max_atoms=max_atoms, **({} if limit is None else {"limit": limit}))
    if min_atoms > max_atoms:
        raise ValueError(f"--min-atoms {min_atoms} --max-atoms {max_atoms}: the minimum is above the maximum")
    ensure_new(out)
    bounds = {"min_atoms": min_atoms, "max_atoms": max_atoms, "limit": limit, "seed": seed}
    bounds |= {"explicit_hydrogens": explicit_hydrogens}
    settings = {"source": source, **bounds}
    for done in islice(write_set(records(source), out, of(workers, ray), **bounds, settings=settings), 9, None, 10):
        console.print(f"prepare: {done} molecules")
    written = Molecules(out).settings
    failed = ", ".join(f"{reason}: {count}" for reason, count in list(written["failed"].items())[:4])
    more = len(written["failed"]) - 4
    failed += f", {more} other reason{'s' * (more > 1)}" if more > 0 else ""
    console.print(
        f"{written['molecules']} molecules in {out}; left out: {failed or 'none'}. Bond perception recovers "
        f"{written['round_trip']:.1%} of the molecules. Next: monge molecules train --data {quote(str(out))}"
    )


def pretrain(
    recipe: Annotated[Pretrain, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/molecule-encoder"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train an encoder of atoms on a prepared set, without labels: a message-passing network that predicts masked types.

    `monge molecules train --align OUT` aligns with it.

    Args:
        out: Run directory; created if needed.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if is_first():
        words = f"monge molecules train --data {quote(recipe.data)} --align {quote(str(out))}"
        console.print(f"The encoder is in {out}; next: {words}")


def train(
    recipe: Annotated[Molecular, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/molecules"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train a flow from noise to molecules: positions and types of their atoms.

    Args:
        out: Run directory; created if needed.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if is_first():
        share = Molecules(Path(recipe.data)).settings["round_trip"]
        console.print(
            f"Trained. Bond perception recovers {share:.1%} of the prepared molecules. The run is in {out}; next: "
            f"monge molecules evaluate {quote(str(out))}"
        )


def demo(
    *,
    out: Path = Path("runs/molecules-demo"),
    source: str = "small",
    steps: int = 1200,
    num_samples: int = 500,
    limit: int | None = None,
    workers: int = 2,
) -> None:
    """Prepare the small set, train, sample and evaluate: about ten minutes. Resumes an interrupted run.

    Args:
        out: Run directory; the prepared molecules are in OUT-data.
        source: File or packaged set, as in `monge molecules prepare`.
        steps: Number of training steps.
        num_samples: Number of molecules to sample and evaluate.
        limit: Maximum number of molecules to prepare; all by default.
        workers: Number of worker processes that prepare molecules.
    """
    at_least_one(steps=steps, num_samples=num_samples)
    data = out.with_name(f"{out.name}-data")
    if not data.exists():
        prepare(source, out=data, limit=limit, workers=workers)
    stored = Molecules(data).settings
    if (stored["source"], stored["limit"]) != (source, limit):
        raise ValueError(
            f"{data} was prepared with source {stored['source']}, limit {stored['limit']}; use another --out"
        )
    recipe = Molecular(str(data), solver_steps=50, eval_samples=min(128, num_samples))
    train(
        replace(recipe, train=replace(recipe.train, steps=steps, save_every=max(1, steps // 3))),
        out=out,
        resume=(out / "recipe.json").exists(),
    )
    sample(out, num_samples=min(60, num_samples), device_options=DEVICE)
    evaluate(out, num_samples=num_samples, device_options=DEVICE)


VERBS = {
    "prepare": prepare,
    "pretrain": pretrain,
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "demo": demo,
}
