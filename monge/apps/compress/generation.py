"""Quality of a shortened model's generation, which may degrade where its perplexity does not: repetition, brackets, sums."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

CLOSING = {")": "(", "]": "[", "}": "{"}
EXAMPLES = [(2, 2), (1, 5)]
SUMS = [(a, b) for a in range(1, 9) for b in range(1, 9) if a + b < 10 and (a, b) not in EXAMPLES]
"""Pairs of digits whose sum has one digit, without the examples in the prompt."""


class Generation(NamedTuple):
    """Measures of greedy continuations."""

    repetition: float
    """Fraction of 4-grams of tokens that occurred before in the same continuation."""
    brackets: float
    """Fraction of closing brackets that close the innermost open one, prompt included; nan if no continuation has a closing
    bracket."""
    sums: float
    """Fraction of one-digit sums that are completed correctly after two examples."""


def generation(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, new_tokens: int = 48, sums: int = 16
) -> Generation:
    """Measures of greedy continuations of the prompts, by at most `new_tokens` tokens, and of at most `sums` of the SUMS."""
    repeated, matched = [], []
    for prompt in prompts:
        ids = _continued(model, tokenizer, prompt, new_tokens)
        grams = list(zip(*(ids[k:] for k in range(4)), strict=False))
        repeated += [gram in grams[:k] for k, gram in enumerate(grams)]
        matched += closings(prompt, tokenizer.decode(ids))
    correct, examples = [], "".join(f"{a} + {b} = {a + b}\n" for a, b in EXAMPLES)
    for a, b in SUMS[:: -(-len(SUMS) // sums)]:
        text = tokenizer.decode(_continued(model, tokenizer, f"{examples}{a} + {b} =", 3))
        first = re.match(r"\s*(\d+)", text)
        correct.append(first is not None and int(first[1]) == a + b)
    return Generation(_mean(repeated), _mean(matched), _mean(correct))


def closings(prompt: str, continuation: str) -> list[bool]:
    """For each closing bracket of the continuation, True if it closes the innermost bracket that is open there.

    >>> closings("f(x[", "0]) + g]")
    [True, True, False]
    """
    stack, results = [], []
    for number, letter in enumerate(prompt + continuation):
        if letter in CLOSING.values():
            stack.append(letter)
        elif letter in CLOSING:
            matches = bool(stack) and stack[-1] == CLOSING[letter]
            if matches:
                stack.pop()
            if number >= len(prompt):
                results.append(matches)
    return results


@torch.no_grad()
def _continued(model: Any, tokenizer: Any, prompt: str, new_tokens: int) -> list[int]:
    ids = torch.tensor(
        [tokenizer(prompt, add_special_tokens=False)["input_ids"]], device=next(model.parameters()).device
    )
    mask = torch.ones_like(ids)
    options = {"do_sample": False, "max_new_tokens": new_tokens, "pad_token_id": tokenizer.pad_token_id}
    return model.generate(ids, attention_mask=mask, **options)[0, ids.shape[1] :].tolist()


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")
