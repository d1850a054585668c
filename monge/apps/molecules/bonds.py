"""Bonds of atoms from their types and positions: neighbours by distance, and orders that fill every valence exactly."""

from collections.abc import Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from rdkit import Chem
from rdkit.Geometry import Point3D
from scipy.optimize import Bounds, LinearConstraint, milp

from monge.apps.molecules.atoms import HYDROGEN, TYPES

RADII = {"H": 0.31, "C": 0.76, "N": 0.71, "O": 0.66, "F": 0.57, "S": 1.05, "Cl": 1.02}
"""Covalent radii in angstroms (Cordero et al. 2008, doi:10.1039/b801115j)."""
TOLERANCE = 0.4
"""Atoms are bonded if they are at most this much farther apart than the sum of their radii, in angstroms."""
ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
Edge = tuple[int, int]


class Perceived(NamedTuple):
    """Atoms, and the molecule that they form or the reason why they form none."""

    types: tuple[int, ...]
    """Number of the type of each atom."""
    positions: Float[np.ndarray, "N 3"]
    """Positions in angstroms."""
    molecule: Chem.Mol | None
    """The molecule of the heavy atoms with its conformer; hydrogens are counts of the heavy atoms."""
    connected: bool
    """True if bonds connect all atoms."""
    reason: str = ""
    """"no atoms"; "valence" if no bond orders fill every valence; "structure" if RDKit rejects the molecule; empty if there is
    a molecule."""
    full: Chem.Mol | None = None
    """The molecule with explicit hydrogens, if these are atoms of their own."""

    @property
    def valid(self) -> bool:
        """True for a connected molecule in which bond orders fill every valence."""
        return self.connected and self.molecule is not None

    def stable_atoms(self) -> int:
        """The number of atoms with a filled valence, under the bond orders that fill the most."""
        if self.molecule is not None or not self.types:
            return len(self.types)
        return most_filled(*_graph(self.types, self.positions))


def flat_smiles(molecule: Chem.Mol) -> str:
    """The canonical SMILES without stereochemistry."""
    return Chem.MolToSmiles(molecule, isomericSmiles=False)


def neighbours(elements: Sequence[str], positions: Float[np.ndarray, "N 3"]) -> dict[Edge, float]:
    """The pairs (i, j) of bonded atoms, i < j, with their distance in angstroms."""
    radius = np.array([RADII[element] for element in elements])
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    bonded = distance <= radius[:, None] + radius + TOLERANCE
    return {(int(i), int(j)): float(distance[i, j]) for i, j in np.argwhere(np.triu(bonded, 1))}


def bond_orders(edges: Mapping[Edge, float], valences: Sequence[int]) -> dict[Edge, int] | None:
    """Orders 1 to 3 of the bonds that add up to the valence of each atom; None if there are none.

    The search starts at the atom with the fewest candidate bonds and tries the highest order on the shortest of them first.

    >>> bond_orders({(0, 1): 1.3, (1, 2): 1.5, (2, 3): 1.3}, [2, 3, 3, 2])
    {(0, 1): 2, (1, 2): 1, (2, 3): 2}
    >>> bond_orders({(0, 1): 1.3}, [1, 2])
    """
    extra = list(valences)  # of each atom, beyond single bonds
    for i, j in edges:
        extra[i] -= 1
        extra[j] -= 1
    if min(extra, default=0) < 0:
        return None
    orders = dict.fromkeys(edges, 1)
    return orders if _fill(extra, dict(edges), orders) else None


def _fill(extra: list[int], free: dict[Edge, float], orders: dict[Edge, int]) -> bool:
    """Distribute `extra` over the `free` edges by backtracking. Changes its arguments; True if every valence is filled."""
    at: dict[int, list[Edge]] = {k: [] for k, missing in enumerate(extra) if missing}
    for edge in free:
        if extra[edge[0]] and extra[edge[1]]:
            at[edge[0]].append(edge)
            at[edge[1]].append(edge)
    if not at:
        return True
    atom = min(at, key=lambda k: len(at[k]))
    if not at[atom]:
        return False
    edge = min(at[atom], key=lambda one: free[one])
    length, (i, j) = free.pop(edge), edge
    for added in range(min(2, extra[i], extra[j]), -1, -1) if len(at[atom]) > 1 else (extra[atom],):
        if added > 2 or added > min(extra[i], extra[j]):
            break
        extra[i] -= added
        extra[j] -= added
        orders[edge] += added
        if _fill(extra, free, orders):
            free[edge] = length
            return True
        extra[i] += added
        extra[j] += added
        orders[edge] -= added
    free[edge] = length
    return False


