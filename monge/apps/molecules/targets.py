"""Alignment targets: features of a pretrained encoder for each heavy atom, computed once and stored next to the molecules."""

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.molecules.atoms import heavy_atoms
from monge.apps.molecules.bonds import perceived
from monge.apps.molecules.conformers import Molecule
from monge.apps.molecules.dataset import Molecules
from monge.apps.molecules.encoders import ENCODERS, EncoderMissing
from monge.apps.molecules.geometry import with_hydrogens
from monge.lm.store import Row, Vectors, write

EncoderName = Literal["ani", "ani-random", "espaloma", "descriptors"]
PACKAGES = {"ani": "auto3d", "espaloma": "expaloma"}
"""The distribution that holds an encoder's weights; the others have no trained weights."""


def stored(data: Molecules, encoder: EncoderName) -> Path:
    """The file of the targets of all molecules of a prepared set, written if it does not exist or is stale.

    EncoderMissing if a package of the encoder is not installed.
    """
    path = data.directory / "targets" / f"{encoder}.parquet"
    fingerprint = _fingerprint(data, encoder)
    if not path.exists() or {**Vectors(path).fingerprint, **fingerprint} != Vectors(path).fingerprint:
        path.parent.mkdir(exist_ok=True)
        write(path, groups(data.split("all"), encoder), dtype="float32", fingerprint=fingerprint)
    return path


def _fingerprint(data: Molecules, encoder: str) -> dict[str, Any]:
    """The encoder with the version of its package, and a hash of the molecules."""
    digest = hashlib.sha256()
    for name in ("id", "positions"):
        digest.update(repr(data.table.column(name).to_pylist()).encode())
    package = PACKAGES.get(encoder, "rdkit")
    if importlib.util.find_spec({"auto3d": "Auto3D"}.get(package, package)) is None:
        raise EncoderMissing(f"{package} is not installed; pip install --no-deps auto3d expaloma torchani")
    return {"encoder": encoder, package: version(package), "molecules": digest.hexdigest()[:16], "dtype": "float32"}


def groups(molecules: Sequence[Molecule], encoder: str) -> Iterator[list[Row]]:
    """Yields the rows (id, features) of some molecules at a time, without those that have no features."""
    for start in range(0, len(molecules), 256):
        part = molecules[start : start + 256]
        yield [(one.id, features) for one in part if (features := encoded(one, encoder)) is not None]


def encoded(one: Molecule, encoder: str) -> Float[Tensor, "N F"] | None:
    """The features of the heavy atoms in their order; None if the perception of bonds fails."""
    molecule = perceived(one.types.tolist(), one.positions).molecule
    if molecule is None:
        return None
    return torch.from_numpy(ENCODERS[encoder](with_hydrogens(molecule))).float()


def targets(data: Molecules, encoder: EncoderName, molecules: Sequence[Molecule]) -> dict[str, Float[Tensor, "N F"]]:
    """The features of molecules by id, with mean 0 and variance 1 over the atoms of each element in `molecules`.

    Entries that are constant for an element are zero. Molecules in which the perception of bonds fails are left out.
    """
    wanted = {one.id: heavy_atoms(one.types.tolist()) for one in molecules}
    rows = {key: x for _, part in Vectors(stored(data, encoder)).portions() for key, x in part if key in wanted}
    for element in sorted({name for names in wanted.values() for name in names}):
        places = {key: torch.tensor([name == element for name in wanted[key]]) for key in rows}
        sample = torch.cat([rows[key][place] for key, place in places.items()])
        if not len(sample):
            continue
        scale = sample.std(0, correction=0)
        inverse = torch.where(scale > 1e-6, 1 / scale.clamp_min(1e-6), 0.0)
        for key, place in places.items():
            rows[key][place] = (rows[key][place] - sample.mean(0)) * inverse
    return rows
