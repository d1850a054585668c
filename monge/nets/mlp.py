"""A residual multilayer perceptron for points, tables and small images."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.types import Condition
from monge.nets.embed import ConditionEmbedding


class MLP(nn.Module):
    """v(x_t, t | class) on events of any shape, flattened: `depth` residual blocks of `width`, modulated by the condition.

    `octaves` waves of each coordinate, from frequency 1/2 by doubling, are shown beside the coordinates: without them a
    network is slow to learn fine detail in few dimensions (Tancik et al. 2006.10739).
    """

    frequencies: Tensor

    def __init__(
        self, shape: tuple[int, ...], width: int = 256, depth: int = 4, *, classes: int = 0, octaves: int = 0
    ) -> None:
        super().__init__()
        dimension = math.prod(shape)
        self.condition = ConditionEmbedding(width, classes=classes)
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
    """x + MLP(norm(x) scaled and shifted by the condition)."""

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
