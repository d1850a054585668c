"""Baselines on data that each of them can predict, and the table of an evaluation."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from monge.apps.translate import baselines
from monge.apps.translate.evaluate import Evaluator, by_length, evaluate
from monge.apps.translate.field import FieldShape
from monge.apps.translate.metrics import existence_scores, kendall_tau, lengths, pooled_scores, ranks, token_distance
from monge.apps.translate.pair import Pairs
from monge.apps.translate.prices import Prices
from monge.apps.translate.recipes import Translate, Translator
from monge.apps.translate.space import Space

PARTS = {"R@1 of 20, by source length", "length exact, by source length"}


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recall(prediction: baselines.Prediction, target: Tensor) -> float:
    """The share of rows whose true target ranks first."""
    assert prediction.pooled is not None
    centre = target.mean(0)
    return float((ranks(pooled_scores(prediction.pooled - centre, target - centre)) == 1).double().mean())


def test_ridge_finds_a_linear_map_and_a_constant() -> None:
    x, w = draw(0, 400, 8), draw(1, 8, 8)
    y = x @ w + 3
    torch.testing.assert_close(baselines.ridge(x[:300], y[:300], x[300:]).pooled, y[300:], atol=0.05, rtol=0)


def test_procrustes_finds_a_rotation() -> None:
    q, _ = torch.linalg.qr(draw(1, 8, 8))
    x = draw(0, 400, 8)
    torch.testing.assert_close(baselines.procrustes(x[:300], x[:300] @ q + 3, x[300:]).pooled, x[300:] @ q + 3)


def test_canonical_correlations_prefer_shared_directions_to_large_ones() -> None:
    """Six small directions are shared by both sides; four large ones are independent."""
    size = torch.tensor([0.1] * 6 + [1.0] * 4).double()
    both = draw(0, 600, 6)
    x, y = (size * torch.cat([both + 0.1 * draw(k, 600, 6), draw(k + 1, 600, 4)], 1) for k in (1, 3))
    canonical, procrustes, ridge = (
        recall(predict(x[:500], y[:500], x[500:]), y[500:])
        for predict in (baselines.canonical, baselines.procrustes, baselines.ridge)
    )
    assert canonical > 0.15 > 0.05 > max(procrustes, ridge)


def test_length_only_takes_the_most_frequent_length_of_the_nearest_source_length() -> None:
    source, target = torch.tensor([3, 3, 3, 7, 7]), torch.tensor([5, 5, 9, 1, 1])
    predicted = baselines.length_only(source, target, torch.tensor([3, 7, 1, 100, 4])).lengths
    assert predicted is not None
    assert predicted.tolist() == [5, 1, 5, 1, 5]


@pytest.fixture(scope="module")
def translator(pairs: Pairs) -> Translator:
    recipe = Translate(pairs=str(pairs.directory), shape=FieldShape(64, 1))
    torch.manual_seed(0)
    field = recipe.network(pairs.capacity, pairs.width)  # its output layers are zero: the velocity is 0
    return Translator(field, Space.measured(pairs, Prices(), aux_scale=recipe.aux_scale), recipe)


@pytest.mark.parametrize("reverse", [False, True])
def test_identity_undoes_the_rotation_and_the_rotation_baseline_does_not(
    pairs: Pairs, translator: Translator, reverse: bool
) -> None:
    evaluator = Evaluator.of(pairs, translator, reverse=reverse, limit=20)
    plain = evaluator.baselines()["identity"].sequences
    rotated = evaluator.baselines()["rotation of tokens"].sequences
    assert plain is not None
    assert rotated is not None
    rotation = translator.space.calibration.rotation
    start = pairs.sequence("target" if reverse else "source", int(pairs.split("test")[0]))
    white = replace(
        translator.space.calibration.source, matrix=translator.space.calibration.source.matrix @ rotation.mT
    )
    side = translator.space.calibration.target if reverse else white
    candidates = [x for x in plain if len(x) == len(start)]
    expected = side.apply(start) @ (rotation if reverse else torch.eye(len(rotation)))
    assert min(float((x - expected).abs().max()) for x in candidates) < 1e-3
    assert not torch.allclose(plain[0], rotated[0], atol=1e-2)


def test_a_zero_field_is_the_rotation_baseline_and_has_no_cycle_error(pairs: Pairs, translator: Translator) -> None:
    table = evaluate(pairs, translator, reverse=False, limit=20, steps=1, pool=20).rows
    flow, same = table["flow, 1 step"], table["rotation of tokens"]
    assert {name: flow[name] for name in same} == same
    assert flow["cycle error"].value == pytest.approx(0, abs=1e-5)
    assert flow["cycle R@1 of 20"].value == 1


def test_scores_by_source_length_are_parts_of_the_whole(pairs: Pairs, translator: Translator) -> None:
    evaluator = Evaluator.of(pairs, translator, reverse=False, limit=20)
    exact = [y[:1] if k % 3 else y for k, y in enumerate(evaluator.targets)]  # two thirds have the wrong length
    rows = by_length(evaluator, exact, pool=20)
    counts, total = lengths(evaluator.sources), dict.fromkeys(PARTS, 0.0)
    for name, row in rows.items():
        low, *high = (int(word) for word in name.split() if word.isdigit())
        size = int(((counts >= low) & (counts <= (high or [low])[0])).sum())
        own = [k for k, n in enumerate(counts.tolist()) if low <= n <= (high or [low])[0]]
        right = [len(exact[k]) == len(evaluator.targets[k]) for k in own]
        assert row["length exact, by source length"].value == pytest.approx(sum(right) / len(own))
        for score in PARTS:
            total[score] += size * row[score].value
    whole = evaluator.row(baselines.Prediction(sequences=exact), pool=20)
    assert len(rows) > 1
    for score, value in total.items():
        assert 0 < value / 20 == pytest.approx(whole[score.removesuffix(", by source length")].value)
    named = evaluate(pairs, translator, reverse=False, limit=20, steps=1, pool=20).rows
    assert {f"flow, 1 step, {name}" for name in rows} <= named.keys()


def test_token_distance_is_one_floor_for_samples_of_the_true_law_and_grows_with_a_shift() -> None:
    def sequences(seed: int, shift: float = 0.0, count: int = 400) -> list[Tensor]:
        return list(draw(seed, count, 10, 64) + shift)

    true, same = sequences(0), sequences(1)
    distance, floor = token_distance(same, true)
    assert distance / floor == pytest.approx(1, abs=0.2)
    distance, floor = token_distance(sequences(1, 1.0), true)
    assert distance / floor > 10
    own, floor = token_distance(true, true)
    assert own == pytest.approx(floor, rel=0.2)


@pytest.mark.parametrize("bad", ["empty", "nan", "one"])
def test_token_distance_without_usable_tokens_is_nan(bad: str) -> None:
    x = draw(0, 4, 3, 2)
    predicted = {"empty": [y[:0] for y in x], "nan": list(x * float("nan")), "one": list(x[:1])}[bad]
    true = list(x[:1]) if bad == "one" else list(x)
    assert all(math.isnan(value) for value in token_distance(predicted, true))


def test_equal_true_tokens_leave_the_distance_undefined(pairs: Pairs, translator: Translator) -> None:
    evaluator = Evaluator.of(pairs, translator, reverse=False, limit=20)
    same = replace(evaluator, targets=[torch.ones_like(y) for y in evaluator.targets])
    row = same.row(baselines.Prediction(sequences=evaluator.targets), pool=20)
    assert math.isnan(row["token sliced W2 / floor"].value)


def test_existence_is_scored_by_f1_and_by_expected_calibration_error() -> None:
    true = torch.tensor([[True, True, False, False], [True, False, False, False]])
    f1, error = existence_scores(true.float(), true)
    assert (f1.tolist(), error) == ([1, 1], 0)
    confident = torch.tensor([[0.9, 0.1, 0.9, 0.1], [0.9, 0.1, 0.1, 0.1]])
    f1, error = existence_scores(confident, true)
    assert f1.tolist() == pytest.approx([0.5, 1])
    # two of the three slots at 0.9 exist, and one of the five at 0.1
    assert error == pytest.approx((3 * (0.9 - 2 / 3) + 5 * (1 / 5 - 0.1)) / 8)


def test_an_empty_prediction_has_the_worst_order() -> None:
    x = draw(0, 4, 3)
    assert kendall_tau(x[:0], x) == kendall_tau(x[:1], x) == -1
    assert kendall_tau(x, x) == 1


def test_a_single_training_pair_maps_everything_to_its_target():
    weight, x_mean, y_mean = baselines.ridge_map(torch.ones(1, 3), torch.full((1, 2), 5.0))
    assert ((torch.randn(4, 3) - x_mean) @ weight + y_mean == 5).all()
