"""Contrastive loss that pulls the mean of a translation towards that of its target and away from other means."""

from jaxtyping import Float
from torch import Tensor, nn

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
