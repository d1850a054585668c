"""The adaptive Runge-Kutta method of Dormand & Prince 1980, with a step of each sample's own."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from monge.math.solve import Step
from monge.math.types import Velocity, like

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
    """What the method remembers of each sample: the velocity where it stands and the size of its next step."""

    v: Tensor
    h: Tensor
    steps: Tensor  # accepted and rejected, so far


def dopri5(*, rtol: float = 1e-5, atol: float = 1e-5, max_steps: int = 10_000) -> Step:
    """Fifth order with the error of a step held under atol + rtol |x|, root mean square over each sample's own entries.

    Every sample keeps its own step and its own verdict, so its result does not depend on who shares the batch; the batch
    is evaluated until the last sample arrives. ArithmeticError if that takes more than `max_steps` rounds.
    """

    def norm(x: Tensor) -> Tensor:
        return x.detach().flatten(1).square().mean(1).sqrt()

    def step(v: Velocity, x: Tensor, t: Tensor, s: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
        whole, sign = s - t, torch.where(s >= t, 1.0, -1.0).to(t.dtype)
        v_t = v(x, t) if memory is None else memory.v
        h = _first_step(v, x, t, v_t, sign, norm, rtol, atol) if memory is None else memory.h
        taken = torch.zeros_like(t, dtype=torch.int64) if memory is None else memory.steps
        done = torch.zeros_like(t)  # how far from t to s, in absolute time
        for _ in range(max_steps):
            left = whole.abs() - done
            going = left > 0
            if not bool(going.any()):
                return x, Stride(v_t, h, taken)
            last = going & (h >= left * (1 - 1e-9))
            size = torch.where(going, torch.where(last, left, h), torch.zeros_like(h))
            x_new, v_new, error = _attempt(v, x, t + sign * done, v_t, sign * size)
            scale = atol + rtol * torch.maximum(x.detach().abs(), x_new.detach().abs())
            off = norm(error / scale)
            accept = going & (off <= 1)
            x = torch.where(like(accept, x), x_new, x)
            v_t = torch.where(like(accept, x), v_new, v_t)
            done = torch.where(accept, torch.where(last, whole.abs(), done + size), done)
            # a non-finite error shrinks the step; a step cut short by the knot does not shrink the next one
            factor = torch.nan_to_num(0.9 * off.clamp_min(1e-10) ** -0.2, nan=0.2).clamp(0.2, 10.0)
            grown = torch.where(accept & last, torch.maximum(h, size * factor), size * factor)
            h = torch.where(going, grown, h)
            taken = taken + going
        late = int((done < whole.abs()).sum())
        raise ArithmeticError(
            f"dopri5: {max_steps} steps did not bring {late} of {len(x)} samples to the next knot; "
            "loosen rtol and atol, or look for a velocity that is not finite"
        )

    return step


def _attempt(v: Velocity, x: Tensor, t: Tensor, v_t: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The fifth-order result, the velocity there, and the difference to the embedded fourth-order result."""
    step = like(h, x)
    slopes, x_new = [v_t], x
    for node, row in zip(_NODES, _STAGES, strict=True):
        x_new = x + step * sum(weight * slope for weight, slope in zip(row, slopes, strict=True) if weight)
        slopes.append(v(x_new, t + node * h))
    error = step * sum(weight * slope for weight, slope in zip(_ERROR, slopes, strict=True) if weight)
    return x_new, slopes[-1], torch.as_tensor(error)


def _first_step(
    v: Velocity, x: Tensor, t: Tensor, v_t: Tensor, sign: Tensor, norm: Any, rtol: float, atol: float
) -> Tensor:
    """A first step that should just pass. Hairer, Norsett & Wanner I, sec. II.4."""
    scale = atol + rtol * x.detach().abs()
    d_0, d_1 = norm(x / scale), norm(v_t / scale)
    h_0 = torch.where((d_0 < 1e-5) | (d_1 < 1e-5), torch.full_like(d_0, 1e-6), 0.01 * d_0 / d_1.clamp_min(1e-30))
    guess = x + like(sign * h_0, x) * v_t
    d_2 = norm((v(guess, t + sign * h_0) - v_t) / scale) / h_0
    steepest = torch.maximum(d_1, d_2)
    h_1 = torch.where(steepest <= 1e-15, (h_0 * 1e-3).clamp_min(1e-6), (0.01 / steepest.clamp_min(1e-30)) ** 0.2)
    return torch.minimum(100 * h_0, h_1).detach()
