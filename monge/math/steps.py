"""Solver steps: each takes a batch of states from time t to time s, (v, x, t, s, memory) -> (x, memory).

Multistep solvers pass a memory from step to step; the others return it unchanged. `integrate` repeats a step between knots.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from monge.math.path import Affine
from monge.math.types import Velocity, pad_like

Step: TypeAlias = Callable[
    [Velocity, Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]
]  # (v, x, t, s, memory) -> x, memory


def step_size(t: Float[Tensor, "B"], s: Float[Tensor, "B"], x: Float[Tensor, "B *s"]) -> Tensor:
    """s - t, shaped to multiply x; a scalar if all samples share their knots, which is cheaper.

    >>> step_size(torch.tensor([0.0, 0.5]), torch.tensor([0.5, 0.75]), torch.zeros(2, 3)).shape
    torch.Size([2, 1])
    """
    shared = len(t) > 0 and t.stride() == s.stride() == (0,)
    return (s - t)[0] if shared else pad_like(s - t, x)


def euler(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """First order, one evaluation.

    >>> from monge.math.solve import integrate
    >>> integrate(lambda x, t: x, torch.ones(1), steps=1, step=euler)
    tensor([2.])
    """
    return torch.addcmul(x, step_size(t, s, x), v(x, t)), memory


def midpoint(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Second order, two evaluations: the velocity at the midpoint, reached by an Euler step.

    >>> from monge.math.solve import integrate
    >>> integrate(lambda x, t: x, torch.ones(1), steps=1, step=midpoint)
    tensor([2.5000])
    """
    h = step_size(t, s, x)
    return x + h * v(x + h / 2 * v(x, t), (t + s) / 2), memory


def heun(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Second order, two evaluations: the mean of the velocities at both ends.

    >>> from monge.math.solve import integrate
    >>> integrate(lambda x, t: x, torch.ones(1), steps=1, step=heun)
    tensor([2.5000])
    """
    h = step_size(t, s, x)
    k_1 = v(x, t)
    return x + h / 2 * (k_1 + v(x + h * k_1, s)), memory


def rk4(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Fourth order, four evaluations: the classical Runge-Kutta step.

    >>> from monge.math.solve import integrate
    >>> integrate(lambda x, t: x, torch.ones(1), steps=1, step=rk4)
    tensor([2.7083])
    """
    h, half = step_size(t, s, x), (t + s) / 2
    k_1 = v(x, t)
    k_2 = v(x + h / 2 * k_1, half)
    k_3 = v(x + h / 2 * k_2, half)
    k_4 = v(x + h * k_3, s)
    return x + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4), memory


def _since(before: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """t - before, shaped to divide v_t - v_before; 1 where the knots repeat, since v_t - v_before is then 0 as well."""
    elapsed = pad_like(t - before, x)
    return torch.where(elapsed == 0, torch.ones_like(elapsed), elapsed)


def adams_bashforth_2(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Second order, one evaluation: extrapolates from the previous velocity. Steps may be unequal; the first is an Euler step.

    >>> from monge.math.solve import integrate
    >>> integrate(lambda x, t: x, torch.ones(1), steps=10, step=adams_bashforth_2)
    tensor([2.6956])
    """
    v_t = v(x, t)
    h = step_size(t, s, x)
    move = v_t
    if memory is not None:
        (before, v_before), *_ = memory
        move = v_t + h / 2 * (v_t - v_before) / _since(before, t, x)
    return x + h * move, [(t, v_t)]


def adams_bashforth_3(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Third order, one evaluation: extrapolates from two previous velocities (Newton form, unequal steps). Starts with Heun.

    >>> from monge.math.solve import integrate
    >>> integrate(lambda x, t: x, torch.ones(1), steps=10, step=adams_bashforth_3)
    tensor([2.7161])
    """
    v_t = v(x, t)
    h = step_size(t, s, x)
    if memory is None:
        return x + h / 2 * (v_t + v(x + h * v_t, s)), [(t, v_t)]
    (before, v_before), *older = memory
    h_1 = _since(before, t, x)
    slope = (v_t - v_before) / h_1
    x_s = x + h * v_t + h**2 / 2 * slope
    if older:
        long_before, v_long_before = older[0]
        h_2 = _since(long_before, before, x)
        curvature = (slope - (v_before - v_long_before) / h_2) / (h_1 + h_2)
        x_s = x_s + (h**3 / 3 + h_1 * h**2 / 2) * curvature
    return x_s, [(t, v_t), (before, v_before)]


def dpm_solver_2m(path: Affine) -> Step:
    """DPM-Solver++(2M) in flow form, one evaluation: exact in the linear part, extrapolates the predicted x_1.

    Lu et al. 2211.01095, alg. 2, with log(beta / alpha) as the half log-SNR. Second order, except for the first two steps
    from t = 0 and the last step to t = 1: they are first order, since the log-SNR is infinite at both ends. Integrates from
    source to target only; ValueError otherwise.

    >>> from monge.math.solve import integrate
    >>> integrate(lambda x, t: torch.ones_like(x), torch.zeros(1, 1), steps=4, step=dpm_solver_2m(Affine()))
    tensor([[1.]])
    """
    return _DPMSolver2M(path)


@dataclass(frozen=True)
class _DPMSolver2M:
    path: Affine

    def __call__(self, v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        if bool((s <= t).any()):
            raise ValueError("dpm_solver_2m integrates from source to target; encode with another solver, such as ab2")
        _, x_1 = self.path.endpoints(v(x, t), x, t)
        (alpha_t, beta_t), _ = self.path.rates(t)
        (alpha_s, beta_s), _ = self.path.rates(s)
        snr = torch.log(beta_t / alpha_t)
        estimate = x_1
        if memory is not None:
            x_1_before, snr_before = memory
            ratio = (torch.log(beta_s / alpha_s) - snr) / (snr - snr_before) / 2
            # a log-SNR may be infinite, or finite by rounding alone: in float64 cos(pi / 2) is 6e-17
            rounding = 8 * torch.finfo(alpha_s.dtype).eps
            ratio = torch.where(torch.isfinite(ratio) & (alpha_s > rounding), ratio, torch.zeros_like(ratio))
            estimate = x_1 + pad_like(ratio, x) * (x_1 - x_1_before)
        shrink = alpha_s / alpha_t
        return pad_like(shrink, x) * x + pad_like(beta_s - beta_t * shrink, x) * estimate, (x_1, snr)
