"""Couple, train, translate: shards hold what is coupled online, runs resume, and a learnt flow beats what it must."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from monge.apps.translate.calibrate import Prices
from monge.apps.translate.contrast import MeanInfoNCE
from monge.apps.translate.couple import couple, shard_path, soft_targets
from monge.apps.translate.field import Field, FieldShape, Mean
from monge.apps.translate.methods import snap_existence
from monge.apps.translate.metrics import (
    matched_cosine,
)
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import HERMES, Translate, translator_of
from monge.apps.translate.space import Packed
from monge.fleet import here, processes
from monge.math.container import Container
from monge.math.solve import euler, integrate, midpoint, time_grid
from monge.math.types import Pair
from monge.run import fit
from monge.runs import reopen
from monge.train.config import TrainConfig

TINY = TrainConfig(steps=6, warmup_steps=1, save_every=3, log_every=1, device="cpu", loader_threads=0)
SMALL = FieldShape(width=64, depth=1)


@pytest.mark.slow
def test_shards_hold_what_is_coupled_online_whoever_solves_them(packed: Packed, tmp_path: Path) -> None:
    for name, fleet in (("here", here), ("two", processes(2))):
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


def test_shards_that_are_there_are_kept_and_a_lost_one_is_solved_again(packed: Packed, tmp_path: Path) -> None:
    list(couple(packed, tmp_path, here, size=100))
    whole = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("shard*")}
    shard_path(tmp_path, 1).unlink()
    (tmp_path / ".writing-shard-00001.npy").write_bytes(b"half")  # as a crash leaves it
    assert list(couple(packed, tmp_path, here, size=100)) == [(3, 3)]
    found = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("shard*")}
    assert found.keys() == whole.keys()
    assert all(found[name][0] == whole[name][0] for name in whole)
    assert [name for name in whole if found[name][1] != whole[name][1]] == ["shard-00001.npy"]


def test_stored_couplings_train_as_online_ones(packed: Packed, pairs: Pairs, tmp_path: Path) -> None:
    list(couple(packed, tmp_path / "shards", here))
    recipe = Translate(pairs=str(pairs.directory), shape=SMALL, batch_size=8, train=TINY)
    online = recipe.build().batches(3)
    stored = replace(recipe, couplings=str(tmp_path / "shards")).build().batches(3)
    assert torch.equal(online.x_0, stored.x_0)
    assert torch.equal(online.x_1, stored.x_1)


def test_the_field_does_not_care_for_the_order_of_slots(packed: Packed) -> None:
    torch.manual_seed(0)
    field = Field(19, FieldShape(64, 2), span=12.0)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, t = packed(range(2)).x_0, torch.tensor([0.3, 0.8])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(field(x[:, order], t), field(x, t)[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ways", [1, 2])
def test_a_run_resumes_bit_for_bit(pairs: Pairs, tmp_path: Path, ways: Literal[1, 2]) -> None:
    recipe = Translate(pairs=str(pairs.directory), shape=replace(SMALL, ways=ways), batch_size=8, train=TINY)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for directory in (whole, cut):
        fit(recipe, directory)
    last = Path("checkpoints/step-00000006")
    (cut / last).rename(cut / last.with_name(".writing-step-00000006"))
    fit(recipe, cut, resume=True)
    for path in (whole / last).iterdir():
        assert (cut / last / path.name).read_bytes() == path.read_bytes()
    assert (cut / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_flow_learns_which_tokens_go_and_finds_its_targets(pairs: Pairs, tmp_path: Path) -> None:
    from monge.apps.translate.evaluate import evaluate

    config = replace(TINY, steps=200, save_every=200, lr=2e-3)
    recipe = Translate(pairs=str(pairs.directory), shape=replace(SMALL, depth=2), batch_size=32, train=config)
    fit(recipe, tmp_path / "run")
    translator = translator_of(reopen(tmp_path / "run", app="translate"))
    table = evaluate(pairs, translator, reverse=False, limit=50, steps=1, pool=20).rows
    flow, known = table["flow, 1 step"], table["identity"]
    (best,) = (name for name in flow if name.startswith("R@1 of ") and name != "R@1 of 20")
    assert flow[best].value > known[best].value + 0.3
    assert flow["length error"].value < known["length error"].value
    assert flow["matched cosine"].value > known["matched cosine"].value + 0.2


@pytest.mark.parametrize("reverse", [False, True])
def test_soft_couplings_keep_every_token_and_blur_no_existence(packed: Packed, reverse: bool) -> None:
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
    assert close[space.container.active(hard.x_1)].float().mean() > 0.9  # where a void goes is a tie


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"method": "flow-matching"},
        pytest.param({"walking_steps": 3}, id="walk3", marks=pytest.mark.long),
        {"method": "branching-flows"},
        {"additive": True, "contrast": 0.0},
        {"epsilon": 0.3},
    ],
    ids=lambda changes: next(iter(changes)) + str(next(iter(changes.values()))),
)
def test_every_way_to_learn_trains_reopens_and_translates(
    pairs: Pairs, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = replace(TINY, steps=120, save_every=120, warmup=12, lr=3e-3)
    recipe = Translate(
        pairs=str(pairs.directory), shape=replace(SMALL, depth=2), batch_size=16, train=config, **changes
    )
    fit(recipe, tmp_path / "run")
    translator = translator_of(reopen(tmp_path / "run", app="translate"))
    numbers = pairs.split("test")
    for reverse in (False, True):
        source, target = ("target", "source") if reverse else ("source", "target")
        found = translator.translate([pairs.sequence(source, n) for n in numbers], reverse=reverse)
        true = [pairs.sequence(target, n) for n in numbers]
        likeness = torch.tensor([matched_cosine(x, y) for x, y in zip(found, true, strict=True)])
        other = torch.tensor([matched_cosine(x, y) for x, y in zip(found, true[1:] + true[:1], strict=True)])
        assert (likeness - other).mean() > 0.3


def test_existence_in_doubt_is_decided_and_nothing_else_is_touched() -> None:
    """Walked in any number of steps a slot ends as a token or as a void, whichever is nearer to where the field leads."""
    container = Container(4, aux_scale=3.0)
    x = container.pack([torch.zeros(2, 5)])
    wanted = torch.tensor([[0.6, 0.4, 0.6, 0.4]])  # of existence, at the end

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        v = torch.ones_like(x)
        v[..., -1] = (3 * wanted - x[..., -1]) / (1 - t[:, None])
        return v

    for steps in (1, 2, 5):
        end = integrate(snap_existence(field, 1.0, container.aux_scale), x, time_grid(steps, x), step=euler)
        torch.testing.assert_close(container.split(end).existence, wanted.round())
        torch.testing.assert_close(end[..., :-1], x[..., :-1] + 1)


def test_the_mean_of_what_exists_moves_all_slots_by_the_matrix_of_each_end() -> None:
    mean, draws = Mean(4), torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 4, generator=draws)
    exists = torch.tensor([[1, 0, 1, 0, 0], [1, 1, 1, 1, 0]]).float()
    assert (mean(x, exists, torch.zeros(2)) == 0).all()
    torch.nn.init.normal_(mean.ends.weight, generator=draws)
    first, last = mean.ends.weight.split(4)
    of = torch.stack([x[0, [0, 2]].mean(0), x[1, :4].mean(0)])[:, None]
    torch.testing.assert_close(mean(x, 3 * exists, torch.tensor([0.0, 0.25])[:1].expand(2)), of @ first.mT)
    torch.testing.assert_close(mean(x, exists, torch.full((2,), 0.25)), of @ (0.75 * first + 0.25 * last).mT)
    assert torch.isfinite(mean(x, 0 * exists, torch.ones(2))).all()


def test_a_field_is_moved_by_the_mean_of_what_exists_in_it(packed: Packed) -> None:
    """Its blocks' output is zero at first: what it says is the mean's part, alike for all slots and on content alone."""
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
def test_walks_tell_the_field_which_way_they_go(pairs: Pairs, steps: int) -> None:
    """Each end's time has one way out, so that two heads share no walk."""
    run = Translate(pairs=str(pairs.directory), walking_steps=steps, shape=replace(SMALL, ways=2), train=TINY).build()
    seen: list[tuple[bool, float]] = []

    def field(x: torch.Tensor, t: torch.Tensor, cond: dict[str, torch.Tensor]) -> torch.Tensor:
        (reverse,) = cond["reverse"].unique().tolist()
        seen.extend((reverse, float(time)) for time in t)
        return torch.zeros_like(x)

    with torch.no_grad():
        run.objective(field, run.batches(0))
    assert {reverse for reverse, time in seen if time == 0} == {False}
    assert {reverse for reverse, time in seen if time == 1} == {True}


