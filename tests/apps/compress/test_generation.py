"""Measures of generated text, and the cost of a model."""

import pytest
import torch
from teachers import FAMILIES, IDS, teacher

from monge.apps.compress.cost import costs_of
from monge.apps.compress.generation import SUMS, closings, generation


class Digits:
    """A tokenizer whose tokens are characters."""

    pad_token_id = 0

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, ids):
        return "".join(map(chr, ids))


class Scripted(torch.nn.Module):
    """A model that continues every text with the answer of a function."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.weight = answer, torch.nn.Parameter(torch.zeros(1))

    def generate(self, ids, max_new_tokens, **_):
        text = self.answer("".join(map(chr, ids[0].tolist())))[:max_new_tokens]
        return torch.cat([ids, torch.tensor([[ord(letter) for letter in text]])], 1)


def add(text: str) -> str:
    left, right = text.split("\n")[-1].removesuffix(" =").split(" + ") if "=" in text else (0, 0)
    return f" {int(left) + int(right)}\n"


def test_sums_are_counted_when_the_next_number_is_right():
    assert generation(Scripted(add), Digits(), []).sums == 1
    assert generation(Scripted(lambda text: add(text).strip() + "0"), Digits(), []).sums == 0
    assert 0 < generation(Scripted(lambda _: " 5"), Digits(), [], sums=len(SUMS)).sums < 0.5


def test_repeated_four_grams_and_unmatched_brackets_are_counted():
    result = generation(Scripted(lambda _: "abcdabcd])"), Digits(), ["f(x["])
    assert result.repetition == pytest.approx(1 / 7)
    assert result.brackets == 1
    assert generation(Scripted(lambda _: "abcdefg)"), Digits(), ["f(x["]).brackets == 0


def test_brackets_of_the_prompt_are_not_counted():
    assert closings("a)(", ")") == [True]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cost_of_a_model_is_counted(family):
    model = teacher(family)
    cost = costs_of({"teacher": model}, IDS[:1], new_tokens=2, rounds=1)["teacher"]
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "wpe" not in name)
    head = model.get_output_embeddings().weight.numel()
    expected = 2 * (
        matrices if model.config.tie_word_embeddings else matrices - head
    )  # the input table is only looked up
    assert cost.flops == pytest.approx(expected, rel=0.15)  # and attention
    heads = getattr(model.config, "num_key_value_heads", 4)
    assert cost.cache_bytes == 2 * 6 * heads * 8 * 4
    assert min(cost.scoring, cost.prefill, cost.decode) > 0
