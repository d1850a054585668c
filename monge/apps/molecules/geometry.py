"""Geometry of molecules: bond lengths, angles and torsions by kind, and their divergence from real molecules; strain."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers, rdMolAlign

from monge.apps.molecules.bonds import Perceived

Quantity = Literal["bond lengths", "bond angles", "torsions"]
BINS: dict[Quantity, Float[np.ndarray, "b"]] = {
    "bond lengths": np.arange(0.8, 2.6001, 0.02),
    "bond angles": np.arange(0.0, 180.1, 3.0),
    "torsions": np.arange(0.0, 180.1, 10.0),
}
"""Edges of the histograms: angstroms, degrees, and absolute degrees. Values outside count in the outermost bins."""
FEWEST = 30
"""Number of values of a kind that both sides need for it to be compared."""
Values = Mapping[str, Sequence[float]]


def measured(molecules: Iterable[Chem.Mol]) -> dict[Quantity, Values]:
    """Each quantity of the heavy atoms, by kind: the elements of the atoms and, for bonds and torsions, the order of the bond.

    Lengths are in angstroms, angles in degrees; a torsion's sign is dropped.
    """
    found: dict[Quantity, defaultdict[str, list[float]]] = {name: defaultdict(list) for name in BINS}
    for molecule in molecules:
        x = molecule.GetConformer().GetPositions()
        for bond in molecule.GetBonds():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            found["bond lengths"][_bond_kind(bond)].append(float(np.linalg.norm(x[i] - x[j])))
            before = [k for k in _neighbours(molecule, i) if k != j]
            after = [k for k in _neighbours(molecule, j) if k != i]
            found["torsions"][_bond_kind(bond)] += [
                _torsion(x[k], x[i], x[j], x[last]) for k in before for last in after if k != last
            ]
        for atom in molecule.GetAtoms():
            near = _neighbours(molecule, atom.GetIdx())
            for position, i in enumerate(near):
                for j in near[:position]:
                    ends = sorted(molecule.GetAtomWithIdx(k).GetSymbol() for k in (i, j))
                    kind = f"{ends[0]}-{_centre(atom)}-{ends[1]}"
                    found["bond angles"][kind].append(_angle(x[i] - x[atom.GetIdx()], x[j] - x[atom.GetIdx()]))
    return {name: dict(kinds) for name, kinds in found.items()}


def _bond_kind(bond: Any) -> str:
    ends = sorted((bond.GetBeginAtom().GetSymbol(), bond.GetEndAtom().GetSymbol()))
    return f"{ends[0]} {bond.GetBondType().name.lower()} {ends[1]}"


def _centre(atom: Any) -> str:
    """The element of an atom, and "aromatic" or its hybridisation."""
    return f"{atom.GetSymbol()} {'aromatic' if atom.GetIsAromatic() else atom.GetHybridization()}"


def _neighbours(molecule: Chem.Mol, atom: int) -> list[int]:
    return [near.GetIdx() for near in molecule.GetAtomWithIdx(atom).GetNeighbors()]


def _angle(a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]) -> float:
    cosine = a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9)
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _torsion(*points: Float[np.ndarray, "3"]) -> float:
    first, axis, last = np.diff(np.stack(points), axis=0)
    return _angle(np.cross(first, axis), np.cross(axis, last))


def divergence(x: Values, y: Values, bins: Float[np.ndarray, "b"]) -> float:
    """Mean Jensen-Shannon divergence, in bits, of the histograms of the kinds that both sides have, weighted by counts in y.

    Kinds with fewer than FEWEST values on either side are left out; nan if none remains.
    """
    kinds = [kind for kind in y if min(len(y[kind]), len(x.get(kind, ()))) >= FEWEST]
    weights = [len(y[kind]) for kind in kinds]
    values = [jensen_shannon(_histogram(x[kind], bins), _histogram(y[kind], bins)) for kind in kinds]
    return float(np.average(values, weights=weights)) if kinds else float("nan")


def _histogram(values: Sequence[float], bins: Float[np.ndarray, "b"]) -> Float[np.ndarray, "c"]:
    return np.histogram(np.clip(values, bins[0], bins[-1]), bins)[0] / len(values)


def jensen_shannon(p: Float[np.ndarray, "n"], q: Float[np.ndarray, "n"]) -> float:
    """The Jensen-Shannon divergence of two distributions in bits, from 0 to 1.

    >>> jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    1.0
    """
    middle = (p + q) / 2
    parts = [np.sum(r[r > 0] * np.log2(r[r > 0] / middle[r > 0])) for r in (p, q)]
    return float(np.mean(parts))


class Strain(NamedTuple):
    """The difference between a geometry and the nearest minimum of MMFF94. Infinite if the minimisation fails or there is no
    Kekule structure."""

    energy: float
    """Energy above the minimum in kcal/mol. If hydrogens are missing, all of them are relaxed first."""
    rmsd: float
    """Root-mean-square displacement of the heavy atoms in angstroms, after alignment."""


def with_hydrogens(molecule: Chem.Mol) -> Chem.Mol:
    """The molecule with hydrogens placed by MMFF94 minimisation, with the heavy atoms fixed.

    They are placed in a frame and an order that the molecule determines, since RDKit's choice among the minima of a rotor, such
    as a hydroxyl group, depends on both. Hydrogens stay at idealised positions if there are no parameters or the minimisation
    fails. A molecule that has its hydrogens is copied.
    """
    full = Chem.AddHs(molecule, addCoords=True)
    if full.GetNumAtoms() == molecule.GetNumAtoms():
        return full
    ordered, order = _ordered(molecule)
    positions = ordered.GetConformer().GetPositions()
    centre = positions.mean(0)
    frame = _frame(positions - centre)
    ordered.GetConformer().SetPositions((positions - centre) @ frame)
    other = _minimised(Chem.AddHs(ordered, addCoords=True))
    found, result = other.GetConformer().GetPositions() @ frame.T + centre, full.GetConformer().GetPositions()
    for number, source in enumerate(order):
        result[_added(full, source, molecule)] = found[_added(other, number, molecule)]
    full.GetConformer().SetPositions(result)
    return full


def _added(full: Chem.Mol, atom: int, molecule: Chem.Mol) -> list[int]:
    """The hydrogens of an atom that `full` has and `molecule` has not."""
    indices = [other.GetIdx() for other in full.GetAtomWithIdx(atom).GetNeighbors()]
    return [index for index in indices if index >= molecule.GetNumAtoms()]


def _ordered(molecule: Chem.Mol) -> tuple[Chem.Mol, list[int]]:
    """A copy whose atoms and bonds have a canonical order, and for each of its atoms the original one. Equivalent atoms are
    ordered by their distances from the others."""
    ranks, conformer = np.array(Chem.CanonicalRankAtoms(molecule, breakTies=False)), molecule.GetConformer()
    positions = conformer.GetPositions()
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    order = np.lexsort([distances @ (1 + ranks), ranks]).tolist()
    place = {atom: number for number, atom in enumerate(order)}
    copy = Chem.RWMol()
    for atom in order:
        copy.AddAtom(molecule.GetAtomWithIdx(atom))
    bonds = [
        (*sorted((place[b.GetBeginAtomIdx()], place[b.GetEndAtomIdx()])), b.GetBondType()) for b in molecule.GetBonds()
    ]
    for begin, end, kind in sorted(bonds, key=lambda bond: bond[:2]):
        copy.AddBond(begin, end, kind)
    moved = Chem.Conformer(len(order))
    moved.SetPositions(positions[order])
    copy.AddConformer(moved)
    Chem.SanitizeMol(copy)
    return copy.GetMol(), order


def _frame(positions: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "3 3"]:
    """A rotation whose columns follow from the first positions that are apart from the origin and from one line."""
    axes: list[Float[np.ndarray, 3]] = []
    for vector in (*positions, *np.eye(3)):  # the unit vectors complete the frame of points on a line
        vector = vector - sum((vector @ axis) * axis for axis in axes)
        if len(axes) < 2 and (length := float(np.linalg.norm(vector))) > 0.1:
            axes.append(vector / length)
    first, second = axes
    return np.stack([first, second, np.cross(first, second)], 1)


def _minimised(full: Chem.Mol) -> Chem.Mol:
    """The molecule after minimisation of the positions of its hydrogens, in place."""
    try:
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(full)
    except Chem.KekulizeException:
        properties = None
    if properties is not None:
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(full, properties)
        for number in _heavy(full):
            field.AddFixedPoint(number)
        field.Initialize()
        with suppress(RuntimeError):
            field.Minimize(maxIts=200)
    return full


def completed(one: Perceived) -> Chem.Mol:
    """A perceived molecule with hydrogens: at their own positions if they are explicit, or placed by `with_hydrogens`."""
    assert one.molecule is not None
    return one.full or with_hydrogens(one.molecule)


def _heavy(molecule: Chem.Mol) -> list[int]:
    return [atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetAtomicNum() > 1]


def strain(molecule: Chem.Mol) -> Strain | None:
    """The strain of a molecule with a conformer of its heavy atoms or of all atoms; None if MMFF94 has no parameters for it."""
    full = with_hydrogens(molecule)
    try:
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(full)
    except Chem.KekulizeException:  # no Kekule structure in MMFF94's model of aromatic rings
        return Strain(np.inf, np.inf)
    if properties is None:
        return None
    heavy, before = _heavy(full), Chem.Mol(full)
    free = rdForceFieldHelpers.MMFFGetMoleculeForceField(full, properties)
    free.Initialize()
    energy = free.CalcEnergy()
    try:
        free.Minimize(maxIts=2000)
    except RuntimeError:  # the line search failed
        return Strain(np.inf, np.inf)
    rmsd = rdMolAlign.AlignMol(full, before, atomMap=[(number, number) for number in heavy])
    value = float(energy - free.CalcEnergy())
    return Strain(value, float(rmsd)) if np.isfinite(value) else Strain(np.inf, np.inf)
