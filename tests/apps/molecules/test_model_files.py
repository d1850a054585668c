"""Encoders from model files: a small chemprop model, one in CheMeleon's format, and a small MACE, made on the spot."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")
from rdkit import Chem

from monge.apps.molecules import model_files
from monge.apps.molecules.bonds import perceived
from monge.apps.molecules.conformers import with_conformer
from monge.apps.molecules.encoders import EncoderMissing
from monge.apps.molecules.geometry import completed
from monge.apps.molecules.model_files import opened_file


def full(smiles: str, *, scale: float = 1.0) -> Chem.Mol:
    one = with_conformer("x", smiles, max_atoms=12)
    return completed(perceived(one.types.tolist(), scale * one.positions))


def chemprop_file(path: Path, *, tensors_only: bool) -> Path:
    from chemprop import models, nn

    torch.manual_seed(0)
    message_passing = nn.BondMessagePassing(d_h=24, depth=3)
    if tensors_only:
        hyper = {k: v for k, v in message_passing.hparams.items() if isinstance(v, int | float | bool | type(None))}
        torch.save({"hyper_parameters": hyper, "state_dict": message_passing.state_dict()}, path)
        return path
    model = models.MPNN(message_passing, nn.MeanAggregation(), nn.RegressionFFN(input_dim=24))
    models.save_model(path, model)
    return path


def mace_file(path: Path) -> Path:
    from e3nn import o3
    from mace import modules

    torch.manual_seed(0)
    model = modules.MACE(
        r_max=4.0,
        num_bessel=4,
        num_polynomial_cutoff=5,
        max_ell=1,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=2,
        num_elements=4,
        hidden_irreps=o3.Irreps("8x0e + 8x1o"),
        MLP_irreps=o3.Irreps("4x0e"),
        atomic_energies=np.zeros(4),
        avg_num_neighbors=4.0,
        atomic_numbers=[1, 6, 7, 8],
        correlation=2,
        gate=torch.nn.functional.silu,
    )
    torch.save(model, path)
    return path


def check_follows_the_atoms(path: Path) -> np.ndarray:
    """The features of acetamide, after a check that they follow the order of the atoms and ignore rotations."""
    encoder, molecule = opened_file(path), full("CC(=O)N")
    features = encoder(molecule)
    assert len(features) == 4
    order = np.random.default_rng(1).permutation(molecule.GetNumAtoms())
    heavy = [k for k in order if molecule.GetAtomWithIdx(int(k)).GetAtomicNum() > 1]
    np.testing.assert_allclose(encoder(Chem.RenumberAtoms(molecule, order.tolist())), features[heavy], atol=1e-5)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = Chem.Mol(molecule)
    turned.GetConformer().SetPositions(molecule.GetConformer().GetPositions() @ (turn * np.linalg.det(turn)))
    np.testing.assert_allclose(encoder(turned), features, atol=1e-4)
    return features


@pytest.mark.parametrize("tensors_only", [True, False])
def test_chemprop_gives_a_row_per_heavy_atom(tensors_only: bool, tmp_path: Path):
    pytest.importorskip("chemprop", reason="needs pip install chemprop")
    path = chemprop_file(tmp_path / "model.pt", tensors_only=tensors_only)
    assert check_follows_the_atoms(path).shape == (4, 24)
    encoder = opened_file(path)
    assert np.array_equal(encoder(full("CCO")), encoder(full("CCO", scale=1.05)))  # it sees the graph only


def test_mace_sees_the_geometry(tmp_path: Path):
    pytest.importorskip("mace", reason="needs pip install mace-torch")
    path = mace_file(tmp_path / "small.model")
    assert check_follows_the_atoms(path).shape == (4, 16)
    encoder = opened_file(path)
    assert np.abs(encoder(full("CCO")) - encoder(full("CCO", scale=1.05))).max() > 1e-3


@pytest.mark.parametrize(("module", "name"), [("chemprop", "a.pt"), ("mace", "a.model")])
def test_a_file_of_another_kind_is_one_sentence(module: str, name: str, tmp_path: Path):
    pytest.importorskip(module)
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=f"{name}: not a model of {module} for molecules"):
        opened_file(tmp_path / name)


def test_an_atom_that_the_model_does_not_know_is_one_sentence(tmp_path: Path):
    pytest.importorskip("mace", reason="needs pip install mace-torch")
    encoder = opened_file(mace_file(tmp_path / "small.model"))
    with pytest.raises(ValueError, match=r"small\.model: no features for CCl \("):
        encoder(full("CCl"))


def test_a_missing_library_is_named_with_its_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        EncoderMissing, match=r"a\.model needs mace-torch, which is not installed; pip install mace-torch"
    ):
        opened_file(tmp_path / "a.model")
    with pytest.raises(EncoderMissing, match=r"a\.pt needs chemprop, which is not installed"):
        opened_file(tmp_path / "a.pt")
