"""Prepared sets of molecules: conformers and types in a parquet file, split by scaffold, with a list of those left out."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rdkit import Chem
from rdkit.Chem.Scaffolds import MurckoScaffold

from monge.apps.molecules.atoms import UnsupportedMolecule
from monge.apps.molecules.bonds import flat_smiles, perceived
from monge.apps.molecules.conformers import Molecule, of_structure, structure, with_conformer
from monge.apps.molecules.sources import Record
from monge.files import atomic_directory, read_json, write_json, write_text
from monge.fleet import Fleet
from monge.math.random import split_of

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
SHARD = 64
"""Number of molecules per shard."""


class Failure(NamedTuple):
    """A molecule that is left out."""

    id: str
    reason: str


@dataclass(frozen=True)
class Molecules:
    """A set of molecules in a directory written by `prepare`."""

    directory: Path

    @cached_property
    def table(self) -> Any:
        """The columns id, smiles, split, types and positions."""
        path = self.directory / "molecules.parquet"
        try:
            return pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{self.directory}: no prepared molecules here ({error}); run monge molecules prepare --out {self.directory}"
            ) from error

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of `prepare` and its counts."""
        return read_json(self.directory / "set.json")

    def split(self, name: str) -> list[Molecule]:
        """The molecules of a split, or every molecule for "all"."""
        rows = (row for row in self.table.to_pylist() if name in ("all", row["split"]))
        return [
            Molecule(
                row["id"], row["smiles"], np.array(row["types"]), np.array(row["positions"], np.float32).reshape(-1, 3)
            )
            for row in rows
        ]


def distinct(
    records: Iterator[Record], *, min_atoms: int, max_atoms: int, limit: int | None, failures: list[Failure]
) -> Iterator[Record]:
    """The usable records, each structure once, with canonical SMILES and unique ids; adds the others to `failures`.

    A repeated id gets a number: name, name-2, name-3.
    """
    seen: set[str] = set()
    ids: set[str] = set()
    for record in records:
        try:
            if not record.smiles and record.molecule is None:
                raise UnsupportedMolecule("not readable")
            smiles = record.smiles if record.molecule is None else Chem.MolToSmiles(Chem.RemoveAllHs(record.molecule))
            molecule = structure(smiles, max_atoms=max_atoms)
            if molecule.GetNumAtoms() < min_atoms:
                raise UnsupportedMolecule(f"{molecule.GetNumAtoms()} heavy atoms; at least {min_atoms} are needed")
        except UnsupportedMolecule as error:
            failures.append(Failure(record.id, str(error)))
            continue
        if (canonical := Chem.MolToSmiles(molecule)) in seen:
            failures.append(Failure(record.id, "duplicate"))
            continue
        seen.add(canonical)
        names = (record.id if count == 1 else f"{record.id}-{count}" for count in itertools.count(1))
        name = next(name for name in names if name not in ids)
        ids.add(name)
        yield record._replace(id=name, smiles=canonical)
        if len(seen) == limit:
            return


def prepare_shard(
    shard: Sequence[Record], *, max_atoms: int, seed: int, explicit_hydrogens: bool = False
) -> list[Molecule | Failure]:
    """The molecule, or the reason why there is none, of each record. A failure leaves the others untouched."""
    return [_prepared(record, max_atoms, seed, explicit_hydrogens) for record in shard]


def _prepared(record: Record, max_atoms: int, seed: int, explicit: bool) -> Molecule | Failure:
    try:
        if record.molecule is not None and record.molecule.GetNumConformers() and record.molecule.GetConformer().Is3D():
            return of_structure(record.id, record.molecule, explicit_hydrogens=explicit)
        return with_conformer(record.id, record.smiles, max_atoms=max_atoms, seed=seed, explicit_hydrogens=explicit)
    except UnsupportedMolecule as error:
        return Failure(record.id, str(error))


def prepare(
    records: Iterator[Record],
    out: Path,
    fleet: Fleet,
    *,
    min_atoms: int,
    max_atoms: int,
    limit: int | None = None,
    seed: int = 0,
    explicit_hydrogens: bool = False,
    settings: dict[str, Any],
) -> Iterator[int]:
    """Write a prepared set to the new directory `out`; yield the number of molecules done.

    ValueError if no molecule is left; OUT.failures.jsonl then lists the failures.
    """
    failures: list[Failure] = []
    usable = distinct(records, min_atoms=min_atoms, max_atoms=max_atoms, limit=limit, failures=failures)
    shards = (list(part) for part in _batched(usable, SHARD))
    results: dict[int, list[Molecule | Failure]] = {}
    prepared = partial(prepare_shard, max_atoms=max_atoms, seed=seed, explicit_hydrogens=explicit_hydrogens)
    for number, part in fleet(prepared, shards):
        results[number] = part
        yield sum(map(len, results.values()))
    rows = [one for number in sorted(results) for one in results[number]]
    failures += [one for one in rows if isinstance(one, Failure)]
    molecules = [one for one in rows if isinstance(one, Molecule)]
    if not molecules:
        if not failures:
            raise ValueError("no molecules left: the source is empty")
        reasons = ", ".join(f"{reason} ({count})" for reason, count in _reasons(failures).most_common(3))
        listing = out.with_name(f"{out.name}.failures.jsonl")
        write_text(listing, _lines(failures))
        raise ValueError(f"no molecules left: {reasons}; all failures are in {listing}")
    with atomic_directory(out) as directory:
        table = {
            "id": [one.id for one in molecules],
            "smiles": [one.smiles for one in molecules],
            "split": [split_of(scaffold(one.smiles), SHARES) for one in molecules],
            "types": [one.types.tolist() for one in molecules],
            "positions": [one.positions.flatten().tolist() for one in molecules],
        }
        pq.write_table(pa.table(table), directory / "molecules.parquet")
        write_text(directory / "failures.jsonl", _lines(failures))
        counts = {
            "molecules": len(molecules),
            "failed": dict(_reasons(failures).most_common()),
            "round_trip": round_trip(molecules),
        }
        write_json(directory / "set.json", {**settings, **counts})


def _lines(failures: Sequence[Failure]) -> str:
    return "".join(json.dumps(failure._asdict(), ensure_ascii=False) + "\n" for failure in failures)


def _batched(records: Iterator[Record], size: int) -> Iterator[list[Record]]:
    while part := list(islice(records, size)):
        yield part


def _reasons(failures: Sequence[Failure]) -> Counter[str]:
    """The number of failures for each reason, without the details after a semicolon."""
    return Counter(
        "too large or too small" if "heavy atoms" in one.reason else one.reason.split(";")[0] for one in failures
    )


def scaffold(smiles: str) -> str:
    """The SMILES of the Murcko scaffold (Bemis and Murcko 1996); for a molecule without rings, its own, both without stereo."""
    return MurckoScaffold.MurckoScaffoldSmiles(smiles) or flat_smiles(Chem.MolFromSmiles(smiles))


def round_trip(molecules: Sequence[Molecule], *, limit: int = 1000) -> float:
    """The share of molecules that `perceived` recovers from their types and positions, without stereochemistry."""
    sample = molecules[:: max(1, len(molecules) // limit)][:limit]
    return sum(recovered(molecule) for molecule in sample) / len(sample)


def recovered(molecule: Molecule) -> bool:
    """True if types and positions give the molecule of its SMILES."""
    result = perceived(molecule.types.tolist(), molecule.positions).molecule
    expected = Chem.MolFromSmiles(molecule.smiles)
    return result is not None and flat_smiles(result) == flat_smiles(expected)
