"""A loss that pulls translations towards their own target's mean and away from the means of others."""

from jaxtyping import Float
from torch import Tensor, nn

from monge.objective.contrastive import info_nce


class MeanInfoNCE(nn.Module):
    """InfoNCE of mean contents: of the predicted slots where the target has tokens, among the true means and `negatives`.

    The squared error of tokens is nearly blind to the mean of a sequence, which retrieval compares.
    """

    negatives: Tensor

    def __init__(self, negatives: Float[Tensor, "n D"], weight: float) -> None:
        super().__init__()
        self.register_buffer("negatives", negatives, persistent=False)
        self.weight = weight

    def forward(self, end: Float[Tensor, "B N D+3"], true: Float[Tensor, "B N D+3"]) -> Float[Tensor, ""]:
        exists = true[..., -1:] > 0
        count = exists.sum(1).clamp_min(1)
        predicted, own = ((exists * x[..., :-3].float()).sum(1) / count for x in (end, true))
        return self.weight * info_nce(predicted, own, self.negatives)
