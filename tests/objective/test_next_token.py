"""Next-token prediction."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.objective.next_token import NextToken, Tokens
from monge.pretrain import neox


def model_of(logits):
    return lambda input_ids, logits_to_keep=slice(None): SimpleNamespace(logits=logits[:, logits_to_keep])


def test_a_uniform_model_costs_the_log_of_the_vocabulary_size():
    loss = NextToken()(model_of(torch.zeros(2, 5, 7)), Tokens(torch.randint(0, 7, (2, 5))))
    assert float(loss.value) == pytest.approx(torch.tensor(7.0).log().item())


@given(seed=st.integers(0, 2**31), n=st.integers(1, 5))
def test_a_prompt_and_padding_without_weight_change_nothing(draw, seed, n):
    """The loss depends only on targets with weight, whatever the logits and ids elsewhere."""
    logits, ids = draw(seed, 2, 6, 7), (100 * draw(seed + 1, 2, 6)).long().abs() % 7
    weight = (torch.arange(6) >= n).float().expand(2, 6)
    value = NextToken()(model_of(logits), Tokens(ids, weight)).value
    short = NextToken()(model_of(logits[:, n - 1 :]), Tokens(ids[:, n - 1 :])).value
    torch.testing.assert_close(value, short)


def test_the_mask_of_packed_texts_has_the_dtype_of_the_model():
    class Recording(torch.nn.Linear):
        def forward(self, input_ids, attention_mask, position_ids, logits_to_keep):
            self.seen = attention_mask.dtype
            return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 7)[:, logits_to_keep])

    model = Recording(1, 1).bfloat16()
    NextToken()(model, Tokens(torch.zeros(1, 4, dtype=torch.long), segment=torch.tensor([[0, 0, 1, 1]])))
    assert model.seen == torch.bfloat16


def test_weights_are_relative(draw):
    logits, ids, weight = draw(0, 2, 6, 7), torch.arange(12).reshape(2, 6) % 7, draw(1, 2, 6).exp()
    first, second = (NextToken()(model_of(logits), Tokens(ids, scale * weight)).value for scale in (1, 5))
    torch.testing.assert_close(first, second)
    assert torch.isfinite(NextToken()(model_of(logits), Tokens(ids, 0 * weight)).value)


def test_weights_follow_their_tokens_to_the_device():
    moved = Tokens(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3)).to("meta")
    assert moved.ids.device == moved.weight.device == torch.device("meta")
    with pytest.raises(ValueError, match="give one weight per token"):
        Tokens(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 2))


def test_packed_texts_have_the_logits_and_the_loss_of_separate_ones():
    torch.manual_seed(0)
    model = neox(64, 16, 2, 2, 32, 0).eval()
    first, second = torch.randint(1, 64, (1, 5)), torch.randint(1, 64, (1, 7))
    packed = Tokens(torch.cat([first, second], 1), segment=torch.tensor([[0] * 5 + [1] * 7]))
    logits = model(**packed.inputs()).logits
    apart = [model(input_ids=ids).logits for ids in (first, second)]
    torch.testing.assert_close(logits, torch.cat(apart, 1), rtol=0, atol=1e-5)
    losses = [NextToken()(model, Tokens(ids)).value for ids in (first, second)]
    expected = (4 * losses[0] + 6 * losses[1]) / 10
    torch.testing.assert_close(NextToken()(model, packed).value, expected)


def test_the_head_skips_positions_whose_next_token_has_no_weight():
    torch.manual_seed(0)
    model, ids = neox(64, 16, 2, 2, 32, 0).eval(), torch.randint(1, 64, (2, 9))
    weight = torch.zeros(2, 9)
    weight[0, 3:5], weight[1, 4:6] = 1, 2
    rows = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: rows.append(inputs[0].shape[1]))
    value = NextToken()(model, Tokens(ids, weight)).value
    assert rows == [3]
    losses = torch.nn.functional.cross_entropy(model(ids).logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    torch.testing.assert_close(value, (losses * weight[:, 1:]).sum() / weight[:, 1:].sum())
