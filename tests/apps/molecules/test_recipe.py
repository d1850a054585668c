"""Training on a prepared set, resuming, and sampling from the run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import kstest

pytest.importorskip("rdkit")

from monge.apps.molecules.dataset import prepare
from monge.apps.molecules.objective import noise
from monge.apps.molecules.recipes import Molecular, opened
from monge.apps.molecules.sampling import states
from monge.apps.molecules.sources import records
from monge.fleet import sequential
from monge.run import fit
from monge.runs import reopen
from monge.training.log import read_records

ENDS = ("O", "N", "F", "Cl", "S", "C=O", "C#N", "C(=O)O", "OC", "NC")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("molecules")
    lines = [f"{'C' * length}{end} {length}-{end}" for length in range(1, 6) for end in ENDS]
    (folder / "in.smi").write_text("\n".join(lines))
    list(prepare(records(str(folder / "in.smi")), folder / "set", sequential, min_atoms=2, max_atoms=8, settings={}))
    return folder / "set"


def recipe(data: Path, steps: int, **settings: object) -> Molecular:
    base = Molecular(str(data), width=32, depth=2, heads=4, batch_size=16, eval_samples=8, solver_steps=5)
    base = replace(base, **settings)  # pyright: ignore[reportArgumentType]
    schedule = replace(base.train, final_lr_fraction=1.0, warmup_steps=2, threads=1)
    return replace(base, train=replace(schedule, steps=steps, save_every=4, log_every=4))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"architecture": "transformer", "coupling": "independent"},
        {"atom_index": False, "coupling": "permutation", "prediction": "x_1"},
        {"prediction": "velocity", "fake_atoms": 0.3},
    ],
    ids=str,
)
def test_a_run_trains_resumes_and_samples(prepared: Path, tmp_path: Path, settings: dict[str, object]):
    fit(recipe(prepared, 4, **settings), tmp_path / "run")
    fit(recipe(prepared, 8, **settings), tmp_path / "run", resume=True)
    fit(recipe(prepared, 8, **settings), tmp_path / "whole")
    resumed, whole = (opened(reopen(tmp_path / name, app="molecules"), which="last") for name in ("run", "whole"))
    for one, other in zip(resumed[1].network.parameters(), whole[1].network.parameters(), strict=True):
        assert torch.equal(one, other)
    rows = [row for row in read_records(tmp_path / "run/metrics.jsonl") if "held-out loss" in row]
    assert [row["step"] for row in rows] == [4, 8]
    assert all(0 <= row["valid"] <= row["connected"] <= 1 for row in rows)
    sampler = resumed[1]
    assert sampler.network.shape.prediction == settings.get("prediction", "residual")
    assert int(sampler.sizes.sum()) == len(recipe(prepared, 4).encoded().x)
    drawn = sampler.draw(sampler.mask(5, atoms=4), steps=5, size=2)
    results = [one.molecule() for one in drawn]
    assert all(np.isfinite(one.positions).all() for one in results)
    if not settings.get("fake_atoms"):
        assert [one.positions.shape for one in results] == [(4, 3)] * 5
        assert all(one.molecule is None or one.molecule.GetNumAtoms() == 4 for one in results)


def test_training_does_not_depend_on_the_orientation_of_the_data(prepared: Path):
    """Without a coupling that rotates, atoms of a batch have uniform directions, whatever the directions in the data."""
    run, data = recipe(prepared, 4, coupling="independent").build(), recipe(prepared, 4).encoded()
    seen = [run.batches(number) for number in range(60)]
    spread = torch.cat([one.x_1[:, 0, :3] / one.x_1[:, 0, :3].norm(dim=-1, keepdim=True) for one in seen])
    for axis in spread.T:  # by Archimedes' theorem, each coordinate is uniform
        assert kstest(axis.numpy(), "uniform", (-1, 2)).pvalue > 1e-3
    known = torch.cat([torch.pdist(x[:5, :3])[None] for x, mask in zip(data.x, data.mask, strict=True) if mask[4]])
    first = next(x for x, mask in zip(seen[0].x_1, seen[0].mask, strict=True) if mask[4])  # pyright: ignore[reportArgumentType]
    assert float((known - torch.pdist(first[:5, :3])).abs().amax(1).min()) < 1e-4


def test_a_sample_does_not_depend_on_its_batch(prepared: Path, tmp_path: Path):
    torch.manual_seed(0)
    data = recipe(prepared, 1).encoded()
    network = recipe(prepared, 1).network(len(data.types), data.scale).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    mask = data.mask[:6]
    x_0 = noise(mask, len(data.types), generator=torch.Generator().manual_seed(0))
    *_, together = states(network, x_0, mask, steps=6)
    for row, count in enumerate(mask.sum(1).tolist()):
        *_, alone = states(network, x_0[row : row + 1, :count], mask[row : row + 1, :count], steps=6)
        torch.testing.assert_close(together[row : row + 1, :count], alone, atol=1e-4, rtol=1e-4)
    assert (together[~mask] == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 30}, "must be even and divisible by 4"),
        ({"coupling": "permutation"}, "needs --no-atom-index"),
        ({"type_weight": -1.0}, "type_weight must be finite and not negative"),
        ({"fake_atoms": -0.1}, "fake_atoms must be finite and not negative"),
        ({"max_atoms": 0}, "max_atoms must be at least 1"),
    ],
)
def test_settings_out_of_range_are_errors(tmp_path: Path, settings: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, 1, **settings)


def test_a_run_does_not_resume_with_other_targets(prepared: Path, tmp_path: Path):
    fit(recipe(prepared, 2, align="descriptors"), tmp_path / "run")
    for other in ({"align": "dispersive"}, {"align": "descriptors", "align_shuffled": True}, {}):
        with pytest.raises(ValueError, match="align"):
            fit(recipe(prepared, 3, **other), tmp_path / "run", resume=True)


def test_a_set_without_small_molecules_is_an_error(prepared: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="no molecules of at most 1 heavy atoms in split train"):
        recipe(prepared, 1, max_atoms=1).build()
    with pytest.raises(ValueError, match="no prepared molecules"):
        recipe(tmp_path, 1).build()
