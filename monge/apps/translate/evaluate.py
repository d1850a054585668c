"""The table of a translation: retrieval, lengths, existence, likeness, order and cycle, next to its baselines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from monge.apps.translate import baselines
from monge.apps.translate.baselines import Prediction
from monge.apps.translate.calibrate import means
from monge.apps.translate.data import Split
from monge.apps.translate.metrics import (
    Interval,
    chamfer_scores,
    existence_scores,
    kendall_tau,
    lengths,
    matched_cosine,
    pooled,
    pooled_scores,
    retrieval,
    squared_w2,
)
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translator
from monge.math.coupling import TokenOT
from monge.math.random import seeded
from monge.math.types import Pair

Row = dict[str, Interval]


@dataclass(frozen=True)
class Judge:
    """Test pairs of one direction in calibrated units, and training pairs for the baselines."""

    sources: list[Float[Tensor, "_ D"]]
    targets: list[Float[Tensor, "_ D"]]
    rotation: Float[Tensor, "D D"]
    """The rotation that the calibration applied to the sources, relative to the targets."""
    training: tuple[Float[Tensor, "n D"], Float[Tensor, "n D"]]
    """The means of training pairs' sequences."""
    counts: tuple[Int[Tensor, "n"], Int[Tensor, "n"]]
    """And their lengths."""
    centre: Float[Tensor, "D"]
    """The mean pooled training target: scores are cosines about it."""

    @staticmethod
    def of(pairs: Pairs, translator: Translator, *, reverse: bool, limit: int, training: int = 20_000) -> "Judge":
        """Up to `most` test pairs, and the means of up to `training` others."""
        ends = ("target", "source") if reverse else ("source", "target")

        def drawn(split: Split, limit: int) -> list[int]:
            numbers = torch.from_numpy(pairs.split(split))
            return numbers[torch.randperm(len(numbers), generator=seeded(1781))[:limit]].tolist()

        test, others = drawn("test", limit), drawn("train", training)
        if len(test) < 2:
            raise ValueError(f"{pairs.directory}: {len(test)} test pairs; retrieval takes at least 2")
        sides = [translator.space.calibration.side(end) for end in ends]
        asked, true = (
            [side.apply(pairs.sequence(end, n)) for n in test] for side, end in zip(sides, ends, strict=True)
        )
        x, y = (
            side.apply(means(pairs, end, others, entries=training * pairs.width))
            for side, end in zip(sides, ends, strict=True)
        )
        n, m = (torch.from_numpy(pairs.lengths(end)[others]).long() for end in ends)
        rotation = translator.space.calibration.rotation
        return Judge(asked, true, rotation.mT if reverse else rotation, (x, y), (n, m), y.mean(0))

    def baselines(self) -> dict[str, Prediction]:
        """Predictions that take no flow."""
        (x, y), asked = self.training, pooled(self.sources, len(self.centre))
        return {
            "mean vector": baselines.mean_vector(y, len(asked)),
            "identity": Prediction(sequences=[x @ self.rotation.mT for x in self.sources]),
            "rotation of tokens": Prediction(sequences=self.sources),
            "length only": baselines.length_only(*self.counts, lengths(self.sources)),
            "ridge, pooled": baselines.ridge(x, y, asked),
            "Procrustes, pooled": baselines.procrustes(x, y, asked),
            "canonical correlations, pooled": baselines.canonical(x, y, asked),
        }

    def row(self, found: Prediction, *, pool: int = 1000) -> Row:
        """All metrics of a prediction that it allows."""
        values: dict[str, Tensor] = {}
        width = len(self.centre)
        vectors = found.pooled if found.sequences is None else pooled(found.sequences, width)
        if vectors is not None:
            empty = (vectors == 0).all(-1, keepdim=True)
            about = torch.where(empty, vectors, vectors - self.centre)
            scores = pooled_scores(about, pooled(self.targets, width) - self.centre)
            for size in sorted({min(pool, len(scores)), len(scores)}):
                values |= {f"{name} of {size}": v for name, v in retrieval(scores, pool=size).items()}
        true = lengths(self.targets)
        counts = found.lengths if found.sequences is None else lengths(found.sequences)
        if counts is not None:
            values |= {"length error": (counts - true).abs().float(), "length exact": (counts == true).float()}
        if found.sequences is not None:
            values |= self._token_metrics(found.sequences, pool)
        row = {name: Interval.of(v) for name, v in values.items() if not name.startswith("rank")}
        for name in (name for name in values if name.startswith("rank")):
            row[f"median {name}"] = _median(values[name])
        return row

    def _token_metrics(self, sequences: Sequence[Tensor], pool: int) -> dict[str, Tensor]:
        scores = chamfer_scores(sequences, self.targets)
        pool = min(pool, len(scores))
        values = {f"Chamfer {name} of {pool}": v for name, v in retrieval(scores, pool=pool).items()}
        del values[f"Chamfer rank of {pool}"]
        shuffled = [self.targets[k - 1] for k in range(len(self.targets))]
        both = list(zip(sequences, self.targets, strict=True))
        own = torch.tensor([squared_w2(x, y) for x, y in both])
        other = torch.tensor([squared_w2(x, y) for x, y in zip(sequences, shuffled, strict=True)])
        own = own.nan_to_num(
            float(own[~own.isnan()].max()) if (~own.isnan()).any() else torch.nan
        )  # nothing is as far as any
        return values | {
            "matched cosine": torch.tensor([matched_cosine(x, y) for x, y in both]),
            "W2^2 / shuffled": own / other.nanmean(),
            "Kendall tau": torch.tensor([kendall_tau(x, y) for x, y in both]),
        }


