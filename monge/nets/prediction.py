"""Networks that predict an end of the path, made into networks for the velocity.

The loss stays the velocity's, so the objective and the solvers need not know. x_1 prediction with this loss is JiT's
(Li & He 2511.13720). Noise prediction wants the objective's weight beta^2, which makes the loss that of the noise.
"""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from monge.math.path import Affine
from monge.math.types import Condition


class Prediction(nn.Module, ABC):
    """`network` predicts an end of `path`; where the velocity is a quotient of zeros, the divisor is kept above `floor`."""

    def __init__(self, network: nn.Module, path: Affine | None = None, *, floor: float = 0.05) -> None:
        super().__init__()
        self.network, self.path, self.floor = network, path or Affine(), floor

    @abstractmethod
    def velocity(self, end: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The velocity at x_t that leads to the predicted end."""

    def forward(
        self, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B *s"]:
        return self.velocity(self.network(x_t, t, cond), x_t, t)

    def with_features(
        self, x_t: Float[Tensor, "B *s"], t: Float[Tensor, "B"], cond: Condition | None, layer: int
    ) -> tuple[Float[Tensor, "B *s"], Tensor]:
        """The velocity, and the network's hidden state after its first `layer` blocks."""
        network: Any = self.network
        end, features = network.with_features(x_t, t, cond, layer)
        return self.velocity(end, x_t, t), features


class PredictsTarget(Prediction):
    """`network` predicts x_1; alpha, which vanishes at t = 1, is kept above `floor`."""

    def velocity(self, end: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self.path.velocity_from_target(end, x_t, t, floor=self.floor)


class PredictsSource(Prediction):
    """`network` predicts x_0, the noise; beta, which vanishes at t = 0, is kept above `floor`."""

    def velocity(self, end: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self.path.velocity_from_source(end, x_t, t, floor=self.floor)
