"""Transformer blocks whose norms are modulated by the condition (AdaLN-zero): sequential and parallel."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from monge.nets.embed import rotate


class GELU(nn.Module):
    """The usual feed-forward layer: up, GELU, down."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*b width"]) -> Float[Tensor, "*b width"]:
        return self.down(nn.functional.gelu(self.up(x), approximate="tanh"))


class SwiGLU(nn.Module):
    """The gated feed-forward layer of Shazeer 2002.05202, eq. 6, at two thirds of `hidden`, so that parameters are equal."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = 8 * max(1, round(hidden * 2 / 3 / 8))
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*b width"]) -> Float[Tensor, "*b width"]:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(nn.functional.silu(gate) * value)


def rms_norm(width: int) -> nn.Module:
    """RMSNorm without weights of its own: the modulation has them."""
    return nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)


def layer_norm(width: int) -> nn.Module:
    """LayerNorm without weights of its own: the modulation has them."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


@dataclass(frozen=True)
class BlockShape:
    """The shape of one block. `rank` None gives every block a full AdaLN matrix, a number a low-rank one."""

    width: int = 256
    heads: int = 4
    ratio: float = 4.0  # hidden width of the feed-forward layer over width
    norm: Callable[[int], nn.Module] = rms_norm
    feedforward: Callable[[int, int], nn.Module] = SwiGLU
    qk_norm: bool = True
    rank: int | None = None


class AdaLN(nn.Module):
    """`count` vectors of `width` from the condition, zero at first. Peebles & Xie 2212.09748, sec. 3.2."""

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
    """Multi-head self-attention, with rotary positions and RMS-normed queries and keys where asked."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        width, head = shape.width, shape.width // shape.heads
        if width % shape.heads:
            raise ValueError(f"attention: width {width} does not divide into {shape.heads} heads")
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
    """(who may look at whom, or None for everybody; whether the kernel's own causal mask is enough).

    A void may look at itself, so that no row of the softmax is empty.
    """
    if mask is None:
        return None, causal
    itself = torch.eye(tokens, dtype=torch.bool, device=mask.device)
    allowed = mask[:, None, None, :] | itself
    return allowed.tril() if causal else allowed, False


class Block(nn.Module, ABC):
    """What every wiring of attention and feed-forward shares: six modulation vectors, gates closed at first."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.feedforward = shape.feedforward(shape.width, int(shape.width * shape.ratio))
        self.norm_1, self.norm_2 = shape.norm(shape.width), shape.norm(shape.width)
        self.modulation = AdaLN(shape.width, 6, shape.rank)

    @abstractmethod
    def forward(self, x: Tensor, c: Tensor, angles: Tensor | None, mask: Tensor | None, causal: bool) -> Tensor: ...


class SequentialBlock(Block):
    """Attention, then feed-forward on its result."""

    def forward(self, x: Tensor, c: Tensor, angles: Tensor | None, mask: Tensor | None, causal: bool) -> Tensor:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.modulation(c)
        x = x + gate_1 * self.attention(self.norm_1(x) * (1 + scale_1) + shift_1, angles, mask, causal)
        return x + gate_2 * self.feedforward(self.norm_2(x) * (1 + scale_2) + shift_2)


class ParallelBlock(Block):
    """Attention and feed-forward side by side on the same input, as in GPT-NeoX (2204.06745, sec. 2.1)."""

    def forward(self, x: Tensor, c: Tensor, angles: Tensor | None, mask: Tensor | None, causal: bool) -> Tensor:
        scale_1, shift_1, gate_1, scale_2, shift_2, gate_2 = self.modulation(c)
        attended = self.attention(self.norm_1(x) * (1 + scale_1) + shift_1, angles, mask, causal)
        return x + gate_1 * attended + gate_2 * self.feedforward(self.norm_2(x) * (1 + scale_2) + shift_2)
