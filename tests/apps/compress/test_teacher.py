"""The frozen teacher: its states, the layers after them, and the measures of a student."""

from pathlib import Path

import pytest
import torch
from teachers import FAMILIES, IDS, teacher
from torch.testing import assert_close

from monge.apps.compress.affine import least_squares
from monge.apps.compress.corpus import corpus
from monge.apps.compress.evaluate import quality
from monge.apps.compress.teacher import Teacher


@pytest.mark.parametrize(("start", "end"), [(1, 4), (0, 6), (3, 6)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_after_the_range_turn_its_last_state_into_the_logits_of_the_model(family, start, end):
    model = teacher(family)
    frozen = Teacher(model, start, end)
    pair = frozen.pair(IDS)
    with torch.no_grad():
        assert_close(frozen.logits(pair.x_1), model(input_ids=IDS).logits, rtol=0, atol=1e-5)
    x_1 = pair.x_1.clone().requires_grad_(True)
    frozen.logits(x_1).square().sum().backward()
    assert x_1.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (3, 3), (4, 2), (0, 7)])
def test_a_range_outside_the_model_is_an_error(start, end):
    with pytest.raises(ValueError, match="the model has 6"):
        Teacher(teacher("llama"), start, end)


def test_the_teacher_has_no_divergence_and_skipping_has_error_one():
    frozen = Teacher(teacher("llama"), 1, 4)
    ideal = quality(frozen, IDS, None)
    assert (ideal.kl, ideal.agreement, ideal.error, ideal.median_error) == (0, 1, 0, 0)
    logits = frozen.model(input_ids=IDS).logits
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    assert ideal.perplexity == pytest.approx(float(loss.exp()), rel=1e-5)
    skipped = quality(frozen, IDS, lambda x_0: x_0, size=1)
    assert skipped.kl > 0
    assert (skipped.error, skipped.median_error) == (pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize("ridge", [0.0, 1e-7])
def test_the_least_squares_map_streams_and_has_the_smallest_error(draw, ridge):
    x_0 = draw(0, 300, 5) * torch.tensor([1.0, 1.0, 100.0, 0.01, 1.0])
    x_1 = x_0 @ draw(1, 5, 5) + draw(2, 5) + 0.1 * draw(3, 300, 5)
    once = least_squares([(x_0, x_1)], ridge=ridge)
    streamed = least_squares(zip(x_0.split(70), x_1.split(70), strict=True), ridge=ridge)
    assert_close(streamed.matrix, once.matrix, rtol=1e-4, atol=1e-5)
    error = (once.apply(x_0.float()) - x_1).square().mean()
    expected = torch.linalg.lstsq(torch.cat([x_0, torch.ones(300, 1)], 1), x_1).solution
    best = (torch.cat([x_0, torch.ones(300, 1)], 1) @ expected - x_1).square().mean()
    assert error == pytest.approx(float(best), rel=1e-4)


def test_fewer_tokens_than_dimensions_still_give_a_map(draw):
    x_0, x_1 = draw(0, 3, 8), draw(1, 3, 8)
    assert_close(least_squares([(x_0, x_1)], ridge=0).apply(x_0.float()), x_1.float(), rtol=0, atol=1e-4)


def test_no_pairs_is_an_error():
    with pytest.raises(ValueError, match="no pairs of states"):
        least_squares([])


def test_documents_are_held_out_whole(language_model: Path, tmp_path: Path):
    from monge.lm.load import causal

    tokenizer = causal(str(language_model)).tokenizer
    (tmp_path / "deep").mkdir()
    for number in range(40):
        (tmp_path / "deep" / f"{number}.txt").write_text(f"( ph{number} -> ps ) " * 20)
    texts = corpus(tmp_path, tokenizer, 16)
    assert len(texts.training) > 3 * len(texts.held_out) > 0
    assert texts.training.shape[1] == texts.held_out.shape[1] == 16
    again = corpus(tmp_path, tokenizer, 16)
    assert torch.equal(again.training, texts.training)
    with pytest.raises(ValueError, match="less than one sequence of 100000"):
        corpus(tmp_path, tokenizer, 100_000)
    (tmp_path / "deep" / "0.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"0\.txt: not UTF-8 text"):
        corpus(tmp_path, tokenizer, 16)
    with pytest.raises(ValueError, match="no text; give a text file"):
        corpus(language_model, tokenizer, 16)
