"""Metrics of predicted sequences of vectors: retrieval of the true ones and likeness to them, in calibrated units."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from monge.math.cost import cosine
from monge.math.ot import assignment
from monge.math.random import seeded


def pooled(sequences: Sequence[Float[Tensor, "_ D"]], width: int) -> Float[Tensor, "B D"]:
    """The mean of each sequence's vectors; zero for an empty one, at right angles to everything."""
    return torch.stack([x.mean(0) if len(x) else torch.zeros(width) for x in sequences])


def pooled_scores(queries: Float[Tensor, "q D"], gallery: Float[Tensor, "g D"]) -> Float[Tensor, "q g"]:
    """Cosines; those of a zero query, an empty prediction, are all equal, and of equals `ranks` counts the worst."""
    return normalize(queries, dim=-1) @ normalize(gallery, dim=-1).mT


def chamfer_scores(
    queries: Sequence[Float[Tensor, "_ D"]], gallery: Sequence[Float[Tensor, "_ D"]]
) -> Float[Tensor, "q g"]:
    """Mean over the tokens of both sequences of the cosine to their nearest in the other one; -2 for an empty prediction."""
    lengths = torch.tensor([len(x) for x in gallery])
    tokens = normalize(torch.cat(list(gallery)), dim=-1).mT
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]]).numpy()
    scores = torch.full((len(queries), len(gallery)), -2.0)
    for row, query in enumerate(queries):
        if not len(query):
            continue
        near = (normalize(query, dim=-1) @ tokens).numpy()
        there = np.maximum.reduceat(near, starts, axis=1).mean(0)
        reverse = np.add.reduceat(near.max(0), starts) / lengths.numpy()
        scores[row] = torch.from_numpy((there + reverse) / 2)
    return scores


def ranks(scores: Float[Tensor, "q g"], *, pool: int | None = None, seed: int = 0) -> Float[Tensor, "q"]:
    """The rank of entry q among `pool` of row q, from 1; of equals, and of nan, the worst. None takes all."""
    n = len(scores)
    if pool is None or pool >= n:
        chosen = torch.ones(n, n, dtype=torch.bool)
    else:
        order = torch.stack([torch.randperm(n, generator=seeded(seed, row)) for row in range(n)])
        chosen = torch.zeros(n, n, dtype=torch.bool).scatter_(1, order[:, : pool - 1], True)
        # the true one is in its own pool, which therefore may hold one entry less
        chosen.fill_diagonal_(True)
    own = scores.diagonal()[:, None]
    # not below: of equals the worst, and an empty prediction, all of whose scores are equal, is last
    above = ~(scores < own) & chosen
    return above.sum(1).float()


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval over the items."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(values: Float[Tensor, "n"], *, draws: int = 1000, seed: int = 0) -> "Interval":
        """The mean of the values that are numbers."""
        values = values[~torch.isnan(values)].double()
        if not len(values):
            return Interval(float("nan"), float("nan"), float("nan"))
        rows = torch.randint(len(values), (draws, len(values)), generator=seeded(seed, 17))
        means = values[rows].mean(1)
        return Interval(float(values.mean()), float(means.quantile(0.025)), float(means.quantile(0.975)))


def retrieval(scores: Float[Tensor, "q g"], *, pool: int | None = None) -> dict[str, Float[Tensor, "q"]]:
    """R@1, R@5, R@10 and the reciprocal rank of each query, and its rank."""
    r = ranks(scores, pool=pool)
    return {**{f"R@{k}": (r <= k).float() for k in (1, 5, 10)}, "MRR": 1 / r, "rank": r}


def matched_cosine(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> float:
    """The total cosine of the best matching, divided by the longer length: unmatched vectors count 0."""
    if not len(x) or not len(y):
        return 0.0
    cost = cosine(x, y)
    match = assignment(cost)
    matched = match >= 0
    return float((1 - cost[matched, match[matched]]).sum()) / max(len(x), len(y))


def squared_w2(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> float:
    """Squared W2 between two sets of any sizes, of equal mass on each side: points are repeated to a common number."""
    if not len(x) or not len(y):
        return float("nan")
    count = len(x) * len(y) // np.gcd(len(x), len(y))
    if count > 512:  # by quantiles of the repetition: each point as often as comes nearest to its mass
        count = 512
    rows, columns = (torch.arange(count) * size // count for size in (len(x), len(y)))
    cost = torch.cdist(x, y).square()[rows][:, columns]
    return float(cost[torch.arange(count), assignment(cost)].mean())


def kendall_tau(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> float:
    """Rank correlation of the order of matched tokens: concordant less discordant pairs, over all pairs.

    nan if y has no two tokens, the worst, -1, if only x has not.
    """
    if min(len(x), len(y)) < 2:
        return float("nan") if len(y) < 2 else -1.0
    match = assignment(cosine(x, y))
    order = match[match >= 0]
    sign = torch.sign((order[:, None] - order[None]).float()).triu(1)
    pairs = len(order) * (len(order) - 1) / 2
    return float(-sign.sum() / pairs) if pairs else float("nan")


def existence_scores(
    predicted: Float[Tensor, "B N"], true: Bool[Tensor, "B N"], *, bins: int = 10
) -> tuple[Float[Tensor, "B"], float]:
    """(F1 of each container's existing slots, expected calibration error of existence as a probability). 1706.04599."""
    guess = predicted > 0.5
    hits = (guess & true).sum(1).float()
    f1 = 2 * hits / (guess.sum(1) + true.sum(1)).clamp_min(1)
    p, truth = predicted.clamp(0, 1).flatten(), true.float().flatten()
    place = (p * bins).long().clamp_max(bins - 1)
    sums = [torch.zeros(bins).index_add_(0, place, value) for value in (torch.ones_like(p), p, truth)]
    return f1, float((sums[1] - sums[2]).abs().sum() / len(p))


def lengths(sequences: Sequence[Tensor]) -> Int[Tensor, "B"]:
    """The number of vectors of each sequence."""
    return torch.tensor([len(x) for x in sequences])
