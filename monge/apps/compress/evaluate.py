"""Quality of a student next to its teacher, on held-out text: divergence of the logits, perplexity, agreement, state error."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

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
    sums, ratios = _Sums(), []
    device = next(teacher.model.parameters()).device
    for part in ids.split(size):
        part = part.to(device)
        pair = teacher.pair(part)
        end = pair.x_1 if student is None else student(pair.x_0)
        sums.add(part, teacher.logits(pair.x_1), teacher.logits(end))
        squared, displacement = ((a - pair.x_1)[pair.mask].float().square().sum(-1) for a in (end, pair.x_0))
        ratios.append(torch.stack([squared, displacement]).double().cpu())
    squared, displacement = torch.cat(ratios, 1)
    median = float((squared / displacement.clamp_min(1e-20)).median())
    return sums.quality(float(squared.sum() / displacement.sum()), median)


@torch.no_grad()
def quality_of_model(teacher: nn.Module, ids: Int[Tensor, "n length"], student: nn.Module, *, size: int = 4) -> Quality:
    """The quality of a causal model that has no state to compare: both state errors are nan."""
    sums, device = _Sums(), next(teacher.parameters()).device
    for part in ids.split(size):
        part = part.to(device)
        target, logits = (model(input_ids=part, use_cache=False).logits for model in (teacher, student))
        sums.add(part, target, logits)
    return sums.quality(math.nan, math.nan)


@torch.no_grad()
def perplexity(model: nn.Module, ids: Int[Tensor, "n length"], *, size: int = 4) -> float:
    """exp of the mean negative log-likelihood of the next token."""
    device, total = next(model.parameters()).device, 0.0
    for part in ids.split(size):
        part = part.to(device)
        logits = model(input_ids=part, use_cache=False).logits[:, :-1].flatten(0, 1).float()
        total += float(F.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum"))
    return math.exp(total / (len(ids) * (ids.shape[1] - 1)))


class _Sums:
    """Sums over tokens from which the measures of the logits follow."""

    def __init__(self) -> None:
        self.tokens, self.predicted, self.values = 0, 0, torch.zeros(3, dtype=torch.float64)

    def add(self, ids: Int[Tensor, "B N"], target: Float[Tensor, "B N V"], logits: Float[Tensor, "B N V"]) -> None:
        nll = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum")
        agree = (target.argmax(-1) == logits.argmax(-1)).sum()
        values = divergence(target, logits).sum(), nll, agree
        self.values += torch.stack([value.double().cpu() for value in values])
        self.tokens += ids.numel()
        self.predicted += len(ids) * (ids.shape[1] - 1)

    def quality(self, error: float, median_error: float) -> Quality:
        kl, nll, agree = self.values.tolist()
        return Quality(kl / self.tokens, math.exp(nll / self.predicted), agree / self.tokens, error, median_error)
