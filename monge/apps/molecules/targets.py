"""Alignment targets: features of a pretrained encoder for each atom, computed once and stored next to the molecules."""

import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rdkit import Chem
from torch import Tensor

from monge.apps.molecules.atoms import HYDROGEN, elements_of
from monge.apps.molecules.bonds import perceived
from monge.apps.molecules.conformers import Molecule
from monge.apps.molecules.dataset import Failure, Molecules
from monge.apps.molecules.encoders import ENCODERS, EncoderMissing, Features
from monge.apps.molecules.geometry import completed
from monge.apps.molecules.message_passing import MessagePassing, Pretrain
from monge.apps.molecules.model_files import opened_file
from monge.files import locked, write_text
from monge.lm.store import Dropped, Row, Vectors, usable, write
from monge.run import fingerprint as hash_of
from monge.runs import reopen

PACKAGES = {"ani": "auto3d", "espaloma": "expaloma"}
"""The distribution that holds an encoder's weights; the others have no trained weights."""
AtomFeatures = Callable[[Sequence[Molecule]], Iterable[Float[Tensor, "N F"] | Failure]]
"""The features of each molecule's atoms, or of its heavy atoms, in their order, or the reason why it has none."""


@dataclass(frozen=True)
class Source:
    """An encoder of atoms."""

    name: str
    """Name of the file of its targets."""
    fingerprint: dict[str, Any]
    """Name and version, or a hash, of the encoder."""
    features: AtomFeatures
    explicit_hydrogens: bool | None = None
    """True if hydrogens are atoms in the encoder's training data; None if it takes both kinds of molecules."""


def source(encoder: str) -> Source:
    """The encoder with this name or path: a name in ENCODERS, a directory created by `monge molecules pretrain`, or a model
    file of chemprop, CheMeleon or MACE.

    ValueError if there is no such encoder; EncoderMissing if one of its packages is not installed.
    """
    if encoder in ENCODERS:
        package = PACKAGES.get(encoder, "rdkit")
        if importlib.util.find_spec({"auto3d": "Auto3D"}.get(package, package)) is None:
            raise EncoderMissing(f"{package} is not installed; pip install --no-deps auto3d expaloma torchani")
        packages = (package, "torchani") if encoder.startswith("ani") else (package,)
        fingerprint = {"encoder": encoder, **{name: version(name) for name in packages}}
        return Source(encoder, fingerprint, lambda molecules: (attempted(one, encoder) for one in molecules))
    path = Path(encoder)
    if (path / "recipe.json").exists():
        opened = reopen(path, app=Pretrain.app)
        network = opened.weights(opened.rebuilt(Pretrain).network(), which="best")
        assert isinstance(network, MessagePassing)
        weights = f"{int(hash_of(*network.state_dict().values())) % 2**64:016x}"
        if "explicit_hydrogens" not in opened.constants:
            raise ValueError(f"{path}: made by an earlier version of monge; train the encoder again")
        return Source(
            f"own-{weights}",
            {"encoder": "own", "weights": weights},
            lambda molecules: network.features(list(molecules)),
            bool(opened.constants["explicit_hydrogens"]),
        )
    if path.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        reader = cache(lambda: opened_file(path))  # not opened if its targets are stored
        return Source(
            f"{path.stem}-{digest}",
            {"encoder": path.name, "weights": digest},
            lambda molecules: (attempted(one, reader()) for one in molecules),
        )
    raise ValueError(
        f"--align {encoder}: choose none, self, dispersive, {', '.join(ENCODERS)}, a directory created by monge molecules "
        "pretrain, or a model file of chemprop, CheMeleon or MACE"
    )


def stored(data: Molecules, encoder: str) -> Path:
    """The file of the targets of all molecules of a prepared set, written if it does not exist or is stale. Molecules without
    targets are listed with the reasons in NAME.failures.jsonl next to it.

    Errors as in `source`; also ValueError if hydrogens are atoms on one side only."""
    opened, molecules = source(encoder), data.split("all")
    if opened.explicit_hydrogens not in (None, any(HYDROGEN in one.types for one in molecules)):
        kind = "with" if opened.explicit_hydrogens else "without"
        raise ValueError(f"{encoder}: this encoder was trained {kind} explicit hydrogens; train one on these molecules")
    path = data.directory / "targets" / f"{opened.name}.parquet"
    placement = {"rdkit": version("rdkit"), "hydrogens": "canonical frame"}
    fingerprint = {**opened.fingerprint, **placement, "molecules": _digest(data), "dtype": "float32"}

    def current() -> bool:
        return path.exists() and {**Vectors(path).fingerprint, **fingerprint} == Vectors(path).fingerprint

    if not current():
        with locked(path.parent, wait=True):  # a second process, such as another rank, uses the first one's file
            if not current():
                _write(path, molecules, opened, fingerprint)
    return path


