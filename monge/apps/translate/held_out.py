"""Metrics of the translations of held-out pairs, measured at each checkpoint."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from monge.apps.translate.metrics import pooled, pooled_scores, ranks
from monge.apps.translate.pair import ENDS, Pairs

RANK, LENGTH = "held-out MRR", "held-out length error"
METRICS = (RANK, LENGTH)


def translation_metrics(translator: Any, pairs: Pairs, numbers: np.ndarray, *, size: int = 32) -> dict[str, float]:
    """Metrics of a Translator on these pairs, averaged over both directions: the mean reciprocal rank of retrieval among them
    by the cosine of centred means, and the mean absolute difference of the lengths, in tokens."""
    means: dict[bool, list[Tensor]] = {False: [], True: []}
    true: dict[bool, list[Tensor]] = {False: [], True: []}
    space, errors = translator.space, list[int]()
    for start in range(0, len(numbers), size):
        sequences = [
            [space.calibration.side(end).apply(pairs.sequence(end, n)) for n in numbers[start : start + size]]
            for end in ENDS
        ]
        for reverse in (False, True):
            ends, targets = translator.carry(sequences[reverse], reverse=reverse), sequences[not reverse]
            means[reverse].append(pooled(ends, space.width))
            true[reverse].append(pooled(targets, space.width))
            errors += [abs(len(end) - len(target)) for end, target in zip(ends, targets, strict=True)]
    total = 0.0
    for reverse in (False, True):
        queries, gallery = torch.cat(means[reverse]), torch.cat(true[reverse])
        empty, centre = (queries == 0).all(-1, keepdim=True), gallery.mean(0)
        scores = pooled_scores(torch.where(empty, queries, queries - centre), gallery - centre)
        total += float((1 / ranks(scores)).mean())
    return {RANK: total / 2, LENGTH: sum(errors) / len(errors)}
