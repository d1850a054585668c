"""Quality of a student next to its teacher, on held-out text: divergence of the logits, perplexity, agreement, state error."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from monge.apps.compress.objectives import divergence
from monge.apps.compress.teacher import Teacher

Student = Callable[[Tensor], Tensor]
"""The state after the replaced layers from that before them."""


class Quality(NamedTuple):
    """Measures over all tokens of the held-out sequences."""

    kl: float
    """KL(teacher || student) of the next token, in nats."""
    perplexity: float
    """exp of the mean negative log-likelihood of the next token, summed over all tokens before the division."""
    agreement: float
    """Fraction of tokens at which both predict the same next token."""
    error: float
    """Squared error of the state over the squared displacement by the replaced layers; 1 for skipping them. The first token of
    each sequence is left out, here and in the median: see `Teacher.pair`."""
    median_error: float
    """Median of the same ratio per token."""


@torch.no_grad()
def quality(teacher: Teacher, ids: Int[Tensor, "n length"], student: Student | None, *, size: int = 4) -> Quality:
    """The quality of a student on sequences, `size` at a time. None stands for the teacher itself."""
    sums, ratios = torch.zeros(5, dtype=torch.float64), []
    device = next(teacher.model.parameters()).device
    for part in ids.split(size):
        part = part.to(device)
        pair = teacher.pair(part)
        end = pair.x_1 if student is None else student(pair.x_0)
        target, logits = teacher.logits(pair.x_1), teacher.logits(end)
        nll = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), part[:, 1:].flatten(), reduction="sum")
        squared, displacement = ((a - pair.x_1)[pair.mask].float().square().sum(-1) for a in (end, pair.x_0))
        agree = (target.argmax(-1) == logits.argmax(-1)).sum()
        values = divergence(target, logits).sum(), nll, agree, squared.sum(), displacement.sum()
        sums += torch.stack([value.double().cpu() for value in values])
        ratios.append((squared / displacement.clamp_min(1e-20)).cpu())
    kl, nll, agree, squared, displacement = sums.tolist()
    tokens, predicted = ids.numel(), len(ids) * (ids.shape[1] - 1)
    return Quality(
        kl / tokens,
        math.exp(nll / predicted),
        agree / tokens,
        squared / displacement,
        float(torch.cat(ratios).median()),
    )
