"""The adaptive Runge-Kutta method of Dormand & Prince 1980, with a step size per sample."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from monge.math.steps import Step
from monge.math.types import Velocity, at_least_single, pad_like

# Hairer, Norsett & Wanner, Solving Ordinary Differential Equations I, table II.5.2
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),  # the fifth-order result: first same as last
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class Stride(NamedTuple):
    """Per-sample memory of the method: the velocity at the current state and the size of the next step."""

    v: Tensor
    h: Tensor
    steps: Tensor  # accepted and rejected, so far


def dopri5(*, rtol: float = 1e-5, atol: float = 1e-5, max_steps: int = 10_000) -> Step:
    """Fifth order, with the error of each step below atol + rtol |x| as a root mean square over the sample's entries.

    Each sample has its own step size and accepts or rejects its own steps, so its result does not depend on the rest of
    the batch; the batch is evaluated until the last sample finishes. Tolerances below the precision of the state's dtype
    (0.8 % for bfloat16) are raised to it. ArithmeticError if a velocity remains non-finite at shorter steps, or if a
    sample does not reach the next knot in `max_steps` steps.

    >>> from monge.math.solve import integrate
    >>> integrate(lambda x, t: -x, torch.ones(1, 1), [0.0, 1.0], step=dopri5())
    tensor([[0.3679]])
    """
    return _DormandPrince(rtol, atol, max_steps)


_SHORTEST = 1e-6
"""After a non-finite velocity, a step is retried only if it is longer than this fraction of the distance between knots."""


@dataclass(frozen=True)
class _DormandPrince:
    rtol: float
    atol: float
    max_steps: int

    def __call__(self, v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        precision = torch.finfo(x.dtype).eps
        rtol, atol = max(self.rtol, precision), max(self.atol, precision)
        x = x.to(at_least_single(x.dtype))
        distance, sign = s - t, torch.where(s >= t, 1.0, -1.0).to(t.dtype)
        if memory is None:
            v_t = v(x, t)
            _check_finite(torch.isfinite(v_t.detach()).flatten(1).all(1), t)
            memory = Stride(v_t, _first_step(v, x, t, v_t, sign, rtol, atol), torch.zeros_like(t, dtype=torch.int64))
        v_t, h, taken = memory
        done = torch.zeros_like(t)  # time covered between t and s, in absolute value
        stuck = torch.zeros_like(t, dtype=torch.bool)
        for attempt in range(self.max_steps + 1):
            remaining = distance.abs() - done
            active = remaining > 0
            if bool(stuck.any() | ~active.any()):
                _check_finite(~stuck, t + sign * done)
                return x, Stride(v_t, h, taken)
            if attempt == self.max_steps:
                break
            last = active & (h >= remaining * (1 - 1e-9))
            size = torch.where(active, torch.where(last, remaining, h), torch.zeros_like(h))
            x_new, v_new, error = _attempt(v, x, t + sign * done, v_t, sign * size)
            scale = atol + rtol * torch.maximum(x.detach().abs(), x_new.detach().abs())
            ratio = _norm(error / scale)
            accept = active & (ratio <= 1)
            x = torch.where(pad_like(accept, x), x_new, x)
            v_t = torch.where(pad_like(accept, x), v_new, v_t)
            done = torch.where(accept, torch.where(last, distance.abs(), done + size), done)
            # a non-finite error shrinks the step, since it may have left the domain of the velocity; a step that the knot
            # cut short does not shrink the next one
            stuck = active & ~torch.isfinite(ratio) & (size <= _SHORTEST * distance.abs())
            factor = torch.nan_to_num(0.9 * ratio.clamp_min(1e-10) ** -0.2, nan=0.2).clamp(0.2, 10.0)
            grown = torch.where(accept & last, torch.maximum(h, size * factor), size * factor)
            h = torch.where(active, grown, h)
            taken = taken + active
        unfinished = int((done < distance.abs()).sum())
        raise ArithmeticError(
            f"dopri5: {unfinished} of {len(x)} samples did not reach the next knot in {self.max_steps} steps; "
            "loosen rtol and atol"
        )


def _check_finite(finite: Tensor, t: Tensor) -> None:
    if not bool(finite.all()):
        rows = (~finite).nonzero().squeeze(-1).tolist()
        named = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise ArithmeticError(
            f"dopri5: the velocity is not finite for {len(rows)} of {len(finite)} samples, rows {named}, "
            f"near t = {float(t[rows[0]]):.6g}; check the network and the states for nan"
        )


def _norm(x: Tensor) -> Tensor:
    """The root mean square of each sample."""
    return x.detach().flatten(1).square().mean(1).sqrt()


def _attempt(v: Velocity, x: Tensor, t: Tensor, v_t: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The fifth-order result, its velocity, and its difference from the embedded fourth-order result."""
    step = pad_like(h, x)
    slopes, x_new = [v_t], x
    for node, row in zip(_NODES, _STAGES, strict=True):
        x_new = x + step * sum(weight * slope for weight, slope in zip(row, slopes, strict=True) if weight)
        slopes.append(v(x_new, t + node * h))
    error = step * sum(weight * slope for weight, slope in zip(_ERROR, slopes, strict=True) if weight)
    return x_new, slopes[-1], torch.as_tensor(error)


def _first_step(v: Velocity, x: Tensor, t: Tensor, v_t: Tensor, sign: Tensor, rtol: float, atol: float) -> Tensor:
    """Initial step size that should just be accepted. Hairer, Norsett & Wanner I, sec. II.4."""
    scale = atol + rtol * x.detach().abs()
    d_0, d_1 = _norm(x / scale), _norm(v_t / scale)
    h_0 = torch.where((d_0 < 1e-5) | (d_1 < 1e-5), torch.full_like(d_0, 1e-6), 0.01 * d_0 / d_1.clamp_min(1e-30))
    guess = x + pad_like(sign * h_0, x) * v_t
    d_2 = _norm((v(guess, t + sign * h_0) - v_t) / scale) / h_0
    steepest = torch.maximum(d_1, d_2)
    h_1 = torch.where(steepest <= 1e-15, (h_0 * 1e-3).clamp_min(1e-6), (0.01 / steepest.clamp_min(1e-30)) ** 0.2)
    return torch.nan_to_num(torch.minimum(100 * h_0, h_1).detach(), nan=1e-6)
