"""Regression of the endpoint of a trajectory that starts at x_0 and takes a few random steps. Wu et al. 2505.14513, alg. 2."""

from collections.abc import Callable

import torch
from torch import Tensor

from monge.math.solve import integrate
from monge.math.steps import Step, midpoint
from monge.math.types import Pair, VelocityModel, at_least_single
from monge.objective.base import Loss, Objective
from monge.objective.flow_matching import masked_mean


class FlowWalking(Objective):
    """Mean squared entry of end - x_1; `end` is reached from x_0 in `steps` solver steps at sorted uniform times per sample.

    With `reverse`, the trajectory runs from x_1 to x_0, with t from 1 to 0, and the target is x_0. If given,
    `endpoint_loss(end, target)` is added to the squared error.

    >>> pair = Pair(torch.zeros(2, 3), torch.ones(2, 3))
    >>> float(FlowWalking(steps=2)(lambda x, t, cond: torch.ones_like(x), pair).value) < 1e-6
    True
    """

    def __init__(
        self,
        *,
        steps: int = 3,
        step: Step = midpoint,
        reverse: bool = False,
        endpoint_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"flow walking: got {steps} steps; use at least one step")
        self.steps, self.step, self.reverse, self.endpoint_loss = steps, step, reverse, endpoint_loss

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return model(x, t, batch.condition)

        x_0, x_1 = (batch.x_1, batch.x_0) if self.reverse else (batch.x_0, batch.x_1)
        dtype = at_least_single(x_0.dtype)
        inner = torch.rand(self.steps - 1, len(x_0), dtype=dtype, device=x_0.device).sort(0).values
        knots = torch.cat([inner.new_zeros(1, len(x_0)), inner, inner.new_ones(1, len(x_0))])
        end = integrate(velocity, x_0, 1 - knots if self.reverse else knots, step=self.step)
        value = masked_mean((end - x_1).square(), batch.mask)
        if self.endpoint_loss is None:
            return Loss(value, {"loss": value.detach()})
        extra = self.endpoint_loss(end, x_1)
        total = value + extra
        return Loss(total, {"loss": total.detach(), "walk": value.detach(), "endpoint_loss": extra.detach()})
