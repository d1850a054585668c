"""Differentiable integration of a velocity. A step takes each sample from t to s; `integrate` repeats it between knots.

The order of the knots gives the direction: 0 to 1 is forward, 1 to 0 backward. The solver steps are in steps.py.
"""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, SupportsIndex, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from monge.math.solvers import SOLVERS, solver
from monge.math.steps import Step, midpoint
from monge.math.types import Velocity, at_least_single

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
    advance, knots, dtype, memory = as_step(step), knots_of(times, x, steps), x.dtype, None
    checked = Checked(v, dtype)
    yield x
    for t, s in pairwise(knots.unbind()):
        x, memory = advance(checked, x, t, s, memory)
        x = x if x.dtype == dtype else x.to(dtype)  # even a redundant .to costs a microsecond
        yield x


def integrate(
    v: Velocity,
    x: Shaped[Tensor, "B *s"],  # ValueError for integer states
    times: Knots | None = None,
    *,
    steps: SupportsIndex | None = None,
    step: Step | str | None = None,
) -> Float[Tensor, "B *s"]:
    """x at the last knot. `times` is a tensor, array or list of knots, (knots,) or, for knots per sample, (knots, B).

    An integer, as `times` or as `steps`, means that number of equal steps from 0 to 1. `step` is a solver or its name in
    SOLVERS; default: midpoint. The velocity is called with x in its own dtype and t in float32 or wider. ValueError if a
    knot is not finite (on an accelerator only checked without gradients) or a velocity does not have the shape of its state.

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

    >>> knots_of([0.0, 0.5, 1.0], torch.zeros(2, 3)).shape
    torch.Size([3, 2])
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
    # on an accelerator the check waits for the device, so it is skipped if gradients are enabled
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


def as_step(step: Step | str | None) -> Step:
    """The given solver, or the one with that name; default: midpoint. ValueError for an unknown name and for dpm2m.

    >>> as_step("rk4").__name__
    'rk4'
    """
    if step is None:
        return midpoint
    if not isinstance(step, str):
        return step
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
