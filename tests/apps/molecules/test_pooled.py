"""A pooled token that is denoised together with the atoms (REG)."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("rdkit")

from monge.apps.molecules import recipes
from monge.apps.molecules.dataset import Molecules, prepare
from monge.apps.molecules.network import MoleculeNet, Prediction, Shape, centred
from monge.apps.molecules.objective import MoleculeMatching, noise
from monge.apps.molecules.recipes import Molecular, opened
from monge.apps.molecules.sampling import states
from monge.apps.molecules.sources import records
from monge.apps.molecules.targets import targets
from monge.fleet import sequential
from monge.math.rotation import random_rotations, rotated
from monge.math.types import Pair
from monge.run import fit
from monge.runs import reopen
from monge.training.log import read_records


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("molecules")
    (folder / "in.smi").write_text(
        "\n".join(f"{'C' * n}{end} {n}{end}" for n in range(2, 8) for end in ("O", "N", "F"))
    )
    list(prepare(records(str(folder / "in.smi")), folder / "set", sequential, min_atoms=2, max_atoms=9, settings={}))
    return folder / "set"


def network(**settings: object) -> MoleculeNet:
    torch.manual_seed(0)
    shape = replace(Shape(32, 2, 4, pooled=6), **settings)  # pyright: ignore[reportArgumentType]
    result = MoleculeNet(5, shape, scale=1.5).eval()
    for parameter in result.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return result


def drawn() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(noise, mask, pooled token) of three molecules."""
    torch.manual_seed(1)
    mask = torch.arange(6) < torch.tensor([[6], [4], [2]])
    return noise(mask, 5), mask, torch.randn(3, 6)


@pytest.mark.parametrize("settings", [{}, {"atom_index": False}, {"prediction": "velocity"}], ids=str)
def test_atoms_and_token_see_each_other_and_rotations_do_not_matter(settings: dict[str, object]):
    net, (x, mask, pooled), t = network(**settings), drawn(), torch.tensor([0.1, 0.5, 0.8])
    first = net.predict(x, t, {"mask": mask, "pooled": pooled}, 1)
    other = net.predict(x, t, {"mask": mask, "pooled": pooled + 1}, 1)
    assert first.pooled is not None
    assert first.pooled.shape == (3, 6)
    assert first.features.shape == (3, 6, 32)
    assert ((first.end - other.end).abs().amax(-1)[mask] > 1e-4).all()
    turn = random_rotations(3)
    turned = net.predict(rotated(x, turn), t, {"mask": mask, "pooled": pooled}, 1)
    torch.testing.assert_close(turned.end, rotated(first.end, turn), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(turned.pooled, first.pooled, atol=1e-5, rtol=1e-4)
    moved = torch.cat([centred(2 * x[..., :3], mask), x[..., 3:]], -1)
    seen = net.predict(moved, t, {"mask": mask, "pooled": pooled}, 1).pooled
    assert seen is not None
    assert ((seen - first.pooled).abs().amax(-1) > 1e-4).all()


@pytest.mark.parametrize("settings", [{}, {"architecture": "transformer"}], ids=str)
def test_a_sample_does_not_depend_on_its_batch(settings: dict[str, object]):
    net, (x, mask, pooled) = network(**settings), drawn()
    *_, together = states(net, x, mask, steps=5, cond={"pooled": pooled})
    for row, count in enumerate(mask.sum(1).tolist()):
        one = slice(row, row + 1)
        *_, alone = states(net, x[one, :count], mask[one, :count], steps=5, cond={"pooled": pooled[one]})
        torch.testing.assert_close(together[one, :count], alone, atol=1e-4, rtol=1e-4)


def test_the_token_is_integrated_with_the_atoms():
    """A network that predicts the token's end exactly carries it there on a straight line."""
    mask, seen, end = torch.ones(2, 3, dtype=torch.bool), [], torch.tensor([[1.0, 2.0], [3.0, 4.0]])

    def predict(x: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor], layer: int) -> Prediction:
        seen.append((float(t[0]), cond["pooled"]))
        return Prediction(torch.zeros_like(x), end, x)

    start = torch.randn(2, 2)
    list(states(SimpleNamespace(predict=predict), noise(mask, 4), mask, steps=4, cond={"pooled": start}))
    for t, value in seen[:4]:
        torch.testing.assert_close(value, torch.lerp(start, end, t))
    for _, value in seen[4:]:  # the types are read again at the end
        torch.testing.assert_close(value, end)


def test_the_loss_of_the_token_is_its_weighted_squared_error_over_known_vectors():
    mask = torch.ones(3, 2, dtype=torch.bool)
    x = noise(mask, 4)
    target = torch.tensor([[1.0, -1.0], [2.0, 0.0], [0.0, 0.0]])  # the last one is unknown
    times = torch.tensor([0.5, 0.0, 0.2])

    def predict(x: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor], layer: int) -> Prediction:
        return Prediction(torch.zeros_like(x), torch.ones(3, 2), x)

    pair, values = Pair(x, x, mask, {"pooled target": target}), []
    for weight in (0.0, 0.5):
        loss = MoleculeMatching(times=lambda _: times, self_conditioning=False, pooled_weight=weight)  # pyright: ignore[reportArgumentType]
        torch.manual_seed(0)
        values.append(loss(SimpleNamespace(predict=predict), pair).value)
    squared = torch.tensor([(0 + 4) / 2, (1 + 1) / 2])
    torch.testing.assert_close(values[1] - values[0], 0.5 * (4 * squared[0] + squared[1]) / 2)


