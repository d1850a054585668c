"""The units of both sides and the prices of the augmented transport, measured on a sample and stored with the run."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.pair import ENDS, Pairs
from monge.math.container import Container
from monge.math.cost import FourBlock, Units, calibrate, cosine
from monge.math.ot import assignment
from monge.math.types import Pair
from monge.train.batches import seeded


@dataclass(frozen=True)
class Prices:
    """lambda_pos, alpha_delete, alpha_create and beta_create, in calibrated units; `raw` takes them as they are (seed HERMES).

    Without calibration a price of 1 meets squared distances of thousands: everything is deleted and created anew.
    """

    position: float = 1.0
    delete: float = 1.0
    create: float = 1.0
    create_norm: float = 0.0
    raw: bool = False


@dataclass(frozen=True)
class Calibration:
    """What the data fixed: centre and scale of each side, the typical content cost of a match, and half its 90 % quantile."""

    source: Units
    target: Units
    unit: float
    price: float

    def tensors(self) -> dict[str, Tensor]:
        """As the constants of a run."""
        sides = {"source": self.source, "target": self.target}
        found = {f"{end}_{what}": getattr(units, what) for end, units in sides.items() for what in ("centre", "scale")}
        return {**found, "unit": torch.tensor(self.unit), "price": torch.tensor(self.price)}

    @staticmethod
    def of(tensors: dict[str, Tensor]) -> "Calibration":
        """The inverse of `tensors`."""
        source, target = (Units(tensors[f"{end}_centre"], tensors[f"{end}_scale"]) for end in ENDS)
        return Calibration(source, target, float(tensors["unit"]), float(tensors["price"]))

    def units(self, end: str) -> Units:
        """Those of `source` or `target`."""
        return self.source if end == "source" else self.target

    def cost(self, prices: Prices, *, back: bool = False) -> FourBlock:
        """The four blocks: between directions in units of a typical match, or with raw costs as they are.

        On the way `back` what was created is deleted, so the two prices change places.
        """
        if back:
            prices = replace(prices, delete=prices.create, create=prices.delete)
        if prices.raw:
            return FourBlock(1.0, prices.position, prices.delete, prices.create, prices.create_norm)
        # positions lie in (0, 1], half a sequence apart costs a quarter; delete and create together cost a poor match
        return FourBlock(
            self.unit,
            prices.position,
            prices.delete * self.price,
            prices.create * self.price,
            prices.create_norm,
            content=cosine,
        )


def measure(pairs: Pairs, *, sample: int = 1000, seed: int = 0) -> Calibration:
    """Units of the vectors of training pairs, and the content costs of their matches.

    A sample's matches are those of the cheapest assignment of the shorter sequence into the longer, by content and position.
    """
    numbers = torch.from_numpy(pairs.side("train"))
    numbers = numbers[torch.randperm(len(numbers), generator=seeded(seed, 11))[:sample]].tolist()
    if not numbers:
        raise ValueError(f"{pairs.directory}: no training pairs; give more pairs")
    sides = {end: [pairs.sequence(end, number) for number in numbers] for end in ENDS}
    units = {end: Units.measure(torch.cat(rows)) for end, rows in sides.items()}
    matched = [
        _matched(units["source"].apply(x_0), units["target"].apply(x_1))
        for x_0, x_1 in zip(sides["source"], sides["target"], strict=True)
    ]
    unit, price = calibrate(torch.cat(matched))
    return Calibration(units["source"], units["target"], unit, price)


def _matched(x_0: Float[Tensor, "n D"], x_1: Float[Tensor, "m D"]) -> Float[Tensor, "_"]:
    """Content costs of the matches when as many tokens as can be are matched."""
    content = cosine(x_0, x_1)
    n, m = content.shape
    place = [torch.arange(1, k + 1) / k for k in (n, m)]
    cost = content + (place[0][:, None] - place[1][None]).square()
    square = cost.new_zeros(max(n, m), max(n, m))  # the rest of the longer one is left over at no cost
    square[:n, :m] = cost
    match = assignment(square)[:n]
    real = match < m
    return content[torch.arange(n)[real], match[real]]


def token_cost(container: Container, cost: FourBlock, pair: Pair) -> Float[Tensor, "B N N"]:
    """The four-block cost of a batch of packed pairs."""
    a, b = container.split(pair.x_0), container.split(pair.x_1)
    return cost(a.content, b.content, a.existence > 0.5, b.existence > 0.5, a.position, b.position)
