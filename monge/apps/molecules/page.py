"""A self-contained HTML page in which molecules can be turned."""

import json
from collections.abc import Sequence
from pathlib import Path

from rdkit import Chem

from monge.apps.molecules.atoms import TYPES
from monge.apps.molecules.bonds import RADII, Perceived, neighbours
from monge.apps.molecules.geometry import completed
from monge.apps.molecules.pictures import COLOURS, legend
from monge.files import write_text

TEMPLATE = Path(__file__).with_name("view.html")


def write(results: Sequence[Perceived], path: Path, *, title: str) -> Path:
    """Write the page with the atoms and bonds of the results, the invalid ones included. Returns `path`."""
    content = {
        "title": title,
        "colours": COLOURS,
        "radii": RADII,
        "molecules": [_content(one) for one in results],
    }
    text = json.dumps(content).replace("<", "\\u003c")  # no closing tag inside the script
    write_text(path, TEMPLATE.read_text(encoding="utf-8").replace("/*CONTENT*/null", text))
    return path


def _content(one: Perceived) -> dict[str, object]:
    """Atoms as [element, x, y, z] and bonds as [i, j, order]; hydrogens only if the atoms form a molecule."""
    if one.molecule is None:
        names = [TYPES[number].element for number in one.types]
        atoms = [[name, *map(float, place)] for name, place in zip(names, one.positions, strict=True)]
        return {
            "name": legend(one),
            "valid": False,
            "atoms": atoms,
            "bonds": [[i, j, 1] for i, j in neighbours(names, one.positions)],
        }
    full = Chem.Mol(completed(one))
    Chem.Kekulize(full, clearAromaticFlags=True)
    places = full.GetConformer().GetPositions()
    return {
        "name": legend(one),
        "valid": one.valid,
        "atoms": [[atom.GetSymbol(), *(round(float(v), 3) for v in places[atom.GetIdx()])] for atom in full.GetAtoms()],
        "bonds": [
            [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), int(bond.GetBondTypeAsDouble())] for bond in full.GetBonds()
        ],
    }
