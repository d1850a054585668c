"""Costs of transporting a point of x_0 to a point of x_1, and the units in which they are measured."""

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
    """|x_0 - x_1|^2 by one matrix product of centred points: far from the origin, expanding the square loses precision.

    >>> squared_euclidean(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[25.]])
    """
    x_0, x_1 = floating(x_0, x_1)
    centre = x_1.mean(-2, keepdim=True)
    x_0, x_1 = x_0 - centre, x_1 - centre
    cost = x_0 @ x_1.mT
    cost.mul_(-2).add_(x_0.square().sum(-1)[..., :, None]).add_(x_1.square().sum(-1)[..., None, :])
    return cost.clamp_min_(0)


def inner_product(x_0: Shaped[Tensor, "*b n d"], x_1: Shaped[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """-x_0 . x_1 of centred points: half the squared distance, minus terms that depend on the row or the column alone.

    These terms do not change the optimal permutation, so an exact coupling may use this cost instead: it is cheaper and rounds
    less.

    >>> inner_product(torch.tensor([[0.0], [4.0]]), torch.tensor([[0.0], [2.0]]))
    tensor([[-2.,  2.],
            [ 2., -2.]])
    """
    x_0, x_1 = floating(x_0, x_1)
    return (x_0 - x_0.mean(-2, keepdim=True)) @ (x_1.mean(-2, keepdim=True) - x_1).mT


def cosine(x_0: Shaped[Tensor, "*b n d"], x_1: Shaped[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """1 - cos of the angle between two points, at any scale; a zero vector counts as orthogonal to every point.

    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]]))
    tensor([[1., 0.]])
    """
    (x_0, norm_0), (x_1, norm_1) = (_with_norm(x) for x in floating(x_0, x_1))
    norms = norm_0[..., :, None] * norm_1[..., None, :]
    return torch.addcdiv(norms.new_ones(()), x_0 @ x_1.mT, norms, value=-1)


def _with_norm(x: Float[Tensor, "*b n d"]) -> tuple[Float[Tensor, "*b n d"], Float[Tensor, "*b n"]]:
    """Vectors and their norms, 1 for zero vectors. If its squares over- or underflow, a vector is scaled by a power of two."""
    norm = torch.linalg.vector_norm(x, dim=-1)
    extreme = ~((norm > 1e-15) & (norm < 1e15))
    if bool(extreme.any()) and bool((x[extreme] != 0).any()):
        largest = x.abs().amax(-1, keepdim=True)
        scale = (torch.frexp(largest).mantissa / largest).clamp_max(1 / torch.finfo(x.dtype).tiny)
        x = x * torch.where(extreme[..., None] & (largest > 0), scale, 1)
        norm = torch.linalg.vector_norm(x, dim=-1)
    return x, torch.where(norm > 0, norm, 1)


@dataclass(frozen=True)
class Units:
    """Centre and scale of a set of vectors, measured once and stored with the run.

    >>> units = Units.measure(torch.tensor([[1.0, 0.0], [3.0, 8.0]]))
    >>> units.apply(torch.tensor([[3.0, 4.0]]))
    tensor([[1., 0.]])
    """

    centre: Float[Tensor, "D"]
    scale: Float[Tensor, "D"]

    @staticmethod
    def measure(x: Float[Tensor, "*b D"], *, per_feature: bool = True) -> "Units":
        """Mean, and standard deviation per feature, 1 for a constant one; or one standard deviation for all features."""
        flat = x.reshape(-1, x.shape[-1])
        centre = flat.mean(0)
        variance = (flat - centre).square().mean(0)
        if not per_feature:
            variance = variance.mean().expand_as(variance)
        # constant up to rounding
        constant = variance.sqrt() <= 10 * torch.finfo(x.dtype).eps * flat.abs().amax(0)
        return Units(centre, torch.where(constant, torch.ones_like(variance), variance.sqrt()))

    def apply(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """x, centred and divided by the scale."""
        return (x - self.centre) / self.scale

    def undo(self, x: Float[Tensor, "*b D"]) -> Float[Tensor, "*b D"]:
        """The inverse of `apply`."""
        return x * self.scale + self.centre


@dataclass(frozen=True)
class Whitening:
    """Invertible affine map that centres a set of vectors and whitens it, except along directions of very small variance.

    Su et al. 2103.15316. `matrix` may also contain a rotation.

    >>> x = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0], [4.0, 1.0]])
    >>> Whitening.measure(x, floor=0.0).apply(x).std(0, correction=0).round(decimals=3)
    tensor([1., 1.])
    """

    centre: Float[Tensor, "D"]
    matrix: Float[Tensor, "D D"]

    @staticmethod
    def measure(x: Float[Tensor, "n D"] | Iterable[Float[Tensor, "_ D"]], *, floor: float = 1e-3) -> "Whitening":
        """Symmetric (ZCA) whitening of vectors, or of a stream of blocks, of which about D rows are in memory at a time.

        Variances are raised by `floor` times their mean, which bounds the amplification of constant directions. ValueError if
        there are no vectors or all vectors are identical.
        """
        blocks = iter([x]) if isinstance(x, Tensor) else _gathered(x)
        block = next(blocks, None)
        if block is None or not len(block):
            raise ValueError("whitening: got no vectors; give at least two")
        origin, dtype = block.mean(0), block.dtype  # near the centre, to keep precision
        count, total, square = 0, torch.zeros_like(origin, dtype=torch.float64), torch.zeros(0)
        while block is not None:
            rows = block - origin
            product = (rows.mT @ rows).double()
            count, total = count + len(rows), total + rows.sum(0)
            square = square.add_(product) if count > len(rows) else product
            block = next(blocks, None)
        shift = total / count
        centre = origin + shift
        variances, axes = torch.linalg.eigh(square / count - shift[:, None] * shift)
        raised = variances.clamp_min(0) + floor * variances.mean()
        if not bool(raised.mean() > 0):
            raise ValueError("whitening: all vectors are identical; give vectors that differ")
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
    """Blocks of at least D rows, for which summing the D x D products is cheap compared with computing them."""
    pending: list[Tensor] = []
    for block in blocks:
        pending.append(block)
        if sum(map(len, pending)) >= block.shape[-1]:
            yield torch.cat(pending)
            pending = []
    if pending:
        yield torch.cat(pending)


def void_order(active: Bool[Tensor, "*b N"]) -> Float[Tensor, "*b N"]:
    """The rank of each slot, in [0, 1), among the active slots or among the voids, whichever it belongs to.

    Ranks follow the van der Corput sequence, so the slots of lowest rank are spread evenly.

    >>> void_order(torch.tensor([True, True, True, False]))
    tensor([0.0000, 0.5000, 0.2500, 0.0000])
    """
    index = torch.where(active, active.cumsum(-1), (~active).cumsum(-1)) - 1
    mirrored = [(index >> bit & 1) / 2 ** (bit + 1) for bit in range(max(1, active.shape[-1].bit_length()))]
    return torch.stack(mirrored).sum(0)


@dataclass(frozen=True)
class FourBlock:
    """Augmented transport of the original HERMES implementation: prices of moving, deleting and creating tokens.

    All prices are in units of `unit`. With `priority` > 0, slots are used in a fixed order: the k-th slot is used exactly
    when at least k are needed, so thresholding its mean existence at one half gives the median number of slots. Without it,
    the choice of the voids to fill and of the tokens to delete is arbitrary. A deterministic field then learns only how
    often each slot is used, and decoding drops every slot that is used less than half of the time, possibly all of them.

    >>> active, position = torch.tensor([[True, False]]), torch.ones(1, 2)
    >>> x = torch.zeros(1, 2, 3)
    >>> FourBlock()(x, x, active, active, position, position)
    tensor([[[0.0000, 0.5000],
             [0.5000, 0.0000]]])
    """

    unit: float = 1.0
    """Typical content cost of a good match; content costs are divided by it."""
    position: float = 1.0
    """lambda_pos: price of the squared displacement in position."""
    delete: float = 0.5
    """alpha_delete: price of active -> void."""
    create: float = 0.5
    """alpha_create: price of void -> active."""
    create_norm: float = 0.0
    """beta_create: further price of void -> active, per squared norm of the created content."""
    delete_norm: float = 0.0
    """Further price of active -> void, per squared norm of the deleted content: `create_norm` of the reverse direction."""
    priority: float = 0.0
    """Price of using slots out of order (see `void_order`); 0 leaves the order open."""
    content: Cost = squared_euclidean
    """Cost between the contents of two tokens."""

    def __call__(
        self,
        x_0: Float[Tensor, "*b N D"],
        x_1: Float[Tensor, "*b N D"],
        active_0: Bool[Tensor, "*b N"],
        active_1: Bool[Tensor, "*b N"],
        position_0: Float[Tensor, "*b N"],
        position_1: Float[Tensor, "*b N"],
    ) -> Float[Tensor, "*b N N"]:
        """Costs of matching, deleting and creating, each plus the cost of displacement; void to void is free."""
        match = self._match(x_0, x_1, active_0, active_1)
        create = self.create + self.create_norm * x_1.square().sum(-1)[..., None, :] / self.unit
        from_active, to_active = active_0[..., :, None], active_1[..., None, :]
        delete = match.new_tensor(self.delete)
        if self.delete_norm:
            delete = delete + self.delete_norm * x_0.square().sum(-1)[..., :, None] / self.unit
        if self.priority:
            order_0, order_1 = void_order(active_0)[..., :, None], void_order(active_1)[..., None, :]
            # voids are filled in order and tokens deleted in reverse order; the result is never below the plain price
            create = create + self.priority * (1 + order_0 - order_1)
            delete = delete + self.priority * (1 + order_1 - order_0)
        content = torch.where(from_active, torch.where(to_active, match, delete), create)
        displacement = self.position * (position_0[..., :, None] - position_1[..., None, :]).square()
        return torch.where(from_active | to_active, content + displacement, content.new_zeros(()))

    def _match(self, x_0: Tensor, x_1: Tensor, active_0: Tensor, active_1: Tensor) -> Float[Tensor, "*b N N"]:
        """Content costs where both slots may be active, zero elsewhere. Freshly packed voids come last, so this saves work."""
        n, m = _active_length(active_0), _active_length(active_1)
        cost = self.content(x_0[..., :n, :], x_1[..., :m, :]) / self.unit
        return torch.nn.functional.pad(cost, (0, x_1.shape[-2] - m, 0, x_0.shape[-2] - n))


def _active_length(active: Bool[Tensor, "*b N"]) -> int:
    """The number of slots up to the last one that is active in any row."""
    return int((active * torch.arange(1, active.shape[-1] + 1, device=active.device)).max())


def calibrate(matched: Float[Tensor, "M"], *, quantile: float = 0.9) -> tuple[float, float]:
    """(unit, price) for FourBlock from content costs of true matches: their median, and half their quantile in that unit.

    Deletion and creation each cost half the quantile, so a match is given up only if it costs more than that quantile of
    the true matches (90 % by default). ValueError if the median is not positive.

    >>> calibrate(torch.tensor([1.0, 2.0, 3.0]), quantile=1.0)
    (2.0, 0.75)
    """
    unit = float(matched.median())
    if not unit > 0:
        raise ValueError(
            f"calibrate: the median matched cost is {unit}; give finite costs of pairs whose contents differ"
        )
    return unit, float(matched.quantile(quantile)) / (2 * unit)
