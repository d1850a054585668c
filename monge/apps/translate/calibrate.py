"""The units of both sides and the prices of the augmented transport, measured on a sample, stored with pairs and with runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.pair import ENDS, Pairs
from monge.files import atomic_write, locked, read_tensors, write_tensors
from monge.math.container import Container
from monge.math.cost import FourBlock, Whitening, calibrate, cosine
from monge.math.ot import assignment
from monge.math.random import seeded
from monge.math.types import Pair


@dataclass(frozen=True)
class Prices:
    """lambda_pos, alpha_delete, alpha_create and beta_create of HERMES, in calibrated units.

    A deletion and a creation together undo a match that costs more than both.
    """

    position: float = 1.0
    """Price of a squared displacement; positions lie in (0, 1]."""
    delete: float = 1.0
    """Price of deleting a token, relative to the calibrated price."""
    create: float = 1.0
    """Price of creating a token, relative to the calibrated price."""
    create_norm: float = 0.0
    """Additional price of creating a token, per mean square of its entries (--prices.raw: per squared norm)."""
    priority: float = 1.0
    """Average price of creating or deleting out of turn, in units of a typical match; 0 leaves the choice to chance."""
    rule: Literal["shuffled", "quantile"] = "shuffled"
    """Calibration of the price: between the costs of matches in true pairs and in shuffled pairs, where these can be told
    apart, or half the 90 % quantile of the costs in true pairs."""
    raw: bool = False
    """Neither units nor calibration, as in the HERMES implementation. With the vectors of a real model every token is then
    deleted and created again."""

    def __post_init__(self) -> None:
        for name in ("position", "delete", "create", "create_norm", "priority"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"prices.{name} must be finite and not negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class Calibration:
    """Measurements of the data: the map of each side into a common space, and the content costs of matches there.

    Both sides are whitened, since the directions that tell sequences apart are faint in the states of language models; then
    the source is rotated onto the target.
    """

    source: Whitening
    target: Whitening
    rotation: Float[Tensor, "D D"]
    """The last part of `source`."""
    unit: float
    """Median cost of a match."""
    price: float
    """Half the 90 % quantile of the costs of matches, in units."""
    threshold: float = 0.0
    """Cost, in units, that best separates matches in true pairs from those in shuffled pairs; 0 if they overlap too much."""

    def tensors(self) -> dict[str, Tensor]:
        """As the constants of a run."""
        sides = {"source": self.source, "target": self.target}
        found = {f"{end}_{what}": getattr(side, what) for end, side in sides.items() for what in ("centre", "matrix")}
        return {
            **found,
            "rotation": self.rotation,
            "unit": torch.tensor(self.unit),
            "price": torch.tensor(self.price),
            "threshold": torch.tensor(self.threshold),
        }

    @staticmethod
    def of(tensors: dict[str, Tensor]) -> "Calibration":
        """The inverse of `tensors`."""
        source, target = (Whitening(tensors[f"{end}_centre"], tensors[f"{end}_matrix"]) for end in ENDS)
        numbers = (float(tensors[name]) if name in tensors else 0.0 for name in ("unit", "price", "threshold"))
        return Calibration(source, target, tensors["rotation"], *numbers)

    def side(self, end: str) -> Whitening:
        """The map of vectors of `source` or `target` into the common space."""
        return self.source if end == "source" else self.target

    def cost(self, prices: Prices, *, reverse: bool = False) -> FourBlock:
        """The four-block cost: between directions, in units of a typical match, or with raw prices as it is.

        On the way `back` creations become deletions, so the two prices change places.
        """
        if reverse:
            prices = replace(prices, delete=prices.create, create=prices.delete)
        if prices.raw:
            return FourBlock(1.0, prices.position, prices.delete, prices.create, prices.create_norm)
        price, priority = self._price(prices)
        # positions lie in (0, 1], half a sequence apart costs a quarter; delete and create together cost a poor match
        return FourBlock(
            self.unit,
            prices.position,
            prices.delete * price,
            prices.create * price,
            # of the mean square, which is about 1 where vectors are whitened; FourBlock divides by the unit
            prices.create_norm * price * self.unit / len(self.rotation),
            priority,
            content=cosine,
        )

    def _price(self, prices: Prices) -> tuple[float, float]:
        """(price of a deletion or a creation, price of its turn): with the threshold both together average half of it."""
        if prices.rule == "quantile" or not self.threshold:
            return self.price, prices.priority
        priority = min(prices.priority, self.threshold / 8)
        return self.threshold / 2 - priority, priority


@dataclass(frozen=True)
class Sample:
    """Sequences of both sides that belong together, whitened."""

    source: list[Float[Tensor, "_ D"]]
    target: list[Float[Tensor, "_ D"]]

    def rotated(self, rotation: Float[Tensor, "D D"]) -> "Sample":
        """The source rotated."""
        return Sample([x @ rotation for x in self.source], self.target)

    def parts(self) -> tuple["Sample", "Sample"]:
        """Four fifths of the pairs, and the rest: the last, or all if there are fewer than five."""
        cut = len(self.source) - len(self.source) // 5
        first = Sample(self.source[:cut], self.target[:cut])
        return first, Sample(self.source[cut:], self.target[cut:]) if cut < len(self.source) else first

    @property
    def shuffled(self) -> "Sample":
        """Each source with the target of the next pair."""
        return Sample(self.source, self.target[1:] + self.target[:1])

    @property
    def costs(self) -> Float[Tensor, "M"]:
        """The content costs of the matches."""
        return 1 - torch.nn.functional.cosine_similarity(*self.matched)

    @cached_property
    def matched(self) -> tuple[Float[Tensor, "M D"], Float[Tensor, "M D"]]:
        """The tokens that the cheapest assignment of the shorter sequence into the longer matches, by content and position."""
        both = [_matched(x_0, x_1) for x_0, x_1 in zip(self.source, self.target, strict=True)]
        x_0, x_1 = (torch.cat(rows) for rows in zip(*both, strict=True))
        return x_0, x_1


def calibration(
    source: list[Float[Tensor, "_ D"]],
    target: list[Float[Tensor, "_ D"]],
    more: tuple[Float[Tensor, "n D"], Float[Tensor, "n D"]] | None = None,
    *,
    white: tuple[Whitening, Whitening] | None = None,
    rounds: int = 3,
) -> Calibration:
    """The whitening of both sides, the rotation of the source onto the target, and the costs of matches after both.

    Candidates are no rotation, Procrustes on the means of the sequences, and its refinement by up to `rounds` of matching and
    rotating, fitted on four fifths of the pairs and on `more`, means of the sequences of other pairs. The candidate with the
    cheapest matches in the last fifth wins.
    """
    white = white or (Whitening.measure(source), Whitening.measure(target))
    plain = Sample(*([side.apply(x) for x in rows] for side, rows in zip(white, (source, target), strict=True)))
    learnt, kept = plain.parts()
    x_0, x_1 = (torch.stack([x.mean(0) for x in rows]) for rows in (learnt.source, learnt.target))
    if more is not None:
        x_0, x_1 = (torch.cat([x, side.apply(y)]) for x, side, y in zip((x_0, x_1), white, more, strict=True))
    best, least = torch.eye(x_0.shape[-1]), float(kept.costs.mean())
    for inertia in (0.0, 0.1):
        rotated_by, last = rotation(x_0 - x_0.mean(0), x_1 - x_1.mean(0), inertia=inertia), math.inf
        for number in range(rounds + 1):
            if number:
                rotated_by = rotated_by @ rotation(*learnt.rotated(rotated_by).matched, inertia=inertia)
            cost = float(kept.rotated(rotated_by).costs.mean())
            if cost < least:
                best, least = rotated_by, cost
            if cost >= last:
                break
            last = cost
    true = plain.rotated(best)
    unit, price = calibrate(true.costs)
    return Calibration(
        white[0].then(best), white[1], best, unit, price, threshold(true.costs, true.shuffled.costs) / unit
    )


def threshold(true: Float[Tensor, "n"], shuffled: Float[Tensor, "m"], *, least: float = 1 / 3) -> float:
    """The cost that best separates matches in true pairs from those in shuffled pairs; 0 if no cost does.

    It lies where the distribution functions differ most. False matches among those of true pairs, of tokens whose partner is
    missing, lower the difference everywhere alike but do not move its maximum. The difference is flat where few costs lie, so
    the middle of the range within a tenth of the maximum counts; below `least` there is no such cost.
    """
    points = torch.cat([true, shuffled]).sort().values
    below = [torch.searchsorted(x.sort().values, points, right=True) / len(x) for x in (true, shuffled)]
    difference = below[0] - below[1]
    if not float(difference.max()) >= least:
        return 0.0
    near = points[difference >= 0.9 * difference.max()]
    return float(near[0] + near[-1]) / 2


def rotation(x_0: Float[Tensor, "M D"], x_1: Float[Tensor, "M D"], *, inertia: float = 0.0) -> Float[Tensor, "D D"]:
    """The orthogonal matrix that carries rows x_0 nearest to rows x_1. Schoenemann 1966.

    With `inertia`, relative to the largest singular value, directions that the rows hardly determine are not rotated.
    """
    together = x_0.mT @ x_1
    u, _, v = torch.linalg.svd(together + inertia * torch.linalg.matrix_norm(together, 2) * torch.eye(len(together)))
    return u @ v


def measured(pairs: Pairs, prices: Prices) -> Calibration:
    """The calibration of pairs, measured once and stored with them; with raw prices the identity.

    A second measurement would differ: in directions that the means hardly determine, the rotation depends on rounding.
    """
    if prices.raw:
        same = Whitening(torch.zeros(pairs.width), torch.eye(pairs.width))
        return Calibration(same, same, torch.eye(pairs.width), 1.0, 1.0)
    path = pairs.directory / "calibration.safetensors"
    if not path.exists():
        if not len(pairs.split("train")):
            raise ValueError(f"{pairs.directory}: no training pairs; give more pairs")
        with locked(pairs.directory, wait=True):  # a second process uses the first one's measurement
            if not path.exists():
                with atomic_write(path) as place:
                    write_tensors(place, measure(pairs).tensors())
    try:
        return Calibration.of(read_tensors(path))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: no calibration ({error}); remove it, and it is measured again") from error


def measure(pairs: Pairs, *, sample: int = 1000) -> Calibration:
    """The calibration of a sample of the training pairs and the means of others.

    The whole sample is whitened, at most 2^24 entries of it are kept for the rotation, and 2^23 of the means: memory does not
    grow with the data.
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
    """The mean of each sequence of a side, uncalibrated, of as many pairs as fit into `entries` numbers."""
    found = [pairs.sequence(end, number).mean(0) for number in numbers[: entries // pairs.width]]
    return torch.stack(found) if found else torch.zeros(0, pairs.width)


def _matched(x_0: Float[Tensor, "n D"], x_1: Float[Tensor, "m D"]) -> tuple[Tensor, Tensor]:
    content = cosine(x_0, x_1)
    n, m = content.shape
    place = [torch.arange(1, k + 1) / k for k in (n, m)]
    match = assignment(content + (place[0][:, None] - place[1][None]).square())
    return x_0[match >= 0], x_1[match[match >= 0]]


def token_cost(container: Container, cost: FourBlock, pair: Pair) -> Float[Tensor, "B N N"]:
    """The four-block cost of a batch of packed pairs."""
    a, b = container.split(pair.x_0), container.split(pair.x_1)
    return cost(a.content, b.content, a.existence > 0.5, b.existence > 0.5, a.position, b.position)
