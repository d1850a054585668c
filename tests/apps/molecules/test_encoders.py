"""Encoders and alignment: known values, invariance, targets in the order of the atoms, and training with them."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")
from rdkit import Chem

from monge.apps.molecules import encoders, targets
from monge.apps.molecules.atoms import elements_of
from monge.apps.molecules.bonds import perceived
from monge.apps.molecules.conformers import with_conformer
from monge.apps.molecules.dataset import Failure, Molecules, prepare
from monge.apps.molecules.encoders import (
    ENCODERS,
    KCAL_PER_EV,
    EncoderMissing,
    ani_energy,
    ani_strain,
    espaloma_charges,
)
from monge.apps.molecules.geometry import with_hydrogens
from monge.apps.molecules.network import MoleculeNet, Shape
from monge.apps.molecules.objective import MoleculeMatching, later_state, noise
from monge.apps.molecules.recipes import Molecular
from monge.apps.molecules.sources import records
from monge.fleet import sequential
from monge.math.types import Pair
from monge.objective.alignment import Alignment, CachedTargets
from monge.run import fit
from monge.training.log import read_records

pytest.importorskip("torchani", reason="needs pip install --no-deps auto3d expaloma torchani")
SMILES = ["CCO", "CC(=O)N", "c1ccccc1O", "CS(=O)(=O)C", "FC(F)Cl", "C1CC1N", "CC#N", "OCC=O", "CSC", "NCCN"]


def full(smiles: str, *, scale: float = 1.0) -> Chem.Mol:
    one = with_conformer("x", smiles, max_atoms=12)
    return with_hydrogens(perceived(one.types.tolist(), scale * one.positions).molecule)


def test_espaloma_gives_the_charges_of_am1_bcc():
    """Charges of AM1-BCC (Jakalian et al. 2002): benzene's carbons -0.13, methanol's oxygen -0.60 and its hydrogen 0.40."""
    assert espaloma_charges(full("c1ccccc1")) == pytest.approx([-0.13] * 6 + [0.13] * 6, abs=0.01)
    methanol = espaloma_charges(full("CO"))
    assert methanol[[1, -1]] == pytest.approx([-0.60, 0.40], abs=0.02)
    assert methanol.sum() == pytest.approx(0, abs=1e-5)


def test_ani_prefers_relaxed_geometries():
    for smiles in SMILES:
        assert ani_energy(full(smiles)) < ani_energy(full(smiles, scale=1.06)) - 0.05


def test_ani_judges_the_conformers_of_another_potential():
    for smiles in SMILES[:2]:
        relaxed, stretched = (ani_strain(full(smiles, scale=scale)) for scale in (1.0, 1.06))
        assert 0 < relaxed < 4  # a minimum of MMFF94 is near one of ANI-2xt, but is none
        assert stretched > relaxed + 2
    molecule = full("CCO")
    energies = [ani_energy(molecule), ani_energy(molecule) - ani_strain(molecule) / KCAL_PER_EV]
    positions = molecule.GetConformer().GetPositions()
    molecule.GetConformer().SetPositions(positions + np.random.default_rng(0).normal(size=positions.shape) * 0.02)
    assert ani_energy(molecule) > energies[0]
    assert ani_energy(molecule) - ani_strain(molecule) / KCAL_PER_EV == pytest.approx(energies[1], abs=2e-3)


@pytest.mark.parametrize("name", ENCODERS)
def test_features_do_not_depend_on_rotation_and_follow_the_atoms(name: str):
    molecule, encoder = full("CC(=O)Nc1ccco1"), ENCODERS[name]
    features, positions = encoder(molecule), molecule.GetConformer().GetPositions()
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turned = Chem.Mol(molecule)
    turned.GetConformer().SetPositions(positions @ (turn * np.linalg.det(turn)) + 1)
    np.testing.assert_allclose(encoder(turned), features, atol=1e-4)
    order = np.random.default_rng(1).permutation(molecule.GetNumAtoms())
    heavy = [k for k in order if molecule.GetAtomWithIdx(int(k)).GetAtomicNum() > 1]
    permuted = Chem.RenumberAtoms(molecule, order.tolist())
    np.testing.assert_allclose(encoder(permuted), features[heavy], atol=1e-4)


@pytest.mark.parametrize("smiles", ["OC(=O)CCS", "CC(C)CO", "NCCN", "Oc1ccccc1", "CO"])
def test_targets_do_not_depend_on_rotation_and_follow_the_atoms(smiles: str):
    """The hydrogens of a target are placed again; rotors such as OH have several minima."""
    one, draw = with_conformer("x", smiles, max_atoms=12), np.random.default_rng(0)
    expected = targets.encoded(one, "ani")
    for _ in range(3):
        turn, _ = np.linalg.qr(draw.normal(size=(3, 3)))
        order = draw.permutation(len(one.types))
        moved = one.positions @ (turn * np.linalg.det(turn)) + 1
        found = targets.encoded(replace(one, types=one.types[order], positions=moved[order]), "ani")
        np.testing.assert_allclose(found, expected[order], atol=1e-4)


def test_an_encoder_with_other_atoms_is_an_error(prepared: Path):
    one = Molecules(prepared).split("all")[0]
    with pytest.raises(ValueError, match=f"the encoder gives features of 9{len(one.types)} atoms for"):
        targets.encoded(one, lambda molecule: np.zeros((int(f"9{len(one.types)}"), 4), np.float32))


def test_molecules_that_an_encoder_does_not_know_are_listed_and_the_others_are_aligned(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    encoder, unknown = ENCODERS["descriptors"], "S"

    def limited(molecule: Chem.Mol):
        if any(atom.GetSymbol().startswith(unknown) for atom in molecule.GetAtoms()):
            raise ValueError(f"knows no {unknown}")
        return encoder(molecule)

    monkeypatch.setitem(ENCODERS, "descriptors", limited)
    data, listing = Molecules(prepared), prepared / "targets/descriptors.failures.jsonl"
    without = [one.id for one in data.split("all") if "S" in one.smiles]
    found = targets.targets(data, "descriptors", data.split("all"))
    assert len(without) > 5
    assert set(found) == {one.id for one in data.split("all")} - set(without)
    assert [json.loads(line) for line in listing.open()] == [{"id": name, "reason": "knows no S"} for name in without]
    assert (
        f"{len(without)} of {len(data.split('all'))} molecules have no targets of descriptors; listed in {listing}"
        in caplog.text
    )
    aligned = Molecular(str(prepared), align="descriptors")
    exists = (aligned.targets(aligned.encoded()) != 0).any(-1).any(-1)
    assert exists.tolist() == [one.id not in without for one in data.split("train")]
    unknown = "C"
    listing.with_name("descriptors.parquet").unlink()
    with pytest.raises(ValueError, match=rf"no molecule has targets of descriptors; the reasons are in {listing}"):
        aligned.build()


def test_ani_sees_the_geometry_and_espaloma_the_graph_only():
    near, far = full("CCO"), full("CCO", scale=1.05)
    assert np.abs(ENCODERS["ani"](near) - ENCODERS["ani"](far)).max() > 0.01
    assert np.array_equal(ENCODERS["espaloma"](near), ENCODERS["espaloma"](far))
    assert np.abs(ENCODERS["ani"](near) - ENCODERS["ani-random"](near)).max() > 0.01


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    smiles = [f"{'C' * k}{one}" for one in SMILES for k in range(4)]
    (tmp_path / "in.smi").write_text("\n".join(f"{one} m{k}" for k, one in enumerate(smiles)))
    list(
        prepare(records(str(tmp_path / "in.smi")), tmp_path / "set", sequential, min_atoms=2, max_atoms=12, settings={})
    )
    return tmp_path / "set"


def test_targets_are_computed_once_for_the_molecules_they_belong_to(prepared: Path, monkeypatch: pytest.MonkeyPatch):
    data = Molecules(prepared)
    first = targets.targets(data, "espaloma", data.split("all"))
    assert set(first) == {one.id for one in data.split("all")}
    atoms = torch.cat(list(first.values()))
    assert atoms.mean(0).abs().max() < 1e-4
    calls: list[str] = []
    count = ENCODERS["espaloma"]
    monkeypatch.setitem(ENCODERS, "espaloma", lambda molecule: calls.append("called") or count(molecule))
    again = targets.targets(Molecules(prepared), "espaloma", data.split("all"))
    assert not calls
    assert all(torch.equal(first[key], again[key]) for key in first)
    table = data.table.slice(1)
    import pyarrow.parquet as pq

    pq.write_table(table, prepared / "molecules.parquet")
    changed = Molecules(prepared)
    assert len(targets.targets(changed, "espaloma", changed.split("all"))) == len(first) - 1
    assert calls


def test_ranks_that_need_the_targets_at_once_compute_them_once(prepared: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []
    count = targets.groups
    monkeypatch.setattr(targets, "groups", lambda *words: calls.append(1) or count(*words))
    for file in (prepared / "targets").glob("descriptors*"):
        file.unlink()
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: targets.stored(Molecules(prepared), "descriptors"), range(4)))
    assert (len(set(paths)), len(calls)) == (1, 1)


def test_spatial_normalisation_is_over_the_atoms_of_each_molecule(prepared: Path):
    run = Molecular(str(prepared), align="descriptors", align_spatial=True, batch_size=4).build()
    align, pair = run.objective.align, run.batches(0)
    x_t, t = pair.x_1, torch.full((4,), 0.5)
    with torch.no_grad():
        _, loss = align(run.model, x_t, t, pair)
        assert loss.isfinite()
        shift = torch.arange(3.0, 3.0 + len(x_t))[:, None, None]  # another one for each molecule
        target = torch.where(pair.mask[..., None], pair.cond["target"] + shift, 0.0)
        _, shifted = align(run.model, x_t, t, replace(pair, cond={**pair.cond, "target": target}))
    torch.testing.assert_close(loss, shifted, rtol=1e-3, atol=1e-3)
    assert run.objective(run.model, pair).metrics["alignment"].isfinite()


def test_all_ranks_stop_aligning_at_the_same_step(prepared: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    run = Molecular(str(prepared), align="descriptors", align_until=5, batch_size=4).build()
    aligned = ["target" in run.batches(number).condition for number in range(12)]
    assert aligned == [True] * 8 + [False] * 4


def test_an_alignment_can_count_more_at_noisy_times(prepared: Path):
    recipe = Molecular(str(prepared), align="descriptors", align_times="noisy")
    schedule = recipe.alignment(recipe.network(3, 1.0), 5).schedule
    # the times of molecules have the density 2 t, so 1 - t has mean 1/3
    torch.testing.assert_close(schedule(torch.tensor([0.25])), torch.tensor([2.25]), rtol=1e-4, atol=0)


def test_features_of_ani_are_projected_by_element(prepared: Path):
    recipe = Molecular(str(prepared), align="ani")
    run, data = recipe.build(), recipe.encoded()
    term = run.objective.align.term
    pair = run.batches(0)
    known = sorted(set(elements_of(data.types)))
    assert term.projector[-1].out_features == len(known) * 160
    types = pair.x_1[..., 3:].argmax(-1)
    expected = [known.index(elements_of([data.types[number]])[0]) for number in types.flatten().tolist()]
    assert term.kind(pair).flatten().tolist() == expected
    assert len(set(expected)) > 2
    assert run.objective(run.model, pair).metrics["alignment"] != 0


def test_a_molecule_that_fails_leaves_the_other_targets_untouched(prepared: Path):
    data = Molecules(prepared)
    molecules = data.split("all")
    plain = {one.id: targets.encoded(one, "descriptors") for one in molecules}
    broken = [replace(one, positions=9 * one.positions) if k == 3 else one for k, one in enumerate(molecules)]
    failures: list[Failure] = []
    features = targets.source("descriptors").features
    rows = {key: x for group in targets.groups(broken, features, failures) for key, x in group}
    assert set(plain) - set(rows) == {molecules[3].id} == {one.id for one in failures}
    for key, x in rows.items():
        assert torch.equal(x, plain[key])


def test_a_molecule_with_an_atom_without_features_is_listed(prepared: Path):
    molecules = Molecules(prepared).split("all")
    rows = [torch.ones(int(one.heavy.sum()), 3) for one in molecules]
    rows[2][1] = 0
    failures: list[Failure] = []
    kept = {key for group in targets.groups(molecules, lambda _: rows, failures) for key, _ in group}
    assert failures == [Failure(molecules[2].id, "the encoder's features cannot be used: vector 1 is zero")]
    assert kept == {one.id for one in molecules} - {molecules[2].id}


@pytest.mark.slow
def test_alignment_lowers_its_loss_and_does_not_count_padding():
    torch.manual_seed(0)
    mask = torch.arange(5) < torch.tensor([5, 3, 4, 5])[:, None]
    x_1 = noise(mask, 4)
    x_1[..., 3:] = torch.nn.functional.one_hot(x_1[..., 3:].argmax(-1), 4) * mask[..., None]
    net = MoleculeNet(4, Shape(32, 2, 4), scale=1.0)
    target = torch.randn(4, 5, 6)
    align = Alignment(CachedTargets(lambda x: x, key="target"), layer=1, width=32, features=6, weight=0.5, hidden=64)
    objective = MoleculeMatching(align=align)
    optimizer = torch.optim.Adam([*net.parameters(), *align.parameters()], 3e-3)
    values = []
    for _ in range(200):
        loss = objective(net, Pair(noise(mask, 4), x_1, mask, {"target": target}))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        values.append(float(loss.metrics["alignment"]))
    assert np.mean(values[-10:]) < -0.5 < np.mean(values[:3])
    changed = target.clone()
    changed[~mask] = 7.0
    results = []
    for one in (target, changed):
        torch.manual_seed(1)
        with torch.no_grad():
            results.append(objective(net, Pair(noise(mask, 4), x_1, mask, {"target": one})).value)
    assert torch.equal(*results)


def test_every_parameter_has_a_gradient_after_the_alignment_has_ended():
    """DDP waits for the gradients of all parameters."""
    net, mask = MoleculeNet(4, Shape(32, 2, 4), scale=1.0), torch.ones(2, 3, dtype=torch.bool)
    align = Alignment(CachedTargets(lambda x: x, key="target"), layer=1, width=32, features=6, hidden=64)
    MoleculeMatching(align=align)(net, Pair(noise(mask, 4), noise(mask, 4), mask)).value.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in align.parameters())


def test_a_schedule_weighs_each_sample_by_its_time():
    torch.manual_seed(0)
    net, mask = MoleculeNet(4, Shape(32, 2, 4), scale=1.0), torch.ones(2, 3, dtype=torch.bool)
    x, target, t = noise(mask, 4), torch.randn(2, 3, 6), torch.tensor([0.2, 0.9])
    align = Alignment(CachedTargets(lambda x: x, key="target"), layer=1, width=32, features=6, hidden=64)
    pair = Pair(x, x, mask, {"target": target})
    alone = align(net, x[:1], t[:1], pair.rows(slice(0, 1)))[1]
    align.schedule = lambda t: (t < 0.5).to(t.dtype)
    torch.testing.assert_close(align(net, x, t, pair)[1], alone / 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ani", "espaloma", "self", "dispersive"])
def test_an_aligned_run_starts_from_the_same_weights_and_data(name: str, prepared: Path, tmp_path: Path):
    base = Molecular(str(prepared), width=32, depth=2, heads=4, batch_size=8, eval_samples=4, solver_steps=3)
    base = replace(base, train=replace(base.train, steps=4, save_every=4, log_every=1, threads=1, warmup_steps=1))
    plain, aligned = base, replace(base, align=name, align_layer=1, align_until=2)
    for kind, recipe in (("plain", plain), ("aligned", aligned)):
        fit(recipe, tmp_path / kind)
    first, second = (list(read_records(tmp_path / kind / "metrics.jsonl")) for kind in ("plain", "aligned"))
    assert first[0]["position error"] == second[0]["position error"]
    assert first[3]["position error"] != second[3]["position error"]
    assert [row["alignment"] != 0 for row in second] == [True, True, False, False]


def test_shuffled_targets_are_those_of_other_atoms(prepared: Path):
    plain = Molecular(str(prepared), align="descriptors")
    data = plain.encoded()
    targets, shuffled = plain.targets(data), replace(plain, align_shuffled=True).targets(data)
    assert targets is not None
    assert shuffled is not None
    rows, other = (sorted(part[data.mask].tolist()) for part in (targets, shuffled))
    assert rows == other
    same = (targets == shuffled).all(-1)
    assert not shuffled[~data.mask].any()
    assert 0 < same[data.mask].float().mean() < 0.6  # equal targets are frequent: descriptors have few values


def test_the_teacher_of_self_alignment_sees_a_later_state():
    mask = torch.ones(3, 4, dtype=torch.bool)
    pair = Pair(torch.zeros(3, 4, 7), torch.ones(3, 4, 7), mask, {"type_time": torch.tensor([0.1, 0.5, 0.9])})
    x, cond = later_state(pair, torch.tensor([0.5, 0.2, 1.0]))
    assert cond["type_time"].tolist() == pytest.approx([0.5, 0.5, 1.0])
    assert x[:, 0, 0].tolist() == pytest.approx([0.5, 0.2, 1.0])
    assert x[:, 3, 6].tolist() == pytest.approx([0.5, 0.5, 1.0])


def test_a_missing_package_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderMissing, match="torchani is not installed; pip install --no-deps auto3d torchani"):
        encoders.ANI2xt()
    encoders._espaloma.cache_clear()
    with pytest.raises(EncoderMissing, match="expaloma is not installed; pip install --no-deps expaloma"):
        ENCODERS["espaloma"](full("CCO"))


def test_a_missing_package_is_one_sentence_for_training_too(prepared: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderMissing, match="auto3d is not installed; pip install"):
        Molecular(str(prepared), align="ani").build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"align": "ani", "align_layer": 9}, "align_layer 9: the network has 5 blocks"),
        ({"align_weight": -1.0}, "align_weight must be finite and not negative"),
        ({"align_until": -1}, "align_until must be finite and not negative"),
        (
            {"align": "self", "align_spatial": True},
            "--align self: --align-spatial, --align-shuffled, --align-times and --align-pooled-weight need an encoder",
        ),
        (
            {"align_shuffled": True},
            "--align none: --align-spatial, --align-shuffled, --align-times and --align-pooled",
        ),
    ],
)
def test_settings_of_the_alignment_are_checked(settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Molecular("x", **settings)  # pyright: ignore[reportArgumentType]
