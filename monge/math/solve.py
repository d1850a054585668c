"""Integration of a velocity. A step takes each sample from t to s; `integrate` repeats it between knots, with gradients.

The order of the knots gives the direction: 0 to 1 is forward, 1 to 0 backward. Multistep solvers pass a memory from step
to step.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, SupportsIndex, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from monge.math.path import Affine
from monge.math.types import Velocity, at_least_single, pad_like

Step: TypeAlias = Callable[
    [Velocity, Tensor, Tensor, Tensor, Any], tuple[Tensor, Any]
]  # (v, x, t, s, memory) -> x, memory
# (knots,), or (knots, B) for knots per sample; or a number of equal steps
Knots: TypeAlias = Tensor | NDArray[np.generic] | Sequence[float] | Sequence[Sequence[float]] | SupportsIndex


class Solution(NamedTuple):
    """The state at the last knot and how many times the velocity was evaluated (NFE)."""

    x: Float[Tensor, "B *s"]
    evaluations: int


def time_grid(steps: int, like: Tensor, *, start: float = 0.0, end: float = 1.0) -> Float[Tensor, "knots"]:
    """Knots of `steps` equal steps from start to end, on the device of `like`, in its dtype or float32 if that is wider.

    >>> time_grid(4, torch.zeros(1))
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    if steps < 1:
        raise ValueError(f"time_grid: use at least one step, got {steps}")
    return torch.linspace(start, end, steps + 1, dtype=at_least_single(like.dtype), device=like.device)


def trajectory(
    v: Velocity,
    x: Tensor,
    times: Knots | None = None,
    *,
    steps: SupportsIndex | None = None,
    step: Step | str | None = None,
) -> Iterator[Tensor]:
    """x at every knot, including the first. Takes the arguments of `integrate`.

    >>> [float(x) for x in trajectory(lambda x, t: torch.ones_like(x), torch.zeros(1), steps=2)]
    [0.0, 0.5, 1.0]
    """
    advance, knots, dtype, memory = step_called(step), knots_of(times, x, steps), x.dtype, None
    checked = Checked(v, dtype)
    yield x
    for t, s in pairwise(knots.unbind()):
        x, memory = advance(checked, x, t, s, memory)
        x = x if x.dtype == dtype else x.to(dtype)  # a call without effect costs a microsecond
        yield x


def integrate(
    v: Velocity,
    x: Shaped[Tensor, "B *s"],  # ValueError for integer states
    times: Knots | None = None,
    *,
    steps: SupportsIndex | None = None,
    step: Step | str | None = None,
) -> Float[Tensor, "B *s"]:
    """x at the last knot of `times`: a tensor, array or list of knots, (knots,) or, for knots per sample, (knots, B).

    An integer, as `times` or as `steps`, means that number of equal steps from 0 to 1. `step` is a solver or its name in
    SOLVERS; default: midpoint. The velocity is called with x in its own dtype and t in float32 or wider. ValueError if a
    knot is not finite or a velocity does not have the shape of its state.

    >>> integrate(lambda x, t: -x, torch.ones(1, 1), steps=10, step="rk4")
    tensor([[0.3679]])
    """
    for state in trajectory(v, x, times, steps=steps, step=step):
        x = state
    return x


def solve(
    v: Velocity,
    x: Float[Tensor, "B *s"],
    times: Knots | None = None,
    *,
    steps: SupportsIndex | None = None,
    step: Step | str | None = None,
) -> Solution:
    """The result of `integrate`, with the number of velocity evaluations.

    >>> solve(lambda x, t: -x, torch.ones(1, 1), steps=10).evaluations
    20
    """
    counted = Counted(v)
    return Solution(integrate(counted, x, times, steps=steps, step=step), counted.evaluations)


def knots_of(
    times: Knots | None, x: Tensor, steps: SupportsIndex | None = None, *, backward: bool = False
) -> Float[Tensor, "knots B"]:
    """The knots of each sample, on the device of x, in its dtype or float32 if that is wider.

    A number of steps runs from 0 to 1 or, with `backward`, from 1 to 0.
    """
    if not x.is_floating_point():
        raise ValueError(f"integrate: x is {x.dtype}; give states of a floating dtype, such as x.float()")
    if (times is None) == (steps is None):
        raise ValueError("integrate: give either times (the knots) or steps (a number of equal steps from 0 to 1)")
    if not x.ndim:
        raise ValueError("integrate: x is a single number; give a batch of states, (B, ...)")
    if times is None or isinstance(times, str) or not (isinstance(times, Sequence) or getattr(times, "ndim", 0)):
        count = _number_of_steps(steps if times is None else times)
        return time_grid(count, x, start=float(backward), end=1.0 - backward)[:, None].expand(-1, len(x))
    knots = torch.as_tensor(times)
    if knots.ndim not in (1, 2) or not len(knots) or (knots.ndim == 2 and knots.shape[1] != len(x)):
        raise ValueError(
            f"integrate: times has shape {tuple(knots.shape)} for {len(x)} samples; give (knots,), or (knots, {len(x)})"
        )
    # on an accelerator the check waits for the device, which training must not
    if (knots.device.type == "cpu" or not torch.is_grad_enabled()) and not bool(torch.isfinite(knots).all()):
        index = (~torch.isfinite(knots)).nonzero()[0].tolist()
        raise ValueError(f"integrate: times{index} is {float(knots[tuple(index)])}; give finite knots")
    knots = knots.to(x.device, at_least_single(x.dtype))
    return knots if knots.ndim == 2 else knots[:, None].expand(-1, len(x))


