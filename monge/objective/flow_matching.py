"""Regress the velocity of the path between coupled pairs. Lipman et al. 2023 (2210.02747); Tong et al. 2302.00482."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from monge.math.coupling import Coupling, identity
from monge.math.path import Affine, Path
from monge.math.times import Times
from monge.math.types import Pair, VelocityModel, pad_like
from monge.objective.alignment import HiddenLoss
from monge.objective.base import Loss, Objective


class FlowMatching(Objective):
    """Mean squared entry of v(x_t, t) - u_t, over existing tokens if there is a mask. x_t and u_t come from one coupled pair.

    `weight`, a function of t, multiplies the squared error (Esser et al. 2403.03206, sec. 3.1). `align` adds a loss on a hidden
    state, such as Alignment (REPA). `contrast` weights a term that pushes the velocity away from those of other pairs (Stoica
    et al. 2506.05350, eq. 6). If given, `velocity_loss(v, x_t, t, pair)` is added.

    >>> pair = Pair(torch.zeros(2, 3), torch.ones(2, 3))
    >>> FlowMatching()(lambda x_t, t, cond: torch.ones_like(x_t), pair).value
    tensor(0.)
    """

    def __init__(
        self,
        *positional: object,
        path: Path | None = None,
        coupling: Coupling = identity,
        times: Times | None = None,
        weight: Callable[[Tensor], Tensor] | None = None,
        align: HiddenLoss | None = None,
        contrast: float = 0.0,
        velocity_loss: Callable[[Tensor, Tensor, Tensor, Pair], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if positional:
            raise TypeError(
                f"FlowMatching: got {positional[0]!r} without a keyword; use keywords, for example "
                "FlowMatching(path=Affine(), coupling=MinibatchOT())"
            )
        self.path, self.coupling, self.times = path or Affine(), coupling, times or Times()
        self.weight, self.align, self.contrast, self.velocity_loss = weight, align, contrast, velocity_loss

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        pair = self.coupling(batch)
        t, x_t, u_t = self.path(pair.x_0, pair.x_1, self.times(pair.x_1))
        if self.align is None:
            v, alignment = model(x_t, t, pair.condition), None
        else:
            v, alignment = self.align(model, x_t, t, pair)
        check_shape(v, x_t)
        error = (v - u_t).square()
        if self.contrast:
            error = error - self.contrast * (v - u_t.roll(1, 0)).square()
        if self.weight is not None:
            error = error * pad_like(self.weight(t), error)
        value = total = masked_mean(error, pair.mask)
        parts: dict[str, Tensor] = {}
        if alignment is not None and self.align is not None:
            total, parts["alignment"] = total + self.align.weight * alignment, alignment.detach()
        if self.velocity_loss is not None:
            extra = self.velocity_loss(v, x_t, t, pair)
            total, parts["velocity_loss"] = total + extra, extra.detach()
        return Loss(total, {"loss": total.detach(), **({"velocity": value.detach()} if parts else {}), **parts})


def check_shape(v: Tensor, x: Tensor) -> None:
    """ValueError unless a model's output has the shape of its state: broadcasting would silently change the loss.

    >>> check_shape(torch.zeros(2, 3), torch.ones(2, 3))
    """
    if v.shape != x.shape:
        raise ValueError(
            f"objective: the model returned shape {tuple(v.shape)} for states of shape {tuple(x.shape)}; "
            "return a velocity of the same shape"
        )


def masked_mean(error: Float[Tensor, "B *s"], mask: Bool[Tensor, "B N"] | None) -> Float[Tensor, ""]:
    """The mean over all entries or, with a mask, over the entries of existing tokens.

    >>> masked_mean(torch.tensor([[[2.0], [6.0]]]), torch.tensor([[True, False]]))
    tensor(2.)
    """
    if mask is None:
        return error.mean()
    weight = pad_like(mask.to(error.dtype), error)
    return (error * weight).sum() / weight.expand_as(error).sum().clamp_min(torch.finfo(error.dtype).tiny)
