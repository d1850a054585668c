"""Branching flows: every target token has an ancestor, particles turn into targets, and lengths are learned."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from monge.apps.translate.calibrate import token_cost
from monge.apps.translate.events import Branching, EventField, EventMatching, kin, particles, simulate
from monge.apps.translate.field import FieldShape
from monge.math.container import Container
from monge.math.cost import FourBlock
from monge.math.coupling import TokenOT
from monge.math.types import Condition, Pair

D = 8
CONTAINER = Container(20, 4.0)
seeds = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def packed(source: list[Tensor], target: list[Tensor], reverse: Tensor | None = None) -> Pair:
    return Pair(CONTAINER.pack(source), CONTAINER.pack(target), cond={} if reverse is None else {"reverse": reverse})


def coupling(*, price: float) -> Branching:
    """Matching by the four-block cost: a price of 0 matches nothing, a price of 8 all tokens that are not far apart."""
    cost = FourBlock(1.0, 1.0, price, price)
    return Branching(TokenOT(lambda pair: token_cost(CONTAINER, cost, pair)))


def drawn(seed: int, size: int = 6) -> tuple[list[Tensor], list[Tensor]]:
    """Sequences of 1 to 10 tokens, and others of 0 to 10 tokens, some of which are noisy copies of the first."""
    draws = generator(seed)
    n, m = (torch.randint(low, 11, (size,), generator=draws).tolist() for low in (1, 0))
    source = [torch.randn(k, D, generator=draws, dtype=torch.float64) for k in n]
    target = [torch.randn(k, D, generator=draws, dtype=torch.float64) for k in m]
    for x, y in zip(source, target, strict=True):
        same = min(len(x), len(y)) // 2
        y[:same] = x[:same] + 0.1 * torch.randn(same, D, generator=draws, dtype=torch.float64)
    return source, target


def rows(x: Tensor) -> list[tuple[float, ...]]:
    """Tokens, in an order that depends only on their values."""
    return sorted(tuple(row) for row in x.tolist())


@given(seed=seeds, price=st.sampled_from([0.0, 2.0, 8.0]))
def test_every_target_token_has_one_ancestor_and_source_tokens_without_descendants_die(seed: int, price: float) -> None:
    source, target = drawn(seed)
    pair = packed(source, target)
    forest = coupling(price=price)(pair)
    assert forest.mask is not None
    for row, (x, y) in enumerate(zip(source, target, strict=True)):
        leaf, family = forest.mask[row], forest.cond["family"][row]
        x_0, x_1 = forest.x_0[row, leaf], forest.x_1[row, leaf]
        target_leaf = x_1[:, -1] > 0
        assert rows(x_1[target_leaf]) == rows(pair.x_1[row, : len(y)])
        assert torch.equal(family[leaf].unique(), torch.arange(len(x)))
        assert torch.equal(x_0, pair.x_0[row, family[leaf]])
        assert (family[leaf].diff() >= 0).all()
        for number in range(len(x)):
            members = family[leaf] == number
            if not target_leaf[members].all():
                assert members.sum() == 1
                assert torch.equal(x_0[members, :-1], x_1[members, :-1])
            assert (x_1[members, -2].diff() > 0).all()


def test_an_unmatched_token_descends_from_the_nearest_matched_one_or_else_by_position() -> None:
    eye = 10 * torch.eye(D)
    born = torch.full((1, D), -5.0)
    pair = packed([eye[:2]], [torch.cat([eye[:1], born, born, born, eye[1:2]])])
    forest = coupling(price=8.0)(pair)
    # of five, the first and the last are matched; the one in the middle goes with the later
    assert forest.cond["family"].tolist() == [[0, 0, 1, 1, 1]]
    pair = packed([eye[:4]], [torch.cat([born, born])])
    forest = coupling(price=0.0)(pair)
    assert forest.cond["family"].tolist() == [[0, 1, 2, 3]]
    assert (forest.x_1[..., -1] > 0).tolist() == [[False, True, False, True]]


def test_reverse_rows_swap_the_ends_of_the_same_matches() -> None:
    source, target = drawn(5)
    target = [y if len(y) else y.new_ones(1, D) for y in target]
    reverse = torch.arange(6) % 2 == 0
    forest = coupling(price=8.0)(packed(source, target, reverse))
    forward, backward = coupling(price=8.0)(packed(source, target)), coupling(price=8.0)(packed(target, source))
    for row in range(6):
        expected = backward if reverse[row] else forward
        for name in ("x_0", "x_1"):
            one, two = (getattr(pair, name)[row, pair.condition["mask"][row]] for pair in (forest, expected))
            torch.testing.assert_close(one, two)


def test_an_empty_source_is_rejected() -> None:
    with pytest.raises(ValueError, match="empty source"):
        Branching()(packed([torch.zeros(0, D)], [torch.ones(2, D)]))
    forest = Branching()(packed([torch.ones(2, D)], [torch.zeros(0, D)]))
    assert not (forest.x_1[..., -1] > 0).any()


@given(seed=seeds)
def test_particles_are_the_source_at_time_0_and_the_target_at_time_1(seed: int) -> None:
    source, target = drawn(seed)
    pair = packed(source, target)
    forest = coupling(price=8.0)(pair)
    for t, state in ((0.0, pair.x_0), (1.0, pair.x_1)):
        at = particles(forest, torch.full((6,), t, dtype=torch.float64), generator=generator(seed))
        assert not at.x_t.isnan().any()
        for row, active in enumerate(CONTAINER.active(state)):
            expected, actual = rows(state[row, active, :-1]), rows(at.x_t[row, at.live[row]])
            torch.testing.assert_close(torch.tensor(actual), torch.tensor(expected))
        if t:
            assert not at.splits[at.live].any()
            assert not at.dies[at.live].any()


def test_autocast_does_not_round_the_particles() -> None:
    pair = packed(*drawn(0))
    forest = coupling(price=8.0)(replace(pair, x_0=pair.x_0.float(), x_1=pair.x_1.float()))
    t = torch.full((6,), 0.5)
    expected = particles(forest, t, generator=generator(0))
    with torch.autocast("cpu", torch.bfloat16):
        at = particles(forest, t, generator=generator(0))
    assert torch.equal(at.x_t, expected.x_t)
    assert torch.equal(at.anchor, expected.anchor)


@given(seed=seeds, t=st.floats(0.05, 0.9))
def test_particles_move_towards_their_anchors_in_the_remaining_time(seed: int, t: float) -> None:
    forest = coupling(price=4.0)(packed(*drawn(seed)))
    h = 1e-7
    before, after = (
        particles(forest, torch.full((6,), time, dtype=torch.float64), generator=generator(seed)) for time in (t, t + h)
    )
    quiet = before.live & (before.splits == after.splits) & after.live
    assert quiet.sum() > 0.9 * before.live.sum()
    v = (after.x_t - before.x_t) / h
    torch.testing.assert_close(v[quiet], ((before.anchor - before.x_t) / (1 - t))[quiet], rtol=1e-4, atol=1e-4)


def test_paths_are_continuous_at_splits() -> None:
    """Right after a split every new particle is at the position of its ancestor."""
    forest = coupling(price=0.0)(packed([torch.ones(1, D).double()], [drawn(3)[0][1]]))
    times = torch.linspace(0.01, 0.99, 2000, dtype=torch.float64)
    path = [particles(forest, times[k, None], generator=generator(1)) for k in range(len(times))]
    steps = [(b.x_t - a.x_t).abs().amax() * (1 - t) for a, b, t in zip(path, path[1:], times, strict=False)]
    assert max(steps) < 0.02
    assert path[0].live.sum() == 1
    assert path[-1].live.sum() == forest.condition["mask"].sum()


def test_event_times_are_uniform_and_the_remaining_splits_are_binomial() -> None:
    """One token becomes four, another dies: at t there are 1 + 3 t and 1 - t, and 3 (1 - t) splits remain."""
    many = 4000
    eye = 10 * torch.eye(D)
    forest = coupling(price=8.0)(packed([eye[:2]], [eye[:1].expand(4, D)]))
    assert forest.cond["family"].tolist() == [[0, 0, 0, 0, 1]]
    forest = forest.take(*torch.zeros(2, many, dtype=torch.long))
    for t in (0.2, 0.7):
        at = particles(forest, torch.full((many,), t), generator=generator(0))
        alive = at.live.float().mean(0)
        torch.testing.assert_close(alive, torch.tensor([1, t, t, t, 1 - t]), rtol=0, atol=0.04)
        left = (at.splits * at.live).sum(1)
        assert left.mean() == pytest.approx(3 * (1 - t), abs=0.06)
        # gaps are independent, so the number is binomial
        assert left.var() == pytest.approx(3 * t * (1 - t), abs=0.06)


def test_kin_are_ranked_and_counted() -> None:
    live = torch.tensor([[True, True, False, True, True]])
    features = kin(live, torch.tensor([[0, 1, 1, 1, 1]]))
    torch.testing.assert_close(features[0, :, 0][live[0]], torch.tensor([0.0, -1 / 3, 0.0, 1 / 3]))
    torch.testing.assert_close(features[0, :, 1][live[0]].exp2(), torch.tensor([1.0, 3.0, 3.0, 3.0]))


def test_the_field_is_equivariant_to_permutations_of_slots(stir: Callable[..., nn.Module]) -> None:
    forest = coupling(price=8.0)(packed(*drawn(1)))
    field, t = stir(EventField(CONTAINER, D + 2, FieldShape(64, 2))), torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    at = particles(forest, t, generator=generator(0))
    cond = {"mask": at.live, "kin": kin(at.live, forest.cond["family"])}
    order = torch.randperm(at.live.shape[1], generator=generator(1))
    permuted = {name: value[:, order] for name, value in cond.items()}
    out = field(at.x_t, t, cond)
    torch.testing.assert_close(field(at.x_t[:, order], t, permuted), out[:, order])
    # dead particles are ignored, and the reverse direction differs
    moved = torch.where(at.live[..., None], at.x_t, 7.0)
    torch.testing.assert_close(field(moved, t, cond), out)
    assert not torch.allclose(field(at.x_t, t, {**cond, "reverse": torch.ones(6, dtype=torch.bool)}), out)


class Known(EventField):
    """A known field: particles with a positive first entry split until there are `until` of them, others die."""

    def __init__(self, until: int) -> None:
        super().__init__(CONTAINER, D, FieldShape(64, 1))
        self.until = until
        self.seen: list[tuple[float, int]] = []

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        self.seen.append((float(t[0]), int(cond["mask"].sum())))
        grows = x_t[..., 0] > 0
        splits = self.until / cond["kin"][..., 1].exp2() - 1
        splits = torch.where(grows, splits, 0).clamp_min(1e-9).log()
        return torch.cat([0 * x_t, splits[..., None], torch.where(grows, -30.0, 30.0)[..., None]], -1)


def signed(*signs: list[int]) -> Tensor:
    return CONTAINER.pack([torch.tensor(s, dtype=torch.float32)[:, None] * torch.ones(D) for s in signs])


@pytest.mark.parametrize("steps", [1, 3, 8, 64])
@pytest.mark.parametrize("draws", [None, 0])
def test_a_simulation_performs_the_predicted_events(steps: int, draws: int | None) -> None:
    x = signed([1, -1, 3, -1], [-1, -1], [1, 2, 3, 4, 5], [])
    result = simulate(Known(2), x, steps=steps, generator=None if draws is None else generator(draws))
    contents = [y[:, 0].sort().values.tolist() for y in CONTAINER.unpack(result.x)]
    assert contents == [[1, 1, 3, 3], [], [1, 1, 2, 2, 3, 3, 4, 4, 5, 5], []]
    assert result.x.shape == x.shape
    assert not result.rejected.any()


class Unsure(Known):
    """Predicts 0.3 splits and a probability of death of 0.1 for every token."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        odds = torch.tensor([0.3, 1 / 9]).log().expand(*x_t.shape[:2], 2)
        return torch.cat([0 * x_t, odds], -1)


