"""Weights of a loss by time, from running means of the error."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class EqualTimes(nn.Module):
    """Weights by which every time counts the same: one over the expected squared error at that time.

    The error is a running mean at `knots` times, denser towards t = 1: knot k of K lies at 1 - (1 - k / (K - 1))^2. Between
    knots, its logarithm is interpolated linearly. The means start at 1; in training, each error moves them towards it by the
    fraction 1 - `decay`. They are saved with the objective's state. EDM2 learns such weights by gradient (Karras et al.
    2312.02696, eq. 21). ValueError for fewer than two knots, or a decay outside (0, 1).

    >>> weights, t = EqualTimes(), torch.full((64,), 0.9)
    >>> for _ in range(100):
    ...     w = weights(t, torch.full((64,), 0.01))
    >>> w[0].round()
    tensor(100.)
    """

    error: Tensor

    def __init__(self, *, knots: int = 16, decay: float = 0.95) -> None:
        super().__init__()
        if knots < 2 or not 0 < decay < 1:
            raise ValueError(f"EqualTimes: needs at least two knots and a decay in (0, 1), got {knots} and {decay}")
        self.decay = decay
        self.register_buffer("error", torch.ones(knots))

    @torch.no_grad()
    def forward(self, t: Float[Tensor, "B"], error: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The weights at times t, without a gradient. In training, the means move towards the errors afterwards."""
        place = (1 - (1 - t.clamp(0, 1)).sqrt()) * (len(self.error) - 1)
        left = place.floor().long().clamp_max(len(self.error) - 2)
        share = place - left
        log = self.error.log()
        weight = torch.exp(-torch.lerp(log[left], log[left + 1], share))
        if self.training:
            ends, shares = torch.cat([left, left + 1]), torch.cat([1 - share, share])
            mass = torch.zeros_like(self.error).index_add_(0, ends, shares)
            seen = torch.zeros_like(self.error).index_add_(0, ends, shares * error.repeat(2).to(shares))
            mean = torch.where(mass > 0, seen / mass.clamp_min(1e-9), self.error)
            self.error.lerp_(mean.clamp_min(1e-9), 1 - self.decay**mass)
        return weight
