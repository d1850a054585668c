"""A residual multilayer perceptron for points, tables and small images."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.types import Condition
from monge.nets.condition import ConditionEmbedding, Conditions, check_dtype, check_known


class MLP(nn.Module):
    """v(x_t, t | conditions) on events of `shape`, flattened: `depth` residual blocks of `width`, modulated by the condition.

    `MLP(2)` is short for `MLP((2,))`. `octaves` adds the sine and cosine of each coordinate to the inputs, at that number of
    angular frequencies 1/2, 1, 2, ...; without them, a network is slow to learn fine detail in few dimensions
    (Tancik et al. 2006.10739).
    `conditions` are those of `ConditionEmbedding`, per sample only.
    """

    frequencies: Tensor

    def __init__(
        self,
        shape: int | Sequence[int],
        width: int = 256,
        depth: int = 4,
        *,
        classes: int = 0,
        conditions: Conditions | None = None,
        octaves: int = 0,
    ) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dimension = math.prod(self.shape)
        self.condition = ConditionEmbedding(width, classes=classes, conditions=conditions)
        if self.condition.per_token:
            raise ValueError(
                f"MLP: conditions {self.condition.per_token} are per token, but an MLP has no tokens; use a DiT"
            )
        self.register_buffer("frequencies", 2.0 ** torch.arange(-1, octaves - 1), persistent=False)
        self.enter = nn.Linear(dimension * (1 + 2 * octaves), width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, dimension)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B *s"]:
        check_known("MLP", cond, self.condition.names)
        if x_t.shape[1:].numel() != self.leave.out_features:
            raise ValueError(f"MLP: x has shape {tuple(x_t.shape)}; this network takes events of shape {self.shape}")
        check_dtype("MLP", x_t, self.enter.weight)
        c = nn.functional.silu(self.condition(t, cond))
        h = self.enter(self._features(x_t.flatten(1)))
        for block in self.blocks:
            h = block(h, c)
        return self.leave(nn.functional.silu(self.norm(h))).reshape(x_t.shape)

    def _features(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B features"]:
        if not len(self.frequencies):
            return x
        angles = (x[..., None] * self.frequencies).flatten(1)
        return torch.cat([x, angles.sin(), angles.cos()], 1)


class ResidualBlock(nn.Module):
    """x + MLP(norm(x)), where the condition scales and shifts norm(x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        nn.init.zeros_(self.down.bias)
        nn.init.normal_(self.down.weight, std=1e-2)

    def forward(self, x: Float[Tensor, "B width"], c: Float[Tensor, "B width"]) -> Float[Tensor, "B width"]:
        scale, shift = self.modulation(c).chunk(2, -1)
        return x + self.down(nn.functional.silu(self.up(torch.addcmul(shift, self.norm(x), 1 + scale))))
