"""Weights of a loss by time, from running means of the error."""

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn


class EqualTimes(nn.Module):
    """Weights under which every draw of t has the same expected loss: one over the expected squared error at that time.

    The error is a running mean at `knots` times, denser towards t = 1: knot k of K lies at 1 - (1 - k / (K - 1))^2. Between
    knots, its logarithm is linear in sqrt(1 - t). The means start at 1, so times that are rarely drawn weigh less at first. A
    training batch moves the mean of each knot towards that of its errors, by the fraction 1 - `decay` per error. The means are
    saved with the objective's state and equal on all ranks. EDM2 learns such weights by gradient (Karras et al. 2312.02696,
    eq. 21). ValueError for fewer than two knots, or a decay outside (0, 1).

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

    def forward(
        self, t: Float[Tensor, "B"], error: Float[Tensor, "B"], counts: Float[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B"]:
        """The weights at times t, without a gradient. In training, the means are updated afterwards; an error counts `counts`
        times, once by default."""
        with torch.no_grad():
            place = (1 - (1 - t.clamp(0, 1)).sqrt()).to(self.error) * (len(self.error) - 1)
            left = place.floor().long().clamp_max(len(self.error) - 2)
            share, log = place - left, self.error.log()
            weight = torch.exp(-torch.lerp(log[left], log[left + 1], share)).to(t)
            if self.training:
                self._update(left, share, error.to(self.error), torch.ones_like(share) if counts is None else counts)
            return weight

    def _update(self, left: Tensor, share: Tensor, error: Tensor, counts: Tensor) -> None:
        ends, shares = torch.cat([left, left + 1]), torch.cat([1 - share, share]) * counts.to(share).repeat(2)
        sums = share.new_zeros(2, len(self.error))
        sums.index_add_(1, ends, torch.stack([shares, shares * error.repeat(2)]))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        mass, total = sums
        mean = torch.where(mass > 0, total / mass.clamp_min(1e-9), self.error)
        self.error.lerp_(mean.clamp_min(1e-9), 1 - self.decay**mass)
