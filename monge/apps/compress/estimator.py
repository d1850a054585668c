"""The velocity u(x, t) between two depths of a language model: an affine map plus a gated, time-modulated layer."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.compress.affine import AffineMap
from monge.apps.compress.layer import FAMILIES, Modulated, parts_of
from monge.apps.compress.projections import merge, output_projection
from monge.lm.blocks import blocks_of
from monge.math.types import Condition


class Estimator(nn.Module):
    """u(x, t) = A x_0 + b + g (layer(x, t) - x) on states (B, N, D), with a gate g per channel: a VelocityModel.

    The affine part depends on the state x_0 from which the trajectory starts, which `cond["start"]` holds. With g = 0 the flow
    is therefore the affine map, whatever the solver; with A = 0, b = 0 and g = 1 one Euler step is the layer. With several
    layers, each has its own gate and its own share of the time from 0 to 1. Without layers, the velocity is the affine part.

    Attention is causal, and padding must be on the right, where no token attends to it. `rotary` computes the position
    embeddings of the layers, if they take any. `affine=False` leaves out A and b. With `durations=True`, the layers also depend
    on `cond["duration"]`, which `MeanFlow` sets.
    """

    def __init__(
        self, layers: Sequence[nn.Module], rotary: nn.Module | None, width: int, *, affine: bool = True, **options: Any
    ) -> None:
        super().__init__()
        if not layers and not affine:
            raise ValueError("Estimator: neither layers nor an affine part; give at least one of them")
        self.blocks: Sequence[Modulated] = nn.ModuleList(Modulated(layer, width, **options) for layer in layers)  # pyright: ignore
        self.gates = nn.ParameterList(torch.full((width,), float(len(layers))) for _ in layers)
        self.map = nn.Linear(width, width) if affine else None
        self.rotary, self.width = rotary, width
        if self.map is not None:
            nn.init.zeros_(self.map.weight)
            nn.init.zeros_(self.map.bias)

    @torch.no_grad()
    def start_from(self, affine: AffineMap) -> "Estimator":
        """Set the map to `affine` and close the gates. ValueError without an affine part."""
        if self.map is None:
            raise ValueError("Estimator: no affine part to start from; give affine=True")
        self.map.weight.copy_(affine.matrix)
        self.map.bias.copy_(affine.bias)
        for gate in self.gates:
            gate.zero_()
        return self

    def features(self, x_0: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 3*D"]:
        """The state, and what the attention and the feed-forward of the first layer add to it at t = 0."""
        return torch.cat([x_0, *self.blocks[0](x_0, x_0.new_zeros(len(x_0)), self.context(x_0))], -1)

    @torch.no_grad()
    def start_from_features(self, affine: AffineMap) -> "Estimator":
        """Set the velocity to an affine map of `features`: its part for the state is A; the output projections absorb the rest.

        ValueError unless there are an affine part and one layer, whose branches are parallel.
        """
        if self.map is None or len(self.blocks) != 1 or not self.blocks[0].parallel:
            raise ValueError("Estimator: give affine=True, one layer and parallel=True")
        parts, (matrix, *branches) = parts_of(self.blocks[0].layer), affine.matrix.chunk(3, 1)
        self.start_from(AffineMap(matrix, affine.bias))
        for part, branch in zip((parts.attention, parts.mlp), branches, strict=True):
            merge(output_projection(part), branch)
        self.gates[0].fill_(1.0)
        return self

    def forward(self, x_t: Float[Tensor, "B N D"], t: Float[Tensor, "B"], cond: Condition | None = None) -> Tensor:
        if cond is None or "start" not in cond:
            raise ValueError('Estimator: cond lacks "start", the states at t = 0')
        duration = cond.get("duration")
        return self.velocity(x_t, t, cond["start"], self.context(x_t), None if duration is None else duration.flatten())

    def context(self, x: Float[Tensor, "B N D"]) -> dict[str, Any]:
        """The keyword arguments of the layers for whole sequences."""
        if self.rotary is None:
            return {"attention_mask": None}
        positions = torch.arange(x.shape[1], device=x.device)[None]
        return {"attention_mask": None, "position_embeddings": self.rotary(x, position_ids=positions)}

    def velocity(
        self,
        x: Float[Tensor, "B N D"],
        t: Float[Tensor, "B"],
        x_0: Float[Tensor, "B N D"],
        context: Mapping[str, Any],
        duration: Float[Tensor, "B"] | None = None,
    ) -> Tensor:
        """The velocity, with the keyword arguments that the model passes to its layers. All rows share one t if there are
        several layers."""
        u = torch.zeros_like(x) if self.map is None else self.map(x_0)
        if not self.blocks:
            return u
        number = self.number(t)
        return u + self.gates[number] * sum(self.blocks[number](x, t, context, duration))

    def merge(self) -> "Estimator":
        """Merge all that is constant if each layer is evaluated once, in Euler steps: its modulation and, with parallel
        branches, its gate.

        The affine part remains: it reads the residual stream, which no single projection produces.
        """
        for number, (block, gate) in enumerate(zip(self.blocks, self.gates, strict=True)):
            block.fix(number / len(self.blocks), 1 / len(self.blocks))
            if block.parallel:
                parts = parts_of(block.layer)
                for part in (parts.attention, parts.mlp):
                    merge(output_projection(part), torch.diag(gate))
                gate.data.fill_(1.0)
        return self

    def number(self, t: Float[Tensor, "B"]) -> int:
        """The number of the layer at time t."""
        return 0 if len(self.blocks) == 1 else min(int(len(self.blocks) * float(t[0]) + 1e-4), len(self.blocks) - 1)

    @property
    def attentions(self) -> list[Any]:
        """The attention module of each layer."""
        return [parts_of(block.layer).attention for block in self.blocks]


def estimator_of(
    model: nn.Module, start: int, end: int, *, layers: Sequence[int] | None = None, **options: Any
) -> Estimator:
    """An estimator for blocks [start, end) of a causal model, with copies of `layers` (default: the first one).

    ValueError for a model type that is not in FAMILIES, and for a range outside the model.
    """
    config: Any = model.config
    if config.model_type not in FAMILIES:
        raise ValueError(f"{config.model_type}: unknown model type; use one of {', '.join(FAMILIES)}")
    blocks = blocks_of(model)
    if not 0 <= start < end <= len(blocks):
        raise ValueError(
            f"layers [{start}, {end}): the model has {len(blocks)}; give 0 <= start < end <= {len(blocks)}"
        )
    # the teacher runs without dropout, so dropout in the copies would only add noise
    copies = [_without_dropout(copy.deepcopy(blocks[number])) for number in ((start,) if layers is None else layers)]
    rotary = next((part for name, part in model.named_modules() if name.rpartition(".")[-1] == "rotary_emb"), None)
    return Estimator(copies, copy.deepcopy(rotary), int(config.hidden_size), **options)


@torch.no_grad()
def randomise(layer: nn.Module) -> None:
    """Set matrices to normal draws of standard deviation 0.02, norms to one, and biases to zero."""
    for name, parameter in layer.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.constant_(parameter, float(name.endswith("weight")))


@torch.no_grad()
def average(model: nn.Module, start: int, end: int, layer: nn.Module) -> None:
    """Set the weights of a copy of a layer to the mean over blocks [start, end)."""
    sources = [block.state_dict() for block in blocks_of(model)[start:end]]
    layer.load_state_dict({name: torch.stack([s[name].float() for s in sources]).mean(0) for name in sources[0]})


def _without_dropout(layer: nn.Module) -> nn.Module:
    for module in layer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return layer