def most_filled(edges: Mapping[Edge, float], valences: Sequence[int]) -> int:
    """The largest number of atoms whose valences can be filled at once by bond orders 1 to 3, by integer programming.

    >>> most_filled({(0, 1): 1.3, (1, 2): 1.5}, [2, 3, 3])
    2
    """
    bonds, atoms = len(edges), len(valences)
    incident = np.zeros((atoms, bonds))
    for column, edge in enumerate(edges):
        incident[list(edge), column] = 1
    slack = np.diag(3 * incident.sum(1) + np.array(valences))  # an atom that is not filled may have any sum
    sums: Any = np.array(valences)
    upper = LinearConstraint(np.hstack([incident, -slack]), ub=sums)
    lower = LinearConstraint(np.hstack([incident, slack]), lb=sums)
    ones, zeros = np.ones(bonds), np.zeros(atoms)
    bounds: Any = Bounds(np.concatenate([ones, zeros]), np.concatenate([3 * ones, zeros + 1]))  # pyright: ignore[reportArgumentType]
    cost = np.concatenate([0 * ones, zeros + 1])
    whole = np.ones(bonds + atoms)
    return atoms - round(milp(cost, constraints=[upper, lower], bounds=bounds, integrality=whole).fun)


def _graph(types: Sequence[int], positions: Float[np.ndarray, "N 3"]) -> tuple[dict[Edge, float], list[int]]:
    """The bonds with their lengths, and the valence of each atom without its hydrogens."""
    edges = neighbours([TYPES[number].element for number in types], positions)
    return edges, _free_valences(types)


def _free_valences(types: Sequence[int]) -> list[int]:
    """The valence of each atom without its hydrogens."""
    return [TYPES[number].valence - TYPES[number].hydrogens for number in types]


def perceived(types: Sequence[int], positions: Float[np.ndarray, "N 3"]) -> Perceived:
    """The molecule of atoms with these types (numbers in TYPES) and positions in angstroms."""
    result = partial(Perceived, tuple(map(int, types)), positions)
    if not len(types):
        return result(None, False, "no atoms")
    edges, valences = _graph(types, positions)
    connected = _connected(len(types), edges)
    orders = bond_orders(edges, valences)
    if orders is None:
        return result(None, connected, "valence")
    molecule = Chem.RWMol()
    for atom in (TYPES[number] for number in types):
        one = Chem.Atom(atom.element)
        one.SetNumExplicitHs(atom.hydrogens)
        one.SetNoImplicit(True)
        molecule.AddAtom(one)
    for (i, j), order in orders.items():
        molecule.AddBond(i, j, ORDERS[order])
    conformer = Chem.Conformer(len(types))
    for number, place in enumerate(positions):
        conformer.SetAtomPosition(number, Point3D(*map(float, place)))
    molecule.AddConformer(conformer)
    if Chem.SanitizeMol(molecule, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        return result(None, connected, "structure")
    Chem.AssignStereochemistryFrom3D(molecule)
    if HYDROGEN not in types:
        return result(molecule.GetMol(), connected)
    heavy = Chem.RemoveAllHs(molecule.GetMol())
    if not heavy.GetNumAtoms():
        return result(None, connected, "structure")
    return result(heavy, connected, full=molecule.GetMol())


def most_probable(
    probability: Float[np.ndarray, "N K"],
    types: Sequence[int],
    positions: Float[np.ndarray, "N 3"],
    *,
    limit: int = 1000,
) -> Perceived:
    """The molecule of the most probable types that form one at these positions, out of at most `limit` assignments.

    Column k of `probability` belongs to the type with number types[k]. If no assignment forms a molecule, the result is that of
    the most probable one.
    """
    order = np.argsort(-probability, 1, kind="stable")
    cost = -np.log(np.take_along_axis(probability, order, 1).clip(1e-12))
    start: tuple[int, ...] = (0,) * len(probability)
    waiting: list[tuple[float, tuple[int, ...]]] = [(float(cost[:, 0].sum()), start)]
    seen: set[tuple[int, ...]] = {start}
    first: Perceived | None = None
    edges: dict[tuple[str, ...], dict[Edge, float]] = {}
    for _ in range(limit):
        if not waiting:
            break
        total, ranks = heappop(waiting)
        chosen = [types[order[atom, rank]] for atom, rank in enumerate(ranks)]
        elements = tuple(TYPES[number].element for number in chosen)
        if elements not in edges:
            edges[elements] = neighbours(elements, positions)
        if first is None or bond_orders(edges[elements], _free_valences(chosen)) is not None:
            result = perceived(chosen, positions)
            first = first or result
            if result.molecule is not None:
                return result
        for atom, rank in enumerate(ranks):
            following = (*ranks[:atom], rank + 1, *ranks[atom + 1 :])
            if rank + 1 < len(types) and following not in seen:
                seen.add(following)
                heappush(waiting, (total + float(cost[atom, rank + 1] - cost[atom, rank]), following))
    return first or perceived([], positions)


def _connected(count: int, edges: Mapping[Edge, float]) -> bool:
    reached, waiting = {0}, [0]
    while waiting:
        atom = waiting.pop()
        for i, j in edges:
            if atom in (i, j) and (other := i + j - atom) not in reached:
                reached.add(other)
                waiting.append(other)
    return len(reached) == count
