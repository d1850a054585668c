"""Transformer blocks whose norms are modulated by the condition (AdaLN-zero): sequential and parallel."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from monge.nets.embed import rotate


class GELU(nn.Module):
    """The standard feed-forward layer: linear, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*b width"]) -> Float[Tensor, "*b width"]:
        return self.down(nn.functional.gelu(self.up(x), approximate="tanh"))


class SwiGLU(nn.Module):
    """The gated feed-forward layer of Shazeer 2002.05202, eq. 6, at two thirds of `hidden` for an equal parameter count."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = 8 * max(1, round(hidden * 2 / 3 / 8))
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*b width"]) -> Float[Tensor, "*b width"]:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(nn.functional.silu(gate) * value)


def rms_norm(width: int) -> nn.Module:
    """RMSNorm without affine parameters; the modulation provides them."""
    return nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)


def layer_norm(width: int) -> nn.Module:
    """LayerNorm without affine parameters; the modulation provides them."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


@dataclass(frozen=True)
class BlockShape:
    """Architecture of one transformer block."""

    width: int = 256
    """Channels per token."""
    heads: int = 4
    """Attention heads; must divide the width."""
    ratio: float = 4.0
    """Hidden width of the feed-forward layer, as a multiple of the width."""
    norm: Callable[[int], nn.Module] = rms_norm
    """Normalisation before attention and feed-forward, built from the width."""
    feedforward: Callable[[int, int], nn.Module] = SwiGLU
    """Feed-forward layer, built from the width and the hidden width."""
    qk_norm: bool = True
    """Apply RMSNorm to queries and keys."""
    rank: int | None = None
    """Rank of each AdaLN matrix; None for full rank."""
    dropout: float = 0.0
    """Probability with which an entry of the output of attention or feed-forward is zeroed in training."""


class AdaLN(nn.Module):
    """`count` modulation vectors of `width` from the condition, initialised to zero. Peebles & Xie 2212.09748, sec. 3.2."""

    def __init__(self, width: int, count: int, rank: int | None) -> None:
        super().__init__()
        self.count = count
        self.reduce = nn.Identity() if rank is None else nn.Linear(width, rank, bias=False)
        self.expand = nn.Linear(width if rank is None else rank, count * width)
        nn.init.zeros_(self.expand.weight)
        nn.init.zeros_(self.expand.bias)

    def forward(self, c: Float[Tensor, "B width"]) -> tuple[Tensor, ...]:
        return self.expand(self.reduce(c))[:, None].chunk(self.count, -1)


class Attention(nn.Module):
    """Multi-head self-attention, with optional rotary positions and RMS-normalised queries and keys."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        width, head = shape.width, shape.width // shape.heads
        if width % shape.heads:
            raise ValueError(
                f"attention: width {width} does not divide into {shape.heads} heads; use a multiple of the heads"
            )
        self.heads = shape.heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm = nn.RMSNorm(head, eps=1e-6) if shape.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(head, eps=1e-6) if shape.qk_norm else nn.Identity()

    def forward(
        self, x: Float[Tensor, "B N width"], angles: Tensor | None, mask: Tensor | None, causal: bool
    ) -> Float[Tensor, "B N width"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        h = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(h.transpose(1, 2).flatten(2))


def attention_mask(
    mask: Bool[Tensor, "B N"] | None, tokens: int, *, causal: bool
) -> tuple[Bool[Tensor, "B 1 N N"] | None, bool]:
    """(allowed query-key pairs, or None for all; True if attention must apply its built-in causal mask).

    A masked token may attend to itself, so that no row of the softmax is empty.
    """
    if mask is None:
        return None, causal
    diagonal = torch.eye(tokens, dtype=torch.bool, device=mask.device)
    allowed = mask[:, None, None, :] | diagonal
    return allowed.tril() if causal else allowed, False


class Block(nn.Module, ABC):
    """Base class of the transformer blocks: attention, feed-forward and six modulation vectors, initialised to zero."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.feedforward = shape.feedforward(shape.width, int(shape.width * shape.ratio))
        self.norm_1, self.norm_2 = shape.norm(shape.width), shape.norm(shape.width)
        self.modulation = AdaLN(shape.width, 6, shape.rank)
        self.dropout = nn.Dropout(shape.dropout)

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, angles: Tensor | None, mask: Tensor | None, causal: bool) -> Tensor: ...


class SequentialBlock(Block):
    """Attention, then feed-forward on its result."""

    def forward(self, x: Tensor, c: Tensor, angles: Tensor | None, mask: Tensor | None, causal: bool) -> Tensor:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.modulation(c)
        x = x + gate_1 * self.dropout(self.attention(self.norm_1(x) * (1 + scale_1) + shift_1, angles, mask, causal))
        return x + gate_2 * self.dropout(self.feedforward(self.norm_2(x) * (1 + scale_2) + shift_2))


class ParallelBlock(Block):
    """Attention and feed-forward in parallel on the same input, as in GPT-NeoX (2204.06745, sec. 2.1)."""

    def forward(self, x: Tensor, c: Tensor, angles: Tensor | None, mask: Tensor | None, causal: bool) -> Tensor:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.modulation(c)
        attended = self.attention(self.norm_1(x) * (1 + scale_1) + shift_1, angles, mask, causal)
        fed = self.feedforward(self.norm_2(x) * (1 + scale_2) + shift_2)
        return x + gate_1 * self.dropout(attended) + gate_2 * self.dropout(fed)
