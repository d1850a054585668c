"""Paths from x_0 to x_1: the point x_t and its velocity. Lipman et al. 2023 (2210.02747); Albergo et al. 2303.08797."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from monge.math.types import pad_like

Schedule: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]  # t -> alpha, beta of x_t = alpha x_0 + beta x_1
Spread: TypeAlias = Callable[[Tensor], Tensor]  # t -> sigma, the standard deviation of noise added around the path


class PathPoint(NamedTuple):
    """A point on a path and its velocity."""

    t: Float[Tensor, "B"]
    x_t: Float[Tensor, "B *s"]
    u_t: Float[Tensor, "B *s"]


@runtime_checkable
class Path(Protocol):
    """(x_0, x_1, t) -> PathPoint. Noise, if the path has any, comes from `generator`.

    >>> isinstance(Affine(), Path)
    True
    """

    def __call__(
        self, x_0: Tensor, x_1: Tensor, t: Tensor, *, generator: torch.Generator | None = None
    ) -> PathPoint: ...


def linear(t: Tensor) -> tuple[Tensor, Tensor]:
    """The straight line (1 - t) x_0 + t x_1.

    >>> linear(torch.tensor(0.25))
    (tensor(0.7500), tensor(0.2500))
    """
    return 1 - t, t


def trigonometric(t: Tensor) -> tuple[Tensor, Tensor]:
    """Variance preserving: cos(pi t / 2) x_0 + sin(pi t / 2) x_1. Albergo & Vanden-Eijnden 2209.15571, eq. 5.

    >>> trigonometric(torch.tensor(0.0))
    (tensor(1.), tensor(0.))
    """
    return torch.cos(t * (math.pi / 2)), torch.sin(t * (math.pi / 2))


def conditional_ot(sigma_min: float) -> Schedule:
    """(1 - (1 - sigma_min) t) x_0 + t x_1: noise of width sigma_min remains around the data. Lipman et al. 2023, eq. 20.

    >>> conditional_ot(0.1)(torch.tensor(1.0))
    (tensor(0.1000), tensor(1.))
    """
    return _ConditionalOT(sigma_min)


def constant(sigma: float) -> Spread:
    """Gaussian noise of constant width along the path: I-CFM of Tong et al. 2302.00482, eq. 14.

    >>> constant(0.5)(torch.tensor([0.0, 1.0]))
    tensor([0.5000, 0.5000])
    """
    return _Constant(sigma)


def decreasing(sigma: float) -> Spread:
    """Gaussian noise whose width falls linearly from sigma at the source to 0 at the target.

    >>> decreasing(0.5)(torch.tensor([0.0, 1.0]))
    tensor([0.5000, 0.0000])
    """
    return _Decreasing(sigma)


@dataclass(frozen=True)
class _ConditionalOT:  # dataclasses rather than closures, because they can be pickled
    sigma_min: float

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - (1 - self.sigma_min) * t, t


@dataclass(frozen=True)
class _Constant:
    sigma: float

    def __call__(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.sigma)


@dataclass(frozen=True)
class _Decreasing:
    sigma: float

    def __call__(self, t: Tensor) -> Tensor:
        return self.sigma * (1 - t)


@dataclass(frozen=True)
class Affine:
    """x_t = alpha x_0 + beta x_1 + sigma z. The velocity is derived from the schedule, so the two cannot disagree.

    >>> point = Affine()(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.25]))
    >>> point.x_t, point.u_t
    (tensor([[0.2500, 0.2500]]), tensor([[1., 1.]]))
    """

    schedule: Schedule = linear
    spread: Spread | None = None

    def __call__(
        self,
        x_0: Float[Tensor, "B *s"],
        x_1: Float[Tensor, "B *s"],
        t: Float[Tensor, "B"],
        *,
        generator: torch.Generator | None = None,
    ) -> PathPoint:
        (alpha, beta), (d_alpha, d_beta) = self.rates(t)
        x_t = pad_like(alpha, x_0) * x_0 + pad_like(beta, x_1) * x_1
        u_t = pad_like(d_alpha, x_0) * x_0 + pad_like(d_beta, x_1) * x_1
        if self.spread is not None:
            z = torch.randn(x_1.shape, generator=generator, dtype=x_1.dtype, device=x_1.device)
            (sigma,), (d_sigma,) = _jvp(lambda t, spread=self.spread: (spread(t),), t)
            x_t, u_t = x_t + pad_like(sigma, z) * z, u_t + pad_like(d_sigma, z) * z
        return PathPoint(t, x_t, u_t)

    def rates(self, t: Float[Tensor, "*b"]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(alpha, beta) and their derivatives with respect to t."""
        return _jvp(self.schedule, t)

    def endpoints(self, v: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The (x_0, x_1) whose path, without spread, passes through x_t with velocity v."""
        (alpha, beta), (d_alpha, d_beta) = [[pad_like(r, x_t) for r in pair] for pair in self.rates(t)]
        wronskian = alpha * d_beta - d_alpha * beta
        return (d_beta * x_t - beta * v) / wronskian, (alpha * v - d_alpha * x_t) / wronskian

    def velocity_from_target(self, x_1: Tensor, x_t: Tensor, t: Tensor, *, floor: float = 0.0) -> Tensor:
        """The velocity at x_t, given x_1 or its prediction. alpha, which vanishes at t = 1, is clamped to at least `floor`."""
        (alpha, beta), (d_alpha, d_beta) = [[pad_like(r, x_t) for r in pair] for pair in self.rates(t)]
        return d_beta * x_1 + d_alpha * (x_t - beta * x_1) / alpha.clamp_min(floor)

    def velocity_from_source(self, x_0: Tensor, x_t: Tensor, t: Tensor, *, floor: float = 0.0) -> Tensor:
        """The velocity at x_t, given x_0 or its prediction. beta, which vanishes at t = 0, is clamped to at least `floor`."""
        (alpha, beta), (d_alpha, d_beta) = [[pad_like(r, x_t) for r in pair] for pair in self.rates(t)]
        return d_alpha * x_0 + d_beta * (x_t - alpha * x_0) / beta.clamp_min(floor)


def _jvp(function: Callable[[Tensor], tuple[Tensor, ...]], t: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Values and derivatives of `function` at t. Forward mode: a quarter of the overhead of torch.func.jvp."""
    with torch.inference_mode(False), forward_ad.dual_level():  # inference mode would silently drop the derivatives
        t = t.clone()  # neither an inference tensor nor an expanded one can carry a tangent
        duals = [forward_ad.unpack_dual(out) for out in function(forward_ad.make_dual(t, torch.ones_like(t)))]
    values = tuple(dual.primal for dual in duals)
    return values, tuple(torch.zeros_like(t) if dual.tangent is None else dual.tangent for dual in duals)
