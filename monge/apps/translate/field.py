"""Transformer velocity field on containers. Slots form a set; positions come from the state's position channel."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.types import Condition
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiT, DiTShape


@dataclass(frozen=True)
class FieldShape:
    """Size and options of the velocity field."""

    width: int = 192
    """Channels of the transformer; a multiple of the channels per attention head."""
    depth: int = 3
    """Number of transformer blocks."""
    head_width: int = 64
    """Channels per attention head."""
    rank: int = 0
    """Rank of the time modulation in each block; 0 uses a full matrix."""
    separate_reverse: bool = False
    """Apply a further linear layer to the output in the reverse direction, t from 1 to 0."""
    mean_skip: bool = True
    """Add a skip path for the sequence mean around the blocks, with one full matrix per side."""
    recompute: bool = False
    """Recompute activations in the backward pass (gradient checkpointing): less memory, a third more time."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "head_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"shape.{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.head_width:
            raise ValueError(f"shape.width {self.width} is not a multiple of shape.head_width {self.head_width}")

    def dit(self, channels: int, *, classes: int = 0) -> DiT:
        """A transformer on tokens with the given number of channels, conditioned on a label if `classes` is not 0."""
        block = BlockShape(self.width, self.width // self.head_width, rank=self.rank or None)
        return DiT(channels, DiTShape(block, self.depth, recompute=self.recompute), classes=classes)


class Mean(nn.Module):
    """A skip path for the sequence mean: one zero-initialised matrix per time endpoint, the same shift for every slot.

    Each channel of the mean holds only a little information about the other side; on this path it bypasses the blocks.
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
    """Velocity v(x_t, t) of states (B, N, channels), equivariant to permutations of slots.

    The last three channels are priority, position and existence; attention uses positions multiplied by `span`. With span 0,
    as for additive positions, existence is the only channel in addition to content. cond["reverse"], (B,), marks rows that go
    from t = 1 to 0; it is used only by a separate reverse layer.
    """

    def __init__(self, channels: int, shape: FieldShape, *, span: float) -> None:
        super().__init__()
        self.span = span
        self.content = channels - 3 if span else channels - 1
        self.dit = shape.dit(channels)
        self.mean = Mean(self.content) if shape.mean_skip else None
        self.reverse = nn.Linear(channels, channels) if shape.separate_reverse else None
        if self.reverse is not None:
            nn.init.eye_(self.reverse.weight)
            nn.init.zeros_(self.reverse.bias)

    def forward(
        self, x_t: Float[Tensor, "B N channels"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B N channels"]:
        positions = self.span * x_t[..., -2] if self.span else torch.zeros_like(x_t[..., -2])
        v = self.dit(x_t, t, {"positions": positions})
        if self.mean is not None:
            shift = self.mean(x_t[..., : self.content], x_t[..., -1].clamp_min(0), t)
            v = v + nn.functional.pad(shift, (0, x_t.shape[-1] - self.content))
        reverse = None if cond is None else cond.get("reverse")
        if self.reverse is None or reverse is None:
            return v
        return torch.where(reverse[:, None, None], self.reverse(v), v)
