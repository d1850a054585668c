"""Continuations of prompts as trees of tokens, which share the prompts' key-value cache and common prefixes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monge.lm.load import LanguageModel
from monge.objective.next_token import dtype_of

ROOT = -1
"""The parent of the first token of a continuation."""


class TokenTrees:
    """A tree of tokens for each prompt. Each token is computed once, and attends to the prompt and to its ancestors.

    `logits`, of shape (B, V), are those of the first tokens. Prompts are padded on the left.
    """

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model, self._device = model.model, next(model.model.parameters()).device
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(one)) + list(one) for one in prompts], device=self._device)
        self._lengths = torch.tensor([len(one) for one in prompts], device=self._device)
        self._exists = torch.arange(longest, device=self._device) >= longest - self._lengths[:, None]
        self._paths: list[list[tuple[int, ...]]] = [[] for _ in prompts]
        positions = (self._exists.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            out = self._model(
                input_ids=ids,
                attention_mask=self._exists.long(),
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
            )
        self.logits: Float[Tensor, "B V"] = out.logits[:, -1]
        self._cache = out.past_key_values

    def extend(self, added: Sequence[Sequence[tuple[int, int]]]) -> tuple[int, Float[Tensor, "B N V"]]:
        """Add tokens (parent, token) to each tree. Returns the number of the first one, which the others follow, and the logits
        after each, padded to the largest count.

        A parent is the number of a token of the tree, which may be among those added before it, or ROOT.
        """
        start, count = len(self._paths[0]), max(map(len, added))
        for paths, tokens in zip(self._paths, added, strict=True):
            for number, (parent, _) in enumerate(tokens, start):
                paths.append((*(() if parent == ROOT else paths[parent]), number))
            paths += [(number,) for number in range(start + len(tokens), start + count)]
        new = [paths[start:] for paths in self._paths]
        places = [(b, n, k) for b, paths in enumerate(new) for n, path in enumerate(paths) for k in path]
        seen = torch.zeros(len(added), count, start + count, dtype=torch.bool)
        seen[tuple(torch.tensor(places).T)] = True
        seen = torch.cat([self._exists[:, None].expand(-1, count, -1), seen.to(self._device)], dim=2)
        mask = torch.zeros(seen.shape, dtype=dtype_of(self._model), device=self._device)
        mask.masked_fill_(~seen, torch.finfo(mask.dtype).min)
        depth = torch.tensor([[len(path) for path in paths] for paths in new], device=self._device)
        ids = [[token for _, token in tokens] + [0] * (count - len(tokens)) for tokens in added]
        with torch.no_grad():
            out = self._model(
                input_ids=torch.tensor(ids, device=self._device),
                attention_mask=mask[:, None],
                position_ids=self._lengths[:, None] - 1 + depth,
                past_key_values=self._cache,
                use_cache=True,
            )
        return start, out.logits


def log_probabilities(
    model: LanguageModel, prompt: Sequence[int], continuations: Sequence[Sequence[int]], *, tokens: int
) -> list[list[float]]:
    """log p(token | prompt, tokens before it) for each token of each continuation, in passes of at most `tokens` of them."""
    rows = [tuple(row) for row in continuations]
    following: dict[tuple[int, ...], list[int]] = {}  # by prefix, those that it extends first: the tokens after it
    for row in rows:
        for n, token in enumerate(row):
            if token not in (found := following.setdefault(row[:n], [])):
                found.append(token)
    numbers = {prefix: number for number, prefix in enumerate(following, ROOT)}
    values: dict[tuple[int, ...], float] = {}

    def read(prefixes: Sequence[tuple[int, ...]], logits: Float[Tensor, "N V"]) -> None:
        for prefix, row in zip(prefixes, logits, strict=True):  # one row in float32 at a time
            logp = row.float()[following[prefix]] - row.float().logsumexp(-1)
            values.update(
                ((*prefix, token), value) for token, value in zip(following[prefix], logp.tolist(), strict=True)
            )

    trees, (_, *inner) = TokenTrees(model, [prompt]), following
    read([()], trees.logits)
    for start in range(0, len(inner), tokens):
        part = inner[start : start + tokens]
        read(part, trees.extend([[(numbers[prefix[:-1]], prefix[-1]) for prefix in part]])[1][0])
    return [[values[row[:n]] for n in range(1, len(row) + 1)] for row in rows]
