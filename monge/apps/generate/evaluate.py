"""Metrics of samples, each with its floor: the same metric between two halves of the real data."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.apps.generate.data import Dataset, stratified_labels
from monge.apps.generate.sample import Generator, Sampling
from monge.math.metrics import frechet, kernel_distance, manifold, memorisation, sliced_w2
from monge.math.random import seeded
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
"""Minimum number of points on each side: the balls of the manifold metrics reach to the fifth neighbour."""


class Classifier(nn.Module):
    """A small classifier, trained on the training split alone; its last hidden layer is the feature space of the metrics."""

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
    """A Classifier trained on normalised, flattened data with a little noise, so that it is robust to imperfect samples."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = Classifier(x.shape[1], classes)
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3, weight_decay=0.01)
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
    """The real data that samples are compared with. Without labels the features are the normalised data themselves."""

    training: Float[Tensor, "n D"]
    held_out: Float[Tensor, "m D"]
    classifier: Classifier | None
    held_out_accuracy: float

    @staticmethod
    def of(data: Dataset) -> "Evaluator":
        """The judge for a data set, the same at every call."""
        training, held_out = data.split()
        units = data.units()
        x, y = (part.normalised(units).flatten(1) for part in (training, held_out))
        if training.labels is None or held_out.labels is None:
            return Evaluator(x, y, None, float("nan"))
        classifier = train_classifier(x, training.labels, data.classes)
        return Evaluator(x, y, classifier, classifier.accuracy(y, held_out.labels))

    def features(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B features"]:
        """The features in which distributions are compared."""
        return x if self.classifier is None else self.classifier.body(x)

    def rows(self, fake: Float[Tensor, "B D"], labels: Int[Tensor, "B"] | None, *, splits: int = 4) -> dict[str, Row]:
        """All metrics of normalised, flattened samples, each with the same metric of an equal number of real items.

        Values and floors are means over `splits` random splits of the real data into halves: the samples against one half, and
        the other half against it. Both sides have equal sizes, since most of these metrics depend on them.
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
        near = manifold(self.features(real), self.features(x))
        return {
            "frechet": frechet(self.features(x), self.features(real)),
            "kid x 1000": 1000 * kernel_distance(self.features(x), self.features(real)),
            "sliced w2": sliced_w2(x, real, generator=seeded(1785)),
            "precision": near.precision,
            "recall": near.recall,
            "density": near.density,
            "coverage": near.coverage,
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
    """Metrics of a trained run and bits per dimension; by default with as many samples as real items (at most 10,000).

    Bits per dimension are those of `likelihood` held-out images; their floor is the value of the training split.
    """
    n = samples or min(10_000, len(data.x))
    if min(n, len(data.x) // 2) < MIN_SAMPLES:
        raise ValueError(
            f"{n} samples against {len(data.x)} items are too few; give at least {MIN_SAMPLES} and {2 * MIN_SAMPLES}"
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
    """Frechet distance (sliced W2 without labels) against network evaluations, by solver, all from the same noise."""
    evaluator = Evaluator.of(data)
    n = samples or min(5_000, len(data.x))
    labels = stratified_labels(data, n, seed) if generator.classes else None
    lines: dict[str, list[tuple[int, float]]] = {}
    for sampling in samplings:
        guided = sampling.guidance is not None and sampling.guidance.weight != 1
        per_step = SOLVERS[sampling.solver][1] * (1 + guided)  # the weak velocity also takes an evaluation
        for budget in budgets:
            if budget % per_step:
                continue
            steps = replace(sampling, steps=budget // per_step)
            fake, _ = generator.sample(n, steps, labels=labels, generator=seeded(seed, 3))
            value = evaluator.rows(generator.normalise(fake).flatten(1), labels)[curve_metric(data)].value
            lines.setdefault(sampling.solver, []).append((budget, value))
    return lines


def curve_metric(data: Dataset) -> str:
    """The metric of `curve`: the Frechet distance if labels can train a classifier, else sliced W2."""
    return "sliced w2" if data.labels is None else "frechet"
