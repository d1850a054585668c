"""A batch is a function of its number, in any order and from any thread, and labels follow their items."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from monge.apps.generate.pairs import NoisePairs, StoredPairs, held_out_loss, held_out_pairs
from monge.apps.generate.recipes import Generate
from monge.math.coupling import Coupling, MinibatchOT, SemidiscreteOT, identity
from monge.math.random import seeded
from monge.math.types import Pair

seeds = st.integers(0, 2**31)


def noise_pairs(
    coupling: Coupling = identity, *, n: int = 23, size: int = 8, labels: bool = True, **more
) -> NoisePairs:
    """n points on three distant lines, one for each class."""
    label = torch.arange(n) % 3
    x = torch.stack([100.0 * label, torch.arange(n).float()], 1)
    return NoisePairs(x, label if labels else None, size, coupling, classes=3, **more)


def same(a: Pair, b: Pair) -> bool:
    return (
        torch.equal(a.x_0, b.x_0)
        and torch.equal(a.x_1, b.x_1)
        and a.cond.keys() == b.cond.keys()
        and all(torch.equal(a.cond[name], b.cond[name]) for name in a.cond)
    )


VARIANTS: dict[str, Callable[[], NoisePairs]] = {
    "independent": lambda: noise_pairs(),
    "ot": lambda: noise_pairs(MinibatchOT(condition="label")),
    "ot of three batches": lambda: noise_pairs(MinibatchOT(condition="label"), factor=3),
    "ot of three batches, from batch 7": lambda: noise_pairs(MinibatchOT(condition="label"), factor=3, after=7),
    "ot without labels": lambda: noise_pairs(MinibatchOT(), labels=False, factor=2),
}


@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_order_of_access_changes_nothing(make: Callable[[], NoisePairs]) -> None:
    expected = {number: make()(number) for number in range(14)}  # each from a new object, without cached batches
    orders = [list(range(14)), list(range(13, -1, -1)), random.Random(0).sample(range(14), 14), [5, 5, 0, 5, 13, 0]]
    for order in orders:
        pairs = make()
        for number in order:
            assert same(pairs(number), expected[number]), (order, number)


@pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS.keys())
def test_threads_change_nothing(make: Callable[[], NoisePairs]) -> None:
    expected = {number: make()(number) for number in range(14)}
    pairs = make()
    order = random.Random(1).choices(range(14), k=60)
    with ThreadPoolExecutor(4) as pool:
        for number, pair in zip(order, pool.map(pairs, order), strict=True):
            assert same(pair, expected[number]), number


@pytest.mark.slow
@pytest.mark.parametrize("coupling", ["independent", "ot", "ot-across", "entropic", "semidiscrete"])
def test_batches_of_every_coupling_are_functions_of_their_number(tmp_path: Path, coupling: str) -> None:
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=generator.standard_normal((60, 2)), labels=np.arange(60) % 3)
    recipe = Generate(data=str(tmp_path / "data.npz"), coupling=coupling, width=8, depth=1, batch_size=16)
    expected, pairs = recipe.build().batches, recipe.build().batches
    forward = [expected(number) for number in range(5)]
    torch.rand(7)  # torch's global generator has no effect: threads would race for it
    backward = [pairs(number) for number in range(4, -1, -1)]
    assert [same(a, b) for a, b in zip(forward, reversed(backward), strict=True)] == [True] * 5


@given(seed=seeds, number=st.integers(0, 1000), factor=st.integers(1, 4))
def test_labels_and_indices_follow_their_targets(seed: int, number: int, factor: int) -> None:
    pairs = noise_pairs(MinibatchOT(condition="label"), seed=seed, factor=factor, label_dropout=0.0)
    pair = pairs(number)
    assert len(pair) == 8
    assert_close(pair.x_1, pairs.x[pair.cond["index"]], rtol=0, atol=0)
    assert torch.equal(pair.cond["label"], pair.cond["index"] % 3)
    assert torch.equal(pair.cond["label"], (pair.x_1[:, 0] / 100).round().long())


@given(seed=seeds, start=st.integers(0, 100), factor=st.integers(1, 4))
def test_coupling_permutes_the_noise_and_preserves_both_sides(seed: int, start: int, factor: int) -> None:
    # the batches of one group hold the same noise and the same data as without coupling, each row equally often
    numbers = range(start * factor, (start + 1) * factor)
    uncoupled = [noise_pairs(seed=seed, factor=factor)(k) for k in numbers]
    coupled = [noise_pairs(MinibatchOT(), seed=seed, factor=factor)(k) for k in numbers]
    for side in ("x_0", "x_1"):
        before, after = (torch.cat([getattr(pair, side) for pair in batches]) for batches in (uncoupled, coupled))
        assert torch.equal(before.unique(dim=0, return_counts=True)[1], after.unique(dim=0, return_counts=True)[1])
        assert torch.equal(before.unique(dim=0), after.unique(dim=0))
    cost = [
        float(sum((pair.x_0 - pair.x_1).double().square().sum() for pair in batches))
        for batches in (uncoupled, coupled)
    ]
    assert cost[1] <= cost[0] * (1 + 1e-6)


def test_a_larger_coupling_costs_less() -> None:
    def cost(factor: int) -> float:
        pairs = noise_pairs(MinibatchOT(), n=240, labels=False, factor=factor)
        return float(sum((p.x_0 - p.x_1).double().square().sum() for p in map(pairs, range(30))))

    assert cost(30) < cost(3) < cost(1)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_first_batches_are_left_uncoupled(factor: int) -> None:
    uncoupled, late = noise_pairs(factor=factor), noise_pairs(MinibatchOT(), factor=factor, after=6)
    assert [same(uncoupled(k), late(k)) for k in range(12)] == [True] * 6 + [False] * 6


def test_a_tenth_of_the_labels_is_dropped_after_coupling() -> None:
    all_labels, dropped = (noise_pairs(MinibatchOT(condition="label"), label_dropout=rate) for rate in (0.0, 0.1))
    count = 0
    for number in range(100):
        a, b = all_labels(number), dropped(number)
        missing = b.cond["label"] == 3
        count += int(missing.sum())
        assert torch.equal(a.x_0, b.x_0)
        assert torch.equal(a.x_1, b.x_1)
        assert torch.equal(a.cond["label"][~missing], b.cond["label"][~missing])
    assert abs(count - 80) < 5 * (800 * 0.1 * 0.9) ** 0.5


def test_noise_is_normal_and_fresh_in_every_batch() -> None:
    pairs = NoisePairs(torch.zeros(50, 4), None, 50)
    noise = torch.cat([pairs(number).x_0 for number in range(50)]).double()
    assert len(noise.unique()) > 0.999 * noise.numel()
    assert noise.mean().abs() < 5 / noise.numel() ** 0.5
    assert (noise.square().mean() - 1).abs() < 5 * (2 / noise.numel()) ** 0.5


def test_a_batch_larger_than_the_data_spans_epochs() -> None:
    pair = noise_pairs(n=5, size=12)(0)
    counts = torch.bincount(pair.cond["index"], minlength=5)
    assert sorted(counts.tolist()) == [2, 2, 2, 3, 3]
    assert len(pair.x_0.unique(dim=0)) == 12


def test_a_batch_of_one_is_coupled_with_itself() -> None:
    for coupling in (identity, MinibatchOT(), MinibatchOT(condition="label"), MinibatchOT(epsilon=0.1)):
        assert len(noise_pairs(coupling, size=1)(3)) == 1


def test_the_semidiscrete_coupling_returns_the_labels_of_the_assigned_points() -> None:
    uncoupled = noise_pairs(label_dropout=0.0)
    data = Pair(uncoupled.x, uncoupled.x, cond={"index": torch.arange(23), "label": uncoupled.labels})
    pairs = noise_pairs(SemidiscreteOT(data, torch.zeros(23), condition="label"), label_dropout=0.0)
    for number in range(5):
        pair = pairs(number)
        assert torch.equal(pair.x_0, uncoupled(number).x_0)
        assert torch.equal(pair.cond["label"], uncoupled(number).cond["label"])  # noise stays in its class
        assert_close(pair.x_1, uncoupled.x[pair.cond["index"]], rtol=0, atol=0)


@given(seed=seeds, size=st.integers(1, 30), number=st.integers(0, 100))
def test_stored_pairs_are_never_recoupled(seed: int, size: int, number: int) -> None:
    x = torch.randn(17, 3, generator=seeded(seed))
    stored = Pair(x, 2 * x, cond={"label": torch.arange(17)})
    pair = StoredPairs(stored, size, label_dropout=0.0, seed=seed)(number)
    assert len(pair) == size
    assert torch.equal(pair.x_1, 2 * pair.x_0)
    assert torch.equal(pair.x_0, x[pair.cond["label"]])


def test_stored_pairs_occur_once_per_epoch() -> None:
    pairs = StoredPairs(Pair(torch.zeros(20, 1), torch.arange(20.0)[:, None]), 8)
    seen = torch.cat([pairs(number).x_1[:, 0] for number in range(5)])
    for epoch in (seen[:20], seen[20:]):
        assert sorted(epoch.tolist()) == list(range(20))


def test_stored_pairs_lose_a_tenth_of_their_labels() -> None:
    n = 5_000
    pair = StoredPairs(Pair(torch.zeros(n, 1), torch.zeros(n, 1), cond={"label": torch.arange(n) % 3}), n, classes=3)(0)
    assert abs(float((pair.cond["label"] == 3).double().mean()) - 0.1) < 0.02


@pytest.mark.parametrize("size", [1, 7, 50, 512])
def test_the_held_out_loss_weights_every_item_equally(size: int) -> None:
    x, labels = torch.arange(50.0)[:, None], torch.arange(50)

    def loss(pair: Pair, t: Tensor) -> Tensor:
        assert torch.equal(pair.cond["label"].float(), pair.x_1[:, 0])
        assert ((t > 0) & (t < 1)).all()
        return pair.x_1.mean()

    assert_close(held_out_loss(held_out_pairs(x, labels, identity), loss, size=size), 24.5)


def test_held_out_pairs_are_coupled_deterministically_within_each_class() -> None:
    x, labels = torch.randn(60, 2, generator=seeded(3)), torch.arange(60) % 2
    uncoupled = held_out_pairs(x, labels, identity)
    coupled = held_out_pairs(x, labels, MinibatchOT(condition="label"), size=25)
    assert torch.equal(coupled.x_0, uncoupled.x_0)
    assert torch.equal(coupled.cond["label"], labels)
    assert (coupled.x_1 - coupled.x_0).square().mean() < 0.7 * (uncoupled.x_1 - uncoupled.x_0).square().mean()
    assert torch.equal(coupled.x_1, held_out_pairs(x, labels, MinibatchOT(condition="label"), size=25).x_1)
