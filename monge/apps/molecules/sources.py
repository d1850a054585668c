"""Sources of molecules: files of SMILES, SDF files, tables with a column of SMILES, and sets that ship in packages."""

import gzip
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from rdkit import Chem, RDConfig
from rdkit.Chem import BRICS

COLUMNS = ("smiles", "SMILES", "Smiles", "canonical_smiles")
"""Columns of SMILES, in order of preference."""
IDS = ("id", "ID", "name", "Name")
FRAGMENTED = 15_000
"""Number of molecules of MOSES whose BRICS fragments are in the set `small`."""


class Record(NamedTuple):
    """A molecule of a source."""

    id: str
    smiles: str
    """Its SMILES; empty if `molecule` is given or the record cannot be read."""
    molecule: Chem.Mol | None = None
    """The molecule of an SDF file, with its conformer."""


def records(source: str) -> Iterator[Record]:
    """The molecules of a file, or of a set in SETS.

    FileNotFoundError if there is no such file; ValueError for another type of file, for a table without a column of SMILES, and
    for a set whose package is not installed.
    """
    if source in SETS:
        return SETS[source]()
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give a file, or a set: {', '.join(SETS)}")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: unknown type of file; use one of {', '.join(READERS)}")
    return reader(path)


def _lines(lines: Iterable[str]) -> Iterator[Record]:
    """One SMILES per line, optionally followed by a name."""
    for number, line in enumerate(lines):
        if words := line.split():
            yield Record(words[1] if len(words) > 1 else str(number), words[0])


def _smi(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as file:
        yield from _lines(file)


def _sdf(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, molecule in enumerate(Chem.ForwardSDMolSupplier(file, removeHs=False)):
            name = molecule.GetProp("_Name").strip() if molecule is not None and molecule.HasProp("_Name") else ""
            yield Record(name or str(number), "", molecule)


def _table(path: Path) -> Iterator[Record]:
    from pyarrow import csv, parquet

    table: Any = csv.read_csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
    column = next((name for name in COLUMNS if name in table.column_names), None)
    if column is None:
        raise ValueError(f"{path}: no column of SMILES; rename the column that holds them to '{COLUMNS[0]}'")
    ids = next((table[name].to_pylist() for name in IDS if name in table.column_names), range(len(table)))
    for key, smiles in zip(ids, table[column].to_pylist(), strict=True):
        yield Record(str(key), str(smiles or ""))


def nci() -> Iterator[Record]:
    """The first 5,000 molecules of the National Cancer Institute's open database, from RDKit's package."""
    yield from _smi(Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi")


def moses(part: str = "train") -> Iterator[Record]:
    """A split of MOSES, from the package molsets (Polykovskiy et al. 1811.12823). ValueError if it is not installed."""
    spec = importlib.util.find_spec("moses")
    if spec is None or spec.origin is None:
        raise ValueError("MOSES is not installed; pip install --no-deps molsets")
    with gzip.open(Path(spec.origin).parent / "dataset" / "data" / f"{part}.csv.gz", "rt", encoding="utf-8") as file:
        next(file)
        for number, line in enumerate(file):
            yield Record(f"{part}-{number}", line.partition(",")[0].strip())


def small() -> Iterator[Record]:
    """The set `nci`, followed by the distinct BRICS fragments of the first molecules of MOSES (Degen et al. 2008)."""
    first = list(islice(moses(), FRAGMENTED))  # an error before the first record if MOSES is not installed
    yield from nci()
    seen: set[str] = set()
    for record in first:
        molecule = Chem.MolFromSmiles(record.smiles)
        for fragment in sorted(BRICS.BRICSDecompose(molecule)) if molecule is not None else ():
            if (smiles := _without_ends(fragment)) not in seen:
                yield Record(f"fragment-{len(seen)}", smiles)
                seen.add(smiles)


def _without_ends(fragment: str) -> str:
    """The SMILES of a fragment with hydrogens in place of the dummy atoms at its attachment points."""
    molecule = Chem.RWMol(Chem.MolFromSmiles(fragment))
    for atom in molecule.GetAtoms():
        if atom.GetAtomicNum() == 0:
            atom.SetAtomicNum(1)
            atom.SetIsotope(0)
    return Chem.MolToSmiles(Chem.RemoveHs(molecule.GetMol()))


READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".smi": _smi,
    ".txt": _smi,
    ".sdf": _sdf,
    ".csv": _table,
    ".parquet": _table,
}
SETS: dict[str, Callable[[], Iterator[Record]]] = {
    "small": small,
    "nci": nci,
    "moses": moses,
    "moses-test": lambda: moses("test"),
    "moses-scaffolds": lambda: moses("test_scaffolds"),
}
"""Sets that ship in packages: RDKit's NCI molecules, MOSES with its test splits, and the NCI molecules with
fragments of MOSES (small)."""
