"""Quality of a student next to its teacher, on held-out text: divergence of the logits, perplexity, agreement, state error."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.apps.compress.objectives import divergence
from monge.apps.compress.teacher import Teacher
from monge.math.types import Pair

Student = Callable[[Tensor], Tensor]
"""The state after the replaced layers from that before them."""


class Quality(NamedTuple):
    """Measures over the tokens of the held-out sequences."""

    kl: float
    """KL(teacher || student) of the next token, in nats."""
    perplexity: float
    """exp of the negative log-likelihood of the next token, averaged over the tokens of all sequences together."""
    agreement: float
    """Fraction of tokens at which both predict the same next token."""
    error: float
    """Squared error of the state over the squared displacement by the replaced layers; 1 for skipping them. The first token of
    each sequence is left out, here and in the median: see `pair_of`."""
    median_error: float
    """Median of the same ratio per token."""


@torch.no_grad()
def qualities(
    teacher: Teacher, ids: Int[Tensor, "n length"], students: Mapping[str, Student | None], *, size: int = 4
) -> dict[str, Quality]:
    """The quality of each student on sequences, `size` at a time. None stands for the teacher itself."""
    measures, device = {name: Measures() for name in students}, next(teacher.model.parameters()).device
    for part in ids.to(device).split(size):
        pair = teacher.pair(part)
        target = teacher.logits(pair.x_1)
        for name, student in students.items():
            end = pair.x_1 if student is None else student(pair.x_0)
            measures[name].add(part, target, target if student is None else teacher.logits(end))
            measures[name].add_states(pair, end)
    return {name: measure.quality() for name, measure in measures.items()}


def quality(teacher: Teacher, ids: Int[Tensor, "n length"], student: Student | None, *, size: int = 4) -> Quality:
    """The quality of one student; see `qualities`."""
    return qualities(teacher, ids, {"": student}, size=size)[""]


@torch.no_grad()
def quality_of_model(teacher: nn.Module, ids: Int[Tensor, "n length"], student: nn.Module, *, size: int = 4) -> Quality:
    """The quality of a causal model that has no state to compare: both state errors are nan."""
    measures, device = Measures(), next(teacher.parameters()).device
    for part in ids.split(size):
        part = part.to(device)
        measures.add(part, *(model(input_ids=part, use_cache=False).logits for model in (teacher, student)))
    return measures.quality()


@torch.no_grad()
def perplexity(model: nn.Module, ids: Int[Tensor, "n length"], *, size: int = 4) -> float:
    """exp of the mean negative log-likelihood of the next token."""
    device, total = next(model.parameters()).device, 0.0
    for part in ids.split(size):
        part = part.to(device)
        logits = model(input_ids=part, use_cache=False).logits[:, :-1].flatten(0, 1).float()
        total += float(F.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum"))
    return math.exp(total / (len(ids) * (ids.shape[1] - 1)))


class Measures:
    """Sums over batches from which the quality of a student follows."""

    def __init__(self) -> None:
        self.tokens, self.predicted, self.sums = 0, 0, torch.zeros(3, dtype=torch.float64)
        self.errors: list[Float[Tensor, "2 n"]] = []

    def add(self, ids: Int[Tensor, "B N"], target: Float[Tensor, "B N V"], logits: Float[Tensor, "B N V"]) -> None:
        """Add the logits of teacher and student on a batch of token ids."""
        nll = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="sum")
        agree = (target.argmax(-1) == logits.argmax(-1)).sum()
        values = divergence(target, logits).sum(), nll, agree
        self.sums += torch.stack([value.double().cpu() for value in values])
        self.tokens += ids.numel()
        self.predicted += len(ids) * (ids.shape[1] - 1)

    def add_states(self, pair: Pair, end: Float[Tensor, "B N D"]) -> None:
        """Add the student's states after the replaced layers, where the pair's mask is True."""
        errors = [(a - pair.x_1)[pair.mask].float().square().sum(-1) for a in (end, pair.x_0)]
        self.errors.append(torch.stack(errors).double().cpu())

    def quality(self) -> Quality:
        """The measures of everything added; state errors are nan without states."""
        kl, nll, agree = self.sums.tolist()
        squared, displacement = torch.cat(self.errors, 1) if self.errors else torch.full((2, 1), math.nan)
        return Quality(
            kl / self.tokens,
            math.exp(nll / self.predicted),
            agree / self.tokens,
            float(squared.sum() / displacement.sum()),
            float((squared / displacement.clamp_min(1e-20)).median()),
        )
