"""Loss, Objective, and the weighted sum of objectives."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class Loss(NamedTuple):
    """A scalar to minimise, and detached scalars to log."""

    value: Float[Tensor, ""]
    metrics: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """(model, batch) -> Loss. A module, since some objectives have weights of their own, which are trained too."""

    def __call__(self, model: Any, batch: Any, *more: object) -> Loss:
        if more:
            name = type(self).__name__
            raise TypeError(f"{name} takes a model and one batch; call {name}()(model, batch), as with Pair(x_0, x_1)")
        return super().__call__(model, batch)

    @abstractmethod
    def forward(self, model: Any, batch: Any) -> Loss: ...


class Weighted(Objective):
    """A weighted sum: `Weighted(walk=(1.0, FlowWalking()), match=(0.01, FlowMatching()))`. Metrics carry their term's name."""

    def __init__(self, **terms: tuple[float, Objective]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("weighted: no terms; give name=(weight, objective)")
        self.weights = {name: weight for name, (weight, _) in terms.items()}
        self.terms = nn.ModuleDict({name: objective for name, (_, objective) in terms.items()})

    def forward(self, model: Any, batch: Any) -> Loss:
        losses = {name: term(model, batch) for name, term in self.terms.items()}
        value = sum(self.weights[name] * loss.value for name, loss in losses.items())
        metrics = {f"{name}/{key}": metric for name, loss in losses.items() for key, metric in loss.metrics.items()}
        assert isinstance(value, Tensor)
        return Loss(value, {"loss": value.detach(), **metrics})
