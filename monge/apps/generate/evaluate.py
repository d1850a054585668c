"""Metrics of samples, each with its floor: the same metric between two halves of the real data."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.apps.generate.data import Dataset, stratified_labels
from monge.apps.generate.sample import Generator, Sampling
from monge.math.metrics import frechet, kernel_distance, manifold, memorisation, sliced_w2
from monge.math.random import forked_rng, seeded
from monge.math.solvers import SOLVERS
from monge.training.batches import shuffled

LOW = ("frechet", "kid x 1000", "sliced w2", "bits per dimension")


@dataclass(frozen=True)
class Row:
    """A metric's value, its floor, and the direction that is better."""

    value: float
    floor: float
    better: str  # "low", "high" or "floor" (as close to it as possible)


MIN_SAMPLES = 6
"""Minimum number of points on each side, since the manifold metrics use the distance to the fifth neighbour."""


class Classifier(nn.Module):
    """A small classifier, trained on the training split only; its last hidden layer is the feature space of the Frechet
    distance, KID and the manifold metrics."""

    def __init__(self, dimension: int, classes: int, *, features: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dimension, 256), nn.GELU(), nn.Linear(256, features), nn.GELU())
        self.head = nn.Linear(features, classes)

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B classes"]:
        return self.head(self.body(x))

    def accuracy(self, x: Float[Tensor, "B D"], labels: Int[Tensor, "B"]) -> float:
        """The fraction of items classified correctly."""
        return float((self(x).argmax(1) == labels).double().mean())


