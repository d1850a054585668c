"""Align a hidden layer with a frozen encoder of the clean data. Yu et al. 2410.06940 (REPA), eq. 6 and sec. 3.2."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from monge.math.times import Quantile, uniform
from monge.math.types import Condition, FeatureModel, Pair, pad_like
from monge.objective.frozen import Frozen

Encoder: TypeAlias = Callable[[Tensor, Condition], Tensor]  # (x_1, cond) -> (B, N, features) or (B, features)


def schedule(
    times: Literal["all", "noisy", "clean"], quantile: Quantile = uniform
) -> Callable[[Tensor], Tensor] | None:
    """Weights of an alignment by t: proportional to 1 - t (noisy) or t (clean), with mean 1 for the draws of t by `quantile`;
    None for equal weights (all). ValueError for another name.

    >>> schedule("noisy")(torch.tensor([0.0, 0.75, 1.0]))
    tensor([2.0000, 0.5000, 0.0000])
    """
    if times not in ("all", "noisy", "clean"):
        raise ValueError(f"schedule: times must be all, noisy or clean, got {times!r}")
    if times == "all":
        return None
    draws = quantile((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    mean = float((draws if times == "clean" else 1 - draws).mean())
    return lambda t: (t if times == "clean" else 1 - t) / mean


@runtime_checkable
class HiddenLoss(Protocol):
    """A loss on a hidden state of the model, such as Alignment: (model, x_t, t, pair) -> (output of the model at x_t, loss).

    The objective multiplies the loss by `weight`.

    >>> align = Alignment(Unconditional(nn.Identity()), layer=1, width=8, features=3)
    >>> term: HiddenLoss = align
    >>> term.weight
    0.5
    """

    weight: float

    def __call__(self, model: Any, x_t: Tensor, t: Tensor, pair: Pair) -> tuple[Tensor, Tensor]: ...


class WithTargets(nn.Module):
    """The loss `term` on a hidden state for batches that have cond[key], and 0 for others, such as those after the end of an
    alignment (HASTE, Wang et al. 2505.16792).

    >>> from monge.nets.dit import DiT
    >>> term = Alignment(CachedTargets(torch.ones(9, 5, 3)), layer=2, width=256, features=3)
    >>> x = torch.ones(2, 5, 3)
    >>> v, loss = WithTargets(term, "index")(DiT(3), x, torch.zeros(2), Pair(x, x))
    >>> loss.item() == 0
    True
    """

    def __init__(self, term: HiddenLoss, key: str) -> None:
        super().__init__()
        self.term, self.key, self.weight = term, key, term.weight

    def forward(self, model: Any, x_t: Tensor, t: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
        if self.key in pair.condition:
            return self.term(model, x_t, t, pair)
        parameters = self.term.parameters() if isinstance(self.term, nn.Module) else ()
        total = sum((parameter.sum() for parameter in parameters), x_t.new_zeros(()))
        return model(x_t, t, pair.condition), 0 * total  # with gradients, since DDP waits for those of every parameter


class Unconditional(nn.Module):
    """Adapter for an encoder that takes x_1 alone; the conditions are ignored.

    >>> tuple(Unconditional(nn.Flatten())(torch.zeros(2, 3, 4), {}).shape)
    (2, 12)
    """

    def __init__(self, encoder: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x_1: Tensor, cond: Condition) -> Tensor:
        return self.encoder(x_1)


@dataclass(frozen=True)
class CachedTargets:
    """Precomputed encoder features: row cond[key] of `store`, or store(cond[key]) if `store` is a function.

    The entry "index" holds the row number in the data set. Use `CachedTargets(lambda x: x, key="target")` for targets
    that are part of the batch.

    >>> CachedTargets(torch.tensor([[1.0], [2.0]]))(torch.zeros(1, 3), {"index": torch.tensor([1])})
    tensor([[2.]])
    """

    store: Tensor | Callable[[Tensor], Tensor]
    key: str = "index"

    def __call__(self, x_1: Tensor, cond: Condition) -> Tensor:
        if self.key not in cond:
            raise ValueError(f"alignment: the batch has no cond[{self.key!r}], only {sorted(cond)}; add it to the data")
        ids = cond[self.key]
        target = self.store[ids.to(self.store.device)] if isinstance(self.store, Tensor) else self.store(ids)
        return target.to(x_1.device)


class Alignment(nn.Module):
    """Negative mean cosine similarity of the projected hidden state after block `layer` and the encoder's features of x_1.

    `encoder` is called with the pair's clean x_1 and its conditions, including the mask. It returns features per token,
    (B, N, features), or pooled features, (B, features), which are compared with the mean hidden state. An encoder that is
    a module is frozen: it follows the device and dtype of the Alignment, and is neither trained nor saved. The projector is
    a three-layer MLP with SiLU activations, unless `grid` is given. Tokens that the pair's mask excludes do not count, nor do
    those whose features, before normalisation, are all zero: they have no target.

    `width` is the model's hidden width, `features` the encoder's number of features, `hidden` the width of the projector's
    hidden layers; the objective multiplies the loss by `weight`. `schedule`, a function of t, multiplies the similarity of each
    sample. With `kind`, the last layer of the projector depends on the kind of a token, a number below `kinds` that this
    function gives for each token of a pair: for encoders with a network of its own for each kind, such as the element of an
    atom. iREPA (Singh et al. 2512.10794) makes two changes: with `spatial`, features per token are first normalised over the
    tokens; with `grid` (rows, columns), for tokens in row-major order, the projector is a 3 x 3 convolution. ValueError if the
    encoder does not take (x_1, cond).

    >>> from monge.nets.dit import DiT
    >>> align, x = Alignment(Unconditional(nn.Identity()), layer=2, width=256, features=3), torch.ones(2, 5, 3)
    >>> v, loss = align(DiT(3), x, torch.zeros(2), Pair(x, x))
    >>> tuple(v.shape), abs(loss.item()) <= 1
    ((2, 5, 3), True)
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        layer: int,
        width: int,
        features: int,
        weight: float = 0.5,
        hidden: int = 2048,
        schedule: Callable[[Tensor], Tensor] | None = None,
        spatial: bool = False,
        grid: tuple[int, int] | None = None,
        kind: Callable[[Pair], Int[Tensor, "B N"]] | None = None,
        kinds: int = 1,
    ) -> None:
        super().__init__()
        _check_takes_conditions(encoder)
        self.kind, self.features = kind, features
        self.layer, self.weight, self.schedule, self.spatial = layer, weight, schedule, spatial
        self.encoder = Frozen(encoder) if isinstance(encoder, nn.Module) else encoder
        outputs = features if kind is None else kinds * features
        self.projector = projector(width, hidden, outputs) if grid is None else GridProjector(width, outputs, grid)

    def forward(
        self, model: FeatureModel, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], pair: Pair
    ) -> tuple[Float[Tensor, "B *s"], Float[Tensor, ""]]:
        """The model's output at x_t, and the alignment loss."""
        v, hidden = model.with_features(x_t, t, pair.condition, self.layer)
        with torch.no_grad():
            target = self.encoder(pair.x_1, pair.condition)
        if target.ndim == 2 and (self.spatial or self.kind):
            raise ValueError(
                "alignment: spatial normalisation and kinds need features per token, but the encoder returned pooled ones"
            )
        if target.ndim == 2 and len(target) == len(hidden):
            cosine = nn.functional.cosine_similarity(self.projector(pooled(hidden, pair.mask)), target, dim=-1)
            return v, -self._scheduled(cosine, t).mean()
        if target.shape[:2] != hidden.shape[:2] or target.ndim != 3:
            raise ValueError(
                f"alignment: the encoder returned features of shape {tuple(target.shape)}, the model has "
                f"{tuple(hidden.shape[:2])} tokens; return (B, N, features) or (B, features)"
            )
        exists = (target != 0).any(-1)
        exists = exists if pair.mask is None else exists & pair.mask
        target = torch.where(exists[..., None], target, 0.0)
        target = spatially_normalised(target, exists) if self.spatial else target
        projected = self.projector(hidden)
        if self.kind is not None:
            kind = self.kind(pair)[..., None, None]
            projected = projected.unflatten(-1, (-1, self.features)).take_along_dim(kind, -2).squeeze(-2)
        cosine = self._scheduled(nn.functional.cosine_similarity(projected, target, dim=-1), t)
        return v, -cosine[exists].sum() / exists.sum().clamp_min(1)

    def _scheduled(self, cosine: Float[Tensor, "B *N"], t: Float[Tensor, "B"]) -> Float[Tensor, "B *N"]:
        return cosine if self.schedule is None else cosine * pad_like(self.schedule(t), cosine)


