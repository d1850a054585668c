"""Calibration of units and transport prices on a sample of pairs; it is stored with the pairs and with every run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.pair import ENDS, Pairs
from monge.apps.translate.prices import Prices
from monge.files import atomic_write, locked, read_tensors, write_tensors
from monge.math.container import Container
from monge.math.cost import FourBlock, Whitening, calibrate, cosine
from monge.math.ot import assignment
from monge.math.random import seeded
from monge.math.types import Pair

SEPARATE = 0.1
"""Separation below which tokens are coupled by position."""
MEASURABLE = 20
"""Minimum number of held-out pairs from which the separation is measured."""


@dataclass(frozen=True)
class Calibration:
    """Maps of both sides into a common space, measured on the data, and the content costs of matches in it.

    Both sides are whitened, because the directions that distinguish sequences have a low variance in the states of language
    models. The source is then rotated onto the target.
    """

    source: Whitening
    target: Whitening
    rotation: Float[Tensor, "D D"]
    """Rotation of the source onto the target, which `source` already includes."""
    unit: float
    """Median content cost, 1 - cos, of a match."""
    price: float
    """Half the 90 % quantile of the costs of matches, in units of `unit`."""
    threshold: float = 0.0
    """Cost, in units of `unit`, that best separates matches in true pairs from those in shuffled pairs; 0 if none does."""
    separation: float = 1.0
    """Largest excess of the distribution function of costs in true pairs over that in shuffled pairs, minus the excess between
    two shuffles, on held-out pairs; 1 if there are fewer than MEASURABLE of them, and in calibrations of earlier versions."""

    def tensors(self) -> dict[str, Tensor]:
        """The calibration as tensors, to be stored as constants of a run."""
        sides = {"source": self.source, "target": self.target}
        maps = {
            f"{end}_{name}": getattr(side, name).clone()  # both sides may share the identity
            for end, side in sides.items()
            for name in ("centre", "matrix")
        }
        scalars = {"unit": self.unit, "price": self.price, "threshold": self.threshold, "separation": self.separation}
        if self.separation == 1.0:  # not measured, as in calibrations of earlier versions
            del scalars["separation"]
        return {**maps, "rotation": self.rotation, **{name: torch.tensor(value) for name, value in scalars.items()}}

    @staticmethod
    def of(tensors: dict[str, Tensor]) -> "Calibration":
        """The inverse of `tensors`."""
        source, target = (Whitening(tensors[f"{end}_centre"], tensors[f"{end}_matrix"]) for end in ENDS)
        required = (float(tensors[name]) for name in ("unit", "price"))
        later = {name: float(tensors[name]) for name in ("threshold", "separation") if name in tensors}
        return Calibration(source, target, tensors["rotation"], *required, **later)

    def side(self, end: str) -> Whitening:
        """The map from vectors of `source` or `target` into the common space."""
        return self.source if end == "source" else self.target

    def positional(self, prices: Prices) -> bool:
        """True if tokens are coupled by position: matches in true pairs are hardly cheaper than in shuffled ones."""
        return prices.rule == "shuffled" and not prices.raw and self.separation < SEPARATE

    def cost(self, prices: Prices, *, reverse: bool = False) -> FourBlock:
        """The four-block cost: 1 - cos in units of a typical match; 0 if tokens are coupled by position; with raw prices, the
        squared distance, uncalibrated.

        With `reverse`, the prices of deletion and creation are swapped: the cost is the transpose of the forward cost.
        """
        if prices.raw:
            cost = FourBlock(1.0, prices.position, prices.delete, prices.create, prices.create_norm)
            return _reversed(cost) if reverse else cost
        price, priority = self._price(prices)
        # positions lie in (0, 1], so a move by half the sequence costs 1/4; deletion plus creation cost as much as a poor match
        cost = FourBlock(
            self.unit,
            (prices.position or 1.0) if self.positional(prices) else prices.position,
            prices.delete * price,
            prices.create * price,
            # per mean square, which is about 1 for whitened vectors; FourBlock divides by the unit
            prices.create_norm * price * self.unit / len(self.rotation),
            priority=priority,
            content=no_cost if self.positional(prices) else cosine,
        )
        return _reversed(cost) if reverse else cost

    def _price(self, prices: Prices) -> tuple[float, float]:
        """(price of a deletion or creation, average surcharge for priority). With rule shuffled and a threshold, they add up to
        half of it."""
        if self.positional(
            prices
        ):  # a displacement costs at most prices.position: nothing is deleted and created again
            return max(1.0, prices.position), prices.priority
        if prices.rule == "quantile" or not self.threshold:
            return self.price, prices.priority
        priority = min(prices.priority, self.threshold / 8)
        return self.threshold / 2 - priority, priority


def _reversed(cost: FourBlock) -> FourBlock:
    return replace(
        cost, delete=cost.create, create=cost.delete, delete_norm=cost.create_norm, create_norm=cost.delete_norm
    )


@dataclass(frozen=True)
class Sample:
    """Paired sequences of both sides, whitened."""

    source: list[Float[Tensor, "_ D"]]
    target: list[Float[Tensor, "_ D"]]

    def rotated(self, rotation: Float[Tensor, "D D"]) -> "Sample":
        """The sample with its source rotated."""
        return Sample([x @ rotation for x in self.source], self.target)

    def parts(self) -> tuple["Sample", "Sample"]:
        """(first four fifths of the pairs, the others); all pairs twice if there are fewer than five."""
        cut = len(self.source) - len(self.source) // 5
        first = Sample(self.source[:cut], self.target[:cut])
        return first, Sample(self.source[cut:], self.target[cut:]) if cut < len(self.source) else first

    @property
    def shuffled(self) -> "Sample":
        """The sample with each source paired with the target of the next pair."""
        return Sample(self.source, self.target[1:] + self.target[:1])

    @property
    def separation(self) -> float:
        """As in Calibration."""
        if len(self.source) < MEASURABLE:
            return 1.0
        once, twice = self.shuffled, self.shuffled.shuffled
        chance = float(_gap(twice.costs, once.costs)[1].max())
        return float(_gap(self.costs, once.costs)[1].max()) - chance

    @property
    def costs(self) -> Float[Tensor, "M"]:
        """The content costs of the matches."""
        return 1 - torch.nn.functional.cosine_similarity(*self.matched)

    @cached_property
    def matched(self) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M D"]]:
        """(source, target) tokens, matched by the cheapest assignment of the shorter sequence into the longer one."""
        matches = [_match(x_0, x_1) for x_0, x_1 in zip(self.source, self.target, strict=True)]
        x_0, x_1 = (torch.cat(rows) for rows in zip(*matches, strict=True))
        return x_0, x_1


def calibration(
    source: list[Float[Tensor, "_ D"]],
    target: list[Float[Tensor, "_ D"]],
    more: tuple[Float[Tensor, "n D"], Float[Tensor, "n D"]] | None = None,
    *,
    white: tuple[Whitening, Whitening] | None = None,
    rounds: int = 3,
) -> Calibration:
    """Whiten both sides, rotate the source onto the target, and then measure the costs of matches.

    Candidate rotations are the identity, Procrustes on the means of sequences, and its refinements by up to `rounds` rounds of
    matching and rotating. They are fitted on four fifths of the pairs; Procrustes also uses `more`, the (source, target) means
    of further sequences. The candidate with the cheapest matches in the last fifth is chosen. `white` are the whitening maps of
    (source, target), measured on the sequences by default.
    """
    white = white or (Whitening.measure(source), Whitening.measure(target))
    whitened = Sample(*([side.apply(x) for x in rows] for side, rows in zip(white, (source, target), strict=True)))
    train, held_out = whitened.parts()
    x_0, x_1 = (torch.stack([x.mean(0) for x in rows]) for rows in (train.source, train.target))
    if more is not None:
        x_0, x_1 = (torch.cat([x, side.apply(y)]) for x, side, y in zip((x_0, x_1), white, more, strict=True))
    best, lowest = torch.eye(x_0.shape[-1]), float(held_out.costs.mean())
    for inertia in (0.0, 0.1):
        candidate, previous = rotation(x_0 - x_0.mean(0), x_1 - x_1.mean(0), inertia=inertia), math.inf
        for number in range(rounds + 1):
            if number:
                candidate = candidate @ rotation(*train.rotated(candidate).matched, inertia=inertia)
            cost = float(held_out.rotated(candidate).costs.mean())
            if cost < lowest:
                best, lowest = candidate, cost
            if cost >= previous:
                break
            previous = cost
    true, unseen = whitened.rotated(best), held_out.rotated(best)
    unit, price = calibrate(true.costs)
    best_threshold = threshold(true.costs, true.shuffled.costs) / unit
    return Calibration(white[0].then(best), white[1], best, unit, price, best_threshold, unseen.separation)


def threshold(true: Float[Tensor, "n"], shuffled: Float[Tensor, "m"], *, minimum: float = 1 / 3) -> float:
    """The cost that best separates matches in true pairs from those in shuffled pairs; 0 if none does.

    At this cost the two distribution functions differ most. True pairs also contain false matches, of tokens without a partner;
    these scale the difference down but do not move its maximum. The difference is flat where costs are sparse, so the result is
    the middle of the range in which it is at least 90 % of its maximum. If the maximum is below `minimum`, the result is 0.
    """
    points, difference = _gap(true, shuffled)
    if not float(difference.max()) >= minimum:
        return 0.0
    plateau = points[difference >= 0.9 * difference.max()]
    return float(plateau[0] + plateau[-1]) / 2


def no_cost(x_0: Float[Tensor, "*b n D"], x_1: Float[Tensor, "*b m D"]) -> Float[Tensor, "*b n m"]:
    """Zero for each pair of tokens."""
    return x_0.new_zeros(*x_0.shape[:-1], x_1.shape[-2])


def _gap(true: Float[Tensor, "n"], shuffled: Float[Tensor, "m"]) -> tuple[Float[Tensor, "n+m"], Float[Tensor, "n+m"]]:
    """(costs in order, the distribution function of the true ones minus that of the shuffled ones there)."""
    points = torch.cat([true, shuffled]).sort().values
    cdfs = [torch.searchsorted(x.sort().values, points, right=True) / len(x) for x in (true, shuffled)]
    return points, cdfs[0] - cdfs[1]


def rotation(x_0: Float[Tensor, "M D"], x_1: Float[Tensor, "M D"], *, inertia: float = 0.0) -> Float[Tensor, "D D"]:
    """The orthogonal matrix that maps the rows of x_0 closest to those of x_1. Schoenemann 1966.

    `inertia`, relative to the largest singular value of x_0^T x_1, leaves directions that the rows barely determine unrotated.
    """
    cross = x_0.mT @ x_1
    u, _, v = torch.linalg.svd(cross + inertia * torch.linalg.matrix_norm(cross, 2) * torch.eye(len(cross)))
    return u @ v


def measured(pairs: Pairs, prices: Prices) -> Calibration:
    """The calibration of pairs, measured once and stored with them; the identity with raw prices.

    Measuring again could give another result: in directions that the means barely determine, the rotation depends on rounding.
    ValueError if there are no training pairs or the stored calibration is damaged.
    """
    if prices.raw:
        identity = Whitening(torch.zeros(pairs.width), torch.eye(pairs.width))
        return Calibration(identity, identity, torch.eye(pairs.width), 1.0, 1.0)
    path = pairs.directory / "calibration.safetensors"
    if not path.exists():
        if not len(pairs.split("train")):
            raise ValueError(f"{pairs.directory}: no training pairs; add more pairs")
        with locked(pairs.directory, wait=True):  # a second process uses the first one's measurement
            if not path.exists():
                with atomic_write(path) as tmp_path:
                    write_tensors(tmp_path, measure(pairs).tensors())
    try:
        return Calibration.of(read_tensors(path))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a valid calibration ({error}); remove the file to measure it again") from error


def measure(pairs: Pairs, *, sample: int = 1000) -> Calibration:
    """The calibration measured on a sample of the training pairs and on sequence means of further ones.

    The whitening uses the full sample. The rotation uses at most 2^24 entries of it and 2^23 entries of means, so memory does
    not grow with the data.
    """
    numbers = pairs.split("train")
    numbers = numbers[torch.randperm(len(numbers), generator=seeded(0, 11)).numpy()]
    entries = (pairs.lengths(ENDS[0]) + pairs.lengths(ENDS[1]))[numbers[:sample]].cumsum() * pairs.width
    numbers, count = numbers.tolist(), max(1, int((entries <= 2**24).sum()))
    white = [Whitening.measure(pairs.sequence(end, number) for number in numbers[:sample]) for end in ENDS]
    source, target = ([pairs.sequence(end, number) for number in numbers[:count]] for end in ENDS)
    x_0, x_1 = (means(pairs, end, numbers[count:]) for end in ENDS)
    return calibration(source, target, (x_0, x_1), white=(white[0], white[1]))


def means(pairs: Pairs, end: str, numbers: Sequence[int], *, entries: int = 2**23) -> Float[Tensor, "n D"]:
    """Uncalibrated means of the sequences of one side. The result has at most `entries` elements; later pairs are left out."""
    rows = [pairs.sequence(end, number).mean(0) for number in numbers[: entries // pairs.width]]
    return torch.stack(rows) if rows else torch.zeros(0, pairs.width)


def _match(x_0: Float[Tensor, "n D"], x_1: Float[Tensor, "m D"]) -> tuple[Tensor, Tensor]:
    content = cosine(x_0, x_1)
    n, m = content.shape
    position = [torch.arange(1, k + 1) / k for k in (n, m)]
    match = assignment(content + (position[0][:, None] - position[1][None]).square())
    return x_0[match >= 0], x_1[match[match >= 0]]


def token_cost(container: Container, cost: FourBlock, pair: Pair) -> Float[Tensor, "B N N"]:
    """The four-block cost of a batch of packed pairs."""
    a, b = container.split(pair.x_0), container.split(pair.x_1)
    return cost(a.content, b.content, a.existence > 0.5, b.existence > 0.5, a.position, b.position)
