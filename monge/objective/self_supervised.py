"""Losses on hidden states that need no encoder: dispersion, and alignment with the model's own average."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.func import functional_call

from monge.math.types import Condition, FeatureModel, Pair, pad_like
from monge.objective.alignment import pooled, projector


class Dispersive(nn.Module):
    """Dispersive loss of Wang and He 2506.09027, algorithm 1: log mean exp(-d / temperature) over all ordered pairs of samples
    in the batch, each sample with itself included; d is the mean squared difference of their hidden states after block `layer`.

    It pushes the samples apart. Hidden states are compared token by token or, if the pair has a mask, as means over existing
    tokens. The objective multiplies the loss by `weight`.

    >>> from monge.nets.dit import DiT
    >>> x = torch.ones(2, 5, 3)
    >>> Dispersive(layer=2)(DiT(3), x, torch.zeros(2), Pair(x, x))[1].item() <= 0
    True
    """

    def __init__(self, *, layer: int, weight: float = 0.5, temperature: float = 0.5) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"dispersive: temperature must be positive, got {temperature}")
        self.layer, self.weight, self.temperature = layer, weight, temperature

    def forward(
        self, model: FeatureModel, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], pair: Pair
    ) -> tuple[Float[Tensor, "B *s"], Float[Tensor, ""]]:
        """The model's output at x_t, and the dispersive loss."""
        v, hidden = model.with_features(x_t, t, pair.condition, self.layer)
        z = (hidden if pair.mask is None else pooled(hidden, pair.mask)).flatten(1)
        distance = torch.cdist(z, z).square() / z.shape[1]
        return v, (-distance / self.temperature).flatten().logsumexp(0) - math.log(distance.numel())


def on_segment(pair: Pair, t: Float[Tensor, "B"]) -> tuple[Tensor, Condition]:
    """The point (1 - t) x_0 + t x_1, and the conditions of the pair.

    >>> on_segment(Pair(torch.zeros(1, 2), torch.ones(1, 2)), torch.tensor([0.25]))[0]
    tensor([[0.2500, 0.2500]])
    """
    return torch.lerp(pair.x_0, pair.x_1, pad_like(t, pair.x_0)), pair.condition


class SelfAlignment(nn.Module):
    """Negative mean cosine similarity between the projected hidden state after block `layer` and an EMA teacher's hidden state
    after a later block, `teacher_layer`, at a later time. After Jiang et al. 2505.02831 (SRA), with REPA's cosine.

    The teacher is the exponential moving average of the weights of `model`, with `decay` per forward pass in training; it is
    saved with the objective's state. It sees the same pair at time min(t + u, 1), u uniform on [0, `gap`]; `later` gives its
    state and conditions from (pair, time). The student has a projector like Alignment's, with `width` inputs and outputs.
    ValueError unless layer < teacher_layer.

    >>> from monge.nets.dit import DiT
    >>> net, x = DiT(3), torch.ones(2, 5, 3)
    >>> align = SelfAlignment(net, layer=1, teacher_layer=2, width=256)
    >>> abs(align(net, x, torch.zeros(2), Pair(x, x))[1].item()) <= 1
    True
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layer: int,
        teacher_layer: int,
        width: int,
        weight: float = 0.5,
        hidden: int = 2048,
        decay: float = 0.999,
        gap: float = 0.2,
        later: Callable[[Pair, Tensor], tuple[Tensor, Condition]] = on_segment,
    ) -> None:
        super().__init__()
        if not layer < teacher_layer:
            raise ValueError(f"self-alignment: layer {layer} must come before teacher_layer {teacher_layer}")
        if not 0 <= decay < 1 or not 0 <= gap <= 1:
            raise ValueError(f"self-alignment: decay {decay} must lie in [0, 1), gap {gap} in [0, 1]")
        self.layer, self.teacher_layer, self.weight = layer, teacher_layer, weight
        self.decay, self.gap, self.later = decay, gap, later
        self.projector = projector(width, hidden, width)
        self._teacher = (
            _Features(copy.deepcopy(model).eval().requires_grad_(False)),
        )  # a tuple hides it from nn.Module
        for name, parameter in model.named_parameters():
            self.register_buffer(_key(name), parameter.detach().clone())

    def forward(
        self, model: FeatureModel, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], pair: Pair
    ) -> tuple[Float[Tensor, "B *s"], Float[Tensor, ""]]:
        """The model's output at x_t, and the loss. In training, the average is updated first."""
        v, hidden = model.with_features(x_t, t, pair.condition, self.layer)
        with torch.no_grad():
            if self.training and v.requires_grad:
                self._update(model)
            time = (t + self.gap * torch.rand_like(t)).clamp_max(1)
            state, cond = self.later(pair, time)
            weights = {
                f"model.{name}": self.get_buffer(_key(name)) for name, _ in self._teacher[0].model.named_parameters()
            }
            target = functional_call(self._teacher[0], weights, (state, time, cond, self.teacher_layer))
        cosine = nn.functional.cosine_similarity(self.projector(hidden), target, dim=-1)
        return v, -(cosine.mean() if pair.mask is None else cosine[pair.mask].mean())

    def _update(self, model: Any) -> None:
        for name, parameter in model.named_parameters():
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            self.get_buffer(_key(name)).lerp_(whole.detach().to(self.get_buffer(_key(name))), 1 - self.decay)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "SelfAlignment":  # called by .to, .cuda, .double
        self._teacher[0]._apply(fn, recurse)
        return super()._apply(fn, recurse)


class _Features(nn.Module):
    """A model whose forward returns the hidden state after a block."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, cond: Condition, layer: int) -> Tensor:
        return self.model.with_features(x, t, cond, layer)[1]


def _key(name: str) -> str:
    return "average/" + name.replace(".", "/")
