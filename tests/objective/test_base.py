"""The weighted sum of objectives."""

import pytest
import torch
from torch import nn

from monge.objective.base import Loss, Objective, Weighted


class Constant(Objective):
    """An objective whose loss is the model's output times a trainable weight."""

    def __init__(self, value: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value))

    def forward(self, model, batch):
        value = self.weight * model(batch)
        return Loss(value, {"loss": value.detach(), "batch": batch})


def two():
    return Weighted(walk=(1.0, Constant(3.0)), match=(0.01, Constant(5.0)))


def model(x):
    return 2 * x


def test_terms_are_weighted_and_metrics_are_named_after_them():
    loss = two()(model, torch.tensor(1.0))
    assert float(loss.value.detach()) == pytest.approx(6 + 0.1)
    result = {name: float(metric) for name, metric in loss.metrics.items()}
    expected = {"loss": 6.1, "walk/loss": 6.0, "walk/batch": 1.0, "match/loss": 10.0, "match/batch": 1.0}
    assert result == pytest.approx(expected)


def test_parameters_of_the_terms_are_trained_with_the_weights():
    objective = two()
    objective(model, torch.tensor(1.0)).value.backward()
    gradients = {name: float(parameter.grad) for name, parameter in objective.named_parameters()}
    assert gradients == pytest.approx({"terms.walk.weight": 2.0, "terms.match.weight": 0.02})


def test_metrics_do_not_hold_the_graph():
    assert not any(metric.requires_grad for metric in two()(model, torch.tensor(1.0)).metrics.values())


def test_a_sum_needs_terms():
    with pytest.raises(ValueError, match="no terms"):
        Weighted()
