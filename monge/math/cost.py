"""What it costs to carry a point of x_0 to a point of x_1, and the units in which to say it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Cost: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # ("*b n d", "*b m d") -> "*b n m"


def squared_euclidean(x_0: Float[Tensor, "*b n d"], x_1: Float[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """|x_0 - x_1|^2 as one matrix product. Centred first: the expansion of the square cancels badly far from the origin."""
    centre = x_1.mean(-2, keepdim=True)
    x_0, x_1 = x_0 - centre, x_1 - centre
    cost = x_0 @ x_1.mT
    cost.mul_(-2).add_(x_0.square().sum(-1)[..., :, None]).add_(x_1.square().sum(-1)[..., None, :])
    return cost.clamp_min_(0)


def inner_product(x_0: Float[Tensor, "*b n d"], x_1: Float[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """-x_0 . x_1 of centred points: half the squared distance less what depends on the row or the column alone.

    No permutation can see the difference, so exact couplings use it: it is cheaper and rounds less.
    """
    return (x_0 - x_0.mean(-2, keepdim=True)) @ (x_1.mean(-2, keepdim=True) - x_1).mT


def cosine(x_0: Float[Tensor, "*b n d"], x_1: Float[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """1 - cos of the angle between the two; a zero vector is at right angles to everything."""
    return 1 - torch.nn.functional.normalize(x_0, dim=-1) @ torch.nn.functional.normalize(x_1, dim=-1).mT


@dataclass(frozen=True)
class Units:
    """Where a set of vectors lies and how large it is, measured once and stored with the run."""

    centre: Float[Tensor, "D"]
    scale: Float[Tensor, "D"]

    @staticmethod
    def measure(x: Float[Tensor, "*b D"], *, per_feature: bool = True) -> "Units":
        """Mean, and standard deviation per feature (or one for all). A constant feature keeps scale 1."""
        flat = x.reshape(-1, x.shape[-1])
        centre = flat.mean(0)
        variance = (flat - centre).square().mean(0)
        if not per_feature:
            variance = variance.mean().expand_as(variance)
        # a column that is constant up to rounding has no scale of its own
        constant = variance.sqrt() <= 10 * torch.finfo(x.dtype).eps * flat.abs().amax(0)
        return Units(centre, torch.where(constant, torch.ones_like(variance), variance.sqrt()))

    def apply(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """x, centred and in units of its scale."""
        return (x - self.centre) / self.scale

    def undo(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """The inverse of `apply`."""
        return x * self.scale + self.centre


@dataclass(frozen=True)
class FourBlock:
    """Prices of the augmented transport, all in units of `unit`, the typical content cost of a good match (seed HERMES)."""

    unit: float = 1.0
    position: float = 1.0  # lambda_pos
    delete: float = 0.5  # alpha_delete: active -> void
    create: float = 0.5  # alpha_create: void -> active
    create_norm: float = 0.0  # beta_create: void -> active, per squared norm of what is created
    content: Cost = squared_euclidean

    def __call__(
        self,
        x_0: Float[Tensor, "*b N D"],
        x_1: Float[Tensor, "*b N D"],
        active_0: Bool[Tensor, "*b N"],
        active_1: Bool[Tensor, "*b N"],
        position_0: Float[Tensor, "*b N"],
        position_1: Float[Tensor, "*b N"],
    ) -> Float[Tensor, "*b N N"]:
        """Match, delete and create at their prices, each plus the squared displacement; void to void is free."""
        match = self.content(x_0, x_1) / self.unit
        create = self.create + self.create_norm * x_1.square().sum(-1)[..., None, :] / self.unit
        from_active, to_active = active_0[..., :, None], active_1[..., None, :]
        content = torch.where(from_active, torch.where(to_active, match, match.new_tensor(self.delete)), create)
        moved = self.position * (position_0[..., :, None] - position_1[..., None, :]).square()
        return torch.where(from_active | to_active, content + moved, content.new_zeros(()))


def calibrate(matched: Float[Tensor, "M"], *, quantile: float = 0.9) -> tuple[float, float]:
    """(unit, price) for FourBlock from content costs of true matches: their median, and half their quantile in that unit.

    With half the quantile for deletion and half for creation, a match is undone only when it costs more than nine in ten do.
    """
    unit = float(matched.median())
    if not unit > 0:
        raise ValueError(f"calibrate: the median matched cost is {unit}; the two sides are equal or not finite")
    return unit, float(matched.quantile(quantile)) / (2 * unit)
