"""Transformer velocity field on containers. Slots form a set; positions come from the state's position channel."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.types import Condition, Velocity
from monge.nets.blocks import BlockShape
from monge.nets.condition import Categorical, Conditions, Continuous
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
    dropout: float = 0.0
    """Dropout of the outputs of attention and feed-forward in training."""
    mean_skip: bool = True
    """Add a skip path for the sequence mean around the blocks, with one full matrix per side."""
    recompute: bool = False
    """Recompute activations in the backward pass (gradient checkpointing): less memory, a third more time."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "head_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"shape.{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")
        if self.width % self.head_width:
            raise ValueError(f"shape.width {self.width} is not a multiple of shape.head_width {self.head_width}")

    def dit(self, channels: int, *, classes: int = 0, conditions: Conditions | None = None) -> DiT:
        """A transformer on tokens with the given number of channels, conditioned on a label if `classes` is not 0, and on
        `conditions`."""
        block = BlockShape(self.width, self.width // self.head_width, rank=self.rank or None, dropout=self.dropout)
        shape = DiTShape(block, self.depth, recompute=self.recompute)
        return DiT(channels, shape, classes=classes, conditions=conditions)


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
    from t = 1 to 0; it is used only by a separate reverse layer and with `start`. With `start`, the field also sees the state
    at the start of the flow, cond["start"], of the shape of x_t.
    """

    def __init__(self, channels: int, shape: FieldShape, *, span: float, start: bool = False) -> None:
        super().__init__()
        self.span, self.start = span, start
        self.content = channels - 3 if span else channels - 1
        conditions: Conditions = {"reverse": Categorical(2), "start": Continuous(channels, per_token=True)}
        self.dit = shape.dit(channels, conditions=conditions if start else None)
        self.mean = Mean(self.content) if shape.mean_skip else None
        self.reverse = nn.Linear(channels, channels) if shape.separate_reverse else None
        if self.reverse is not None:
            nn.init.eye_(self.reverse.weight)
            nn.init.zeros_(self.reverse.bias)

    def forward(
        self, x_t: Float[Tensor, "B N channels"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B N channels"]:
        positions = self.span * x_t[..., -2] if self.span else torch.zeros_like(x_t[..., -2])
        given = {"positions": positions}
        if self.start:
            if cond is None or not {"reverse", "start"} <= cond.keys():
                raise ValueError('Field: cond lacks "reverse" or "start", which a field with start=True needs')
            given |= {"reverse": cond["reverse"].long(), "start": cond["start"]}
        v = self.dit(x_t, t, given)
        if self.mean is not None:
            shift = self.mean(x_t[..., : self.content], x_t[..., -1].clamp_min(0), t)
            v = v + nn.functional.pad(shift, (0, x_t.shape[-1] - self.content))
        reverse = None if cond is None else cond.get("reverse")
        if self.reverse is None or reverse is None:
            return v
        return torch.where(reverse[:, None, None], self.reverse(v), v)


def snap_existence(v: Velocity, end: float, aux_scale: float) -> Velocity:
    """The velocity v, with existence, the last channel, steered to 0 or `aux_scale`, whichever is nearer to v's endpoint.

    In training every slot ends at one of the two; without this, uncertain slots drift to intermediate existence and are
    dropped at decoding. This is the clamping trick of Li et al. 2205.14217, sec. 4.2.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        predicted = v(x, t)
        remaining = (end - t)[:, None]
        bound = aux_scale * ((x[..., -1] + remaining * predicted[..., -1]) > aux_scale / 2)
        existence = torch.where(remaining == 0, predicted[..., -1], (bound - x[..., -1]) / remaining)
        return torch.cat([predicted[..., :-1], existence[..., None]], -1)

    return velocity