@pytest.mark.parametrize("steps", [1, 5])
def test_simulated_lengths_are_the_rounded_expectations(steps: int) -> None:
    counts = range(1, 16)
    result = simulate(Unsure(1), signed(*([1] * n for n in counts)), steps=steps)
    assert CONTAINER.active(result.x).sum(1).tolist() == [int(1.2 * n + 0.5) for n in counts]
    many = simulate(Unsure(1), signed([1] * 10).expand(4000, -1, -1), steps=1, generator=generator(0))
    assert CONTAINER.active(many.x).sum(1).float().mean() == pytest.approx(9 * 1.3, abs=0.15)


class Prescribed(Known):
    """Every token splits as many times as its first entry."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        return torch.cat([0 * x_t, x_t[..., :1].log(), torch.full_like(x_t[..., :1], -30.0)], -1)


def test_each_split_of_a_step_goes_to_the_highest_expectation_and_lowers_it_by_one() -> None:
    x = CONTAINER.pack([torch.tensor([0.2, 0.9, 2.6])[:, None] * torch.ones(D)])
    (tokens,) = CONTAINER.unpack(simulate(Prescribed(1), x, steps=1).x)
    assert tokens[:, 0].unique(return_counts=True)[1].tolist() == [1, 2, 4]


def test_simulated_events_are_evenly_spaced_in_time() -> None:
    model = Known(4)
    simulate(model, signed([1] * 5), steps=32)
    assert all(abs(number - (5 + 15 * t)) <= 0.5 for t, number in model.seen[:-1])
    model = Known(1)
    simulate(model, signed([-1] * 10), steps=32)
    assert all(abs(number - 10 * (1 - t)) <= 0.5 for t, number in model.seen[:-1])


def test_a_full_container_rejects_splits_and_counts_them() -> None:
    result = simulate(Known(4), signed([1] * 9), steps=4)
    assert CONTAINER.active(result.x).all()
    assert result.rejected.tolist() == [36 - 20]


def test_the_loss_is_smallest_for_the_true_field() -> None:
    forest, t = coupling(price=8.0)(packed(*drawn(2))), torch.linspace(0, 0.95, 6, dtype=torch.float64)
    at, objective = particles(forest, t, generator=generator(0)), EventMatching()

    def loss(**off: float) -> dict[str, Tensor]:
        v = (at.anchor - at.x_t) / (1 - t)[:, None, None] + off.get("v", 0.0)
        splits = (at.splits + 1e-9).log()[..., None] + off.get("splits", 0.0)
        deaths = torch.where(at.dies, 20.0, -20.0)[..., None] * off.get("deaths", 1.0)
        out = torch.cat([v, splits, deaths], -1)
        return objective.loss_at(lambda x, t, cond: out, forest, t, generator=generator(0)).metrics

    known = loss()
    assert known["velocity"] == pytest.approx(0, abs=1e-9)
    assert known["deaths"] == pytest.approx(0, abs=1e-6)
    assert loss(v=0.1)["velocity"] > 1e-3
    assert min(loss(splits=0.5)["splits"], loss(splits=-0.5)["splits"]) > known["splits"] + 1e-3
    assert loss(deaths=-1.0)["deaths"] > 10


def doubled(size: int, draws: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Every token occurs twice, the first time with its entries shifted by one."""
    sources = [torch.randn(n, D, generator=draws) for n in torch.randint(3, 9, (size,), generator=draws).tolist()]
    return sources, [torch.stack([x.roll(1, -1), x], 1).flatten(0, 1) for x in sources]


