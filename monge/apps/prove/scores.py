"""Loss weights of training pairs by their log-probability under an earlier policy."""

import json
from collections.abc import Sequence

import numpy as np
import torch

from monge.apps.prove.lm.prompt import Style
from monge.apps.prove.packing import batch_of, example
from monge.apps.prove.pairs import TacticPair, digest
from monge.files import cache_directory, locked, read_json, write_json
from monge.lm.load import LanguageModel
from monge.objective.preference import log_probabilities

BATCH = 16


def scores_of(pairs: Sequence[TacticPair], policy: LanguageModel, length: int) -> list[float]:
    """The mean log-probability per token of each tactic; -inf if it is longer than `length`.

    They are cached by a hash of the policy and the pairs.
    """
    identity = json.dumps([policy.fingerprint(), length, [pair[:2] for pair in pairs]])
    cached = cache_directory() / "scores" / f"{digest(identity)}.json"
    if not cached.exists():
        with locked(cached.with_suffix(".lock"), wait=True):  # a second rank uses the first one's scores
            if not cached.exists():
                write_json(cached, {"scores": _scored(pairs, policy, length)})
    return read_json(cached, "scores")["scores"]


def _scored(pairs: Sequence[TacticPair], policy: LanguageModel, length: int) -> list[float]:
    style = Style.of(policy.model)
    if style.retrieved:
        raise ValueError(f"--scored-by {policy.name}: prompts with tactics of similar states are not supported")
    if policy.positions is not None and policy.positions < length:
        raise ValueError(
            f"--scored-by {policy.name}: it has {policy.positions} positions; give --length {policy.positions}"
        )
    found = [example(policy.tokenizer, pair.state, pair.tactic, length, style) for pair in pairs]
    known = [(k, one) for k, one in enumerate(found) if one is not None]
    known.sort(key=lambda item: len(item[1].ids))  # so that a batch has little padding
    scores = [-np.inf] * len(pairs)
    for first in range(0, len(known), BATCH):
        numbers, part = zip(*known[first : first + BATCH], strict=True)
        batch = batch_of([[one] for one in part], len(part[-1].ids), policy.tokenizer.pad_token_id)
        with torch.no_grad():
            total = log_probabilities(policy.model, batch)
        for number, one, value in zip(numbers, part, total.tolist(), strict=True):
            scores[number] = value / (len(one.ids) - one.prompt)
    return scores


def weights_of(scores: Sequence[float], tails: tuple[float, float], weight: float) -> list[float]:
    """`weight` for the shares of the lowest and the highest scores, 1 for the others.

    >>> weights_of([-9.0, -1.0, -2.0, -0.1], (0.25, 0.25), 0.5)
    [0.5, 1.0, 1.0, 0.5]
    """
    order = np.argsort(scores, kind="stable")
    low, high = (round(share * len(order)) for share in tails)
    weights = np.ones(len(order))
    weights[order[:low]] = weights[order[len(order) - high :]] = weight
    return weights.tolist()
