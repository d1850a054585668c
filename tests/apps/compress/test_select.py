"""The criteria for the layers to replace, and the verb that prints them."""

import json
from itertools import permutations
from pathlib import Path

import pytest
import torch
from teachers import IDS, teacher
from torch.testing import assert_close

from monge.apps.compress.affine import least_squares
from monge.apps.compress.evaluate import quality
from monge.apps.compress.select import (
    Candidate,
    Criteria,
    candidates,
    criteria,
    equivalent_skip,
    ranges_of,
    removal_curve,
)
from monge.apps.compress.teacher import Teacher
from monge.cli import main
from monge.lm.hidden import hidden_at
from monge.math.metrics import recoupling_ratio
from monge.math.ot import optimal_permutation


def measured(**options) -> Criteria:
    *steps, result = criteria(teacher("llama"), IDS, [(1, 4), (2, 5)], batch_size=1, **options)
    assert steps == [None, None]
    assert result is not None
    return result


def test_the_recoupling_ratio_is_zero_where_every_pair_is_nearest_although_costs_are_large(draw):
    x = 1000 * draw(0, 64, 32)
    assert recoupling_ratio(x, x + 100 * draw(1, 64, 32) / 32**0.5) == 0  # exp(-cost / 0.1) underflows here


def test_the_recoupling_ratio_of_the_criteria_equals_brute_force():
    ids = IDS[:, :7]
    *_, result = criteria(teacher("llama"), ids, [], batch_size=1, tokens=6)
    assert result is not None
    with torch.no_grad():
        states = torch.stack(hidden_at(teacher("llama"), ids, range(7)))[:, :, 1:].double()
    for batch in range(2):
        for start, end in [(0, 6), (1, 4), (5, 6)]:
            cost = torch.cdist(states[start, batch], states[end, batch]).square()
            best = min(permutations(range(6)), key=lambda p: sum(float(cost[i, j]) for i, j in enumerate(p)))
            expected = sum(i != j for i, j in enumerate(best)) / 6
            assert float(result.recoupling[batch, start, end]) == pytest.approx(expected)


def test_the_criteria_equal_their_definitions():
    result, model = measured(), teacher("llama")
    with torch.no_grad():
        states = torch.stack(hidden_at(model, IDS, range(7)))[:, :, 1:].flatten(1, 2)
    cosine = torch.nn.functional.cosine_similarity(states[1], states[4], dim=-1)
    assert float(result.angle[1, 4]) == pytest.approx(float(cosine.acos().mean() / torch.pi), rel=1e-4)
    step = torch.nn.functional.cosine_similarity(states[2], states[3], dim=-1)
    assert float(result.influence[2]) == pytest.approx(float(1 - step.mean()), rel=1e-3)
    assert_close(result.maps[1, 4].matrix, least_squares([(states[1], states[4])]).matrix, rtol=1e-3, atol=1e-5)
    interval = result.recoupling_of(1, 4)
    assert interval.low <= interval.value <= interval.high


def test_candidates_are_measured_on_the_text_given():
    result, model = measured(), teacher("llama")
    rows: list[Candidate] = list(candidates(model, IDS, result))
    assert [(row.start, row.end) for row in rows] == [(1, 4), (2, 5)]
    frozen = Teacher(model, 2, 5)
    assert rows[1].removed.kl == pytest.approx(quality(frozen, IDS, lambda x: x).kl)
    assert rows[1].mapped.kl == pytest.approx(quality(frozen, IDS, result.maps[2, 5].apply).kl)
    assert rows[1].influence == pytest.approx(float(result.influence[2:5].sum()))


def test_ranges_are_all_starts_of_each_length():
    assert ranges_of(4, (3, 2)) == [(0, 3), (1, 4), (0, 2), (1, 3), (2, 4)]


@pytest.mark.parametrize("count", [0, 6, -1])
def test_a_number_of_layers_that_the_model_cannot_lose_is_an_error(count):
    with pytest.raises(ValueError, match="the model has 6; give 1 to 5"):
        ranges_of(6, (count,))


@pytest.mark.slow
def test_the_verb_writes_all_criteria(language_model: Path, text: Path, tmp_path: Path, capsys):
    words = ["--teacher", language_model, "--data", text, "--length", 16, "--limit", 8, "--num-layers", 1, 2]
    assert main(["compress", "select", *map(str, words), "--out", str(tmp_path / "select")]) == 0
    content = json.loads((tmp_path / "select/select.json").read_text())
    assert {(row["start"], row["end"]) for row in content["ranges"]} == {(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)}
    assert [row["mapped"]["kl"] for row in content["ranges"]] == sorted(
        row["mapped"]["kl"] for row in content["ranges"]
    )
    assert content["recoupling"][2][1] is None
    assert (tmp_path / "select/criteria.png").stat().st_size > 1000
    assert "monge compress train --teacher" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-layers", "9"], "9 layers to remove: the model has 3"),
        (["--limit", "0"], "--limit 0: give at least 1"),
        (["--num-tokens", "1"], "1 tokens per batch"),
        (["--data", "gone"], "no such file"),
    ],
)
def test_invalid_options_give_one_sentence(language_model: Path, text: Path, tmp_path: Path, capsys, words, message):
    flags = ["--teacher", str(language_model), "--data", str(text), "--length", "16", "--out", str(tmp_path / "out")]
    assert main(["compress", "select", *flags, *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_equivalent_skip_inverts_the_best_removal_of_each_number_of_layers():
    spans = [(0, 1, 0.4), (1, 2, 0.2), (0, 2, 0.9), (1, 3, 0.6), (0, 3, 0.5)]
    curve = removal_curve([{"start": m, "end": n, "removed": {"kl": kl}} for m, n, kl in spans])
    assert curve == {0: 0.0, 1: 0.2, 2: 0.6, 3: 0.5}
    assert [equivalent_skip(kl, curve) for kl in (0.0, 0.1, 0.2, 0.5, 0.7)] == [0, 0.5, 1, 3, 3]
    assert equivalent_skip(0.35, curve) == pytest.approx(2)  # removing two is worse than removing three


def test_a_file_in_the_place_of_the_folder_is_reported_before_the_work(text: Path, tmp_path: Path, capsys):
    (tmp_path / "out").touch()
    assert main(["compress", "select", "--teacher", "gone", "--data", str(text), "--out", str(tmp_path / "out")]) == 2
    assert "is a file; choose another path" in capsys.readouterr().err


def test_exchanging_equal_states_is_no_recoupling(draw):
    x = draw(0, 8, 4)[torch.randint(8, (64,), generator=torch.Generator().manual_seed(2))]
    y = x + 0.01 * draw(1, 64, 4)
    assert (optimal_permutation(x, y) != torch.arange(64)).any()  # it exchanges equal states
    assert recoupling_ratio(x, y) == recoupling_ratio(y, x) == recoupling_ratio(x, x) == 0
