"""Align a hidden layer with a frozen encoder of the clean data. Yu et al. 2410.06940 (REPA), eq. 6 and sec. 3.2."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.types import Condition, FeatureModel, Pair
from monge.objective.frozen import Frozen

Encoder: TypeAlias = Callable[[Tensor, Condition], Tensor]  # (x_1, cond) -> (B, N, features) or (B, features)


class Unconditional(nn.Module):
    """`encoder`, which takes x_1 alone, as an encoder that is called with x_1 and the conditions."""

    def __init__(self, encoder: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x_1: Tensor, cond: Condition) -> Tensor:
        return self.encoder(x_1)


@dataclass(frozen=True)
class CachedTargets:
    """An encoder's features computed in advance: row cond[key] of `store`, or store(cond[key]) if it is a function.

    `key` "index" holds rows of the data set. Targets that come with the batch: `CachedTargets(lambda x: x, key="target")`.
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
    """Minus the mean cosine between the projected hidden state after block `layer` and the encoder's features of x_1.

    `encoder` is called with the pair's clean x_1 and its conditions, among them the mask. It returns features per token,
    (B, N, features), or pooled ones, (B, features), which are compared with the mean hidden state. A module is frozen: it
    follows this one's device and dtype and is neither trained nor saved. The projector is an MLP of three layers with
    SiLU between. Tokens that the pair's mask leaves out do not count.
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
    ) -> None:
        super().__init__()
        _check_takes_conditions(encoder)
        self.layer, self.weight = layer, weight
        self.encoder = Frozen(encoder) if isinstance(encoder, nn.Module) else encoder
        self.projector = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, features)
        )

    def forward(
        self, model: FeatureModel, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], pair: Pair
    ) -> tuple[Float[Tensor, "B *s"], Float[Tensor, ""]]:
        """The velocity at x_t, and the loss."""
        v, hidden = model.with_features(x_t, t, pair.condition, self.layer)
        with torch.no_grad():
            target = self.encoder(pair.x_1, pair.condition)
        if target.ndim == 2 and len(target) == len(hidden):
            cosine = nn.functional.cosine_similarity(self.projector(_pooled(hidden, pair.mask)), target, dim=-1)
            return v, -cosine.mean()
        if target.shape[:2] != hidden.shape[:2] or target.ndim != 3:
            raise ValueError(
                f"alignment: the encoder gives features of shape {tuple(target.shape)}, the model has "
                f"{tuple(hidden.shape[:2])} tokens; return (B, N, features) or (B, features)"
            )
        cosine = nn.functional.cosine_similarity(self.projector(hidden), target, dim=-1)
        return v, -(cosine.mean() if pair.mask is None else cosine[pair.mask].mean())


def _pooled(hidden: Float[Tensor, "B N H"], mask: Tensor | None) -> Float[Tensor, "B H"]:
    """The mean over existing tokens."""
    if mask is None:
        return hidden.mean(1)
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def _check_takes_conditions(encoder: Encoder) -> None:
    """ValueError if the encoder cannot be called with two arguments; signatures that cannot be read pass."""
    try:
        signature = inspect.signature(encoder.forward if isinstance(encoder, nn.Module) else encoder)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise ValueError(
            "alignment: the encoder is called as encoder(x_1, cond); wrap one that takes x_1 alone: Unconditional(encoder)"
        ) from error