def _median(values: Tensor, *, draws: int = 1000) -> Interval:
    rows = torch.randint(len(values), (draws, len(values)), generator=seeded(0, 18))
    medians = values[rows].median(1).values
    return Interval(float(values.median()), float(medians.quantile(0.025)), float(medians.quantile(0.975)))


@dataclass(frozen=True)
class Found:
    """Translations of the test pairs, in calibrated units."""

    sequences: list[Float[Tensor, "_ D"]]
    existence: Float[Tensor, "B N"]
    coupled: Bool[Tensor, "B N"] | None
    """Slots that exist when the pairs are coupled as in training; None where tokens keep no slots (events)."""
    home: list[Float[Tensor, "_ D"]]
    """The sequences, translated back."""


def translate_all(translator: Translator, judge: Judge, *, reverse: bool, steps: int) -> Found:
    """All test sources, translated to the other side and back again."""
    container = translator.space.container
    states = translator.carry(judge.sources, reverse=reverse, steps=steps)
    sequences = container.unpack(states)
    home = container.unpack(translator.carry(sequences, reverse=not reverse, steps=steps))
    existence = container.split(states).existence
    if not translator.recipe.trainer.keeps_slots:
        return Found(sequences, existence, None, home)
    pair = Pair(container.pack(judge.sources), container.pack(judge.targets))
    couple = TokenOT(partial(translator.space.cost, reverse=reverse))
    parts = [couple(pair.rows(slice(k, k + 64))).x_1 for k in range(0, len(pair), 64)]
    return Found(sequences, existence, container.active(torch.cat(parts)), home)


def flow_row(judge: Judge, found: Found, *, pool: int = 1000) -> Row:
    """All metrics of a flow: those of a prediction, of its slots' existence if it keeps them, and of the way home."""
    row = judge.row(Prediction(sequences=found.sequences), pool=pool)
    if found.coupled is not None:
        f1, error = existence_scores(found.existence, found.coupled)
        row |= {"existence F1": Interval.of(f1), "existence calibration error": Interval(error, error, error)}
    width = len(judge.centre)
    home, start = pooled(found.home, width), pooled(judge.sources, width)
    distance = (home - start).norm(dim=-1) / start.norm(dim=-1)
    pool = min(pool, len(start))
    itself = retrieval(pooled_scores(home, start), pool=pool)["R@1"]
    return row | {
        "cycle error": Interval.of(distance),
        f"cycle R@1 of {pool}": Interval.of(itself),
    }


class Evaluation(NamedTuple):
    """The table of one direction, and the lengths that the flow should have found and those that it did."""

    rows: dict[str, Row]
    true: Int[Tensor, "B"]
    found: Int[Tensor, "B"]


def evaluate(
    pairs: Pairs,
    translator: Translator,
    *,
    reverse: bool,
    limit: int,
    steps: int,
    sweep_steps: Sequence[int] = (),
    compare_with: Mapping[str, Translator] | None = None,
    baselines: bool = True,
    pool: int = 1000,
) -> Evaluation:
    """A row for the flow, for each of `budgets` in steps, for other runs and for baselines, all on the same test pairs."""
    judge = Judge.of(pairs, translator, reverse=reverse, limit=limit)
    own = translate_all(translator, judge, reverse=reverse, steps=steps)
    table = {_called(steps): flow_row(judge, own, pool=pool)}
    for budget in sweep_steps:
        if budget != steps:
            found = translator.space.container.unpack(translator.carry(judge.sources, reverse=reverse, steps=budget))
            table[_called(budget)] = judge.row(Prediction(sequences=found), pool=pool)
    for name, other in (compare_with or {}).items():
        table[name] = flow_row(judge, translate_all(other, judge, reverse=reverse, steps=other.steps), pool=pool)
    if baselines:
        table |= {name: judge.row(found, pool=pool) for name, found in judge.baselines().items()}
    return Evaluation(table, lengths(judge.targets), lengths(own.sequences))


def _called(steps: int) -> str:
    return f"flow, {steps} step{'s' if steps > 1 else ''}"
