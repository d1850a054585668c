"""The transformer velocity field on containers: slots are a set, each knows its place by the state's own position channel."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.container import Container
from monge.math.types import Condition
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiT, DiTShape


class Field(nn.Module):
    """v(x_t, t) of (B, N, D + 2) states. It is equivariant to the order of slots, so that both ends may order them as they do.

    With `heads` 2 the way back, t from 1 to 0, has an output layer of its own: cond["back"], (B,), says who takes it.
    """

    def __init__(self, container: Container, width: int, inner: int, depth: int, *, heads: int = 1) -> None:
        super().__init__()
        self.container, self.heads = container, heads
        block = BlockShape(inner, max(1, inner // 64))
        self.dit = DiT((width + 2), DiTShape(block, depth))
        self.back = nn.Linear(width + 2, width + 2) if heads == 2 else None
        if self.back is not None:
            nn.init.eye_(self.back.weight)
            nn.init.zeros_(self.back.bias)

    def forward(
        self, x_t: Float[Tensor, "B N channels"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B N channels"]:
        position = self.container.split(x_t).position
        v = self.dit(x_t, t, {"positions": self.container.capacity * position})
        back = None if cond is None else cond.get("back")
        if self.back is None or back is None:
            return v
        return torch.where(back[:, None, None], self.back(v), v)