def train_classifier(
    x: Float[Tensor, "n D"], labels: Int[Tensor, "n"], classes: int, *, steps: int = 3000, seed: int = 0
) -> Classifier:
    """A Classifier trained on normalised, flattened data, with noise of width 0.1 for robustness to imperfect samples."""
    with forked_rng():
        torch.manual_seed(seed)
        classifier = Classifier(x.shape[1], classes)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
        for step in range(steps):
            rows = shuffled(step, 128, len(x), seed)
            noisy = x[rows] + 0.1 * torch.randn(len(rows), x.shape[1])
            loss = nn.functional.cross_entropy(classifier(noisy), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return classifier.eval().requires_grad_(False)


@dataclass(frozen=True)
class Evaluator:
    """The real data, normalised and flattened, and the classifier that maps them to features; None if the data have no labels.

    `held_out_accuracy` is the fraction of held-out items classified correctly; nan without a classifier.
    """

    training: Float[Tensor, "n D"]
    held_out: Float[Tensor, "m D"]
    classifier: Classifier | None
    held_out_accuracy: float

    @staticmethod
    def of(data: Dataset) -> "Evaluator":
        """The evaluator for a data set, the same at every call."""
        training, held_out = data.split()
        units = data.units()
        x, y = (part.normalised(units).flatten(1) for part in (training, held_out))
        if training.labels is None or held_out.labels is None:
            return Evaluator(x, y, None, float("nan"))
        classifier = train_classifier(x, training.labels, data.classes)
        return Evaluator(x, y, classifier, classifier.accuracy(y, held_out.labels))

    def features(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B features"]:
        """The features for the Frechet distance, KID and the manifold metrics: the classifier's hidden layer or, without one,
        the data."""
        return x if self.classifier is None else self.classifier.body(x)

    def rows(self, fake: Float[Tensor, "B D"], labels: Int[Tensor, "B"] | None, *, splits: int = 4) -> dict[str, Row]:
        """All metrics of normalised, flattened samples, each with its floor. Class accuracy needs labels.

        Values and floors are means over `splits` random splits of the real data into halves. The value compares samples with
        one half, the floor compares the other half with it. All sets have the same size, at most 5,000, since most of these
        metrics depend on it. Memorisation has floor 1, class accuracy that of held-out items.
        """
        real = torch.cat([self.training, self.held_out])
        pairs: dict[str, list[tuple[float, float]]] = {}
        for split in range(splits):
            n = min(len(real) // 2, len(fake), 5000)
            order = torch.randperm(len(real), generator=seeded(1783, split))
            chosen = fake[torch.randperm(len(fake), generator=seeded(1784, split))[:n]]
            half, other = real[order[:n]], real[order[n : 2 * n]]
            for name, value in self._compare(chosen, half).items():
                pairs.setdefault(name, []).append((value, 0.0))
            for name, value in self._compare(other, half).items():
                pairs[name][-1] = (pairs[name][-1][0], value)
        rows = {}
        for name, each in pairs.items():
            value, floor = (sum(side) / splits for side in zip(*each, strict=True))
            rows[name] = Row(value, floor, "low" if name in LOW else "high")
        rows["memorisation"] = Row(memorisation(fake, self.training, self.held_out), 1.0, "floor")
        if self.classifier is not None and labels is not None:
            rows["class accuracy"] = Row(self.classifier.accuracy(fake, labels), self.held_out_accuracy, "high")
        return rows

    def _compare(self, x: Tensor, real: Tensor) -> dict[str, float]:
        """The metrics of x against real items, without floors."""
        agreement = manifold(self.features(real), self.features(x))
        return {
            "frechet": frechet(self.features(x), self.features(real)),
            "kid x 1000": 1000 * kernel_distance(self.features(x), self.features(real)),
            "sliced w2": sliced_w2(x, real, generator=seeded(1785)),
            "precision": agreement.precision,
            "recall": agreement.recall,
            "density": agreement.density,
            "coverage": agreement.coverage,
        }


def evaluate(
    generator: Generator,
    data: Dataset,
    sampling: Sampling,
    *,
    samples: int | None = None,
    seed: int = 0,
    likelihood: int = 256,
) -> dict[str, Row]:
    """Metrics of a trained run. `samples` defaults to the number of real items, at most 10,000.

    Images with integer values also get bits per dimension, of the first `likelihood` held-out items (0 disables it); its floor
    is the value for the first `likelihood` training items. ValueError for fewer than 6 samples or 12 items.
    """
    n = samples or min(10_000, len(data.x))
    if min(n, len(data.x) // 2) < MIN_SAMPLES:
        raise ValueError(
            f"{n} samples against {len(data.x)} items are too few; give at least {MIN_SAMPLES} samples"
            f" and {2 * MIN_SAMPLES} items"
        )
    evaluator = Evaluator.of(data)
    labels = stratified_labels(data, n, seed) if generator.classes else None
    fake, labels = generator.sample(n, sampling, labels=labels, generator=seeded(seed, 3))
    rows = evaluator.rows(generator.normalise(fake).flatten(1), labels)
    if likelihood and generator.levels:
        training, held_out = data.split()
        bits = [_bits(generator, part, likelihood) for part in (held_out, training)]
        rows["bits per dimension"] = Row(bits[0], bits[1], "low")
    return rows


def _bits(generator: Generator, data: Dataset, n: int) -> float:
    """Mean bits per dimension of the first n items."""
    labels = data.labels[:n] if data.labels is not None and generator.classes else None
    _, bits = generator.log_likelihood(data.x[:n], labels, probes=4, generator=seeded(1787))
    return float(bits.mean())


def curve(
    generator: Generator,
    data: Dataset,
    budgets: list[int],
    samplings: list[Sampling],
    *,
    samples: int | None = None,
    seed: int = 0,
) -> dict[str, list[tuple[int, float]]]:
    """solver -> [(network evaluations, metric)] from the same noise; the metric is that of `curve_metric`.

    With guidance in an interval, fewer evaluations are made, since those outside it are not guided. Skips a budget of
    evaluations that is not a whole number of the solver's steps.
    """
    evaluator = Evaluator.of(data)
    n = samples or min(5_000, len(data.x))
    labels = stratified_labels(data, n, seed) if generator.classes else None
    lines: dict[str, list[tuple[int, float]]] = {}
    for sampling in samplings:
        guided = sampling.guidance is not None and sampling.guidance.weight != 1
        per_step = SOLVERS[sampling.solver][1] * (1 + guided)  # guidance also evaluates the weak velocity
        for budget in budgets:
            if budget % per_step:
                continue
            steps = replace(sampling, steps=budget // per_step)
            fake, _ = generator.sample(n, steps, labels=labels, generator=seeded(seed, 3))
            value = evaluator.rows(generator.normalise(fake).flatten(1), labels)[curve_metric(data)].value
            lines.setdefault(sampling.solver, []).append((budget, value))
    return lines


def curve_metric(data: Dataset) -> str:
    """The metric of `curve`: the Frechet distance if the data have labels to train a classifier on, else sliced W2."""
    return "sliced w2" if data.labels is None else "frechet"
