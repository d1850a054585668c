"""What it costs to carry a point of x_0 to a point of x_1, and the units in which to say it."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from monge.math.types import floating

Cost: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # ("*b n d", "*b m d") -> "*b n m"


def squared_euclidean(x_0: Shaped[Tensor, "*b n d"], x_1: Shaped[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """|x_0 - x_1|^2 as one matrix product. Centred first: the expansion of the square cancels badly far from the origin."""
    x_0, x_1 = floating(x_0, x_1)
    centre = x_1.mean(-2, keepdim=True)
    x_0, x_1 = x_0 - centre, x_1 - centre
    cost = x_0 @ x_1.mT
    cost.mul_(-2).add_(x_0.square().sum(-1)[..., :, None]).add_(x_1.square().sum(-1)[..., None, :])
    return cost.clamp_min_(0)


def inner_product(x_0: Shaped[Tensor, "*b n d"], x_1: Shaped[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """-x_0 . x_1 of centred points: half the squared distance less what depends on the row or the column alone.

    No permutation can see the difference, so exact couplings use it: it is cheaper and rounds less.
    """
    x_0, x_1 = floating(x_0, x_1)
    return (x_0 - x_0.mean(-2, keepdim=True)) @ (x_1.mean(-2, keepdim=True) - x_1).mT


def cosine(x_0: Shaped[Tensor, "*b n d"], x_1: Shaped[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """1 - cos of the angle between the two, at any scale; a zero vector is at right angles to everything."""
    (x_0, norm_0), (x_1, norm_1) = (_with_norm(x) for x in floating(x_0, x_1))
    norms = norm_0[..., :, None] * norm_1[..., None, :]
    return torch.addcdiv(norms.new_ones(()), x_0 @ x_1.mT, norms, value=-1)


def _with_norm(x: Float[Tensor, "*b n d"]) -> tuple[Float[Tensor, "*b n d"], Float[Tensor, "*b n"]]:
    """Vectors and their norms, 1 for zeros. Those whose squares leave the dtype are multiplied by powers of two first."""
    norm = torch.linalg.vector_norm(x, dim=-1)
    strange = ~((norm > 1e-15) & (norm < 1e15))
    if bool(strange.any()) and bool((x[strange] != 0).any()):
        largest = x.abs().amax(-1, keepdim=True)
        scale = (torch.frexp(largest).mantissa / largest).clamp_max(1 / torch.finfo(x.dtype).tiny)
        x = x * torch.where(strange[..., None] & (largest > 0), scale, 1)
        norm = torch.linalg.vector_norm(x, dim=-1)
    return x, torch.where(norm > 0, norm, 1)


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
class Whitening:
    """An invertible affine map after which a set of vectors is centred and of unit covariance, but for its faintest directions.

    Su et al. 2103.15316. `matrix` may hold a rotation besides.
    """

    centre: Float[Tensor, "D"]
    matrix: Float[Tensor, "D D"]

    @staticmethod
    def measure(x: Float[Tensor, "n D"] | Iterable[Float[Tensor, "_ D"]], *, floor: float = 1e-3) -> "Whitening":
        """The symmetric one (ZCA), of vectors or of a stream of them, of which little more than D are held at a time.

        Variances are raised by `floor` times their mean, so that what is constant stays faint.
        """
        blocks = iter([x]) if isinstance(x, Tensor) else _gathered(x)
        block = next(blocks, None)
        if block is None or not len(block):
            raise ValueError("whitening: no vectors; give some")
        about, dtype = block.mean(0), block.dtype  # near the centre, for the digits
        count, total, square = 0, torch.zeros_like(about, dtype=torch.float64), torch.zeros(0)
        while block is not None:
            rows = block - about
            product = (rows.mT @ rows).double()
            count, total = count + len(rows), total + rows.sum(0)
            square = square.add_(product) if count > len(rows) else product
            block = next(blocks, None)
        shift = total / count
        centre = about + shift
        variances, axes = torch.linalg.eigh(square / count - shift[:, None] * shift)
        raised = variances.clamp_min(0) + floor * variances.mean()
        if not bool(raised.mean() > 0):
            raise ValueError("whitening: all vectors are the same; give others")
        return Whitening(centre.to(dtype), ((axes * raised.rsqrt()) @ axes.mT).to(dtype))

    def then(self, rotation: Float[Tensor, "D D"]) -> "Whitening":
        """This map, then a rotation."""
        return Whitening(self.centre, self.matrix @ rotation)

    def apply(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """x, centred and whitened."""
        return (x - self.centre) @ self.matrix

    def undo(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """The inverse of `apply`."""
        return torch.linalg.solve(self.matrix, x, left=False) + self.centre


def _gathered(blocks: Iterable[Float[Tensor, "_ D"]]) -> Iterator[Float[Tensor, "_ D"]]:
    """Blocks put together until each has as many rows as columns: a product with itself then pays for being added."""
    held: list[Tensor] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= block.shape[-1]:
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)


def void_order(active: Bool[Tensor, "*b N"]) -> Float[Tensor, "*b N"]:
    """When each slot's turn comes among those of its kind, in [0, 1): in van der Corput's order the first few lie evenly."""
    index = torch.where(active, active.cumsum(-1), (~active).cumsum(-1)) - 1
    mirrored = [(index >> bit & 1) / 2 ** (bit + 1) for bit in range(max(1, active.shape[-1].bit_length()))]
    return torch.stack(mirrored).sum(0)


@dataclass(frozen=True)
class FourBlock:
    """Prices of the augmented transport, all in units of `unit`, the typical content cost of a good match (seed HERMES).

    `turn` is the price of being called out of turn. Without it chance decides which void is created and which token deleted,
    and a deterministic field can only learn the share: below one half for each of many, so that none exists. In turn, whether
    the k-th of them is called says whether there are at least k, and existence above one half counts the median.
    """

    unit: float = 1.0
    position: float = 1.0  # lambda_pos
    delete: float = 0.5  # alpha_delete: active -> void
    create: float = 0.5  # alpha_create: void -> active
    create_norm: float = 0.0  # beta_create: void -> active, per squared norm of what is created
    priority: float = 0.0
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
        match = self._match(x_0, x_1, active_0, active_1)
        create = self.create + self.create_norm * x_1.square().sum(-1)[..., None, :] / self.unit
        from_active, to_active = active_0[..., :, None], active_1[..., None, :]
        delete = match.new_tensor(self.delete)
        if self.priority:
            turn_0, turn_1 = void_order(active_0)[..., :, None], void_order(active_1)[..., None, :]
            # voids are called in turn; of tokens the last called is the first to go. Never below the plain price
            create = create + self.priority * (1 + turn_0 - turn_1)
            delete = delete + self.priority * (1 + turn_1 - turn_0)
        content = torch.where(from_active, torch.where(to_active, match, delete), create)
        moved = self.position * (position_0[..., :, None] - position_1[..., None, :]).square()
        return torch.where(from_active | to_active, content + moved, content.new_zeros(()))

    def _match(self, x_0: Tensor, x_1: Tensor, active_0: Tensor, active_1: Tensor) -> Float[Tensor, "*b N N"]:
        """Content costs where both slots may be active; zero beyond: voids are many, and come last when freshly packed."""
        n, m = _until(active_0), _until(active_1)
        cost = self.content(x_0[..., :n, :], x_1[..., :m, :]) / self.unit
        return torch.nn.functional.pad(cost, (0, x_1.shape[-2] - m, 0, x_0.shape[-2] - n))


def _until(active: Bool[Tensor, "*b N"]) -> int:
    """The number of slots up to the last one that is active in any row."""
    return int((active * torch.arange(1, active.shape[-1] + 1, device=active.device)).max())


def calibrate(matched: Float[Tensor, "M"], *, quantile: float = 0.9) -> tuple[float, float]:
    """(unit, price) for FourBlock from content costs of true matches: their median, and half their quantile in that unit.

    With half the quantile for deletion and half for creation, a match is undone only when it costs more than nine in ten do.
    """
    unit = float(matched.median())
    if not unit > 0:
        raise ValueError(f"calibrate: the median matched cost is {unit}; the two sides are equal or not finite")
    return unit, float(matched.quantile(quantile)) / (2 * unit)
