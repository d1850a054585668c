"""Evaluation of a translator against baselines: retrieval, lengths, existence, similarity, order and cycle error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from monge.apps.translate import baselines
from monge.apps.translate.baselines import Prediction
from monge.apps.translate.calibrate import means
from monge.apps.translate.conditional import ConditionalMethod
from monge.apps.translate.data import Split
from monge.apps.translate.lengths import LengthRidge
from monge.apps.translate.metrics import (
    SAMPLES,
    chamfer_scores,
    existence_scores,
    kendall_tau,
    lengths,
    matched_cosine,
    pooled,
    pooled_scores,
    ranks,
    retrieval,
    squared_w2,
    token_distance,
)
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translator
from monge.math.coupling import TokenOT
from monge.math.interval import Interval
from monge.math.random import seeded
from monge.math.types import Pair

Row = dict[str, Interval]


@dataclass(frozen=True)
class Evaluator:
    """Test pairs of one direction in calibrated units, and training pairs for the baselines."""

    sources: list[Float[Tensor, "_ D"]]
    targets: list[Float[Tensor, "_ D"]]
    rotation: Float[Tensor, "D D"]
    """Rotation of the sources relative to the targets, as applied by the calibration."""
    training: tuple[Float[Tensor, "n D"], Float[Tensor, "n D"]]
    """Means of the sequences of training pairs: (source, target)."""
    counts: tuple[Int[Tensor, "n"], Int[Tensor, "n"]]
    """Lengths of the sequences of training pairs: (source, target)."""
    centre: Float[Tensor, "D"]
    """The mean of the pooled training targets; it is subtracted before cosines are taken."""

    @staticmethod
    def of(pairs: Pairs, translator: Translator, *, reverse: bool, limit: int, training: int = 20_000) -> "Evaluator":
        """An evaluator with up to `limit` test pairs and the means and lengths of up to `training` training pairs.

        ValueError if there are fewer than two test pairs.
        """
        ends = ("target", "source") if reverse else ("source", "target")

        def drawn(split: Split, limit: int) -> list[int]:
            numbers = torch.from_numpy(pairs.split(split))
            return numbers[torch.randperm(len(numbers), generator=seeded(1781))[:limit]].tolist()

        test, train = drawn("test", limit), drawn("train", training)
        if len(test) < 2:
            raise ValueError(
                f"{pairs.directory}: retrieval needs at least 2 test pairs, got {len(test)}; raise --limit or add more pairs"
            )
        sides = [translator.space.calibration.side(end) for end in ends]
        sources, targets = (
            [side.apply(pairs.sequence(end, n)) for n in test] for side, end in zip(sides, ends, strict=True)
        )
        x, y = (
            side.apply(means(pairs, end, train, entries=training * pairs.width))
            for side, end in zip(sides, ends, strict=True)
        )
        n, m = (torch.from_numpy(pairs.lengths(end)[train]).long() for end in ends)
        rotation = translator.space.calibration.rotation
        return Evaluator(sources, targets, rotation.mT if reverse else rotation, (x, y), (n, m), y.mean(0))

    def baselines(self) -> dict[str, Prediction]:
        """Predictions without a flow, by name."""
        (x, y), queries = self.training, pooled(self.sources, len(self.centre))
        return {
            "mean vector": baselines.mean_vector(y, len(queries)),
            "identity": Prediction(sequences=[x @ self.rotation.mT for x in self.sources]),
            "rotation of tokens": Prediction(sequences=self.sources),
            "length only": baselines.length_only(*self.counts, lengths(self.sources)),
            "ridge, lengths": Prediction(lengths=LengthRidge.fit(x, *self.counts).of_sequences(self.sources)),
            "ridge, pooled": baselines.ridge(x, y, queries),
            "Procrustes, pooled": baselines.procrustes(x, y, queries),
            "canonical correlations, pooled": baselines.canonical(x, y, queries),
        }

    def row(self, prediction: Prediction, *, pool: int = 1000) -> Row:
        """All metrics that can be computed from the prediction, by name; retrieval is from `pool` candidates and from all."""
        values: dict[str, Tensor] = {}
        width = len(self.centre)
        vectors = prediction.pooled if prediction.sequences is None else pooled(prediction.sequences, width)
        if vectors is not None:
            scores = self.scores(vectors)
            for size in sorted({min(pool, len(scores)), len(scores)}):
                values |= {f"{name} of {size}": v for name, v in retrieval(scores, pool=size).items()}
        true = lengths(self.targets)
        counts = prediction.lengths if prediction.sequences is None else lengths(prediction.sequences)
        if counts is not None:
            values |= {"length error": (counts - true).abs().float(), "length exact": (counts == true).float()}
        if prediction.sequences is not None:
            values |= self._token_metrics(prediction.sequences, pool)
        row = {name: Interval.of(v) for name, v in values.items() if not name.startswith("rank")}
        if prediction.sequences is not None:
            distance, floor = token_distance(prediction.sequences, self.targets)
            row["token sliced W2 / floor"] = Interval(*[distance / floor if floor else float("nan")] * 3)
        for name in (name for name in values if name.startswith("rank")):
            row[f"median {name}"] = _median(values[name])
        return row

    def scores(self, vectors: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
        """Similarities of predicted means to the targets' means; all are equal for an empty prediction, a zero vector."""
        centred = torch.where((vectors == 0).all(-1, keepdim=True), vectors, vectors - self.centre)
        return pooled_scores(centred, pooled(self.targets, len(self.centre)) - self.centre)

    def _token_metrics(self, sequences: Sequence[Tensor], pool: int) -> dict[str, Tensor]:
        scores = chamfer_scores(sequences, self.targets)
        pool = min(pool, len(scores))
        values = {f"Chamfer {name} of {pool}": v for name, v in retrieval(scores, pool=pool).items()}
        del values[f"Chamfer rank of {pool}"]
        shuffled = [self.targets[k - 1] for k in range(len(self.targets))]
        pairs = list(zip(sequences, self.targets, strict=True))
        true = torch.tensor([squared_w2(x, y) for x, y in pairs])
        other = torch.tensor([squared_w2(x, y) for x, y in zip(sequences, shuffled, strict=True)])
        # an empty prediction gets the largest distance of all
        true = true.nan_to_num(float(true[~true.isnan()].max()) if (~true.isnan()).any() else torch.nan)
        return values | {
            "matched cosine": torch.tensor([matched_cosine(x, y) for x, y in pairs]),
            "W2^2 / shuffled": true / other.nanmean(),
            "Kendall tau": torch.tensor([kendall_tau(x, y) for x, y in pairs]),
        }


