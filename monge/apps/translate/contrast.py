"""Contrastive losses that pull the mean of a translation towards that of its target and away from other means."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.translate.calibrate import means
from monge.apps.translate.space import Packed
from monge.math.random import seeded
from monge.math.types import Pair
from monge.objective.contrastive import info_nce


class MeanInfoNCE(nn.Module):
    """InfoNCE between predicted and true mean contents, over the slots that exist in the target.

    The negatives of a row are the true means of the other rows and `negatives`. This loss is needed because retrieval compares
    the means of sequences, which the squared error of tokens barely constrains.
    """

    negatives: Tensor

    def __init__(self, negatives: Float[Tensor, "n D"], weight: float) -> None:
        super().__init__()
        self.register_buffer("negatives", negatives, persistent=False)
        self.weight = weight

    def forward(self, end: Float[Tensor, "B N D+3"], true: Float[Tensor, "B N D+3"]) -> Float[Tensor, ""]:
        exists = true[..., -1:] > 0
        count = exists.sum(1).clamp_min(1)
        predicted, target = ((exists * x[..., :-3].float()).sum(1) / count for x in (end, true))
        return self.weight * info_nce(predicted, target, self.negatives)


class EndpointInfoNCE(nn.Module):
    """InfoNCE of the endpoints that a velocity predicts on the straight path: x_t + (1 - t) v and, in reverse, x_t - t v.

    With cond["reverse"], each row contributes to the loss of its own direction; without it, every row contributes to both, each
    with weight 1/2. With `swapped`, the ends of reverse rows have been exchanged: their x_1 is on the source side.
    """

    def __init__(self, to_target: MeanInfoNCE, to_source: MeanInfoNCE, *, swapped: bool = False) -> None:
        super().__init__()
        self.to_target, self.to_source, self.swapped = to_target, to_source, swapped

    def forward(
        self, v: Float[Tensor, "B N C"], x_t: Float[Tensor, "B N C"], t: Float[Tensor, "B"], pair: Pair
    ) -> Float[Tensor, ""]:
        reverse, left = pair.condition.get("reverse"), (1 - t)[:, None, None]
        x_1, x_0 = x_t + left * v, x_t + (left - 1) * v
        true_0 = pair.x_0
        if self.swapped:
            x_0, true_0 = x_1, pair.x_1
        if reverse is None:
            return 0.5 * (self.to_target(x_1, pair.x_1) + self.to_source(x_0, true_0))
        total = v.new_zeros(())
        for rows, loss, end, true in (
            (~reverse, self.to_target, x_1, pair.x_1),
            (reverse, self.to_source, x_0, true_0),
        ):
            if rows.any():
                total = total + rows.float().mean() * loss(end[rows], true[rows])
        return total


def check_contrast(contrast: float, additive: bool) -> None:
    """ValueError for a contrastive loss with additive positions."""
    if additive and contrast:
        raise ValueError("contrast compares mean contents, which additive positions shift; set contrast to 0")


def mean_info_nce(packed: Packed, end: str, weight: float) -> MeanInfoNCE:
    """The contrastive loss of translations to the side `end`, with the means of training sequences as negatives."""
    numbers = packed.pairs.split("train")
    numbers = numbers[torch.randperm(len(numbers), generator=seeded(0, 12)).numpy()]
    negatives = means(packed.pairs, end, numbers.tolist(), entries=2**21)
    return MeanInfoNCE(packed.space.calibration.side(end).apply(negatives), weight)