def _number_of_steps(count: object) -> int:
    try:
        if not isinstance(count, bool):
            return operator.index(count)  # pyright: ignore[reportArgumentType]
    except TypeError:
        pass
    raise ValueError(f"integrate: {count!r} is not a number of steps; give an integer, or the knots as a sequence")


def step_called(step: Step | str | None) -> Step:
    """The given solver, or the one with that name; default: midpoint."""
    if step is None:
        return midpoint
    if not isinstance(step, str):
        return step
    from monge.math.solvers import SOLVERS, solver  # imported here because it imports this module

    if step not in SOLVERS:
        raise ValueError(f"integrate: there is no solver {step!r}; known: {', '.join(SOLVERS)}")
    return solver(step)


@dataclass(frozen=True)
class Checked:
    """A velocity that is called with states of `dtype` and whose output must have the shape of the state."""

    v: Velocity
    dtype: torch.dtype

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        v_t = self.v(x if x.dtype == self.dtype else x.to(self.dtype), t)
        if v_t.shape != x.shape:
            raise ValueError(
                f"integrate: the velocity has shape {tuple(v_t.shape)} for states of shape {tuple(x.shape)}; "
                "return one of the same shape"
            )
        return v_t


@dataclass
class Counted:
    """A velocity that counts its evaluations."""

    v: Velocity
    evaluations: int = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.evaluations += 1
        return self.v(x, t)


def gap(t: Float[Tensor, "B"], s: Float[Tensor, "B"], x: Float[Tensor, "B *s"]) -> Tensor:
    """s - t, shaped to multiply x; a scalar if all samples share their knots, which is cheaper."""
    shared = len(t) > 0 and t.stride() == s.stride() == (0,)
    return (s - t)[0] if shared else pad_like(s - t, x)


def euler(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """First order, one evaluation."""
    return torch.addcmul(x, gap(t, s, x), v(x, t)), memory


def midpoint(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Second order, two evaluations: the velocity at the midpoint, reached by an Euler step."""
    h = gap(t, s, x)
    return x + h * v(x + h / 2 * v(x, t), (t + s) / 2), memory


def heun(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Second order, two evaluations: the mean of the velocities at both ends."""
    h = gap(t, s, x)
    k_1 = v(x, t)
    return x + h / 2 * (k_1 + v(x + h * k_1, s)), memory


def rk4(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Fourth order, four evaluations: the classical Runge-Kutta step."""
    h, half = gap(t, s, x), (t + s) / 2
    k_1 = v(x, t)
    k_2 = v(x + h / 2 * k_1, half)
    k_3 = v(x + h / 2 * k_2, half)
    k_4 = v(x + h * k_3, s)
    return x + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4), memory


def _since(before: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """t - before, shaped to divide a difference that is zero where the knots repeat."""
    elapsed = pad_like(t - before, x)
    return torch.where(elapsed == 0, torch.ones_like(elapsed), elapsed)


def adams_bashforth_2(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Second order, one evaluation: extrapolates from the last velocity. Steps may be unequal; the first is an Euler step."""
    v_t = v(x, t)
    h = gap(t, s, x)
    move = v_t
    if memory is not None:
        (before, v_before), *_ = memory
        move = v_t + h / 2 * (v_t - v_before) / _since(before, t, x)
    return x + h * move, [(t, v_t)]


def adams_bashforth_3(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """Third order, one evaluation: extrapolates from the last two velocities (Newton form, unequal steps). Starts with Heun."""
    v_t = v(x, t)
    h = gap(t, s, x)
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

    Lu et al. 2211.01095, alg. 2, with log(beta / alpha) as the half log-SNR. Second order
    inside; first order in the first two steps from t = 0 and the last step to t = 1, where the log-SNR is infinite.
    Integrates from source to target only; ValueError otherwise.

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