def test_contrast_asks_that_means_find_their_own(pairs: Pairs) -> None:
    """Walks that arrive at another's target pay for it besides; those at their own next to nothing."""
    run, plain = (
        Translate(pairs=str(pairs.directory), shape=SMALL, contrast=weight, train=TINY).build() for weight in (0.5, 0.0)
    )
    batch = run.batches(0)

    def leading(x_0: torch.Tensor, x_1: torch.Tensor) -> Any:
        return lambda x, t, cond: x_1 - x_0

    right, wrong = (leading(batch.x_0, x_1) for x_1 in (batch.x_1, batch.x_1.roll(1, 0)))
    assert 0 <= float(run.objective(right, batch).value) < 0.1
    assert float(run.objective(wrong, batch).value - plain.objective(wrong, batch).value) > 1


def test_a_field_that_was_taught_one_step_takes_one(pairs: Pairs, tmp_path: Path) -> None:
    fit(Translate(pairs=str(pairs.directory), shape=SMALL, train=TINY), tmp_path / "run")
    translator = translator_of(reopen(tmp_path / "run", app="translate"))
    assert translator.steps == 1
    translator.carry([torch.ones(2, 16)])
    for more in ({"steps": 2}, {"step": midpoint}):
        with pytest.raises(ValueError, match="trained for a single Euler step"):
            translator.carry([torch.ones(2, 16)], **more)


def test_contrast_counts_strangers_too() -> None:
    """A walk that ends at its own target costs more where a stranger is near."""
    container, draws = Container(6), torch.Generator().manual_seed(0)
    true = container.pack([torch.randn(4, 8, generator=draws) for _ in range(3)])
    means = true[:, :4, :8].mean(1)
    far, near = torch.randn(5, 8, generator=draws), means[:1] + 0.1 * torch.randn(5, 8, generator=draws)
    alone, among = (float(MeanInfoNCE(strangers, 0.5)(true, true)) for strangers in (far, near))
    assert among > alone + 0.1
    assert float(MeanInfoNCE(near, 1.0)(true, true)) == pytest.approx(2 * among)


def test_the_recipe_of_hermes_has_its_parameters() -> None:
    with torch.device("meta"):
        field = HERMES.network(256, 2048)
    assert sum(p.numel() for p in field.parameters()) == pytest.approx(313e6, rel=0.02)
    assert (HERMES.method, HERMES.epsilon, HERMES.additive, HERMES.aux_scale) == ("flow-matching", 0.05, True, 1.0)
    assert HERMES.prices == Prices(delete=1.0, create=1.0, create_norm=0.1, priority=0.0, rule="quantile")
