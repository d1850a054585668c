"""Loss, Objective, and the weighted sum of objectives."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class Loss(NamedTuple):
    """A scalar to minimise, and detached scalars to log.

    >>> Loss(torch.tensor(2.0), {"loss": torch.tensor(2.0)}).value
    tensor(2.)
    """

    value: Float[Tensor, ""]
    metrics: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """(model, batch) -> Loss. An objective is a module because some objectives have trainable weights.

    >>> class Power(Objective):
    ...     def forward(self, model, batch):
    ...         return Loss(model(batch).square().mean(), {})
    >>> Power()(lambda x: 2 * x, torch.ones(3)).value
    tensor(4.)
    """

    def __call__(self, model: Any, batch: Any, *extra: object) -> Loss:
        if extra:
            name = type(self).__name__
            raise TypeError(
                f"{name} takes a model and one batch; call {name}()(model, batch), with a batch such as Pair(x_0, x_1)"
            )
        return super().__call__(model, batch)

    @abstractmethod
    def forward(self, model: Any, batch: Any) -> Loss: ...


class Weighted(Objective):
    """A weighted sum: `Weighted(walk=(1.0, FlowWalking()), match=(0.01, FlowMatching()))`. Metrics are prefixed by term.

    >>> from monge import FlowMatching, Pair
    >>> objective = Weighted(plain=(1.0, FlowMatching()), contrast=(0.1, FlowMatching(contrast=0.05)))
    >>> sorted(objective(lambda x_t, t, cond: x_t, Pair(torch.zeros(2, 3), torch.ones(2, 3))).metrics)
    ['contrast/loss', 'loss', 'plain/loss']
    """

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
