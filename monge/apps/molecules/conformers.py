"""Conformers of molecules: types and positions of the atoms in the order of the canonical SMILES."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from rdkit import Chem, RDLogger
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from monge.apps.molecules.atoms import HYDROGEN, UnsupportedMolecule, types_of

RDLogger.DisableLog("rdApp.*")  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Molecule:
    """A molecule with a conformer."""

    id: str
    smiles: str
    """Canonical SMILES."""
    types: Int[np.ndarray, "N"]
    """Number of the type of each heavy atom or, with explicit hydrogens, of each atom."""
    positions: Float[np.ndarray, "N 3"]
    """Positions of these atoms in angstroms, with mean 0."""

    @property
    def heavy(self) -> Bool[np.ndarray, "N"]:
        """True for heavy atoms."""
        return self.types != HYDROGEN


def structure(smiles: str, *, max_atoms: int) -> Chem.Mol:
    """The molecule of a SMILES with its heavy atoms in canonical order. UnsupportedMolecule if it cannot be used."""
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise UnsupportedMolecule("not a valid SMILES")
    canonical = Chem.MolFromSmiles(Chem.MolToSmiles(Chem.RemoveAllHs(molecule)))
    if canonical is None or not canonical.GetNumHeavyAtoms():
        raise UnsupportedMolecule("no heavy atoms")
    if canonical.GetNumAtoms() > max_atoms:
        raise UnsupportedMolecule(f"{canonical.GetNumAtoms()} heavy atoms; the limit is {max_atoms}")
    if len(Chem.GetMolFrags(canonical)) > 1:
        raise UnsupportedMolecule("several molecules in one SMILES")
    types_of(canonical)
    return canonical


def embedded(molecule: Chem.Mol, *, seed: int) -> Chem.Mol:
    """The molecule with hydrogens and a conformer: ETKDG version 3 (Wang et al. 2020), then MMFF94.

    UnsupportedMolecule if RDKit finds no conformer. A molecule without MMFF parameters keeps the geometry of ETKDG.
    """
    full = Chem.AddHs(molecule)
    options = rdDistGeom.ETKDGv3()
    options.randomSeed = seed
    if rdDistGeom.EmbedMolecule(full, options) != 0:
        raise UnsupportedMolecule("no conformer was found")
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(full):
        try:
            rdForceFieldHelpers.MMFFOptimizeMolecule(full, maxIters=500)
        except RuntimeError as error:  # the line search failed
            raise UnsupportedMolecule(f"MMFF94 failed ({error})") from error
    return full


def with_conformer(
    name: str, smiles: str, *, max_atoms: int, seed: int = 0, explicit_hydrogens: bool = False
) -> Molecule:
    """The molecule of a SMILES, with a new conformer. UnsupportedMolecule if it cannot be used."""
    full = embedded(structure(smiles, max_atoms=max_atoms), seed=seed)
    return of_structure(name, full, explicit_hydrogens=explicit_hydrogens)


def of_structure(name: str, full: Chem.Mol, *, explicit_hydrogens: bool = False) -> Molecule:
    """Convert an RDKit molecule with a conformer. With `explicit_hydrogens`, each heavy atom is followed by its hydrogens;
    UnsupportedMolecule if they are missing."""
    plain = Chem.RemoveAllHs(full)
    smiles = Chem.MolToSmiles(plain)
    order = list(plain.GetPropsAsDict(includePrivate=True, includeComputed=True)["_smilesAtomOutputOrder"])
    if explicit_hydrogens:
        if full.GetNumAtoms() != Chem.AddHs(plain).GetNumAtoms():
            raise UnsupportedMolecule("hydrogens without positions; add them, or prepare without explicit hydrogens")
        heavy = [atom.GetIdx() for atom in full.GetAtoms() if atom.GetAtomicNum() > 1]
        order = [number for place in order for number in (heavy[place], *_hydrogens(full, heavy[place]))]
        plain = full
    positions = plain.GetConformer().GetPositions()[order].astype(np.float32)
    types = np.array(types_of(plain, explicit=explicit_hydrogens))
    return Molecule(name, smiles, types[order], positions - positions.mean(0))


def _hydrogens(molecule: Chem.Mol, atom: int) -> list[int]:
    """The indices of the explicit hydrogens of an atom."""
    return [near.GetIdx() for near in molecule.GetAtomWithIdx(atom).GetNeighbors() if near.GetAtomicNum() == 1]