def _median(values: Tensor, *, draws: int = 1000) -> Interval:
    rows = torch.randint(len(values), (draws, len(values)), generator=seeded(0, 18))
    medians = values[rows].median(1).values
    return Interval(float(values.median()), float(medians.quantile(0.025)), float(medians.quantile(0.975)))


@dataclass(frozen=True)
class Translations:
    """Translations of the test sources, in calibrated units."""

    sequences: list[Float[Tensor, "_ D"]]
    existence: Float[Tensor, "B N"]
    coupled: Bool[Tensor, "B N"] | None
    """Slots that exist in the exactly coupled targets; None if tokens do not keep their slots (branching flows)."""
    home: list[Float[Tensor, "_ D"]]
    """The translations, translated back to the source side."""


def translate_all(translator: Translator, evaluator: Evaluator, *, reverse: bool, steps: int) -> Translations:
    """Translate all test sources to the other side and back."""
    container = translator.space.container
    states = translator.integrate(evaluator.sources, reverse=reverse, steps=steps)
    sequences = translator.unpack(evaluator.sources, states, reverse=reverse)
    home = translator.carry(sequences, reverse=not reverse, steps=steps)
    existence = container.split(states).existence
    if not translator.recipe.trainer.keeps_slots:
        return Translations(sequences, existence, None, home)
    pair = Pair(container.pack(evaluator.sources), container.pack(evaluator.targets))
    couple = TokenOT(partial(translator.space.cost, reverse=reverse))
    parts = [couple(pair.rows(slice(k, k + 64))).x_1 for k in range(0, len(pair), 64)]
    return Translations(sequences, existence, container.active(torch.cat(parts)), home)


