"""Sampling of sequences without replacement: stochastic beam search. Kool, van Hoof and Welling 1903.06059."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Beam(NamedTuple):
    """A partial or complete sequence of the search."""

    ids: tuple[int, ...] = ()
    """Its tokens."""
    logp: tuple[float, ...] = ()
    """Log-probability of each token under the model."""
    total: float = 0.0
    """Log-probability of all tokens under the distribution that is sampled from."""
    key: float = 0.0
    """`total` plus Gumbel noise; the sequences with the largest keys are the sample."""
    row: int = 0
    """Row of the last logits that it continues."""
    complete: bool = False


def extended(
    beams: Sequence[Beam],
    logits: Float[Tensor, "R V"],
    sampled: Float[Tensor, "R V"],
    count: int,
    generator: torch.Generator,
    complete: Callable[[Sequence[int]], bool],
) -> list[Beam]:
    """The `count` sequences with the largest keys among the complete `beams` and the continuations of the others by a token.

    `logits` are those after each beam that is not complete, in their order; `sampled` are the log-probabilities to sample
    from, where a token with -inf is excluded.
    """
    going = [beam for beam in beams if not beam.complete]
    finished = [beam for beam in beams if beam.complete]
    total = torch.tensor([beam.total for beam in going], dtype=torch.float64)[:, None] + sampled.cpu()
    noise = torch.empty_like(total).exponential_(generator=generator).log().neg()
    key = conditioned(total + noise, torch.tensor([beam.key for beam in going], dtype=torch.float64))
    best = key.flatten().topk(min(count, key.numel()))
    logp = logits.float().log_softmax(-1).cpu()
    children: list[Beam] = []
    for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        row, token = divmod(place, key.shape[1])
        if value == -torch.inf:
            break
        beam = going[row]
        ids = (*beam.ids, token)
        children.append(Beam(ids, (*beam.logp, logp[row, token].item()), total[row, token].item(), value, row))
    kept = sorted([*finished, *children], key=lambda beam: -beam.key)[:count]
    return [beam if beam.complete else beam._replace(complete=complete(beam.ids)) for beam in kept]


def conditioned(key: Float[Tensor, "R V"], largest: Float[Tensor, "R"]) -> Float[Tensor, "R V"]:
    """Gumbel variables conditioned on the largest of each row: -log(e^-largest - e^-max + e^-key) (appendix B.3).

    >>> conditioned(torch.tensor([[1.0, 3.0, -torch.inf]]), torch.tensor([2.0])).round(decimals=3)
    tensor([[0.7910, 2.0000,   -inf]])
    """
    top = key.max(-1, keepdim=True).values
    v = largest[:, None] - key + torch.log1p(-torch.exp(key - top))
    return largest[:, None] - v.clamp_min(0) - torch.log1p(torch.exp(-v.abs()))
