"""A policy that samples tactics from a local language model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.apps.prove.lm.prompt import parse_tactic, prompt
from monge.apps.prove.policy import merged
from monge.apps.prove.state import State
from monge.apps.prove.tree import Suggestion
from monge.lm.hidden import by_length
from monge.lm.load import LanguageModel


@dataclass(frozen=True)
class Sampling:
    """Settings for sampling answers."""

    temperature: float = 1.0
    """Sampling temperature, above 0."""
    top_p: float = 1.0
    """Sample from the smallest set of likeliest next tokens with at least this total probability; 1 samples from all tokens."""
    max_new_tokens: int = 64
    """Maximum number of tokens per answer; a longer tactic is cut off."""
    tokens: int = 8192
    """Maximum number of tokens per forward pass, padding included. A longer text gets a pass to itself."""

    def __post_init__(self) -> None:
        for name in ("temperature", "max_new_tokens", "tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")


class Causal:
    """Suggests the first tactic of each answer, sampled from a model with the settings in `sampling`.

    A tactic's logp is exact, and temperature and top_p do not affect it: the sum of log p(token | prompt, all tokens before it)
    over the sampled tokens from the tactic's first through the one with the line break after it, or through the end of the
    answer. Text before the tactic, such as a fence or `by`, is conditioned on and not summed. If several token sequences give
    the same tactic, the likeliest counts. A prompt that leaves no room for an answer among the model's positions is cut at its
    start.
    ValueError if `max_new_tokens` leaves no room for any prompt.

    `generator` must be on the CPU, whatever the device. Its state determines the tactics, however they are batched.
    """

    def __init__(self, model: LanguageModel, *, generator: torch.Generator, sampling: Sampling | None = None) -> None:
        self.model, self.generator, self.sampling = model, generator, sampling or Sampling()
        length, positions = self.sampling.max_new_tokens, model.positions
        if positions is not None and length >= positions:
            raise ValueError(
                f"max_new_tokens is {length}, but {model.name} has only {positions} positions for prompt and answer; reduce it"
            )
        generation = getattr(model.model, "generation_config", None)  # has a chat model's end tokens
        special = model.tokenizer.eos_token_id, getattr(generation, "eos_token_id", None)
        self._ends = {e for ids in special for e in (ids if isinstance(ids, list) else [ids]) if e is not None}

    def __call__(self, states: Sequence[State], limit: int) -> list[list[Suggestion]]:
        prompts, length = [self.prompt_ids(state) for state in states], self.sampling.max_new_tokens
        rows = [number for number in range(len(states)) for _ in range(limit)]
        draws = torch.rand(len(rows), length, generator=self.generator, dtype=torch.float64)
        answers: set[tuple[int, tuple[int, ...]]] = set()
        for batch in by_length([len(prompts[number]) + length for number in rows], self.sampling.tokens):
            sampled = self._sample([prompts[rows[k]] for k in batch], draws[batch])
            answers |= {(rows[k], tuple(answer)) for k, answer in zip(batch, sampled, strict=True)}
        parts = [(number, part) for number, answer in sorted(answers) if (part := self._part(answer))]
        parts = list(dict.fromkeys(parts))
        pairs = [(prompts[number], part.ids) for number, part in parts]
        suggestions: list[list[Suggestion]] = [[] for _ in states]
        for (number, part), row in zip(parts, log_probabilities(self.model, pairs, self.sampling.tokens), strict=True):
            suggestions[number].append(Suggestion(part.tactic, float(row[part.start :].sum())))
        return [merged(per_state, limit) for per_state in suggestions]

    def prompt_ids(self, state: State) -> list[int]:
        """The prompt's tokens, cut at the start if needed to leave room for an answer."""
        ids = self.model.tokenizer(prompt(state), verbose=False)["input_ids"]
        positions = self.model.positions
        return ids if positions is None else ids[-(positions - self.sampling.max_new_tokens) :]

    def _sample(self, prompts: Sequence[list[int]], draws: Float[Tensor, "B N"]) -> list[list[int]]:
        """An answer to each prompt, up to the token that ends its tactic."""
        device = _device(self.model)
        ids, mask = _pad_left(prompts, device)
        answers: list[list[int]] = [[] for _ in prompts]
        running, cache = set(range(len(prompts))), True
        for step in range(draws.shape[1]):
            logits, cache = _forward(self.model, ids, mask, keep=1, cache=cache)
            ids = self._next(logits[:, -1], draws[:, step].to(device))[:, None]
            new = ids[:, 0].tolist()
            for k in sorted(running):
                answers[k].append(new[k])
                if answers[k][-1] in self._ends or parse_tactic(self._text(answers[k])).closed:
                    running.remove(k)
            if not running:
                break
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        return answers

    def _next(self, logits: Float[Tensor, "B V"], draws: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
        """Next tokens by inverse transform sampling: `draws` are uniform numbers, and tokens are sorted, likeliest first."""
        p = (logits.double() / self.sampling.temperature).softmax(dim=-1)
        p, order = p.sort(dim=-1, descending=True, stable=True)
        p[p.cumsum(dim=-1) - p >= self.sampling.top_p] = 0
        cumulative = p.cumsum(dim=-1)
        index = torch.searchsorted(cumulative, (draws * cumulative[:, -1])[:, None], right=True)
        last = (p > 0).sum(dim=-1, keepdim=True) - 1  # a draw just below 1 may round up to the total
        return order.gather(1, torch.minimum(index, last))[:, 0]

    def _text(self, ids: Sequence[int]) -> str:
        ids = [k for k in ids if k not in self._ends]  # not every tokenizer marks them as special
        return self.model.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _part(self, answer: Sequence[int]) -> "Part | None":
        """The part of an answer that counts; None if it has no tactic."""
        texts = [self._text(answer[:k]) for k in range(len(answer) + 1)]
        parsed = parse_tactic(texts[-1])
        if not parsed.tactic:
            return None
        start = max(k for k, text in enumerate(texts) if len(text) <= parsed.start)
        ends = (k for k, text in enumerate(texts) if "\n" in text[parsed.end :])
        return Part(parsed.tactic, start, tuple(answer[: next(ends, len(answer))]))


@dataclass(frozen=True)
class Part:
    """An answer cut after the token that ends its tactic, if there is one. `start` is the index of the tactic's first token."""

    tactic: str
    start: int
    ids: tuple[int, ...]


def log_probabilities(
    model: LanguageModel, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], tokens: int
) -> list[Float[Tensor, "_"]]:
    """Log p of each answer token given all tokens before it, for each (prompt, answer). At most `tokens` per forward pass."""
    results: list[Tensor] = [torch.empty(0)] * len(pairs)
    for batch in by_length([len(before) + len(after) for before, after in pairs], tokens):
        ids, mask = _pad_left([[*pairs[k][0], *pairs[k][1]] for k in batch], _device(model))
        keep = max(len(pairs[k][1]) for k in batch)
        logits, _ = _forward(model, ids[:, :-1], mask[:, :-1], keep=keep)
        values = -torch.nn.functional.cross_entropy(logits.float().mT, ids[:, -keep:], reduction="none").cpu()
        for k, row in zip(batch, values, strict=True):
            results[k] = row[keep - len(pairs[k][1]) :]
    return results


def _forward(
    model: LanguageModel, ids: Int[Tensor, "B N"], mask: Int[Tensor, "B M"], *, keep: int, cache: Any = None
) -> tuple[Float[Tensor, "B K V"], Any]:
    """The logits of the last `keep` tokens, and the key-value cache. `cache=True` starts a cache, None uses none."""
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]  # padding, on the left, takes none
    with torch.no_grad():
        out = model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=None if cache is True else cache,
            use_cache=cache is not None,
            logits_to_keep=keep,
        )
    return out.logits[:, -keep:], getattr(out, "past_key_values", None)


def _pad_left(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Int[Tensor, "B N"], Int[Tensor, "B N"]]:
    """The rows padded on the left, and their attention mask."""
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, (torch.arange(longest, device=device) >= (longest - lengths)[:, None]).long()


def _device(model: LanguageModel) -> torch.device:
    return next(model.model.parameters()).device
