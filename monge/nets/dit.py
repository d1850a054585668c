"""Transformers for the velocity: token sequences and image patches. Peebles & Xie 2212.09748 (DiT)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monge.math.types import Condition
from monge.nets.blocks import AdaLN, Block, BlockShape, SequentialBlock, attention_mask
from monge.nets.embed import ConditionEmbedding, Rotary, sinusoidal


@dataclass(frozen=True)
class DiTShape:
    """The shape of a DiT: its blocks, how many, how they are wired and how they know where a token is."""

    block: BlockShape = field(default_factory=BlockShape)
    depth: int = 6
    wiring: type[Block] = SequentialBlock  # or ParallelBlock
    rotary: bool = True  # else sinusoidal positions are added to the tokens
    causal: bool = False
    recompute: bool = False  # activations are computed again for the gradient: less memory, a third more time


class DiT(nn.Module):
    """v(x_t, t | label, mask) on sequences of `inputs` channels. `grid` is (rows, columns) of an image's patches.

    Without a grid, sequences are of any length, at positions 0, 1, ... or at cond["positions"], (B, N). Where
    cond["mask"], (B, N), is False a token is neither looked at nor moved. The output layer starts at zero.
    """

    def __init__(
        self, inputs: int, shape: DiTShape | None = None, *, classes: int = 0, grid: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.shape = shape = shape or DiTShape()
        width = shape.block.width
        self.condition = ConditionEmbedding(width, classes=classes)
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(shape.wiring(shape.block) for _ in range(shape.depth))
        self.norm = shape.block.norm(width)
        self.modulation = AdaLN(width, 2, shape.block.rank)
        self.leave = nn.Linear(width, inputs)
        self.rotary = Rotary() if shape.rotary else None
        axes = [torch.arange(n, dtype=torch.float32) for n in grid or ()]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2) if axes else None
        self.register_buffer("places", places, persistent=False)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x_t: Float[Tensor, "B N inputs"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B N inputs"]:
        return self._walk(x_t, t, cond, layer=0)[0]

    def with_features(
        self, x_t: Float[Tensor, "B N inputs"], t: Float[Tensor, "B"], cond: Condition | None, layer: int
    ) -> tuple[Float[Tensor, "B N inputs"], Float[Tensor, "B N width"]]:
        """The velocity, and the hidden state after the first `layer` blocks."""
        if not 1 <= layer <= len(self.blocks):
            raise ValueError(f"with_features: layer {layer} of {len(self.blocks)}; count blocks from 1")
        return self._walk(x_t, t, cond, layer)

    def _walk(self, x_t: Tensor, t: Tensor, cond: Condition | None, layer: int) -> tuple[Tensor, Tensor]:
        cond = cond or {}
        places = self._places(x_t, cond)
        h = features = self.enter(x_t)
        angles = None
        if self.rotary is None:
            h = h + _additive(places, h.shape[-1]).to(h.dtype)
        else:
            angles = self.rotary(places, self.shape.block.width // self.shape.block.heads)
            angles = angles[:, None] if angles.ndim == 3 else angles
        c = nn.functional.silu(self.condition(t, cond))
        mask, causal = attention_mask(cond.get("mask"), x_t.shape[1], causal=self.shape.causal)
        for number, block in enumerate(self.blocks, 1):
            if self.shape.recompute and torch.is_grad_enabled():
                h = checkpoint(block, h, c, angles, mask, causal, use_reentrant=False)
            else:
                h = block(h, c, angles, mask, causal)
            features = h if number == layer else features
        scale, shift = self.modulation(c)
        v = self.leave(self.norm(h) * (1 + scale) + shift)
        return v if "mask" not in cond else v * cond["mask"][..., None], features

    def _places(self, x_t: Tensor, cond: Condition) -> Tensor:
        if "positions" in cond:
            return cond["positions"][..., None].float()
        if isinstance(self.places, Tensor):
            return self.places
        return torch.arange(x_t.shape[1], device=x_t.device, dtype=torch.float32)[:, None]


class Patches(nn.Module):
    """A DiT on images (B, C, H, W), cut into squares of `patch` pixels."""

    def __init__(
        self, image: tuple[int, int, int], patch: int, shape: DiTShape | None = None, *, classes: int = 0
    ) -> None:
        super().__init__()
        channels, height, width = image
        if height % patch or width % patch:
            raise ValueError(f"patches: {height} x {width} pixels do not divide into patches of {patch}")
        self.patch = patch
        self.dit = DiT(channels * patch**2, shape, classes=classes, grid=(height // patch, width // patch))

    def forward(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B C H W"]:
        return self._fold(self.dit(self._unfold(x_t), t, cond), x_t)

    def with_features(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition | None, layer: int
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B N width"]]:
        """The velocity, and the patches' hidden states after the first `layer` blocks, row by row."""
        v, features = self.dit.with_features(self._unfold(x_t), t, cond, layer)
        return self._fold(v, x_t), features

    def _unfold(self, x: Tensor) -> Tensor:
        return nn.functional.unfold(x, self.patch, stride=self.patch).mT

    def _fold(self, tokens: Tensor, like: Tensor) -> Tensor:
        return nn.functional.fold(tokens.mT, like.shape[-2:], self.patch, stride=self.patch)


def _additive(places: Tensor, width: int) -> Tensor:
    """Sinusoidal embeddings of each axis, side by side."""
    axes = places.shape[-1]
    if width % (2 * axes):
        raise ValueError(
            f"dit: width {width} cannot be shared by {axes} axes of positions; use a multiple of {2 * axes}"
        )
    return sinusoidal(places, width // axes).flatten(-2)