def by_length(evaluator: Evaluator, sequences: Sequence[Tensor], *, pool: int, parts: int = 4) -> dict[str, Row]:
    """R@1 and exact lengths of predictions in up to `parts` parts of the test pairs, by the source's length."""
    counts, pool = lengths(evaluator.sources), min(pool, len(sequences))
    hits = retrieval(evaluator.scores(pooled(sequences, len(evaluator.centre))), pool=pool)["R@1"]
    exact = (lengths(sequences) == lengths(evaluator.targets)).float()
    inner = torch.quantile(counts.float(), torch.linspace(0, 1, parts + 1)[1:-1]).unique()
    part = torch.bucketize(counts.float(), inner)
    rows: dict[str, Row] = {}
    for number in part.unique().tolist():
        own = part == number
        low, high = int(counts[own].min()), int(counts[own].max())
        values = {f"R@1 of {pool}": hits[own], "length exact": exact[own]}
        row = f"{low} tokens" if low == high else f"{low} to {high} tokens"
        rows[row] = {f"{name}, by source length": Interval.of(value) for name, value in values.items()}
    return rows


def best_of(
    evaluator: Evaluator, translator: Translator, *, reverse: bool, steps: int, pool: int, samples: int = SAMPLES
) -> Row:
    """The share of the sources whose target ranks first for one of several translations, from different noise.

    Compare it with R@8 of a method without noise: both have eight guesses.
    """
    pool, found = min(pool, len(evaluator.sources)), torch.zeros(len(evaluator.sources))
    for seed in range(samples):
        drawn = replace(translator, seed=seed).carry(evaluator.sources, reverse=reverse, steps=steps)
        found += ranks(evaluator.scores(pooled(drawn, len(evaluator.centre))), pool=pool) == 1
    return {f"R@1 of {pool}": Interval.of((found > 0).float())}


def flow_row(evaluator: Evaluator, translations: Translations, *, pool: int = 1000) -> Row:
    """All metrics of a flow: those of a prediction, of existence if tokens keep their slots, and of the round trip."""
    row = evaluator.row(Prediction(sequences=translations.sequences), pool=pool)
    if translations.coupled is not None:
        f1, error = existence_scores(translations.existence, translations.coupled)
        row |= {"existence F1": Interval.of(f1), "existence calibration error": Interval(error, error, error)}
    width = len(evaluator.centre)
    home, start = pooled(translations.home, width), pooled(evaluator.sources, width)
    distance = (home - start).norm(dim=-1) / start.norm(dim=-1)
    pool = min(pool, len(start))
    hits = retrieval(pooled_scores(home, start), pool=pool)["R@1"]
    return row | {
        "cycle error": Interval.of(distance),
        f"cycle R@1 of {pool}": Interval.of(hits),
    }


class Evaluation(NamedTuple):
    """The table of one direction, with the true lengths and the lengths that the flow predicts."""

    rows: dict[str, Row]
    true: Int[Tensor, "B"]
    predicted: Int[Tensor, "B"]


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
    """A table with rows for the flow, each number in `sweep_steps`, each run in `compare_with`, and each baseline.

    A flow has a row for all test pairs, a few by the length of the source and, if it starts from noise, one for the best of
    several samples.
    """
    evaluator = Evaluator.of(pairs, translator, reverse=reverse, limit=limit)
    table: dict[str, Row] = {}

    def add(name: str, flow: Translator, steps: int) -> Translations:
        translations = translate_all(flow, evaluator, reverse=reverse, steps=steps)
        table[name] = flow_row(evaluator, translations, pool=pool)
        parts = by_length(evaluator, translations.sequences, pool=pool)
        table.update({f"{name}, {part}": row for part, row in parts.items()})
        if isinstance(flow.method, ConditionalMethod):
            row = best_of(evaluator, flow, reverse=reverse, steps=steps, pool=pool)
            table[f"{name}, best of {SAMPLES} samples"] = row
        return translations

    translations = add(_label(steps), translator, steps)
    for budget in sweep_steps:
        if budget != steps:
            sequences = translator.carry(evaluator.sources, reverse=reverse, steps=budget)
            table[_label(budget)] = evaluator.row(Prediction(sequences=sequences), pool=pool)
    for name, other in (compare_with or {}).items():
        add(name, other, other.steps)
    if baselines:
        table |= {name: evaluator.row(prediction, pool=pool) for name, prediction in evaluator.baselines().items()}
    return Evaluation(table, lengths(evaluator.targets), lengths(translations.sequences))


def _label(steps: int) -> str:
    return f"flow, {steps} step{'s' if steps > 1 else ''}"
