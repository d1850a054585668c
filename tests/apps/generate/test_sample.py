"""Sampling from a run: guidance, solvers, units, likelihood."""

import math
from typing import get_args

import pytest
import torch
from torch import nn

from monge.apps.generate.sample import Generator, Guidance, Sampling
from monge.math.cost import Units
from monge.math.path import Affine
from monge.math.solvers import SOLVERS, SolverName


class Pull(nn.Module):
    """The exact linear-path velocity towards one point per class; without a class, towards their mean."""

    def __init__(self, points, *, factor: float = 1.0):
        super().__init__()
        self.points, self.factor = points, factor

    def forward(self, x_t, t, cond=None):
        label = (cond or {}).get("label")
        target = self.points.mean(0).expand_as(x_t) if label is None else self.points[label]
        return self.factor * (target - x_t) / (1 - t).clamp_min(1e-9)[:, None]


POINTS = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-2.0, 0.0]])


def generator_of(model, **changes) -> Generator:
    units = Units(torch.tensor([10.0, -10.0]), torch.tensor([2.0, 0.5]))
    return Generator(model, Affine(), units, (2,), 3, 0.0, **changes)


class Decay(Pull):
    """The velocity target - x, smooth up to t = 1, where 1/e of the distance to the target remains."""

    def forward(self, x_t, t, cond=None):
        return self.points[cond["label"]] - x_t


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_reaches_the_end_of_the_flow_in_the_data_s_units(solver):
    generator, seed = generator_of(Decay(POINTS)), torch.Generator().manual_seed
    x, labels = generator.sample(6, Sampling(8, solver), generator=seed(0))
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    ends = POINTS[labels] + (generator.noise(6, generator=seed(0)) - POINTS[labels]) / math.e
    expected = ends * torch.tensor([2.0, 0.5]) + torch.tensor([10.0, -10.0])
    assert (x - expected).abs().max() < {"euler": 0.2, "rk4": 1e-4, "dopri5": 1e-4}.get(solver, 0.03)


def test_the_end_does_not_depend_on_the_batch_size():
    generator = generator_of(Pull(POINTS))
    x_0, labels = generator.noise(7, generator=torch.Generator().manual_seed(0)), generator.labels(7)
    batched = generator.end(x_0, labels, Sampling(4), size=2)
    *_, together = generator.states(x_0, labels, Sampling(4))
    assert torch.equal(batched, together)


def test_guidance_extrapolates_away_from_the_mean_of_the_classes():
    generator, x, t = generator_of(Pull(POINTS)), torch.zeros(3, 2), torch.full((3,), 0.5)
    plain = generator.velocity(torch.arange(3))(x, t)
    weak = generator.velocity(None)(x, t)
    guided = generator.velocity(torch.arange(3), Guidance(3.0))(x, t)
    assert torch.allclose(guided - plain, 2 * (plain - weak), atol=1e-6)


def test_guidance_acts_inside_its_interval_only():
    generator, x = generator_of(Pull(POINTS)), torch.zeros(3, 2)
    guided = generator.velocity(torch.arange(3), Guidance(3.0, (0.2, 0.6)))
    t = torch.tensor([0.1, 0.4, 0.8])
    changed = (guided(x, t) - generator.velocity(torch.arange(3))(x, t)).abs().sum(1) > 0
    assert changed.tolist() == [False, True, False]


def test_autoguidance_extrapolates_away_from_the_weaker_network():
    generator = generator_of(Pull(POINTS), weak=Pull(POINTS, factor=0.5))
    x, t = torch.zeros(3, 2), torch.full((3,), 0.5)
    plain = generator.velocity(torch.arange(3))(x, t)
    assert torch.allclose(generator.velocity(torch.arange(3), Guidance(2.0))(x, t), 1.5 * plain)


def test_guidance_without_classes_or_a_weak_network_is_rejected():
    with pytest.raises(ValueError, match="--weak"):
        generator_of(Pull(POINTS)).velocity(None, Guidance(2.0))


def test_the_likelihood_is_in_the_data_s_units():
    class Still(nn.Module):
        def forward(self, x_t, t, cond=None):
            return 0 * x_t

    generator = Generator(Still(), Affine(), Units(torch.tensor([10.0, -10.0]), torch.tensor([2.0, 0.5])), (2,), 0, 0.0)
    x = torch.tensor([[12.0, -10.0], [10.0, -9.0]])
    density, bits = generator.log_likelihood(x, None, steps=2)
    normal = torch.distributions.Normal(torch.tensor([10.0, -10.0]), torch.tensor([2.0, 0.5]))
    expected = normal.log_prob(x).sum(1)
    assert torch.allclose(density.log_prob, expected, atol=1e-5)
    assert torch.allclose(bits, -expected / 2 / math.log(2), atol=1e-5)


def test_solver_names_are_the_keys_of_solvers():
    assert list(get_args(SolverName)) == list(SOLVERS)
