"""The transformer velocity field on containers: slots are a set, each knows its place by the state's own position channel."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.types import Condition
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiT, DiTShape


@dataclass(frozen=True)
class FieldShape:
    """The shape of a field."""

    width: int = 192
    depth: int = 3
    head: int = 64
    """Channels of an attention head."""
    rank: int = 0
    """Of the time modulation in each block; 0 for a full matrix."""
    ways: Literal[1, 2] = 1
    """2 gives the way back, t from 1 to 0, an output layer of its own."""
    mean: bool = True
    """Carry the mean of a sequence past the blocks, by a full matrix for each end."""
    recompute: bool = False
    """Keep no activations of blocks in training (gradient checkpointing): less memory, a third more time."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "head"):
            if getattr(self, name) < 1:
                raise ValueError(f"shape.{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.head:
            raise ValueError(f"shape.width {self.width} does not divide into heads of {self.head} channels")

    def dit(self, channels: int, *, classes: int = 0) -> DiT:
        """A transformer on tokens of so many channels, modulated by a class if there are any."""
        block = BlockShape(self.width, self.width // self.head, rank=self.rank or None)
        return DiT(channels, DiTShape(block, self.depth, recompute=self.recompute), classes=classes)


class Mean(nn.Module):
    """A skip path for the sequence mean: one zero-initialised matrix per time endpoint, the same shift for every slot.

    The mean's information about the other side is faint in each channel; here it need not pass through the blocks.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ends = nn.Linear(width, 2 * width, bias=False)
        nn.init.zeros_(self.ends.weight)

    def forward(
        self, content: Float[Tensor, "B N D"], weight: Float[Tensor, "B N"], t: Float[Tensor, "B"]
    ) -> Float[Tensor, "B 1 D"]:
        share = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)
        first, last = self.ends(share[:, None].to(content.dtype) @ content).chunk(2, -1)
        return torch.lerp(first, last, t[:, None, None].to(first.dtype))


class Field(nn.Module):
    """v(x_t, t) of states (B, N, channels). Equivariant to the order of slots, so that both ends may order them as they do.

    The last channel is existence, the one before a position times `span`, which attention then counts in, and the one before
    a turn; with span 0 existence is all that is no content, as in the additive form. With two ways cond["back"], (B,),
    marks rows that go from 1 to 0.
    """

    def __init__(self, channels: int, shape: FieldShape, *, span: float) -> None:
        super().__init__()
        self.span = span
        self.content = channels - 3 if span else channels - 1
        self.dit = shape.dit(channels)
        self.mean = Mean(self.content) if shape.mean else None
        self.reverse = nn.Linear(channels, channels) if shape.ways == 2 else None
        if self.reverse is not None:
            nn.init.eye_(self.reverse.weight)
            nn.init.zeros_(self.reverse.bias)

    def forward(
        self, x_t: Float[Tensor, "B N channels"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B N channels"]:
        places = self.span * x_t[..., -2] if self.span else torch.zeros_like(x_t[..., -2])
        v = self.dit(x_t, t, {"positions": places})
        if self.mean is not None:
            moved = self.mean(x_t[..., : self.content], x_t[..., -1].clamp_min(0), t)
            v = v + nn.functional.pad(moved, (0, x_t.shape[-1] - self.content))
        reverse = None if cond is None else cond.get("reverse")
        if self.reverse is None or reverse is None:
            return v
        return torch.where(reverse[:, None, None], self.reverse(v), v)
