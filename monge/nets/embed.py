"""Embeddings of time and position."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def sinusoidal(positions: Float[Tensor, "*b"], width: int, *, longest: float = 10_000.0) -> Float[Tensor, "*b width"]:
    """cos and sin of positions at `width` / 2 frequencies, geometric in (1 / longest, 1]. Vaswani et al. 2017, sec. 3.5."""
    frequencies = torch.exp(-math.log(longest) * torch.arange(width // 2, device=positions.device) / (width // 2))
    angles = positions[..., None] * frequencies.to(positions.dtype)
    return torch.cat([angles.cos(), angles.sin()], -1)


class Rotary(nn.Module):
    """Angles that rotate queries and keys by their positions, along one axis or several. Su et al. 2104.09864, eq. 34.

    With several axes (an image has two), the head's channels are divided among them.
    """

    def __init__(self, *, base: float = 10_000.0) -> None:
        super().__init__()
        self.base = base

    def forward(self, positions: Float[Tensor, "*b N axes"], head: int) -> Float[Tensor, "*b N head"]:
        """The rotation angles: one per pair of channels (i, i + head / 2), repeated for both."""
        axes = positions.shape[-1]
        if head % (2 * axes):
            raise ValueError(
                f"rotary: a head of {head} channels cannot be split over {axes} axes; use a multiple of {2 * axes}"
            )
        count = head // 2 // axes
        frequencies = self.base ** (-torch.arange(count, device=positions.device, dtype=positions.dtype) / count)
        angles = (positions[..., None] * frequencies).flatten(-2)
        return torch.cat([angles, angles], -1)


def rotate(x: Float[Tensor, "B heads N head"], angles: Float[Tensor, "*b N head"]) -> Float[Tensor, "B heads N head"]:
    """x with its channel pairs rotated by `angles`, which are (N, head) or (B, 1, N, head)."""
    first, second = x.chunk(2, -1)
    return x * angles.cos().to(x.dtype) + torch.cat([-second, first], -1) * angles.sin().to(x.dtype)
