"""Types of atoms: the element, the number of hydrogens, and the valence; hydrogens may also be atoms of their own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rdkit import Chem

VALENCES = {"C": (4,), "N": (3, 5), "O": (2,), "F": (1,), "S": (2, 4, 6), "Cl": (1,)}
"""Valences by element, the usual one first. Atoms have no charges: a nitro group is written as N(=O)=O."""


class AtomType(NamedTuple):
    """A heavy atom with its hydrogens, an explicit hydrogen, or a fake atom, which has no element."""

    element: str
    hydrogens: int
    valence: int
    """Sum of its bond orders, those to hydrogens included."""

    def __str__(self) -> str:
        if self.element not in VALENCES:
            return self.element or "fake"
        count = str(self.hydrogens) if self.hydrogens > 1 else ""
        usual = VALENCES[self.element][0]
        valence = "" if self.valence == usual else f"({self.valence})"
        return self.element + valence + ("H" + count if self.hydrogens else "")


TYPES = (
    *(
        AtomType(element, hydrogens, valence)
        for element, valences in VALENCES.items()
        for valence in valences
        for hydrogens in range(valence + 1 if valence == valences[0] else 1)
    ),
    AtomType("H", 0, 1),
    AtomType("", 0, 0),
)
"""The types that an atom may have; those of explicit hydrogens and of fake atoms are last. Atoms of an unusual valence have no
hydrogens. With explicit hydrogens, only types with a hydrogen count of 0 are used."""
NUMBERS = {one: number for number, one in enumerate(TYPES)}
HYDROGEN, FAKE = len(TYPES) - 2, len(TYPES) - 1
"""Type numbers of an explicit hydrogen and of a fake atom. Fake atoms are removed after sampling."""


class UnsupportedMolecule(ValueError):
    """A molecule that cannot be used; the message is the reason."""


def types_of(molecule: Chem.Mol, *, explicit: bool = False) -> list[int]:
    """The number of the type of each heavy atom, which counts its hydrogens, in the order of the atoms.

    With `explicit`, hydrogens are atoms of their own, and `molecule` must have all of them.
    A pair of opposite charges on bonded atoms counts as one more bond between them. UnsupportedMolecule for another charge, an
    unpaired electron, or an unknown element or valence.
    """
    plain = Chem.Mol(molecule)
    Chem.Kekulize(plain, clearAromaticFlags=True)
    atoms = plain.GetAtoms()
    return [
        HYDROGEN if atom.GetAtomicNum() == 1 else _type_of(atom, explicit)
        for atom in atoms
        if explicit or atom.GetAtomicNum() != 1
    ]


def _type_of(atom: Any, explicit: bool) -> int:
    element, hydrogens = atom.GetSymbol(), atom.GetTotalNumHs(includeNeighbors=True)
    pairs = sum(near.GetFormalCharge() * atom.GetFormalCharge() == -1 for near in atom.GetNeighbors())
    if element not in VALENCES:
        raise UnsupportedMolecule(f"element {element}; use {', '.join(VALENCES)}")
    if pairs != abs(atom.GetFormalCharge()):
        raise UnsupportedMolecule(f"a charge of {atom.GetFormalCharge():+d} on {element}; use neutral molecules")
    if atom.GetNumRadicalElectrons():
        raise UnsupportedMolecule(f"an unpaired electron on {element}")
    valence = atom.GetTotalValence() + pairs
    number = NUMBERS.get(AtomType(element, 0 if explicit else hydrogens, valence))
    if number is None:
        raise UnsupportedMolecule(f"{element} with {hydrogens} hydrogens and valence {valence}")
    return number


def elements_of(types: Sequence[int]) -> list[str]:
    """The elements of atoms by the number of their type; "" for fake atoms."""
    return [TYPES[number].element for number in types]
