"""Criteria for the layers to replace: recoupling ratio, block influence, angular distance, removal, least-squares map."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.apps.compress.affine import AffineMap, Moments
from monge.apps.compress.evaluate import Measures, Quality
from monge.apps.compress.teacher import Teacher, pair_of
from monge.lm.blocks import blocks_of
from monge.lm.hidden import hidden_at
from monge.math.interval import Interval
from monge.math.metrics import recoupling_ratio
from monge.math.random import seeded

Range = tuple[int, int]
Work = tuple[int, Range]
"""Number of a batch and a range."""


class Criteria(NamedTuple):
    """Measures of all layer ranges [m, n) on calibration text, without the first token of each sequence."""

    recoupling: Float[Tensor, "batches L L"]
    """Recoupling ratio R between the states before layer m and before layer n, per batch. Wu et al. 2505.14513, eq. 7."""
    angle: Float[Tensor, "L L"]
    """Angle between these states divided by pi, mean over all tokens; UIDL (2403.17887, eq. 5) takes the last of each
    sequence."""
    influence: Float[Tensor, "L-1"]
    """Block influence of each layer: 1 minus the mean cosine of its input and output. ShortGPT 2403.03853, eq. 1."""
    maps: dict[Range, AffineMap]
    """The least-squares map across each of the ranges that were requested."""

    def recoupling_of(self, start: int, end: int) -> Interval:
        """R of a range with its 95 % bootstrap interval over the batches."""
        return Interval.of(self.recoupling[:, start, end])


@torch.no_grad()
def criteria(
    model: nn.Module,
    ids: Int[Tensor, "n length"],
    ranges: Sequence[Range],
    *,
    batch_size: int = 4,
    tokens: int = 256,
    ridge: float = 1e-3,
    seed: int = 0,
) -> Iterator[Criteria | None]:
    """Measures all ranges in one pass over sequences of token ids; yields None after each batch, and the result at the end.

    R is computed between `tokens` random tokens of each batch by exact assignment. ValueError if there are no sequences or
    `tokens` is below 2.
    """
    if not len(ids) or tokens < 2:
        raise ValueError(f"select: {len(ids)} sequences and {tokens} tokens per batch; give at least 1 and 2")
    depth = len(blocks_of(model))
    moments = {(start, end): Moments() for start, end in ranges}
    angle, cosine, count, recoupling = torch.zeros(depth + 1, depth + 1), torch.zeros(depth), 0, []
    for number, part in enumerate(ids.split(batch_size)):
        x = torch.stack(hidden_at(model, part, range(depth + 1)))[:, :, 1:].flatten(1, 2).float()
        units = F.normalize(x, dim=-1).transpose(0, 1)
        cosines = (units @ units.mT).clamp(-1, 1)
        angle += cosines.acos().sum(0).cpu() / math.pi
        cosine += cosines.sum(0).diagonal(1).cpu()
        count += x.shape[1]
        rows = torch.randperm(x.shape[1], generator=seeded(seed, number))[:tokens].to(x.device)
        recoupling.append(_recoupling(x[:, rows]))
        for (start, end), sums in moments.items():
            sums.add(x[start], x[end] - x[start])
        yield None
    maps = {span: sums.solve(ridge=ridge) for span, sums in moments.items()}
    yield Criteria(torch.stack(recoupling), angle / count, 1 - cosine / count, maps)


def _recoupling(x: Float[Tensor, "L n D"]) -> Float[Tensor, "L L"]:
    ratios = torch.full((len(x), len(x)), math.nan)
    for start in range(len(x)):
        for end in range(start, len(x)):
            ratios[start, end] = recoupling_ratio(x[start], x[end])
    return ratios


class Candidate(NamedTuple):
    """A range [start, end), its criteria, and the quality of two students that need no training."""

    start: int
    end: int
    recoupling: Interval
    influence: float
    """Sum of the block influences of its layers."""
    angle: float
    removed: Quality
    """Of the model without these layers; SLEB (2402.09025) selects by its perplexity."""
    mapped: Quality
    """Of the model with the least-squares map in their place."""


@torch.no_grad()
def candidates(
    model: nn.Module,
    ids: Int[Tensor, "m length"],
    measured: Criteria,
    *,
    batch_size: int = 4,
    progress: Callable[[Sequence[Work]], Iterable[Work]] = iter,
) -> list[Candidate]:
    """The ranges of `measured.maps`, with the quality of their students on held-out sequences.

    `progress` wraps the list of pieces of work, for a progress bar.
    """
    teachers = {span: Teacher(model, *span) for span in measured.maps}
    measures = {span: (Measures(), Measures()) for span in measured.maps}
    depth, device = len(blocks_of(model)), next(model.parameters()).device
    batches, cached = ids.split(batch_size), (-1, [], torch.empty(0))
    for number, span in progress([(number, span) for number in range(len(batches)) for span in teachers]):
        part, teacher = batches[number].to(device), teachers[span]
        if cached[0] != number:
            states = hidden_at(model, part, range(depth + 1))
            cached = number, states, teacher.logits(states[span[1]])
        _, states, target = cached
        pair = pair_of(states[span[0]], states[span[1]])
        for student, end in zip(measures[span], (pair.x_0, measured.maps[span].apply(pair.x_0)), strict=True):
            student.add(part, target, teacher.logits(end))
            student.add_states(pair, end)
    return [
        Candidate(
            *(start, end),
            measured.recoupling_of(start, end),
            float(measured.influence[start:end].sum()),
            float(measured.angle[start, end]),
            *(student.quality() for student in measures[start, end]),
        )
        for start, end in teachers
    ]


def ranges_of(depth: int, counts: Sequence[int]) -> list[Range]:
    """All ranges of `counts` layers. ValueError if a count is below 1, or leaves no layer of a model of `depth`."""
    for count in counts:
        if not 1 <= count < depth:
            raise ValueError(f"{count} layers to remove: the model has {depth}; give 1 to {depth - 1}")
    return [(start, start + count) for count in counts for start in range(depth - count + 1)]


def as_json(fingerprint: dict[str, Any], measured: Criteria, rows: Sequence[Candidate]) -> dict[str, Any]:
    """The contents of select.json: matrices over [start][end] with null below the diagonal, and the measured ranges."""
    upper = {"recoupling": measured.recoupling.nanmean(0), "angle": measured.angle}
    matrices = {
        name: [
            [None if end < start else value for end, value in enumerate(row)] for start, row in enumerate(m.tolist())
        ]
        for name, m in upper.items()
    }
    ranges = [
        {
            "start": row.start,
            "end": row.end,
            "recoupling": asdict(row.recoupling),
            "influence": row.influence,
            "angle": row.angle,
            "removed": row.removed._asdict(),
            "mapped": row.mapped._asdict(),
        }
        for row in rows
    ]
    return {"teacher": fingerprint, **matrices, "influence": measured.influence.tolist(), "ranges": ranges}


def removal_curve(ranges: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The smallest divergence by number of removed layers, from the ranges in select.json; 0 layers have divergence 0."""
    curve = {0: 0.0}
    for row in ranges:
        count = row["end"] - row["start"]
        curve[count] = min(curve.get(count, math.inf), row["removed"]["kl"])
    return dict(sorted(curve.items()))


def equivalent_skip(kl: float, curve: Mapping[int, float]) -> float:
    """The number of layers whose removal from the best place costs this divergence, by linear interpolation.

    The largest number in the curve if even its removal costs less. A number of layers is left out of the curve if removing
    more costs less.

    >>> round(equivalent_skip(0.3, {0: 0.0, 1: 0.2, 2: 0.6, 3: 0.5}), 3)
    1.667
    """
    counts = sorted(curve)
    kept = [n for n in counts if all(curve[n] < curve[m] for m in counts if m > n)]
    for low, high in pairwise(kept):
        if kl <= curve[high]:
            return low + (high - low) * max(kl - curve[low], 0.0) / (curve[high] - curve[low])
    return float(kept[-1])
