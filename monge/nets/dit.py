"""Transformers for the velocity: token sequences and image patches. Peebles & Xie 2212.09748 (DiT)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from monge.math.types import Condition
from monge.nets.blocks import AdaLN, Block, BlockShape, SequentialBlock, attention_mask
from monge.nets.condition import ConditionEmbedding, Conditions, check_dtype, check_known
from monge.nets.embed import Rotary, sinusoidal


@dataclass(frozen=True)
class DiTShape:
    """Architecture of a DiT: its blocks, their number and wiring, and the encoding of positions."""

    block: BlockShape = field(default_factory=BlockShape)
    """Architecture of each block."""
    depth: int = 6
    """Number of blocks."""
    wiring: type[Block] = SequentialBlock
    """SequentialBlock or ParallelBlock."""
    positions: str | None = "rotary"
    """Encoding of positions: "rotary"; "additive" sinusoids; None, or "none", for permutation equivariance."""
    causal: bool = False
    """Let each token attend only to itself and earlier tokens."""
    recompute: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        if self.positions not in ("rotary", "additive", "none", None):
            raise ValueError(f"DiTShape: positions is {self.positions!r}; give 'rotary', 'additive' or None")


class DiT(nn.Module):
    """v(x_t, t | conditions, mask) on sequences of `inputs` channels. `grid` is (rows, columns) of an image's patches.

    Without a grid, sequences may have any length, at positions 0, 1, ... or at cond["positions"], (B, N). A token whose
    cond["mask"], (B, N), is False is not attended to and has zero velocity. `conditions` declares further entries of cond
    by name: per-sample conditions modulate the blocks, per-token conditions are added to the tokens, and a missing entry
    counts as "no condition". For example, `DiT(3, conditions={"type": Categorical(9, per_token=True), "text":
    Continuous(768)})`; `classes=10` is short for conditions={"label": Categorical(10)}. The output layer starts at zero.
    """

    def __init__(
        self,
        inputs: int,
        shape: DiTShape | None = None,
        *,
        classes: int = 0,
        conditions: Conditions | None = None,
        grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape = shape or DiTShape()
        width = shape.block.width
        self.condition = ConditionEmbedding(width, classes=classes, conditions=conditions)
        self.has_positions = shape.positions in ("rotary", "additive")
        self.condition_names = (*self.condition.names, "mask", *(["positions"] if self.has_positions else []))
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(shape.wiring(shape.block) for _ in range(shape.depth))
        self.norm = shape.block.norm(width)
        self.modulation = AdaLN(width, 2, shape.block.rank)
        self.leave = nn.Linear(width, inputs)
        self.rotary = Rotary() if shape.positions == "rotary" else None
        axes = [torch.arange(n, dtype=torch.float32) for n in grid or ()]
        grid_positions = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2) if axes else None
        self.register_buffer("grid_positions", grid_positions, persistent=False)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x_t: Float[Tensor, "B *tokens"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B *tokens"]:
        return self._run(x_t, t, cond, layer=0)[0]

    def with_features(
        self, x_t: Float[Tensor, "B N inputs"], t: Float[Tensor, "B"], cond: Condition | None, layer: int
    ) -> tuple[Float[Tensor, "B N inputs"], Float[Tensor, "B N width"]]:
        """The velocity, and the hidden state after the first `layer` blocks. ValueError unless 1 <= layer <= depth."""
        if not 1 <= layer <= len(self.blocks):
            raise ValueError(f"with_features: layer {layer} of {len(self.blocks)}; count blocks from 1")
        return self._run(x_t, t, cond, layer)

    def _run(self, x_t: Tensor, t: Tensor, cond: Condition | None, layer: int) -> tuple[Tensor, Tensor]:
        cond = cond or {}
        check_known("DiT", cond, self.condition_names)
        if x_t.ndim != 3 or x_t.shape[-1] != self.enter.in_features:
            raise ValueError(
                f"DiT: x has shape {tuple(x_t.shape)}; this network takes tokens (B, N, {self.enter.in_features}). "
                "Use MLP for points without tokens and Patches for images"
            )
        check_dtype("DiT", x_t, self.enter.weight)
        h, angles = self._with_positions(self.condition.tokens(self.enter(x_t), cond), x_t, cond)
        features = h
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

    def _with_positions(self, h: Tensor, x_t: Tensor, cond: Condition) -> tuple[Tensor, Tensor | None]:
        """(tokens, with additive positions if configured; the angles of rotary attention, or None)."""
        if not self.has_positions:
            return h, None
        positions = self._positions(x_t, cond)
        if self.rotary is None:
            return h + _additive(positions, h.shape[-1]).to(h.dtype), None
        angles = self.rotary(positions, self.shape.block.width // self.shape.block.heads)
        return h, angles[:, None] if angles.ndim == 3 else angles

    def _positions(self, x_t: Tensor, cond: Condition) -> Tensor:
        if "positions" in cond:
            return cond["positions"][..., None].float()
        if isinstance(self.grid_positions, Tensor):
            return self.grid_positions
        return torch.arange(x_t.shape[1], device=x_t.device, dtype=torch.float32)[:, None]


class Patches(nn.Module):
    """A DiT on images (B, C, H, W), cut into patches of `patch` x `patch` pixels. `image` is (C, H, W)."""

    def __init__(
        self,
        image: tuple[int, int, int],
        patch: int,
        shape: DiTShape | None = None,
        *,
        classes: int = 0,
        conditions: Conditions | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = image
        if height % patch or width % patch:
            raise ValueError(
                f"patches: {height} x {width} pixels do not divide into patches of {patch}; use a divisor of both"
            )
        self.patch = patch
        grid = (height // patch, width // patch)
        self.image = tuple(image)
        self.dit = DiT(channels * patch**2, shape, classes=classes, conditions=conditions, grid=grid)

    def forward(
        self, x_t: Float[Tensor, "B *image"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B *image"]:
        return self._fold(self.dit(self._unfold(x_t), t, cond), x_t)

    def with_features(
        self, x_t: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], cond: Condition | None, layer: int
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B N width"]]:
        """The velocity, and the patches' hidden states after the first `layer` blocks, in row-major order."""
        v, features = self.dit.with_features(self._unfold(x_t), t, cond, layer)
        return self._fold(v, x_t), features

    def _unfold(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.image:
            raise ValueError(f"Patches: x has shape {tuple(x.shape)}; this network takes images (B, *{self.image})")
        return nn.functional.unfold(x, self.patch, stride=self.patch).mT

    def _fold(self, tokens: Tensor, like: Tensor) -> Tensor:
        return nn.functional.fold(tokens.mT, like.shape[-2:], self.patch, stride=self.patch)


def _additive(positions: Tensor, width: int) -> Tensor:
    """Sinusoidal embeddings of each axis, concatenated."""
    axes = positions.shape[-1]
    if width % (2 * axes):
        raise ValueError(
            f"dit: width {width} cannot be split over {axes} axes of positions; use a multiple of {2 * axes}"
        )
    return sinusoidal(positions, width // axes).flatten(-2)
