"""Encoders of atoms in model files of other libraries: chemprop, CheMeleon and MACE.

Model files of chemprop and MACE are pickles, which run code when they are read: open only files that you trust. CheMeleon's
holds tensors only.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem

from monge.apps.molecules.conformers import embedded
from monge.apps.molecules.encoders import EncoderMissing, Features


def opened_file(path: Path) -> Callable[[Chem.Mol], Features]:
    """The encoder in a model file, in evaluation mode: .model for MACE, otherwise chemprop or CheMeleon.

    It takes a molecule with hydrogens and a conformer, and returns a row per heavy atom.

    EncoderMissing if the library is not installed; ValueError if it cannot read the file.
    """
    name, package, reader = (
        ("mace", "mace-torch", _mace) if path.suffix == ".model" else ("chemprop", "chemprop", _chemprop)
    )
    if importlib.util.find_spec(name) is None:
        raise EncoderMissing(f"{path.name} needs {package}, which is not installed; pip install {package}")
    try:
        encoder = reader(path)
        encoder(embedded(Chem.MolFromSmiles("C"), seed=0))
    except Exception as error:  # the errors for files that they cannot read depend on the library
        raise ValueError(f"{path}: not a model of {name} for molecules ({_reason(error)})") from error

    def features(molecule: Chem.Mol) -> Features:
        try:
            return encoder(molecule)
        except Exception as error:  # as above, for atoms that a model does not know
            smiles = Chem.MolToSmiles(Chem.RemoveAllHs(molecule))
            raise ValueError(f"{path}: no features for {smiles} ({_reason(error)})") from error

    return features


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _chemprop(path: Path) -> Callable[[Chem.Mol], Features]:
    """The states of the atoms after chemprop's message passing (Heid et al. 2024, doi:10.1021/acs.jcim.3c01250), which sees the
    graph of the heavy atoms."""
    from chemprop.data import BatchMolGraph  # pyright: ignore[reportMissingImports]
    from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer  # pyright: ignore[reportMissingImports]
    from chemprop.models import MPNN  # pyright: ignore[reportMissingImports]
    from chemprop.nn import BondMessagePassing  # pyright: ignore[reportMissingImports]

    if torch.serialization.get_unsafe_globals_in_checkpoint(path):
        network: Any = MPNN.load_from_file(path, map_location="cpu").message_passing
    else:  # tensors only: CheMeleon, Burns et al. 2506.15792, the message passing alone
        stored = torch.load(path, map_location="cpu", weights_only=True)
        network = BondMessagePassing(**stored["hyper_parameters"])
        network.load_state_dict(stored["state_dict"])
    network.eval().requires_grad_(False)
    featurize: Any = SimpleMoleculeMolGraphFeaturizer()

    @torch.no_grad()
    def features(molecule: Chem.Mol) -> Features:
        return network(BatchMolGraph([featurize(Chem.RemoveAllHs(molecule))])).numpy()

    return features


def _mace(path: Path) -> Callable[[Chem.Mol], Features]:
    """MACE's invariant descriptors (Batatia et al. 2206.07697), which see the geometry, with hydrogens."""
    from ase import Atoms  # pyright: ignore[reportMissingImports]
    from mace.calculators import MACECalculator  # pyright: ignore[reportMissingImports]

    calculator: Any = MACECalculator(model_paths=str(path), device="cpu", default_dtype="float32")
    for model in calculator.models:
        model.eval().requires_grad_(False)

    def features(molecule: Chem.Mol) -> Features:
        elements = [atom.GetSymbol() for atom in molecule.GetAtoms()]
        atoms = Atoms(elements, positions=molecule.GetConformer().GetPositions())
        return np.asarray(calculator.get_descriptors(atoms, invariants_only=True))[[one != "H" for one in elements]]

    return features
