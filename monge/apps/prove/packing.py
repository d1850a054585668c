"""Pairs of prompt and completion as token ids, several of them packed into each training sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from monge.apps.prove.lm.prompt import PLAIN, Style, completion, prompt_ids
from monge.math.random import seeded
from monge.objective.next_token import Tokens

OPEN = 64
"""Maximum number of sequences that are kept open while examples are packed."""


@dataclass(frozen=True)
class Example:
    """The tokens of a prompt and its completion."""

    ids: tuple[int, ...]
    prompt: int
    """Number of tokens of the prompt, which are not learned."""
    weight: float = 1.0
    """Weight of its loss."""


def example(
    tokenizer: Any, state: str, tactic: str, length: int, style: Style = PLAIN, hints: Sequence[str] = ()
) -> Example | None:
    """The tokens of a pair, at most `length`: a prompt that is too long is cut at its start.

    None if the tactic alone leaves no room for a prompt.
    """
    after = [
        *tokenizer(completion(style.tactic(state, tactic)), add_special_tokens=False, verbose=False)["input_ids"],
        tokenizer.eos_token_id,
    ]
    room = length - len(after)
    if room < 1:
        return None
    before = prompt_ids(tokenizer, state, room, style, hints)
    return Example((*before, *after), len(before))


def packed(examples: Sequence[Example], length: int, *, seed: int = 0) -> list[tuple[int, ...]]:
    """Numbers of the examples in each sequence of at most `length` tokens, by first fit in random order; each occurs once.

    >>> packed([Example((1,) * 3, 1), Example((1,) * 4, 1), Example((1,) * 2, 1)], 6)
    [(0, 2), (1,)]
    """
    closed: list[tuple[int, ...]] = []
    free: list[list[int]] = []
    room: list[int] = []
    for number in torch.randperm(len(examples), generator=seeded(seed, 1)).tolist():
        size = len(examples[number].ids)
        place = next((k for k, left in enumerate(room) if left >= size), None)
        if place is None:
            if len(free) == OPEN:
                fullest = min(range(OPEN), key=lambda k: room[k])
                closed.append(tuple(free.pop(fullest)))
                room.pop(fullest)
            free.append([])
            room.append(length)
            place = len(free) - 1
        free[place].append(number)
        room[place] -= size
    return [tuple(sorted(numbers)) for numbers in [*closed, *free]]


def batch_of(rows: Sequence[Sequence[Example]], length: int, pad: int) -> Tokens:
    """One sequence for each row of examples. Tokens of a completion have the weight of its example, all others 0. Padding is a
    segment of its own, as is each example."""
    ids = torch.full((len(rows), length), pad)
    weight, segment = torch.zeros(len(rows), length), torch.full((len(rows), length), -1)
    for k, row in enumerate(rows):
        start = 0
        for number, one in enumerate(row):
            end = start + len(one.ids)
            ids[k, start:end] = torch.tensor(one.ids)
            weight[k, start + one.prompt : end] = one.weight
            segment[k, start:end] = number
            start = end
    return Tokens(ids, weight, segment)
