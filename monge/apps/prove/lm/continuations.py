"""Log-probabilities of many continuations of a prompt, computed along the tree of their prefixes."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from monge.lm.hidden import by_length
from monge.lm.load import LanguageModel
from monge.objective.next_token import dtype_of

Prefix = tuple[int, ...]


@torch.no_grad()
def log_probabilities(
    model: LanguageModel, prompt: Sequence[int], continuations: Sequence[Sequence[int]], *, tokens: int
) -> list[list[float]]:
    """log p(token | prompt, tokens before it) for each token of each continuation. No continuation may be empty.

    Continuations share the key-value cache of the prompt, and a prefix that several of them have is computed once. A forward
    pass has at most `tokens` tokens of continuations; a longer one gets a pass to itself.
    """
    device = next(model.model.parameters()).device
    start = model.model(input_ids=torch.tensor([prompt], device=device), use_cache=True, logits_to_keep=1)
    result: dict[int, list[float]] = {}
    for batch in by_length([*map(len, continuations)], tokens):
        part = [tuple(continuations[k]) for k in batch]
        prefixes = {row[:n]: 0 for row in part for n in range(1, len(row))}  # a prefix follows those that it extends
        prefixes = {prefix: number for number, prefix in enumerate(prefixes, 1)}
        logits = start.logits[0, -1:]
        if prefixes:
            logits = torch.cat([logits, _after(model, [*prefixes], copy.deepcopy(start.past_key_values), len(prompt))])
        totals = torch.stack([row.float().logsumexp(-1) for row in logits])  # row by row: one float32 copy at a time
        for k, row in zip(batch, part, strict=True):
            places = [0, *(prefixes[row[:n]] for n in range(1, len(row)))]
            result[k] = (logits[places, row].float() - totals[places]).tolist()
    return [result[k] for k in range(len(continuations))]


def _after(model: LanguageModel, prefixes: Sequence[Prefix], cache: Any, length: int) -> Float[Tensor, "N V"]:
    """The logits after each prefix, in one pass over their last tokens. `length` is that of the prompt in the cache."""
    device, numbers = next(model.model.parameters()).device, {prefix: k for k, prefix in enumerate(prefixes)}
    hidden = ~torch.eye(len(prefixes), dtype=torch.bool)
    for k, prefix in enumerate(prefixes):
        if len(prefix) > 1:
            hidden[k] &= hidden[numbers[prefix[:-1]]]
    mask = torch.zeros(len(prefixes), length + len(prefixes), dtype=dtype_of(model.model))
    mask[:, length:].masked_fill_(hidden, torch.finfo(mask.dtype).min)
    return model.model(
        input_ids=torch.tensor([[prefix[-1] for prefix in prefixes]], device=device),
        attention_mask=mask[None, None].to(device),
        position_ids=torch.tensor([[length - 1 + len(prefix) for prefix in prefixes]], device=device),
        past_key_values=cache,
        use_cache=True,
    ).logits[0]
