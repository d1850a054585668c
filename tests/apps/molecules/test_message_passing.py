"""The encoder that `monge molecules pretrain` trains, and flows aligned with it, also with explicit hydrogens."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from monge.apps.molecules.atoms import FAKE, HYDROGEN, TYPES
from monge.apps.molecules.conformers import with_conformer
from monge.apps.molecules.dataset import Molecules
from monge.apps.molecules.message_passing import Atoms, MaskedTypes, MessagePassing
from monge.apps.molecules.recipes import Molecular
from monge.cli import main
from monge.math.rotation import random_rotations, rotated
from monge.runs import reopen
from monge.training.log import read_records

ENDS = ("O", "N", "F", "Cl", "S", "C=O", "C#N", "C(=O)O", "OC", "NC")
SHORT = ["--steps", "4", "--save-every", "2", "--log-every", "1", "--batch-size", "8", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("molecules")
    lines = [f"{'C' * length}{end} {length}-{end}" for length in range(1, 6) for end in ENDS]
    (path / "in.smi").write_text("\n".join(lines))
    words = ["molecules", "prepare", str(path / "in.smi"), "--min-atoms", "2"]
    assert main([*words, "--out", str(path / "set")]) == 0
    assert main([*words, "--out", str(path / "hydrogens"), "--explicit-hydrogens"]) == 0
    return path


@pytest.fixture(scope="module")
def encoders(folder: Path) -> dict[str, Path]:
    """An encoder for each of the two sets."""
    for data in ("set", "hydrogens"):
        words = ["molecules", "pretrain", "--data", str(folder / data), "--width", "16", "--depth", "2"]
        assert main([*words, *SHORT, "--out", str(folder / f"encoder-{data}")]) == 0
    return {data: folder / f"encoder-{data}" for data in ("set", "hydrogens")}


def test_states_do_not_depend_on_rotations_batches_or_distant_atoms():
    torch.manual_seed(0)
    net = MessagePassing(width=8, depth=2)
    molecules = [with_conformer("x", smiles, max_atoms=12) for smiles in ("CCO", "c1ccccc1C(=O)N")]
    batch = Atoms.of(molecules)
    states = net.states(batch.types, batch.positions, batch.mask)
    assert (states[~batch.mask] == 0).all()
    turned = rotated(batch.positions, random_rotations(2)) + 3 * batch.mask[..., None]
    torch.testing.assert_close(net.states(batch.types, turned, batch.mask), states, atol=1e-4, rtol=1e-4)
    for row, one in zip(net.features(molecules), molecules, strict=True):
        alone = Atoms.of([one])
        torch.testing.assert_close(net.states(alone.types, alone.positions, alone.mask)[0], row, atol=1e-5, rtol=1e-4)
    apart = batch.positions.clone()
    apart[0, 2] += 100.0
    moved = net.states(batch.types, apart, batch.mask)
    changed = batch.types.clone()
    changed[0, 2] = 0
    torch.testing.assert_close(net.states(changed, apart, batch.mask)[0, :2], moved[0, :2])


def test_a_quarter_of_the_types_is_masked_and_at_least_one_and_positions_are_noisy():
    batch = Atoms.of([with_conformer("x", smiles, max_atoms=12) for smiles in ("CC", "CCO", "CCCCCCCCCC")])
    shares, moved = torch.zeros(3), []

    class Records(torch.nn.Module):
        def forward(self, types, positions, mask):
            hidden = (types == len(TYPES)) & mask
            assert hidden.any(1).all()
            shares.add_(hidden.sum(1) / mask.sum(1) / 300)
            moved.append((positions - batch.positions)[mask].std())
            return torch.zeros(*types.shape, len(TYPES))

    torch.manual_seed(0)
    for _ in range(300):
        MaskedTypes(noise=0.1)(Records(), batch)
    assert shares[2] == pytest.approx(0.25, abs=0.04)
    assert torch.stack(moved).mean() == pytest.approx(0.1, abs=0.01)


def test_masked_types_are_learned_from_the_geometry():
    torch.manual_seed(0)
    smiles = ("CCO", "CCN", "CCF", "C=O", "CC#N", "CC(=O)O")
    batch = Atoms.of([with_conformer("x", one, max_atoms=12) for one in smiles])
    net, objective = MessagePassing(width=32, depth=2), MaskedTypes()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    values = []
    for _ in range(150):
        loss = objective(net, batch)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        values.append(loss.value.item())
    assert np.mean(values[-20:]) < 0.6 * np.mean(values[:5])


@pytest.mark.slow
@pytest.mark.parametrize("data", ["set", "hydrogens"])
def test_a_flow_trains_with_the_encoder_as_teacher(data: str, encoders: dict[str, Path], folder: Path):
    shape = ["--width", "32", "--depth", "2", "--heads", "4", "--solver-steps", "3", "--eval-samples", "4"]
    words = ["molecules", "train", "--data", str(folder / data), "--align", str(encoders[data]), "--align-layer", "1"]
    out = folder / f"run-{data}"
    assert main([*words, *SHORT, *shape, "--fake-atoms", "0.3", "--out", str(out)]) == 0
    rows = list(read_records(out / "metrics.jsonl"))
    assert all(-1 <= row["alignment"] <= 1 for row in rows if "alignment" in row)
    recipe = reopen(out, app="molecules").rebuilt(Molecular)
    data_of_run = recipe.encoded()
    targets = recipe.targets(data_of_run)
    assert targets is not None
    assert targets.shape == (*data_of_run.mask.shape, 16)
    assert targets[data_of_run.mask].std() > 0.5
    assert FAKE in data_of_run.types
    assert (HYDROGEN in data_of_run.types) == (data == "hydrogens")
    for verb in ("sample", "evaluate"):
        assert main(["molecules", verb, str(out), "--num-samples", "3", "--threads", "1"]) == 0


def test_descriptors_of_explicit_hydrogens_are_zero(folder: Path):
    recipe = Molecular(str(folder / "hydrogens"), align="descriptors")
    data = recipe.encoded()
    targets = recipe.targets(data)
    assert targets is not None
    hydrogen = data.x[..., 3 + data.types.index(HYDROGEN)] == 1
    assert (targets[hydrogen] == 0).all()
    assert targets[data.mask & ~hydrogen].abs().sum(1).min() > 0


def test_prepared_hydrogens_are_atoms(folder: Path):
    plain, explicit = (Molecules(folder / name) for name in ("set", "hydrogens"))
    assert (plain.settings["round_trip"], explicit.settings["round_trip"]) == (1, 1)
    for one, other in zip(plain.split("all"), explicit.split("all"), strict=True):
        assert one.smiles == other.smiles
        assert len(other.types) - other.heavy.sum() == sum(TYPES[number].hydrogens for number in one.types)


@pytest.mark.parametrize(
    ("align", "message"),
    [
        ("nowhere", "nowhere: choose none, self, dispersive, ani"),
        ("{set}", "set: choose none, self"),
        ("{run}", "holds a run of something-else"),
        ("{hydrogens}", "encoder-hydrogens: this encoder was trained with explicit hydrogens"),
    ],
)
def test_an_encoder_that_does_not_exist_is_one_sentence(
    align: str, message: str, folder: Path, encoders: dict[str, Path], tmp_path: Path, capsys
):
    (tmp_path / "run").mkdir()
    for name in ("recipe.json", "constants.safetensors"):
        text = (encoders["set"] / name).read_bytes()
        (tmp_path / "run" / name).write_bytes(text.replace(b"molecule-encoder", b"something-else"))
    align = align.format(set=folder / "set", run=tmp_path / "run", hydrogens=encoders["hydrogens"])
    words = ["molecules", "train", "--data", str(folder / "set"), "--align", align, "--out", str(tmp_path / "out")]
    assert main([*words, *SHORT]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert len(shown.strip().splitlines()) == 1
