"""Pretrained encoders of molecules: features of each heavy atom, as targets of an alignment (REPA, Yu et al. 2410.06940)."""

import importlib.util
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rdkit import Chem
from rdkit.Chem import rdPartialCharges
from scipy.optimize import minimize
from torch import Tensor, nn

from monge.math.random import forked_rng

ELEMENTS = ("H", "C", "N", "O", "F", "S", "Cl")
"""Elements in the order of ANI-2xt's networks."""
WIDTHS = ((256, 192, 160), (224, 192, 160), *[(192, 160, 128)] * 2, *[(160, 128, 96)] * 3)
"""Widths of ANI-2xt's hidden layers by element."""
Features = Float[np.ndarray, "N F"]


class EncoderMissing(ValueError):
    """A package of an encoder that is not installed; the message says how to install it."""


def _package(name: str, install: str) -> Path:
    """The directory of an installed package, which is not imported."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EncoderMissing(f"{name} is not installed; {install}")
    return Path(spec.origin).parent


class ANI2xt(nn.Module):
    """The neural potential ANI-2xt of Auto3D (Liu et al. 2022, doi:10.1021/acs.jcim.2c00817): its environment vectors and
    networks by element, frozen. EncoderMissing if auto3d or torchani is not installed.

    Without `pretrained`, the networks have random weights, a control for experiments."""

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        install = "pip install --no-deps auto3d torchani"
        _package("torchani", install)
        os.environ.setdefault("TORCHANI_NO_WARN_EXTENSIONS", "1")  # about CUDA extensions
        import torchani

        library: Any = torchani
        radial = torchani.aev.ANIRadial(eta=16.0, shifts=[0.9 + 0.26875 * k for k in range(16)], cutoff=5.2)
        sections = [np.pi / 16 * (2 * k + 1) for k in range(8)]
        angular = torchani.aev.ANIAngular(
            eta=8.0, zeta=32.0, shifts=[0.9, 1.55, 2.2, 2.85], sections=sections, cutoff=3.5
        )
        self.environment = library.AEVComputer(radial, angular, len(ELEMENTS))
        self.networks = nn.ModuleList(_network(self.environment.out_dim, widths) for widths in WIDTHS)
        if pretrained:
            weights = _package("Auto3D", install) / "engines/models/ani2xt_no_repulsion.pt"
            self.networks.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.eval().requires_grad_(False)

    def forward(
        self, elements: Sequence[str], positions: Float[Tensor, "N 3"]
    ) -> tuple[list[Tensor], Float[Tensor, ""]]:
        """(the last hidden state of each atom, the energy in eV relative to the atoms' reference energies) of one molecule."""
        numbers = torch.tensor([[ELEMENTS.index(element) for element in elements]])
        vectors = self.environment(numbers, positions[None])[0]
        hidden: dict[int, Tensor] = {}
        energy = vectors.new_zeros(())
        for number in set(numbers[0].tolist()):
            network: Any = self.networks[number]
            chosen = (numbers[0] == number).nonzero().flatten()
            states = network[:-1](vectors[chosen])
            hidden |= dict(zip(chosen.tolist(), states, strict=True))
            energy = energy + network[-1](states).sum()
        return [hidden[atom] for atom in range(len(elements))], HARTREE * energy


HARTREE, KCAL_PER_EV = 27.211386, 23.060548
"""Electronvolts per hartree; kilocalories per mole per electronvolt."""


def _network(width: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((width, *widths), widths, strict=False):
        layers += [nn.Linear(before, after), nn.CELU(0.1)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


@cache
def _ani(pretrained: bool = True) -> ANI2xt:
    with forked_rng():
        torch.manual_seed(0)
        return ANI2xt(pretrained=pretrained)


def ani_random(molecule: Chem.Mol) -> Features:
    """The same features as `ani`, of networks with random weights."""
    return ani(molecule, pretrained=False)


@torch.no_grad()
def ani(molecule: Chem.Mol, *, pretrained: bool = True) -> Features:
    """The last hidden states of ANI-2xt at the heavy atoms, padded with zeros. Sees the geometry, and hydrogens."""
    elements, positions = _atoms(molecule)
    hidden, _ = _ani(pretrained)(elements, positions)
    widest = max(widths[-1] for widths in WIDTHS)
    rows = [
        nn.functional.pad(h, (0, widest - len(h))).numpy() for h, e in zip(hidden, elements, strict=True) if e != "H"
    ]
    return np.stack(rows)


def _atoms(molecule: Chem.Mol) -> tuple[list[str], Float[Tensor, "N 3"]]:
    """The elements and the positions of all atoms."""
    elements = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    return elements, torch.from_numpy(molecule.GetConformer().GetPositions()).float()


@torch.no_grad()
def ani_energy(molecule: Chem.Mol) -> float:
    """The energy of a molecule with hydrogens in eV, relative to the reference energies of its atoms."""
    return float(_ani()(*_atoms(molecule))[1])


def ani_strain(molecule: Chem.Mol) -> float:
    """The energy of a molecule with hydrogens above the nearest minimum of ANI-2xt, in kcal/mol."""
    elements, start = _atoms(molecule)

    def energy(x: Float[np.ndarray, "n"]) -> tuple[float, Float[np.ndarray, "n"]]:
        """The energy in kcal/mol, and its gradient."""
        positions = torch.from_numpy(x).float().view(-1, 3).requires_grad_()
        value = KCAL_PER_EV * _ani()(elements, positions)[1]
        (gradient,) = torch.autograd.grad(value, positions)
        return float(value.detach()), gradient.double().numpy().ravel()

    x = start.double().numpy().ravel()
    found = minimize(energy, x, jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return energy(x)[0] - float(found.fun)


@cache
def _espaloma() -> list[Float[np.ndarray, "*s"]]:
    """The 16 arrays of espaloma-charge: input layer, four GraphSAGE layers, output layer."""
    path = _package("expaloma", "pip install --no-deps expaloma") / "weights/espaloma_v0_0_8.eqx"
    with path.open("rb") as file:
        return [np.load(file) for _ in range(16)]


def espaloma(molecule: Chem.Mol) -> Features:
    """The last hidden states of espaloma-charge (Wang et al. 2302.06758) at the heavy atoms. Sees the graph, no geometry."""
    return _espaloma_states(molecule)[[atom.GetAtomicNum() > 1 for atom in molecule.GetAtoms()]]


def _espaloma_states(molecule: Chem.Mol) -> Features:
    """The last hidden states of all atoms."""
    arrays = _espaloma()
    h = np.stack([_espaloma_input(atom) for atom in molecule.GetAtoms()])
    adjacent = Chem.GetAdjacencyMatrix(molecule).astype(np.float32)
    mean = adjacent / np.maximum(adjacent.sum(1, keepdims=True), 1)
    h = np.tanh(h @ arrays[0].T + arrays[1])
    for layer in range(4):
        to_self, to_near, bias = _sage(arrays[2 + 3 * layer : 5 + 3 * layer])
        h = np.maximum(h @ to_self.T + mean @ h @ to_near.T + bias, 0)
    return h


def _sage(arrays: Sequence[Float[np.ndarray, "*s"]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(weights of the atom itself, weights of its neighbours' mean, bias) of a layer, stored as weights, bias, weights."""
    return arrays[0], arrays[2], arrays[1]


_HYBRIDS = (
    Chem.HybridizationType.SP,
    Chem.HybridizationType.SP2,
    Chem.HybridizationType.SP3,
    Chem.HybridizationType.SP3D,
    Chem.HybridizationType.SP3D2,
)


def _espaloma_input(atom: Any) -> Float[np.ndarray, "116"]:
    """The input features of espaloma-charge: the element, and 16 properties of the atom."""
    element = np.zeros(100)
    element[atom.GetAtomicNum()] = 1
    numbers = [atom.GetTotalDegree(), atom.GetTotalValence(), atom.GetValence(Chem.ValenceType.EXPLICIT)]
    rings = [atom.IsInRingSize(size) for size in range(3, 9)]
    hybrid = [atom.GetHybridization() == one for one in _HYBRIDS]
    return np.array([*element, *numbers, atom.GetIsAromatic(), atom.GetMass(), *rings, *hybrid], np.float32)


def espaloma_charges(molecule: Chem.Mol) -> Float[np.ndarray, "N"]:
    """The charges of a neutral molecule's atoms, hydrogens included, by charge equilibration."""
    arrays = _espaloma()
    electronegativity, hardness = (_espaloma_states(molecule) @ arrays[14].T + arrays[15]).T
    total = (electronegativity / hardness).sum() / (1 / hardness).sum()
    return (total - electronegativity) / hardness


def descriptors(molecule: Chem.Mol) -> Features:
    """RDKit's descriptors of the heavy atoms: element, degree, hydrogens, rings, aromaticity, hybridisation, partial charge."""
    rdPartialCharges.ComputeGasteigerCharges(molecule)
    rows = [
        [
            *(atom.GetSymbol() == element for element in ELEMENTS[1:]),
            *(atom.GetTotalNumHs(includeNeighbors=True) == count for count in range(4)),
            *(atom.GetDegree() == degree for degree in range(1, 5)),
            *(atom.IsInRingSize(size) for size in range(3, 8)),
            *(atom.GetHybridization() == one for one in _HYBRIDS),
            atom.GetIsAromatic(),
            np.nan_to_num(float(atom.GetProp("_GasteigerCharge"))),
        ]
        for atom in molecule.GetAtoms()
        if atom.GetAtomicNum() > 1
    ]
    return np.array(rows, np.float32)


ENCODERS: dict[str, Callable[[Chem.Mol], Features]] = {
    "ani": ani,
    "ani-random": ani_random,
    "espaloma": espaloma,
    "descriptors": descriptors,
}
"""Encoders by name. Each takes a molecule with explicit hydrogens and a conformer, and returns a row per heavy atom."""
BY_ELEMENT = frozenset({"ani", "ani-random"})
"""Encoders with a separate network for each element, so that features of different elements are not comparable."""
