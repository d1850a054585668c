"""Regress the average velocity over an interval of time, for one or few large steps. Geng et al. 2505.13447."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from monge.math.coupling import Coupling, identity
from monge.math.path import Affine
from monge.math.times import Times
from monge.math.types import Condition, Pair, Velocity, VelocityModel, pad_like
from monge.objective.base import Loss, Objective
from monge.objective.flow_matching import check_shape, masked_mean


class MeanFlow(Objective):
    """Squared error of the average velocity u(x_t, t, h) over [t, t + h] against u_t + h du/dt (MeanFlow, eq. 6, alg. 1).

    The duration h is in `cond["duration"]`, of shape (B, 1): declare it as a condition `Continuous(1)` of the network. du/dt is
    the total derivative along the path while t + h stays fixed, by forward-mode differentiation; no gradient flows through
    it. `times` draws both ends. With probability `instant`, h is 0 and the loss is that of flow matching. `power` divides the
    squared error of a sample, of mean e, by (e + 0.001)^power (sec. 4.3); the logged loss is without it.

    x_t + h u(x_t, t, h) is the state at t + h: a single step from t = 0 has h = 1 (see `average_velocity`). ValueError if
    `instant` is not a probability.

    >>> pair = Pair(torch.zeros(2, 3), torch.ones(2, 3))
    >>> MeanFlow()(lambda x_t, t, cond: torch.ones_like(x_t), pair).value
    tensor(0.)
    """

    def __init__(
        self,
        *,
        coupling: Coupling = identity,
        times: Times | None = None,
        instant: float = 0.5,
        power: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 <= instant <= 1:
            raise ValueError(f"MeanFlow: instant is a probability, got {instant}; give 0 to 1")
        self.path, self.coupling, self.times = Affine(), coupling, times or Times()
        self.instant, self.power = instant, power

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        pair = self.coupling(batch)
        first, second = self.times(pair.x_1), self.times(pair.x_1)
        t, h = torch.minimum(first, second), (first - second).abs()
        h = torch.where(torch.rand_like(h) < self.instant, 0.0, h)
        _, x_t, u_t = self.path(pair.x_0, pair.x_1, t)

        def average(x: Tensor, t: Tensor, h: Tensor) -> Tensor:
            return model(x, t, {**pair.condition, "duration": h[:, None]})

        with sdpa_kernel(SDPBackend.MATH):  # the others lack forward-mode derivatives
            tangents = u_t, torch.ones_like(t), -torch.ones_like(h)
            u, du_dt = torch.func.jvp(average, (x_t, t, h), tangents)  # pyright: ignore[reportAssignmentType]
        check_shape(u, x_t)
        error = (u - (u_t + pad_like(h, x_t) * du_dt).detach()).square()
        plain = masked_mean(error.detach(), pair.mask)
        if self.power:
            exists = torch.ones_like(error) if pair.mask is None else pad_like(pair.mask, error).expand_as(error)
            sizes = (error * exists).flatten(1).sum(1) / exists.flatten(1).sum(1).clamp_min(1)
            error = error * pad_like((sizes.detach() + 1e-3) ** -self.power, error)
        return Loss(masked_mean(error, pair.mask), {"loss": plain})


def average_velocity(model: VelocityModel, cond: Condition, steps: int) -> Velocity:
    """The field (x, t) -> v whose Euler steps of length 1 / `steps` follow a network that `MeanFlow` trained.

    >>> field = average_velocity(lambda x, t, cond: cond["duration"], {}, 4)
    >>> field(torch.zeros(2, 1), torch.zeros(2))
    tensor([[0.2500],
            [0.2500]])
    """

    def field(x: Float[Tensor, "B *s"], t: Float[Tensor, "B"]) -> Tensor:
        return model(x, t, {**cond, "duration": x.new_full((len(x), 1), 1 / steps)})

    return field
