"""Hidden states of small random models: the outputs of a block, independent of the batch, without special tokens."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from monge.lm.hidden import by_length, check_limits, count_truncated, hidden_states
from monge.lm.load import Encoder, encoder

LINES = ["( ph -> ps )", "( ph -> ( ps -> ch ) )", "A e. B", "( A u. B ) = ( B u. A )", "-. ph"] * 3


@pytest.fixture(scope="module")
def small(language_model: Path) -> Encoder:
    return encoder(str(language_model))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_states_of_a_layer_equal_those_of_transformers(small: Encoder, layer: int) -> None:
    result = hidden_states(small, LINES[:5], layer=layer, max_length=64)
    for text, states in zip(LINES[:5], result, strict=True):
        expected = small.model(**small.tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        assert_close(states, expected.hidden_states[layer][0].detach(), rtol=1e-4, atol=1e-5)


def test_the_last_layer_is_taken_before_the_final_norm(small: Encoder) -> None:
    """The last entry of transformers' own hidden_states includes the norm."""
    (state,) = hidden_states(small, LINES[:1], layer=3, max_length=64)
    output = small.model(**small.tokenizer(LINES[0], return_tensors="pt"), output_hidden_states=True)
    normed = output.hidden_states[-1][0]
    assert not torch.allclose(state, normed, atol=1e-3)
    assert_close(small.model.final_layer_norm(state), normed, rtol=1e-4, atol=1e-5)


def test_the_states_do_not_depend_on_the_rest_of_the_batch(small: Encoder) -> None:
    together = hidden_states(small, LINES, layer=2, max_length=64)
    one_by_one = hidden_states(small, LINES, layer=2, max_length=64, tokens=1)
    for one, other in zip(together, one_by_one, strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_text_that_is_too_long_is_truncated(small: Encoder) -> None:
    assert [len(states) for states in hidden_states(small, LINES[:2], layer=1, max_length=3)] == [3, 3]
    lengths = [len(states) for states in hidden_states(small, LINES, layer=1, max_length=64)]
    assert 0 < count_truncated(small, LINES, 9) == sum(n > 9 for n in lengths) < len(LINES)


def test_a_missing_layer_is_rejected(small: Encoder) -> None:
    with pytest.raises(ValueError, match=r"layer 4: .* has 3 blocks"):
        hidden_states(small, LINES[:1], layer=4, max_length=8)


def test_batches_hold_every_text_once_within_the_token_limit() -> None:
    lengths = [3, 50, 7, 7, 20, 1, 64, 2]
    batches = list(by_length(lengths, 64))
    assert sorted(k for batch in batches for k in batch) == list(range(8))
    assert all(len(batch) == 1 or len(batch) * max(lengths[k] for k in batch) <= 64 for batch in batches)


def test_the_fingerprint_changes_with_a_weight_and_not_by_reloading(small: Encoder, language_model: Path) -> None:
    reloaded = encoder(str(language_model))
    assert reloaded.fingerprint() == small.fingerprint()
    with torch.no_grad():
        next(reloaded.model.parameters())[0, 0] += 1e-3
    assert reloaded.fingerprint()["weights"] != small.fingerprint()["weights"]


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="nothing: no complete Hugging Face model here"):
        encoder(str(tmp_path / "nothing"))


def test_texts_are_limited_by_the_table_of_positions_unless_positions_are_rotary(small: Encoder) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=300, max_position_embeddings=12, **sizes)).eval()
    table = Encoder("bert", model, small.tokenizer)
    text = " ".join(LINES)
    assert [len(states) for states in hidden_states(table, [text], layer=1, max_length=12)] == [12]
    with pytest.raises(ValueError, match="max_length 13: bert takes texts of 1 to 12 tokens"):
        hidden_states(table, [text], layer=1, max_length=13)
    check_limits(small, 1, 10_000)
    with pytest.raises(ValueError, match=r"max_length 0: .* takes texts of at least 1 tokens"):
        check_limits(small, 1, 0)
