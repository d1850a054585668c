"""Losses of a student: the divergence of the logits after it, and any loss on the hidden states of a frozen teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.apps.compress.teacher import Known, Teacher
from monge.math.solve import integrate
from monge.math.types import Condition, Pair, VelocityModel, pad_like
from monge.objective.base import Loss, Objective
from monge.objective.flow_matching import masked_mean
from monge.objective.frozen import Frozen
from monge.objective.mean_flow import average_velocity

ROWS = 128
"""Number of tokens whose logits are held at a time."""


@dataclass(frozen=True)
class Sequences:
    """A batch of token ids for one of several stages of training, with those states of the teacher that are known."""

    ids: Int[Tensor, "B N"]
    stage: int = 0
    known: Known = field(default_factory=dict[int, Tensor])
    """States (B, N, D) by depth."""

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Sequences":
        """The same batch on `device`."""
        known = {layer: state.to(device) for layer, state in self.known.items()}
        return Sequences(self.ids.to(device), self.stage, known)


class OnTeacher(Objective):
    """`inner` on the teacher's pairs of states for a batch of token ids.

    `scale` multiplies each dimension of the states in the loss, so that a few dimensions with large activations do not
    dominate it.
    """

    def __init__(self, teacher: Frozen, inner: Objective, *, scale: Float[Tensor, "D"] | None = None) -> None:
        super().__init__()
        self.teacher, self.inner = teacher, inner
        self.scale: Tensor | None
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, model: VelocityModel, batch: Sequences) -> Loss:
        teacher: Teacher = self.teacher.module  # pyright: ignore[reportAssignmentType]
        return self.inner(*scaled(model, teacher.pair(batch.ids, batch.known), self.scale))


def scaled(model: VelocityModel, pair: Pair, scale: Float[Tensor, "D"] | None) -> tuple[VelocityModel, Pair]:
    """The model and the pair in coordinates that are multiplied by `scale`. The conditions stay in the model's own units."""
    if scale is None:
        return model, pair

    def velocity(x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        return scale * model(x_t / scale, t, cond)

    return velocity, Pair(scale * pair.x_0, scale * pair.x_1, pair.mask, pair.cond)


class WaypointMatching(Objective):
    """Mean squared error of the velocity along the teacher's states, joined by straight lines of equal duration.

    Between the states before and after the i-th of K layers, the time runs from i / K to (i + 1) / K, and the velocity is K
    times their difference. `scale` as in `OnTeacher`.
    """

    def __init__(self, teacher: Frozen, *, scale: Float[Tensor, "D"] | None = None) -> None:
        super().__init__()
        self.teacher = teacher
        self.scale: Tensor | None
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, model: VelocityModel, batch: Sequences) -> Loss:
        teacher: Teacher = self.teacher.module  # pyright: ignore[reportAssignmentType]
        pair, states = teacher.waypoints(batch.ids, batch.known)
        layers, rows = len(states) - 1, torch.arange(len(pair), device=states.device)
        t = torch.rand(len(pair), device=states.device)
        number = (layers * t).long().clamp_max(layers - 1)
        before, after = states[number, rows], states[number + 1, rows]
        x_t = before + pad_like(layers * t - number, before) * (after - before)
        error = model(x_t, t, pair.condition) - layers * (after - before)
        value = masked_mean((error if self.scale is None else self.scale * error).square(), pair.mask)
        return Loss(value, {"loss": value.detach()})


class Stages(Objective):
    """The loss of the stage that a batch belongs to."""

    def __init__(self, *stages: Objective) -> None:
        super().__init__()
        self.stages: Sequence[Objective] = nn.ModuleList(stages)  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, model: VelocityModel, batch: Sequences) -> Loss:
        return self.stages[batch.stage](model, batch)


class LogitDivergence(Objective):
    """KL(teacher || student) of the next-token distributions, in nats per token, through the layers after the flow.

    The student's state is that after `steps` solver steps from x_0.
    """

    def __init__(self, teacher: Frozen, *, steps: int = 1, solver: str = "euler") -> None:
        super().__init__()
        self.teacher, self.steps, self.solver = teacher, steps, solver

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        teacher: Teacher = self.teacher.module  # pyright: ignore[reportAssignmentType]
        end = endpoint(model, batch, self.steps, self.solver)
        value = head_divergence(teacher.target(batch), teacher.last(end), teacher.head)
        return Loss(value, {"loss": value.detach()})


class EndpointError(Objective):
    """Mean squared error of the state after `steps` solver steps from x_0, where the pair's mask is True."""

    def __init__(self, *, steps: int = 1, solver: str = "euler") -> None:
        super().__init__()
        self.steps, self.solver = steps, solver

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        end = endpoint(model, batch, self.steps, self.solver)
        value = masked_mean((end - batch.x_1).square(), batch.mask)
        return Loss(value, {"loss": value.detach()})


def endpoint(model: VelocityModel, pair: Pair, steps: int, solver: str) -> Float[Tensor, "B N D"]:
    """The state that the flow reaches from x_0."""
    return integrate(average_velocity(model, pair.condition, steps), pair.x_0, steps=steps, step=solver)


def divergence(target: Float[Tensor, "*b vocabulary"], logits: Float[Tensor, "*b vocabulary"]) -> Float[Tensor, "*b"]:
    """KL(target || logits) of the two distributions, in nats.

    >>> divergence(torch.zeros(1, 2), torch.tensor([[0.0, 100.0]]))
    tensor([49.3069])
    """
    p = F.log_softmax(target.float(), -1)
    return F.kl_div(F.log_softmax(logits.float(), -1), p, reduction="none", log_target=True).sum(-1)


def head_divergence(target: Float[Tensor, "*b D"], x: Float[Tensor, "*b D"], head: nn.Linear) -> Float[Tensor, ""]:
    """The mean of `divergence(head(target), head(x))`, with gradients to x alone, and without all logits in memory.

    >>> head, x = torch.nn.Linear(2, 5), torch.ones(3, 2)
    >>> torch.allclose(head_divergence(-x, x, head), divergence(head(-x), head(x)).mean())
    True
    """
    value: Any = _HeadDivergence.apply(target.flatten(0, -2), x.flatten(0, -2), head)
    return value


class _HeadDivergence(torch.autograd.Function):
    """Computes value and gradient together, for `ROWS` tokens at a time."""

    @staticmethod
    def forward(ctx: Any, target: Tensor, x: Tensor, head: nn.Linear) -> Tensor:
        total, gradients = x.new_zeros((), dtype=torch.float32), []
        for y_part, x_part in zip(target.split(ROWS), x.split(ROWS), strict=True):
            p, q = head(y_part).float(), head(x_part).float()
            log_z_p, log_z_q = p.logsumexp(-1, keepdim=True), q.logsumexp(-1, keepdim=True)
            difference = p - q
            p = p.sub_(log_z_p).exp_()
            total += difference.mul_(p).sum() + (log_z_q - log_z_p).sum()
            gradients.append(q.sub_(log_z_q).exp_().sub_(p).to(head.weight.dtype) @ head.weight)
        ctx.save_for_backward(torch.cat(gradients).to(x.dtype) / len(x))
        return total / len(x)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[None, Tensor, None]:
        return None, outputs[0] * ctx.saved_tensors[0], None
