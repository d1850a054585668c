"""Stored states of a teacher are the ones that training computes, and those of another teacher or text are rejected."""

import copy
from pathlib import Path

import pytest
import torch

from monge.apps.compress import states
from monge.apps.compress.states import States
from monge.apps.compress.teacher import Teacher
from monge.cli import main
from monge.fleet import processes, sequential
from monge.lm.hidden import hidden_at
from monge.training.log import read_records

IDS = torch.randint(1, 20, (150, 8), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("fleet", [sequential, pytest.param(processes(2), marks=pytest.mark.slow)], ids=["1", "2"])
def test_states_are_those_of_the_teacher_in_the_order_of_the_text(language_model: Path, tmp_path: Path, fleet) -> None:
    name, out = str(language_model), tmp_path / "states"
    assert sorted(states.write(out, name, IDS, [1, 2, 3], fleet, dtype="float32")) == [(1, 3), (2, 3), (3, 3)]
    opened = States.open(out, states.loaded(name), IDS, [1, 2])
    assert (len(opened), opened.layers) == (150, (1, 2, 3))
    rows = [149, 3, 70]
    with torch.no_grad():
        expected = hidden_at(states.loaded(name).model, IDS[rows], [1, 2, 3])
    for state, x in zip(opened.read(rows).values(), expected, strict=True):
        torch.testing.assert_close(state, x, rtol=0, atol=1e-5)
    assert not (tmp_path / "states.parts").exists()


def test_the_last_state_gives_the_teachers_logits(language_model: Path) -> None:
    frozen = Teacher(states.loaded(str(language_model)).model, 1, 2)
    known = dict(zip((1, 2, 3), frozen.states(IDS[:2], [1, 2, 3]), strict=True))
    pair = frozen.pair(IDS[:2], known)
    with torch.no_grad():
        expected = frozen.model(input_ids=IDS[:2]).logits
        for last in (frozen.target(pair), frozen.target(frozen.pair(IDS[:2]))):
            torch.testing.assert_close(frozen.head(last), expected, rtol=0, atol=1e-5)


def test_an_interrupted_call_resumes_and_parts_of_other_text_are_rejected(language_model: Path, tmp_path: Path) -> None:
    name, out = str(language_model), tmp_path / "states"
    next(parts := states.write(out, name, IDS, [1, 2], sequential))
    parts.close()
    with pytest.raises(ValueError, match="of another teacher, text, depth or dtype; remove"):
        next(states.write(out, name, IDS.flip(0), [1, 2], sequential))
    assert [done for done, _ in states.write(out, name, IDS, [1, 2], sequential)] == [2, 3]  # the first part is kept
    whole = tmp_path / "whole"
    list(states.write(whole, name, IDS, [1, 2], sequential))
    assert States.open(out, states.loaded(name), IDS, [1]).vectors.sha256 == States(states.Ragged(whole)).vectors.sha256


def test_states_of_other_text_or_without_a_layer_are_rejected(language_model: Path, tmp_path: Path) -> None:
    name, out = str(language_model), tmp_path / "states"
    list(states.write(out, name, IDS[:9], [1, 2], sequential))
    teacher = states.loaded(name)
    with pytest.raises(ValueError, match="of other text, or of sequences of another length"):
        States.open(out, teacher, IDS.flip(0), [1, 2])
    with pytest.raises(ValueError, match="states at layers 1, 2, but not at 0; store them with"):
        States.open(out, teacher, IDS, [0, 2])
    with pytest.raises(ValueError, match="no vectors here"):
        States.open(tmp_path / "gone", teacher, IDS, [1])
    other = copy.deepcopy(teacher)
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    with pytest.raises(ValueError, match="of another teacher than"):
        States.open(out, other, IDS, [1, 2])


@pytest.mark.slow
def test_training_from_states_follows_training_from_text(language_model: Path, text: Path, tmp_path: Path) -> None:
    words = ["--teacher", language_model, "--data", text, "--length", 16]
    assert main(["compress", "states", *map(str, [*words, "--layers", 1, 2, 3, "--out", tmp_path / "states"])]) == 0
    flags = ["--start", 1, "--end", 2, "--steps", 4, "--log-every", 1, "--eval-sequences", 4, "--map-sequences", 8]
    curves = []
    for name, extra in (("computed", []), ("stored", ["--states", tmp_path / "states"])):
        command = [*words, *flags, *extra, "--out", tmp_path / name]
        assert main(["compress", "train", *map(str, command)]) == 0
        curves.append(
            [record["loss"] for record in read_records(tmp_path / name / "metrics.jsonl") if "loss" in record]
        )
    assert len(curves[0]) == 4
    assert curves[1] == pytest.approx(curves[0], rel=0.02)  # rounded to bfloat16
    assert curves[1] != curves[0]
    assert main(["compress", "evaluate", str(tmp_path / "stored"), "--limit", "3", "--prompts", "0"]) == 0


def test_states_at_a_layer_that_the_model_lacks_are_an_error(language_model: Path, text: Path, tmp_path: Path, capsys):
    words = ["--teacher", language_model, "--data", text, "--length", 16, "--out", tmp_path / "states"]
    assert main(["compress", "states", *map(str, [*words, "--layers", 1, 9])]) == 2
    assert "--layers 9: " in (error := capsys.readouterr().err)
    assert "has 3 layers; give 0 to 3" in error
    assert not list(tmp_path.iterdir())
