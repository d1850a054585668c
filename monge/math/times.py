"""Distributions of t on [0, 1], each given by its quantile function, which maps uniform draws to t."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from monge.math.types import at_least_single

Quantile: TypeAlias = Callable[[Tensor], Tensor]  # a non-decreasing map of [0, 1] onto itself


def uniform(u: Tensor) -> Tensor:
    """The identity: every t is equally likely.

    >>> uniform(torch.tensor([0.25, 0.5]))
    tensor([0.2500, 0.5000])
    """
    return u


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Quantile:
    """The sigmoid of a normal variable: more draws near the middle. Esser et al. 2403.03206, eq. 19.

    >>> logit_normal()(torch.tensor([0.5]))
    tensor([0.5000])
    """
    return _LogitNormal(mean, std)


def shifted(shift: float, quantile: Quantile = uniform) -> Quantile:
    """t / (t + shift (1 - t)): shift > 1 puts more draws near the source, as large images require. 2403.03206, eq. 23.

    The same map gives a solver's grid: `shifted(3.0)(torch.linspace(0, 1, 51))`. ValueError unless shift is positive and
    finite.

    >>> shifted(3.0)(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.0000, 0.2500, 1.0000])
    """
    if not (shift > 0 and math.isfinite(shift)):
        raise ValueError(f"times: shift must be a positive number, got {shift}")
    return _Shifted(shift, quantile)


@dataclass(frozen=True)
class _LogitNormal:
    mean: float
    std: float

    def __call__(self, u: Tensor) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


@dataclass(frozen=True)
class _Shifted:
    shift: float
    quantile: Quantile

    def __call__(self, u: Tensor) -> Tensor:
        t = self.quantile(u)
        return t / (t + self.shift * (1 - t))


@dataclass(frozen=True)
class Times:
    """Draws of t. With `stratified`, one draw in each of n equally probable bins, shuffled, which lowers the variance of the
    loss.

    >>> t = Times(stratified=True)(torch.zeros(4, 2))
    >>> (4 * t).floor().sort().values
    tensor([0., 1., 2., 3.])
    """

    quantile: Quantile = uniform
    stratified: bool = False

    def __call__(self, like: Tensor, *, generator: torch.Generator | None = None) -> Float[Tensor, "B"]:
        """One t per row of `like`, on its device, in its dtype or float32 if that is wider."""
        n = len(like)
        u = torch.rand(n, generator=generator, dtype=at_least_single(like.dtype), device=like.device)
        if self.stratified:
            u = (torch.randperm(n, generator=generator, device=like.device) + u) / n
        return self.quantile(u)
