"""Couple, train, translate: shards equal online couplings, runs resume, and a trained flow beats its baselines."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monge.apps.translate.contrast import MeanInfoNCE
from monge.apps.translate.couple import couple, shard_path, soft_targets
from monge.apps.translate.field import Field, FieldShape, Mean, snap_existence
from monge.apps.translate.metrics import matched_cosine
from monge.apps.translate.pair import Pairs
from monge.apps.translate.prices import Prices
from monge.apps.translate.recipes import HERMES, Translate, translator_of
from monge.apps.translate.space import Packed
from monge.fleet import processes, sequential
from monge.math.container import Container
from monge.math.solve import integrate, time_grid
from monge.math.steps import euler, midpoint
from monge.math.types import Pair
from monge.run import fit
from monge.runs import reopen
from monge.training.config import TrainConfig

TINY = TrainConfig(steps=6, warmup_steps=1, save_every=3, log_every=1, device="cpu", loader_threads=0)
SMALL = FieldShape(width=64, depth=1)


@pytest.mark.slow
def test_shards_equal_online_couplings_with_any_number_of_workers(packed: Packed, tmp_path: Path) -> None:
    for name, fleet in (("here", sequential), ("two", processes(2))):
        *_, last = couple(packed, tmp_path / name, fleet, size=100)
        assert last == (3, 3)
    for number in range(3):
        one, two = (np.load(shard_path(tmp_path / name, number)) for name in ("here", "two"))
        assert (one == two).all()
    rows = np.concatenate([np.load(shard_path(tmp_path / "here", number)) for number in range(3)])
    assert rows.shape == (240, 12)
    online = packed.space.transport.permutation(packed(range(37, 40)))
    assert torch.equal(torch.from_numpy(rows[37:40].astype(np.int64)), online)
    assert (np.sort(rows, 1) == np.arange(12)).all()


def test_existing_shards_are_kept_and_a_missing_one_is_solved_again(packed: Packed, tmp_path: Path) -> None:
    list(couple(packed, tmp_path, sequential, size=100))
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("shard*")}
    shard_path(tmp_path, 1).unlink()
    (tmp_path / ".writing-shard-00001.npy").write_bytes(b"half")  # left by a crash
    assert list(couple(packed, tmp_path, sequential, size=100)) == [(3, 3)]
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("shard*")}
    assert after.keys() == before.keys()
    assert all(after[name][0] == before[name][0] for name in before)
    assert [name for name in before if after[name][1] != before[name][1]] == ["shard-00001.npy"]


def test_stored_couplings_give_the_same_batches_as_online_ones(packed: Packed, pairs: Pairs, tmp_path: Path) -> None:
    list(couple(packed, tmp_path / "shards", sequential))
    recipe = Translate(pairs=str(pairs.directory), shape=SMALL, batch_size=8, train=TINY)
    online = recipe.build().batches(3)
    stored = replace(recipe, couplings=str(tmp_path / "shards")).build().batches(3)
    assert torch.equal(online.x_0, stored.x_0)
    assert torch.equal(online.x_1, stored.x_1)


def test_the_field_is_equivariant_to_permutations_of_slots(packed: Packed) -> None:
    torch.manual_seed(0)
    field = Field(19, FieldShape(64, 2), span=12.0)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = packed(range(2)).x_0, torch.tensor([0.3, 0.8])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(field(x[:, order], t), field(x, t)[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("separate_reverse", [False, True])
def test_a_run_resumes_bit_for_bit(pairs: Pairs, tmp_path: Path, separate_reverse: bool) -> None:
    shape = replace(SMALL, separate_reverse=separate_reverse)
    recipe = Translate(pairs=str(pairs.directory), shape=shape, batch_size=8, train=TINY)
    complete, cut = tmp_path / "complete", tmp_path / "cut"
    for directory in (complete, cut):
        fit(recipe, directory)
    last = Path("checkpoints/step-00000006")
    (cut / last).rename(cut / last.with_name(".writing-step-00000006"))
    fit(recipe, cut, resume=True)
    for path in (complete / last).iterdir():
        assert (cut / last / path.name).read_bytes() == path.read_bytes()
    assert (cut / "metrics.jsonl").read_bytes() == (complete / "metrics.jsonl").read_bytes()


@pytest.mark.long
def test_a_flow_learns_deletions_and_retrieves_its_targets(pairs: Pairs, tmp_path: Path) -> None:
    from monge.apps.translate.evaluate import evaluate

    config = replace(TINY, steps=200, save_every=200, lr=2e-3)
    recipe = Translate(pairs=str(pairs.directory), shape=replace(SMALL, depth=2), batch_size=32, train=config)
    fit(recipe, tmp_path / "run")
    translator = translator_of(reopen(tmp_path / "run", app="translate"))
    table = evaluate(pairs, translator, reverse=False, limit=50, steps=1, pool=20).rows
    flow, identity = table["flow, 1 step"], table["identity"]
    (best,) = (name for name in flow if name.startswith("R@1 of ") and name != "R@1 of 20")
    assert flow[best].value > identity[best].value + 0.3
    assert flow["length error"].value < identity["length error"].value
    assert flow["matched cosine"].value > identity["matched cosine"].value + 0.2


@pytest.mark.parametrize("reverse", [False, True])
def test_soft_couplings_keep_every_token_and_binary_existence(packed: Packed, reverse: bool) -> None:
    pair = packed(range(6))
    pair = Pair(pair.x_1, pair.x_0) if reverse else pair
    space = packed.space
    soft = soft_targets(space, pair, 0.5)
    slots, true = space.container.split(soft.x_1), space.container.split(pair.x_1)
    assert ((slots.existence == 0) | (slots.existence == 1)).all()
    assert torch.equal(slots.existence.sum(1), true.existence.sum(1))
    assert (slots.content[slots.existence == 0] == 0).all()
    hard = space.transport(pair)
    almost = soft_targets(space, pair, 0.01)
    close = (almost.x_1 - hard.x_1).abs().amax(-1) < 0.1
    assert close[space.container.active(hard.x_1)].float().mean() > 0.9  # the targets of voids are ties


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"method": "flow-matching"},
        {"source_condition": True, "method": "flow-matching", "sigma": 0.3},
        pytest.param({"walking_steps": 3}, id="walk3", marks=pytest.mark.long),
        {"method": "branching-flows"},
        {"additive": True},
        {"epsilon": 0.3},
    ],
    ids=lambda changes: next(iter(changes)) + str(next(iter(changes.values()))),
)
def test_every_method_trains_reopens_and_translates(pairs: Pairs, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = replace(TINY, steps=120, save_every=120, warmup_steps=12, lr=3e-3)
    recipe = Translate(
        pairs=str(pairs.directory), shape=replace(SMALL, depth=2), batch_size=16, train=config, **changes
    )
    fit(recipe, tmp_path / "run")
    translator = translator_of(reopen(tmp_path / "run", app="translate"))
    numbers = pairs.split("test")
    for reverse in (False, True):
        source, target = ("target", "source") if reverse else ("source", "target")
        predicted = translator.translate([pairs.sequence(source, n) for n in numbers], reverse=reverse)
        true = [pairs.sequence(target, n) for n in numbers]
        similarity = torch.tensor([matched_cosine(x, y) for x, y in zip(predicted, true, strict=True)])
        other = torch.tensor([matched_cosine(x, y) for x, y in zip(predicted, true[1:] + true[:1], strict=True)])
        assert (similarity - other).mean() > 0.3


def test_uncertain_existence_snaps_and_other_channels_are_unchanged() -> None:
    """After any number of steps a slot is a token or a void, whichever is nearer to the endpoint of the field."""
    container = Container(4, aux_scale=3.0)
    x = container.pack([torch.zeros(2, 5)])
    wanted = torch.tensor([[0.6, 0.4, 0.6, 0.4]])  # existence at the endpoint

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        v = torch.ones_like(x)
        v[..., -1] = (3 * wanted - x[..., -1]) / (1 - t[:, None])
        return v

    for steps in (1, 2, 5):
        end = integrate(snap_existence(field, 1.0, container.aux_scale), x, time_grid(steps, x), step=euler)
        torch.testing.assert_close(container.split(end).existence, wanted.round())
        torch.testing.assert_close(end[..., :-1], x[..., :-1] + 1)


def test_the_mean_of_existing_slots_moves_all_slots_by_the_matrix_of_each_end() -> None:
    mean, draws = Mean(4), torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 4, generator=draws)
    exists = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 1, 1, 0]]).float()
    assert (mean(x, exists, torch.zeros(2)) == 0).all()
    torch.nn.init.normal_(mean.ends.weight, generator=draws)
    first, last = mean.ends.weight.split(4)
    average = torch.stack([x[0, [0, 2]].mean(0), x[1, :4].mean(0)])[:, None]
    torch.testing.assert_close(mean(x, 3 * exists, torch.tensor([0.0, 0.25])[:1].expand(2)), average @ first.mT)
    torch.testing.assert_close(mean(x, exists, torch.full((2,), 0.25)), average @ (0.75 * first + 0.25 * last).mT)
    assert torch.isfinite(mean(x, 0 * exists, torch.ones(2))).all()


def test_a_field_contains_the_skip_path_of_the_mean(packed: Packed) -> None:
    """The blocks output zero at first, so the velocity is that of the skip path: equal for all slots, and only on content."""
    field = Field(16 + 3, SMALL, span=1.0)
    assert field.mean is not None
    torch.nn.init.normal_(field.mean.ends.weight)
    x = packed(range(4)).x_0
    v = field(x, torch.zeros(4))
    means = torch.stack(
        [content[exists].mean(0) for content, exists in zip(x[..., :16], packed.space.container.active(x), strict=True)]
    )
    expected = (means @ field.mean.ends.weight[:16].mT)[:, None].expand(4, x.shape[1], 16)
    torch.testing.assert_close(v[..., :16], expected, rtol=1e-4, atol=1e-4)
    assert (v[..., 16:] == 0).all()


@pytest.mark.parametrize("steps", [1, 3])
def test_flow_walking_passes_the_direction_to_the_field(pairs: Pairs, steps: int) -> None:
    """Integration starts at t = 0 only in the forward direction and at t = 1 only in reverse."""
    shape = replace(SMALL, separate_reverse=True)
    run = Translate(pairs=str(pairs.directory), walking_steps=steps, shape=shape, train=TINY).build()
    seen: list[tuple[bool, float]] = []

    def field(x: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor]) -> torch.Tensor:
        (reverse,) = cond["reverse"].unique().tolist()
        seen.extend((reverse, float(time)) for time in t)
        return torch.zeros_like(x)

    with torch.no_grad():
        run.objective(field, run.batches(0))
    assert {reverse for reverse, time in seen if time == 0} == {False}
    assert {reverse for reverse, time in seen if time == 1} == {True}


def test_contrast_penalises_means_near_other_targets(pairs: Pairs) -> None:
    """Translations that end at another target have an additional loss; correct ones have almost none."""
    run, plain = (
        Translate(pairs=str(pairs.directory), shape=SMALL, contrast=weight, train=TINY).build() for weight in (0.5, 0.0)
    )
    batch = run.batches(0)

    def leading(x_0: torch.Tensor, x_1: torch.Tensor) -> Any:
        return lambda x, t, cond: x_1 - x_0

    right, wrong = (leading(batch.x_0, x_1) for x_1 in (batch.x_1, batch.x_1.roll(1, 0)))
    assert 0 <= float(run.objective(right, batch).value) < 0.1
    assert float(run.objective(wrong, batch).value - plain.objective(wrong, batch).value) > 1


def test_a_field_trained_for_one_step_rejects_more(pairs: Pairs, tmp_path: Path) -> None:
    fit(Translate(pairs=str(pairs.directory), shape=SMALL, train=TINY), tmp_path / "run")
    translator = translator_of(reopen(tmp_path / "run", app="translate"))
    assert translator.steps == 1
    translator.integrate([torch.ones(2, 16)])
    for more in ({"steps": 2}, {"step": midpoint}):
        with pytest.raises(ValueError, match="trained for a single Euler step"):
            translator.integrate([torch.ones(2, 16)], **more)


def test_contrast_includes_the_negatives() -> None:
    """A correct translation has a higher loss if a negative is near."""
    container, draws = Container(6), torch.Generator().manual_seed(0)
    true = container.pack([torch.randn(4, 8, generator=draws) for _ in range(3)])
    means = true[:, :4, :8].mean(1)
    far, near = torch.randn(5, 8, generator=draws), means[:1] + 0.1 * torch.randn(5, 8, generator=draws)
    alone, among = (float(MeanInfoNCE(negatives, 0.5)(true, true)) for negatives in (far, near))
    assert among > alone + 0.1
    assert float(MeanInfoNCE(near, 1.0)(true, true)) == pytest.approx(2 * among)


def test_the_hermes_recipe_has_the_size_and_the_settings_of_the_original() -> None:
    with torch.device("meta"):
        field = HERMES.network(256, 2048)
    assert sum(p.numel() for p in field.parameters()) == pytest.approx(313e6, rel=0.02)
    assert (HERMES.method, HERMES.epsilon, HERMES.additive, HERMES.aux_scale) == ("flow-matching", 0.05, True, 1.0)
    assert HERMES.prices == Prices(delete=1.0, create=1.0, create_norm=0.1, priority=0.0, rule="quantile")
