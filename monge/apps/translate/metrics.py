"""Metrics of predicted sequences of vectors: retrieval of the true ones and similarity to them, in calibrated units."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from monge.math.cost import cosine
from monge.math.metrics import sliced_w2
from monge.math.ot import assignment
from monge.math.random import seeded

SAMPLES = 8
"""Number of translations per source in `evaluate.best_of`, with which R@8 is to be compared."""


def pooled(sequences: Sequence[Float[Tensor, "_ D"]], width: int) -> Float[Tensor, "B D"]:
    """The mean of each sequence's vectors; zero, orthogonal to everything, for an empty sequence."""
    return torch.stack([x.mean(0) if len(x) else torch.zeros(width) for x in sequences])


def pooled_scores(queries: Float[Tensor, "q D"], gallery: Float[Tensor, "g D"]) -> Float[Tensor, "q g"]:
    """Cosine similarities. All are 0 for an empty prediction (a zero query); `ranks` counts ties as worst, so it ranks last."""
    return normalize(queries, dim=-1) @ normalize(gallery, dim=-1).mT


def chamfer_scores(
    queries: Sequence[Float[Tensor, "_ D"]], gallery: Sequence[Float[Tensor, "_ D"]]
) -> Float[Tensor, "q g"]:
    """Mean cosine of a token to its nearest one in the other sequence, averaged over both directions; -2 for an empty query."""
    lengths = torch.tensor([len(x) for x in gallery])
    tokens = normalize(torch.cat(list(gallery)), dim=-1).mT
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)[:-1]]).numpy()
    scores = torch.full((len(queries), len(gallery)), -2.0)
    for row, query in enumerate(queries):
        if not len(query):
            continue
        cosines = (normalize(query, dim=-1) @ tokens).numpy()
        forward = np.maximum.reduceat(cosines, starts, axis=1).mean(0)
        reverse = np.add.reduceat(cosines.max(0), starts) / lengths.numpy()
        scores[row] = torch.from_numpy((forward + reverse) / 2)
    return scores


def ranks(scores: Float[Tensor, "q q"], *, pool: int | None = None, seed: int = 0) -> Float[Tensor, "q"]:
    """The rank, from 1, of each row's true entry, on the diagonal, among `pool` entries of the row (None: all).

    `scores` must be square. Ties and nan count as worst.
    """
    n = len(scores)
    if pool is None or pool >= n:
        chosen = torch.ones(n, n, dtype=torch.bool)
    else:
        others = torch.stack([torch.randperm(n - 1, generator=seeded(seed, row))[: pool - 1] for row in range(n)])
        others += others >= torch.arange(n)[:, None]  # all but the true entry
        chosen = torch.zeros(n, n, dtype=torch.bool).scatter_(1, others, True)
        chosen.fill_diagonal_(True)
    true = scores.diagonal()[:, None]
    # "not below" counts ties as worst, so an empty prediction, whose scores are all equal, is last
    above = ~(scores < true) & chosen
    return above.sum(1).float()


def retrieval(scores: Float[Tensor, "q q"], *, pool: int | None = None) -> dict[str, Float[Tensor, "q"]]:
    """R@1, R@5, R@8, R@10, reciprocal rank and rank of each query; `scores` and `pool` as in `ranks`."""
    r = ranks(scores, pool=pool)
    return {**{f"R@{k}": (r <= k).float() for k in (1, 5, SAMPLES, 10)}, "MRR": 1 / r, "rank": r}


def matched_cosine(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> float:
    """The total cosine of the best matching, divided by the longer length, so that unmatched vectors count as 0."""
    if not len(x) or not len(y):
        return 0.0
    cost = cosine(x, y)
    match = assignment(cost)
    matched = match >= 0
    return float((1 - cost[matched, match[matched]]).sum()) / max(len(x), len(y))


def squared_w2(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> float:
    """Squared W2 of two sets of any sizes with uniform masses: points are repeated to a common number. nan if one is empty."""
    if not len(x) or not len(y):
        return float("nan")
    count = len(x) * len(y) // np.gcd(len(x), len(y))
    if count > 512:  # approximately: each point is repeated in proportion to its mass, rounded
        count = 512
    rows, columns = (torch.arange(count) * size // count for size in (len(x), len(y)))
    cost = torch.cdist(x, y).square()[rows][:, columns]
    return float(cost[torch.arange(count), assignment(cost)].mean())


def token_distance(
    predicted: Sequence[Float[Tensor, "_ D"]], true: Sequence[Float[Tensor, "_ D"]], *, seed: int = 0
) -> tuple[float, float]:
    """Sliced W2 between the tokens of predictions and true tokens, and its floor, that between true tokens.

    The predictions of one half of the pairs, and the true sequences of this half, are each compared with the true sequences of
    the other half, by equally many tokens drawn at random. So a sampler of the true distribution reaches the floor. (nan, nan)
    without tokens or with values that are not finite.
    """
    generator = seeded(seed, 33)
    order = torch.randperm(len(true), generator=generator).tolist()
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    parts = [[rows[k] for k in half] for rows, half in ((predicted, first), (true, first), (true, second))]
    tokens = [torch.cat(part) if part else torch.zeros(0, 1) for part in parts]
    count = min(map(len, tokens))
    if not count or not all(bool(x.isfinite().all()) for x in tokens):
        return float("nan"), float("nan")
    ours, one, other = (x[torch.randperm(len(x), generator=generator)[:count]] for x in tokens)
    return tuple(sliced_w2(x, other, generator=seeded(seed, 34)) for x in (ours, one))  # pyright: ignore[reportReturnType]


def kendall_tau(x: Float[Tensor, "n D"], y: Float[Tensor, "m D"]) -> float:
    """Rank correlation of the order of matched tokens: concordant minus discordant pairs, over all pairs.

    nan if y has fewer than two tokens; -1, the worst, if y has two or more but x fewer.
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
    exists = predicted > 0.5
    hits = (exists & true).sum(1).float()
    f1 = 2 * hits / (exists.sum(1) + true.sum(1)).clamp_min(1)
    p, truth = predicted.clamp(0, 1).flatten(), true.float().flatten()
    index = (p * bins).long().clamp_max(bins - 1)
    sums = [torch.zeros(bins).index_add_(0, index, value) for value in (torch.ones_like(p), p, truth)]
    return f1, float((sums[1] - sums[2]).abs().sum() / len(p))


def lengths(sequences: Sequence[Tensor]) -> Int[Tensor, "B"]:
    """The number of vectors of each sequence."""
    return torch.tensor([len(x) for x in sequences])
