"""Pictures of molecules: grids of structures, and strips of states along the flow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import Draw, rdDepictor

from monge.apps.molecules.atoms import FAKE, elements_of
from monge.apps.molecules.bonds import ORDERS, RADII, Perceived, neighbours
from monge.apps.molecules.generator import Drawn
from monge.apps.molecules.sampling import times

COLOURS = {
    "H": "#c8c8c8",
    "C": "#404040",
    "N": "#3050f8",
    "O": "#e02020",
    "F": "#50b040",
    "S": "#d0a800",
    "Cl": "#1f9e1f",
}
"""Colours of the elements, after Corey, Pauling and Koltun."""


def grid(results: Sequence[Perceived], path: Path, *, columns: int = 6) -> Path:
    """Draw each result above its SMILES or the reason why it is invalid. Returns `path`."""
    images: Any = Draw.MolsToGridImage(
        [depicted(one) for one in results],
        molsPerRow=columns,
        subImgSize=(220, 200),
        legends=[legend(one) for one in results],
        returnPNG=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    images.save(path)
    return path


def legend(one: Perceived) -> str:
    """The SMILES of a valid molecule, or the reason why it is not valid."""
    if one.valid and one.molecule is not None:
        return Chem.MolToSmiles(one.molecule)
    return "invalid: " + (one.reason or "several parts")


def depicted(one: Perceived) -> Chem.Mol:
    """The structure in the plane; neighbours are joined by single bonds if the atoms form no molecule."""
    if one.molecule is not None:
        molecule = Chem.Mol(one.molecule)
    else:
        elements, editable = elements_of(one.types), Chem.RWMol()
        for element in elements:
            atom = Chem.Atom(element)
            atom.SetNoImplicit(True)
            editable.AddAtom(atom)
        for i, j in neighbours(elements, one.positions):
            editable.AddBond(i, j, ORDERS[1])
        molecule = editable.GetMol()
        molecule.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(molecule)
    rdDepictor.Compute2DCoords(molecule)
    return molecule


def film(states: Sequence[Sequence[Drawn]], path: Path, *, columns: int = 7) -> Path:
    """Draw molecules along the flow: one per row, times from left to right, denser near t = 1. Returns `path`."""
    from matplotlib.figure import Figure

    last, t = len(states) - 1, times(len(states))[1:].numpy()
    wanted = 1 - np.linspace(1, 0, columns) ** 2  # bonds form late
    shown = sorted({int(np.abs(t - one).argmin()) for one in wanted})
    rows = len(states[0])
    figure = Figure(figsize=(1.7 * len(shown), 1.8 * rows), layout="constrained")
    for row in range(rows):
        end = states[last][row].positions
        _, axes = np.linalg.eigh(end.T @ end)
        limit = 1.2 * float(np.abs(end @ axes[:, 1:]).max()) + 0.8
        for column, number in enumerate(shown):
            axis = figure.add_subplot(rows, len(shown), row * len(shown) + column + 1)
            _draw(axis, states[number][row], axes)
            axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
            axis.axis("off")
            if row == 0:
                axis.set_title(f"t = {t[number]:.2f}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def _draw(axis: Any, one: Drawn, axes: np.ndarray) -> None:
    """Draw atoms as discs and neighbours as lines, seen along the first axis, far ones first."""
    types = [one.types[column] for column in one.probability.argmax(1)]
    shown = [number for number, kind in enumerate(types) if kind != FAKE]
    elements, positions = elements_of([types[number] for number in shown]), one.positions[shown]
    depth, *plane = (positions @ axes).T
    for i, j in neighbours(elements, positions):
        axis.plot(
            *([part[i], part[j]] for part in plane),
            color="#909090",
            linewidth=2.5,
            zorder=float(min(depth[i], depth[j])),
        )
    for k in np.argsort(depth):
        element = elements[k]
        axis.scatter(
            plane[0][k], plane[1][k], s=260 * RADII[element] ** 2, color=COLOURS[element], edgecolors="white",
            linewidths=0.8, zorder=float(depth[k]) + 0.5,
        )  # fmt: skip
