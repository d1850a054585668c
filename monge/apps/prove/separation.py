"""The separation probe: embeddings, by the model in training, of states on and off the paths of proofs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from monge.apps.prove.pairs import attempts_by_theorem
from monge.apps.prove.states import DONE
from monge.math.random import seeded, split_of

BATCH = 8


def probe_states(
    runs: Sequence[Path], count: int, *, validation_share: float, seed: int = 0
) -> tuple[list[str], list[str]]:
    """Up to `count` states each on and off the paths of the proofs of held-out theorems, drawn at random.

    States that occur in training theorems are left out. ValueError if there are fewer than four of either kind, or if
    two runs have the same id.
    """
    shares = {"validation": validation_share, "training": 1 - validation_share}
    on: dict[str, None] = {}
    off: dict[str, None] = {}
    trained: set[str] = set()
    for _, rows in attempts_by_theorem(runs, ("state_before", "state_after", "outcome", "label")):
        for theorem, row in rows:
            if split_of(theorem, shares) != "validation":
                trained.update((row["state_before"], row["state_after"]))
            elif row["label"] == "positive":
                on[row["state_before"]] = None
            elif row["label"] == "negative" and row["outcome"] == "state":
                off[row["state_after"]] = None
    kinds = [
        [state for state in on if state not in trained],
        [state for state in off if state not in on and state not in trained and state != DONE],
    ]
    if min(map(len, kinds)) < 4:
        raise ValueError(
            f"--probe-states: {len(kinds[0])} states on and {len(kinds[1])} off the paths of held-out proofs; "
            "add runs of `monge prove search`, or leave it out"
        )
    drawn: list[list[str]] = []
    for states in kinds:
        order = torch.randperm(len(states), generator=seeded(seed, 4)).tolist()
        drawn.append([states[k] for k in order[:count]])
    return drawn[0], drawn[1]


@torch.no_grad()
def separation(model: Any, tokenizer: Any, on: Sequence[str], off: Sequence[str], *, length: int) -> dict[str, float]:
    """Measures of the distance between the mean-pooled last hidden states of the two kinds.

    The distance of their centroids, their mean norms, and a held-out area under the ROC curve: the states with odd numbers are
    projected onto the difference of the centroids of those with even numbers. 0.5 is chance.
    """
    x, y = (torch.cat(list(_pooled(model, tokenizer, states, length))) for states in (on, off))
    direction = x[::2].mean(0) - y[::2].mean(0)
    values = torch.cat([x[1::2] @ direction, y[1::2] @ direction])
    labels = [1] * len(x[1::2]) + [0] * len(y[1::2])
    return {
        "centroid distance": float((x.mean(0) - y.mean(0)).norm()),
        "positive norm": float(x.norm(dim=1).mean()),
        "negative norm": float(y.norm(dim=1).mean()),
        "separation": float(roc_auc_score(labels, values.tolist())),
    }


def _pooled(model: Any, tokenizer: Any, texts: Sequence[str], length: int) -> Iterator[Float[Tensor, "B D"]]:
    device = next(model.parameters()).device
    for first in range(0, len(texts), BATCH):
        rows = [tokenizer(text, verbose=False)["input_ids"][-length:] for text in texts[first : first + BATCH]]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows], device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(longest, device=device) < lengths[:, None]
        states = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states[-1].float()
        yield ((states * mask[:, :, None]).sum(1) / lengths[:, None]).cpu()
