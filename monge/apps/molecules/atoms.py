"""Types of heavy atoms: the element, the number of hydrogens, and the valence."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rdkit import Chem

VALENCES = {"C": (4,), "N": (3, 5), "O": (2,), "F": (1,), "S": (2, 4, 6), "Cl": (1,)}
"""Valences by element, the usual one first. Atoms have no charges: a nitro group is written as N(=O)=O."""


class AtomType(NamedTuple):
    """A heavy atom with its hydrogens."""

    element: str
    hydrogens: int
    valence: int
    """Sum of its bond orders, those to hydrogens included."""

    def __str__(self) -> str:
        count = str(self.hydrogens) if self.hydrogens > 1 else ""
        usual = VALENCES[self.element][0]
        valence = "" if self.valence == usual else f"({self.valence})"
        return self.element + valence + ("H" + count if self.hydrogens else "")


TYPES = tuple(
    AtomType(element, hydrogens, valence)
    for element, valences in VALENCES.items()
    for valence in valences
    for hydrogens in range(valence + 1 if valence == valences[0] else 1)
)
"""The types that a molecule may have. Atoms of an unusual valence have no hydrogens."""
NUMBERS = {one: number for number, one in enumerate(TYPES)}


class UnsupportedMolecule(ValueError):
    """A molecule that cannot be used; the message is the reason."""


def types_of(molecule: Chem.Mol) -> list[int]:
    """The number of the type of each heavy atom, in the order of the atoms. Explicit hydrogens are counted.

    A pair of opposite charges on bonded atoms counts as one more bond between them. UnsupportedMolecule for another charge, an
    unpaired electron, or an unknown element or valence.
    """
    plain = Chem.Mol(molecule)
    Chem.Kekulize(plain, clearAromaticFlags=True)
    return [_type_of(atom) for atom in plain.GetAtoms() if atom.GetAtomicNum() != 1]


def _type_of(atom: Any) -> int:
    element, hydrogens = atom.GetSymbol(), atom.GetTotalNumHs(includeNeighbors=True)
    pairs = sum(near.GetFormalCharge() * atom.GetFormalCharge() == -1 for near in atom.GetNeighbors())
    if element not in VALENCES:
        raise UnsupportedMolecule(f"element {element}; use {', '.join(VALENCES)}")
    if pairs != abs(atom.GetFormalCharge()):
        raise UnsupportedMolecule(f"a charge of {atom.GetFormalCharge():+d} on {element}; use neutral molecules")
    if atom.GetNumRadicalElectrons():
        raise UnsupportedMolecule(f"an unpaired electron on {element}")
    valence = atom.GetTotalValence() + pairs
    number = NUMBERS.get(AtomType(element, hydrogens, valence))
    if number is None:
        raise UnsupportedMolecule(f"{element} with {hydrogens} hydrogens and valence {valence}")
    return number


def heavy_atoms(types: Sequence[int]) -> list[str]:
    """The elements of atoms by the number of their type."""
    return [TYPES[number].element for number in types]
