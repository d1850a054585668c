"""A walk should end where its own target is, and nowhere near those of others."""

from jaxtyping import Float
from torch import Tensor, nn

from monge.objective.contrastive import info_nce


class Recognised(nn.Module):
    """InfoNCE of mean contents: of what a walk made of the slots where its target has tokens, among true ones.

    The squared error of tokens hardly sees the mean of a sequence, by which it is found.
    """

    strangers: Tensor

    def __init__(self, strangers: Float[Tensor, "n D"], weight: float) -> None:
        super().__init__()
        self.register_buffer("strangers", strangers, persistent=False)
        self.weight = weight

    def forward(self, end: Float[Tensor, "B N D+3"], true: Float[Tensor, "B N D+3"]) -> Float[Tensor, ""]:
        exists = true[..., -1:] > 0
        count = exists.sum(1).clamp_min(1)
        found, own = ((exists * x[..., :-3].float()).sum(1) / count for x in (end, true))
        return self.weight * info_nce(found, own, self.strangers)
