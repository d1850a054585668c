"""A policy that samples tactics from a local language model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.prove.lm.beam import Beam, extended
from monge.apps.prove.lm.prompt import Style, completion, parse_tactic, prompt_ids
from monge.apps.prove.lm.token_tree import ROOT, TokenTrees, log_probabilities
from monge.apps.prove.policy import Policy, merged
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
    replacement: bool = True
    """Sample answers independently; False samples distinct ones (stochastic beam search)."""
    reranked: int = 0
    """Number of tactics that the model scores besides its answers: those that the policy copy would take from the model's
    training data, except for the theorem itself. The likeliest are suggested. For models of `monge prove finetune`."""
    answers: bool = True
    """Sample answers. With False, only reranked tactics are suggested, and the settings for sampling have no effect."""
    tokens: int = 8192
    """Maximum number of tokens of the prompts that are answered at once and of their answers, padding included. One prompt may
    exceed it."""

    def __post_init__(self) -> None:
        for name in ("temperature", "max_new_tokens", "tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.reranked < 0 or not (self.reranked or self.answers):
            raise ValueError(f"reranked must be at least 0, and above 0 if answers is false, got {self.reranked}")


class Causal:
    """Suggests the first tactic of each answer, sampled from a model with the settings in `sampling`, and tactics of similar
    states, reranked by the model.

    A tactic's logp is exact, and temperature and top_p do not affect it: the sum of log p(token | prompt, all tokens before it)
    over the sampled tokens from the tactic's first through the one with the line break after it, or through the end of the
    answer. Text before the tactic, such as a fence or `by`, is conditioned on and not summed. If several token sequences give
    the same tactic, the likeliest counts. A prompt that leaves no room for an answer among the model's positions is cut at its
    start.
    ValueError if `max_new_tokens` leaves no room for any prompt.

    `generator` must be on the CPU, whatever the device. Its state determines the tactics, however they are batched. `similar`
    suggests the tactics of similar states that the prompt has, if the model was trained with some, and those to rerank.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        generator: torch.Generator,
        sampling: Sampling | None = None,
        similar: Policy | None = None,
    ) -> None:
        self.model, self.generator, self.sampling, self.similar = model, generator, sampling or Sampling(), similar
        length, positions = self.sampling.max_new_tokens, model.positions
        if positions is not None and length >= positions:
            raise ValueError(
                f"max_new_tokens is {length}, but {model.name} has only {positions} positions for prompt and answer; reduce it"
            )
        generation = getattr(model.model, "generation_config", None)  # has a chat model's end tokens
        special = model.tokenizer.eos_token_id, getattr(generation, "eos_token_id", None)
        self._style = Style.of(model.model)
        if self._style.retrieved and similar is None:
            raise ValueError(f"{model.name}: its prompts have tactics of similar states; only a search provides them")
        if self.sampling.reranked and similar is None:
            raise ValueError(
                f"{model.name}: reranked is {self.sampling.reranked}, but there are no tactics of similar states"
            )
        self._ends = {e for ids in special for e in (ids if isinstance(ids, list) else [ids]) if e is not None}

    def __call__(self, states: Sequence[State], limit: int) -> list[list[Suggestion]]:
        prompts = [self.prompt_ids(state) for state in states]
        length, tokens = self.sampling.max_new_tokens, self.sampling.tokens
        draws = torch.rand(len(states), limit, length, generator=self.generator, dtype=torch.float64)
        suggestions: list[list[Suggestion]] = [[] for _ in states]
        sample = self._sample if self.sampling.replacement else self._distinct
        batches = by_length([len(ids) + limit * length for ids in prompts], tokens) if self.sampling.answers else ()
        for batch in batches:
            for k, answer in sample([prompts[k] for k in batch], draws[batch]):
                if (suggestion := self._suggestion(states[batch[k]], answer)) is not None:
                    suggestions[batch[k]].append(suggestion)
        if self.sampling.reranked:
            for state, prompt, found in zip(states, prompts, suggestions, strict=True):
                found += filter(None, (self._suggestion(state, answer) for answer in self._reranked(state, prompt)))
        return [merged(per_state, limit) for per_state in suggestions]

    def prompt_ids(self, state: State) -> list[int]:
        """The prompt's tokens, cut at the start if needed to leave room for an answer.

        It has the style that the model's configuration records.
        """
        positions = self.model.positions
        room = None if positions is None else positions - self.sampling.max_new_tokens
        return prompt_ids(self.model.tokenizer, state, room, self._style, self._hints(state))

    def _hints(self, state: State) -> list[str]:
        if not self._style.retrieved or self.similar is None:
            return []
        return [one.tactic for one in self.similar([state], self._style.retrieved)[0]]

    def _sample(self, prompts: Sequence[list[int]], draws: Float[Tensor, "B K N"]) -> "Iterator[tuple[int, Answer]]":
        """Yields the number of a prompt and an answer to it, up to the token that ends its tactic, for each row of `draws`."""
        trees = TokenTrees(self.model, prompts)
        answers = [[Answer() for _ in per_prompt] for per_prompt in draws]
        # for each prompt: the last token of each different answer, as its number in the tree, and the answers that end in it
        ends = [{ROOT: list(range(len(one)))} for one in answers]
        logits, length = trees.logits[:, None], draws.shape[-1]
        for step in range(length):
            added = [list[tuple[int, int]]() for _ in prompts]
            following = [list[list[int]]() for _ in prompts]
            for k, per_end in enumerate(ends):
                for row, (end, numbers) in zip(logits[k], per_end.items(), strict=False):
                    for token, logp, mine in self._next(row, draws[k, numbers, step], numbers):
                        for n in mine:
                            answers[k][n].add(token, logp)
                        if not self._complete(answers[k][mine[0]].ids):
                            added[k].append((end, token))
                            following[k].append(mine)
            if step == length - 1 or not any(added):
                break
            start, logits = trees.extend(added)
            ends = [dict(enumerate(one, start)) for one in following]
        yield from ((k, answer) for k, per_prompt in enumerate(answers) for answer in per_prompt)

    def _distinct(self, prompts: Sequence[list[int]], draws: Float[Tensor, "B K N"]) -> "Iterator[tuple[int, Answer]]":
        """As `_sample`, but without replacement. The first number of each prompt in `draws` is the seed of its noise."""
        _, count, length = draws.shape
        trees = TokenTrees(self.model, prompts)
        beams, ends = [[Beam()] for _ in prompts], [[ROOT] for _ in prompts]
        noise = [torch.Generator().manual_seed(int(seed * 2**53)) for seed in draws[:, 0, 0].tolist()]
        logits = trees.logits[:, None]
        for step in range(length):
            added = [list[tuple[int, int]]() for _ in prompts]
            for k, one in enumerate(beams):
                if not ends[k]:
                    continue
                rows = logits[k, : len(ends[k])]
                logp = self._distribution(rows).log()
                beams[k] = extended(one, rows, logp, count, noise[k], self._complete)
                added[k] = [(ends[k][beam.row], beam.ids[-1]) for beam in beams[k] if not beam.complete]
            if step == length - 1 or not any(added):
                break
            start, logits = trees.extend(added)
            ends = [list(range(start, start + len(one))) for one in added]
        yield from ((k, Answer(beam.ids, beam.logp)) for k, one in enumerate(beams) for beam in one)

    def _reranked(self, state: State, prompt: list[int]) -> "Iterator[Answer]":
        """Yields the answers that give the tactics of similar states; those that exceed the maximum length are left out."""
        assert self.similar is not None
        tokenizer, settings = self.model.tokenizer, self.sampling
        texts = [
            completion(self._style.tactic(state, one.tactic)) for one in self.similar([state], settings.reranked)[0]
        ]
        rows = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
        rows = [next((row[:k] for k in range(1, len(row)) if self._complete(row[:k])), row) for row in rows]
        rows = [row for row in rows if len(row) <= settings.max_new_tokens]
        if rows:
            yield from map(Answer, rows, log_probabilities(self.model, prompt, rows, tokens=settings.tokens))

    def _complete(self, ids: Sequence[int]) -> bool:
        return ids[-1] in self._ends or parse_tactic(self._text(ids)).closed

    def _distribution(self, logits: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
        """The probabilities to sample from, in float64; tokens outside the nucleus have 0."""
        p = (logits.double() / self.sampling.temperature).softmax(dim=-1)
        if self.sampling.top_p < 1:
            ordered, order = p.sort(dim=-1, descending=True, stable=True)
            ordered[ordered.cumsum(dim=-1) - ordered >= self.sampling.top_p] = 0
            p = torch.zeros_like(p).scatter(1, order, ordered)
        return p / p.sum(-1, keepdim=True)

    def _next(
        self, logits: Float[Tensor, "V"], draws: Float[Tensor, "R"], numbers: Sequence[int]
    ) -> "Iterator[tuple[int, float, list[int]]]":
        """Yields each next token by inverse transform sampling of the uniform numbers `draws`, its log-probability, and the
        `numbers` of the draws that give it."""
        p, order = self._distribution(logits[None])[0], None
        if self.sampling.top_p < 1:
            p, order = p.sort(descending=True, stable=True)
        cumulative = p.cumsum(dim=0)
        total = cumulative[-1]
        # a draw just below 1 may round up to the total
        draws = torch.minimum(draws.to(p.device) * total, total.nextafter(torch.zeros_like(total)))
        places = torch.searchsorted(cumulative, draws, right=True)
        tokens = (places if order is None else order[places]).tolist()
        logp = logits.float().log_softmax(-1)
        by_token: dict[int, list[int]] = {}
        for token, number in zip(tokens, numbers, strict=True):
            by_token.setdefault(token, []).append(number)
        yield from ((token, float(logp[token]), mine) for token, mine in by_token.items())

    def _text(self, ids: Sequence[int]) -> str:
        ids = [k for k in ids if k not in self._ends]  # not every tokenizer marks them as special
        return self.model.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _suggestion(self, state: State, answer: "Answer") -> Suggestion | None:
        """The first tactic of an answer, with the log-probability of its part of the answer; None if it has no tactic, or one
        with a number that stands for no hypothesis."""
        texts = [self._text(answer.ids[:k]) for k in range(len(answer.ids) + 1)]
        parsed = parse_tactic(texts[-1])
        if not parsed.tactic or (tactic := self._style.original(state, parsed.tactic)) is None:
            return None
        start = max(k for k, text in enumerate(texts) if len(text) <= parsed.start)
        ends = (k for k, text in enumerate(texts) if "\n" in text[parsed.end :])
        return Suggestion(tactic, sum(answer.logp[start : next(ends, len(answer.ids))]))


class Answer:
    """The tokens of an answer and their log-probabilities."""

    def __init__(self, ids: Sequence[int] = (), logp: Sequence[float] = ()) -> None:
        self.ids, self.logp = list(ids), list(logp)

    def add(self, token: int, logp: float) -> None:
        """Add a token."""
        self.ids.append(token)
        self.logp.append(logp)