def _write(path: Path, molecules: Sequence[Molecule], encoder: Source, fingerprint: dict[str, Any]) -> None:
    """Write the targets and the list of failures. ValueError if no molecule has targets."""
    failures, listing = list[Failure](), path.with_suffix(".failures.jsonl")
    try:
        write(path, groups(molecules, encoder.features, failures), dtype="float32", fingerprint=fingerprint)
    except ValueError:
        if len(failures) < len(molecules):
            raise
    write_text(listing, "".join(json.dumps(one._asdict(), ensure_ascii=False) + "\n" for one in failures))
    if len(failures) == len(molecules):
        raise ValueError(f"no molecule has targets of {encoder.name}; the reasons are in {listing}")
    if failures:
        count = f"{len(failures)} of {len(molecules)} molecules have no targets of {encoder.name}"
        logging.getLogger(__name__).warning("%s; listed in %s", count, listing)


def _digest(data: Molecules) -> str:
    """A hash of the molecules."""
    digest = hashlib.sha256()
    for name in ("id", "types", "positions"):
        digest.update(repr(data.table.column(name).to_pylist()).encode())
    return digest.hexdigest()[:16]


def groups(molecules: Sequence[Molecule], features: AtomFeatures, failures: list[Failure]) -> Iterator[list[Row]]:
    """Yields the rows (id, features) of some molecules at a time; appends those that have no features, or unusable ones such as
    zeros for an atom, to `failures`."""
    for start in range(0, len(molecules), 256):
        part = molecules[start : start + 256]
        found = list(zip(part, features(part), strict=True))
        failures += [row for _, row in found if isinstance(row, Failure)]
        rows, dropped = [(one.id, row) for one, row in found if not isinstance(row, Failure)], list[Dropped]()
        width = rows[0][1].shape[1] if rows else 0
        rows = usable(rows, dtype="float32", width=width, dropped=dropped)
        failures += [Failure(key, f"the encoder's features cannot be used: {reason}") for key, reason in dropped]
        yield rows


def encoded(one: Molecule, encoder: str | Callable[[Chem.Mol], Features]) -> Float[Tensor, "N F"]:
    """The features of the heavy atoms in their order. ValueError if the perception of bonds fails, if the encoder does not know
    an atom, or if it gives another number of rows."""
    result = perceived(one.types.tolist(), one.positions)
    if result.molecule is None:
        raise ValueError(f"no bonds: {result.reason}")
    function = ENCODERS[encoder] if isinstance(encoder, str) else encoder
    rows = torch.from_numpy(function(completed(result))).float()
    if len(rows) != one.heavy.sum():
        raise ValueError(f"the encoder gives features of {len(rows)} atoms for {one.heavy.sum()} heavy atoms")
    return rows


def attempted(one: Molecule, encoder: str | Callable[[Chem.Mol], Features]) -> Float[Tensor, "N F"] | Failure:
    """The features as in `encoded`, or the reason why there are none."""
    try:
        return encoded(one, encoder)
    except EncoderMissing:
        raise
    except ValueError as error:
        return Failure(one.id, str(error))


def targets(
    data: Molecules, encoder: str, molecules: Sequence[Molecule], *, also: Sequence[Molecule] = ()
) -> dict[str, Float[Tensor, "N F"]]:
    """The features of molecules by id, with mean 0 and variance 1 over the atoms of each element in `molecules`, and 0 for
    explicit hydrogens if the encoder has none for them. Those of the molecules `also` get the same shift and scale;
    an element that only they have gets zeros.

    Entries that are constant for an element are zero. Molecules without features are left out; ValueError if none of
    `molecules` is left.
    """
    wanted = {one.id: elements_of(one.types.tolist()) for one in (*molecules, *also)}
    heavy = {one.id: torch.from_numpy(one.heavy) for one in (*molecules, *also)}
    reference = {one.id for one in molecules}
    rows = {
        key: x
        if len(x) == len(wanted[key])
        else x.new_zeros(len(wanted[key]), x.shape[1]).masked_scatter(heavy[key][:, None], x)
        for _, part in Vectors(stored(data, encoder)).portions()
        for key, x in part
        if key in wanted
    }
    if not reference & rows.keys():
        listing = stored(data, encoder).with_suffix(".failures.jsonl")
        raise ValueError(
            f"{data.directory}: no training molecule has targets of {encoder}; the reasons are in {listing}"
        )
    for element in sorted({name for names in wanted.values() for name in names}):
        places = {key: torch.tensor([name == element for name in wanted[key]]) for key in rows}
        known = [rows[key][place] for key, place in places.items() if key in reference]
        sample = torch.cat(known) if known else torch.zeros(0, 1)
        if not len(sample):  # an element that none of `molecules` has
            for key, place in places.items():
                rows[key][place] = 0
            continue
        scale = sample.std(0, correction=0)
        inverse = torch.where(scale > 1e-6, 1 / scale.clamp_min(1e-6), 0.0)
        for key, place in places.items():
            rows[key][place] = (rows[key][place] - sample.mean(0)) * inverse
    return rows
