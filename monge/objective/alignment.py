"""Align a hidden layer with a frozen encoder of the clean data. Yu et al. 2410.06940 (REPA), eq. 6 and sec. 3.2."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.types import FeatureModel, Pair


class Alignment(nn.Module):
    """Minus the mean cosine between the projected hidden state after block `layer` and the encoder's features of x_1.

    `encoder` takes the pair's clean x_1 to features per token, (B, N, features); it is not trained and gets no gradient.
    The projector is an MLP of three layers with SiLU between. Tokens that the pair's mask leaves out do not count.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        *,
        layer: int,
        width: int,
        features: int,
        weight: float = 0.5,
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        self.layer, self.weight = layer, weight
        self._encoder = (encoder,)  # in a tuple: a frozen module is no part of what is trained and saved
        self.projector = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, features)
        )

    def forward(
        self, model: FeatureModel, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], pair: Pair
    ) -> tuple[Float[Tensor, "B *s"], Float[Tensor, ""]]:
        """The velocity at x_t, and the loss."""
        v, hidden = model.with_features(x_t, t, pair.condition, self.layer)
        with torch.no_grad():
            target = self._encoder[0](pair.x_1)
        if target.shape[:2] != hidden.shape[:2]:
            raise ValueError(
                f"alignment: the encoder gives {tuple(target.shape[:2])} tokens, the model {tuple(hidden.shape[:2])}"
            )
        cosine = nn.functional.cosine_similarity(self.projector(hidden), target, dim=-1)
        return v, -(cosine.mean() if pair.mask is None else cosine[pair.mask].mean())