def halved(size: int, draws: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens whose first entry is negative are deleted."""
    sources = [torch.randn(n, D, generator=draws) for n in torch.randint(4, 17, (size,), generator=draws).tolist()]
    return sources, [x[x[:, 0] > 0] for x in sources]


@pytest.mark.long
@pytest.mark.parametrize("task", [doubled, halved])
def test_lengths_and_contents_are_learned(task: Callable[..., tuple[list[Tensor], list[Tensor]]]) -> None:
    torch.manual_seed(0)
    draws, couple, steps = generator(0), coupling(price=8.0), 300
    model, objective = EventField(CONTAINER, D + 2, FieldShape(64, 2)), EventMatching()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    for _ in range(steps):
        loss = objective(model, couple(packed(*task(32, draws))))
        optimizer.zero_grad()
        loss.value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    sources, targets = task(256, generator(1))
    for draw, exact in ((None, 0.9), (generator(2), 0.8)):
        with torch.no_grad():
            predicted = CONTAINER.unpack(simulate(model, CONTAINER.pack(sources), steps=8, generator=draw).x)
        same = [len(x) == len(y) for x, y in zip(predicted, targets, strict=True)]
        assert sum(same) > exact * len(same)
        x, y = (torch.cat([z for z, ok in zip(side, same, strict=True) if ok]) for side in (predicted, targets))
        assert (x - y).square().mean() < 0.1