def test_pooled_targets_are_standardised_means_over_atoms(prepared: Path):
    recipe = Molecular(str(prepared), align="descriptors", align_pooled_weight=0.03)
    data, held_out = recipe.encoded(), recipe.encoded("validation")
    train, other = recipe.pooled(data, held_out)
    rows = targets(Molecules(prepared), "descriptors", data.molecules)
    means = torch.stack([rows[one.id].mean(0) for one in data.molecules])
    varying = means.std(0) > 1e-5
    torch.testing.assert_close(train[:, varying].mean(0), torch.zeros(int(varying.sum())), atol=1e-5, rtol=0)
    torch.testing.assert_close(train[:, varying].std(0, correction=0), torch.ones(int(varying.sum())))
    for x, y in zip(train[:, varying].T, means[:, varying].T, strict=True):
        assert torch.corrcoef(torch.stack([x, y]))[0, 1] > 0.999
    assert other.shape == (len(held_out.molecules), train.shape[1])
    known = targets(Molecules(prepared), "descriptors", data.molecules, also=held_out.molecules)
    for row, one in zip(other, held_out.molecules, strict=True):
        expected = (known[one.id].mean(0) - means.mean(0)) / means.std(0, correction=0).clamp_min(1e-6)
        torch.testing.assert_close(row[varying], expected[varying], atol=1e-4, rtol=1e-4)
    shuffled, _ = replace(recipe, align_shuffled=True).pooled(data, held_out)
    assert not torch.equal(shuffled, train)
    assert sorted(shuffled.tolist()) == sorted(train.tolist())


def test_a_molecule_without_targets_has_a_zero_vector_and_equal_ones_are_an_error(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = Molecular(str(prepared), align="descriptors", align_pooled_weight=0.03)
    data, held_out = recipe.encoded(), recipe.encoded("validation")
    known = targets(Molecules(prepared), "descriptors", data.molecules, also=held_out.molecules)
    missing = data.molecules[0].id
    monkeypatch.setattr(recipes, "targets", lambda *_, **__: {key: x for key, x in known.items() if key != missing})
    train, _ = recipe.pooled(data, held_out)
    assert not train[0].any()
    assert train[1:].any(-1).all()
    same = {key: torch.ones_like(x) for key, x in known.items()}
    monkeypatch.setattr(recipes, "targets", lambda *_, **__: same)
    with pytest.raises(ValueError, match="all mean targets of descriptors are equal"):
        recipe.pooled(data, held_out)


@pytest.mark.slow
def test_the_initial_weights_do_not_depend_on_the_encoder(prepared: Path, monkeypatch: pytest.MonkeyPatch):
    """Encoders may draw weights from the global generator before they load their own."""

    def drawing(*arguments: object, **named: object) -> object:
        torch.rand(5)
        return targets(*arguments, **named)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(recipes, "targets", drawing)
    weights = []
    for settings in ({}, {"align": "descriptors"}, {"align": "descriptors", "align_layer": 1}):
        torch.manual_seed(0)
        base = Molecular(str(prepared), width=32, depth=2, heads=4, **settings)  # pyright: ignore[reportArgumentType]
        weights.append(torch.cat([p.flatten() for p in base.build().model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


@pytest.mark.slow
def test_a_run_with_a_token_trains_resumes_and_samples(prepared: Path, tmp_path: Path):
    base = Molecular(str(prepared), width=32, depth=2, heads=4, batch_size=8, eval_samples=4, solver_steps=3)
    settings = {
        "align": "descriptors",
        "align_layer": 1,
        "align_pooled_weight": 0.03,
        "align_until": 2,
        "fake_atoms": 0.3,
    }
    base = replace(base, **settings)  # pyright: ignore[reportArgumentType]

    def of(steps: int) -> Molecular:
        return replace(
            base,
            train=replace(
                base.train, steps=steps, save_every=4, log_every=1, threads=1, warmup_steps=1, final_lr_fraction=1.0
            ),
        )

    fit(of(4), tmp_path / "run")
    fit(of(8), tmp_path / "run", resume=True)
    fit(of(8), tmp_path / "whole")
    resumed, whole = (opened(reopen(tmp_path / name, app="molecules"), which="last")[1] for name in ("run", "whole"))
    for one, other in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(one, other)
    rows = [row for row in read_records(tmp_path / "run/metrics.jsonl") if "loss" in row]
    assert all("pooled error" in row for row in rows)
    assert [row["alignment"] != 0 for row in rows] == [True, True, *[False] * 6]
    mask = resumed.mask(5, atoms=4, generator=torch.Generator().manual_seed(0))
    assert len(resumed.draw(mask, steps=3, size=2)) == 5


def test_a_network_and_its_conditions_must_agree():
    x, mask, pooled = drawn()
    t = torch.zeros(3)
    with pytest.raises(ValueError, match="cond must have"):
        network()(x, t, {"mask": mask})
    with pytest.raises(ValueError, match="cond must have"):
        network(pooled=0)(x, t, {"mask": mask, "pooled": pooled})
    with pytest.raises(ValueError, match=r"--align none: .* --align-pooled-weight need an encoder"):
        Molecular("x", align_pooled_weight=0.03)