class GridProjector(nn.Module):
    """iREPA's projector: a 3 x 3 convolution with zero padding over tokens on a grid (rows, columns), in row-major order.

    >>> tuple(GridProjector(2, 3, (4, 5))(torch.zeros(7, 20, 2)).shape)
    (7, 20, 3)
    """

    def __init__(self, width: int, features: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.convolution = nn.Conv2d(width, features, 3, padding=1)

    def forward(self, hidden: Float[Tensor, "B N width"]) -> Float[Tensor, "B N features"]:
        rows, columns = self.grid
        if hidden.ndim != 3 or hidden.shape[1] != rows * columns:
            raise ValueError(
                f"alignment: a grid of {rows} x {columns} tokens does not fit a hidden state of shape {tuple(hidden.shape)}"
            )
        return self.convolution(hidden.mT.unflatten(-1, self.grid)).flatten(2).mT


def projector(width: int, hidden: int, features: int) -> nn.Sequential:
    """REPA's projector: linear layers of widths `width`, `hidden`, `hidden`, `features`, with SiLU between them.

    >>> tuple(projector(2, 8, 3)(torch.zeros(5, 2)).shape)
    (5, 3)
    """
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, features)
    )


def spatially_normalised(
    features: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, "B N F"]:
    """Features with mean 0 and variance 1 over the tokens of each sample: one of the two changes of iREPA, Singh et al.
    2512.10794.

    This removes the component common to all tokens, that is, global information. Features that do not vary become 0, and so do
    those of tokens that the mask excludes.

    >>> spatially_normalised(torch.tensor([[[1.0], [3.0]]])).flatten()
    tensor([-1.,  1.])
    """
    exists = features.new_ones(features.shape[:2]) if mask is None else mask.to(features.dtype)
    weight = exists[..., None] / exists.sum(1).clamp_min(1)[:, None, None]
    centred = features - (weight * features).sum(1, keepdim=True)
    deviation = (weight * centred.square()).sum(1, keepdim=True).sqrt()
    smallest = 1e-5 * (features * exists[..., None]).abs().amax(1, keepdim=True)  # less is rounding error
    return torch.where(deviation > smallest, centred / deviation, 0.0) * exists[..., None]


def pooled(hidden: Float[Tensor, "B N H"], mask: Bool[Tensor, "B N"] | None) -> Float[Tensor, "B H"]:
    """The mean hidden state over existing tokens.

    >>> pooled(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[True, False]]))
    tensor([[1.]])
    """
    if mask is None:
        return hidden.mean(1)
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def _check_takes_conditions(encoder: Encoder) -> None:
    """ValueError if the encoder does not take two arguments; encoders without a readable signature are accepted."""
    try:
        signature = inspect.signature(encoder.forward if isinstance(encoder, nn.Module) else encoder)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ValueError(
            "alignment: the encoder is called as encoder(x_1, cond); if it takes only x_1, pass Unconditional(encoder)"
        ) from error
