"""Networks that predict an end of the path, made into networks for the velocity.

The loss stays the velocity's, so the objective and the solvers need not know. x_1 prediction with this loss is JiT's
(Li & He 2511.13720). Noise prediction wants the objective's weight beta^2, which makes the loss that of the noise.
"""

from jaxtyping import Float
from torch import Tensor, nn

from monge.math.path import Affine
from monge.math.types import Condition


class PredictsTarget(nn.Module):
    """`network` predicts x_1. Near t = 1, where the velocity is a quotient of zeros, alpha is kept above `floor`."""

    def __init__(self, network: nn.Module, path: Affine | None = None, *, floor: float = 0.05) -> None:
        super().__init__()
        self.network, self.path, self.floor = network, path or Affine(), floor

    def forward(
        self, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B *s"]:
        return self.path.velocity_from_target(self.network(x_t, t, cond), x_t, t, floor=self.floor)


class PredictsSource(nn.Module):
    """`network` predicts x_0, the noise. Near t = 0 beta is kept above `floor`."""

    def __init__(self, network: nn.Module, path: Affine | None = None, *, floor: float = 0.05) -> None:
        super().__init__()
        self.network, self.path, self.floor = network, path or Affine(), floor

    def forward(
        self, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B *s"]:
        return self.path.velocity_from_source(self.network(x_t, t, cond), x_t, t, floor=self.floor)
