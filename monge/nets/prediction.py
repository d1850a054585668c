"""Wrappers that turn a network predicting an end of the path into a network for the velocity.

The loss is still on the velocity, so the objective and the solvers do not change. x_1 prediction with this loss is JiT
(Li & He 2511.13720). For noise prediction, set the objective's weight to beta^2, which gives the loss on the noise.
"""

from abc import ABC, abstractmethod
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from monge.math.path import Affine
from monge.math.types import Condition


class Prediction(nn.Module, ABC):
    """Base of networks that predict an end of `path`. A divisor that vanishes at one end is clamped to at least `floor`."""

    def __init__(self, network: nn.Module, path: Affine | None = None, *, floor: float = 0.05) -> None:
        super().__init__()
        self.network, self.path, self.floor = network, path or Affine(), floor

    @abstractmethod
    def velocity(self, end: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The velocity at x_t of the path with the predicted end."""

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
    """`network` predicts x_1; alpha, which vanishes at t = 1, is clamped to at least `floor`."""

    def velocity(self, end: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self.path.velocity_from_target(end, x_t, t, floor=self.floor)


class PredictsSource(Prediction):
    """`network` predicts x_0, the noise; beta, which vanishes at t = 0, is clamped to at least `floor`."""

    def velocity(self, end: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        return self.path.velocity_from_source(end, x_t, t, floor=self.floor)
