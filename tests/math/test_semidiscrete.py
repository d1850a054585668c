"""The semidiscrete potentials and their assignment of noise to data points."""

import math

import pytest
import torch

from monge.math.cost import squared_euclidean
from monge.math.ot import assignment
from monge.math.semidiscrete import _poisson_deviation, semidiscrete, semidiscrete_assign


def ring(n):
    """n points on a circle of radius 2, and one in the middle, which noise around zero prefers."""
    angle = torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)
    return torch.cat([2 * torch.stack([angle.cos(), angle.sin()], 1), torch.zeros(1, 2, dtype=torch.float64)])


def noise_from(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randn(n, 2, generator=generator, dtype=torch.float64)


def test_semidiscrete_potentials_assign_equal_shares_of_the_noise():
    data, draws = ring(12), noise_from(1)(26_000)
    potentials, error = semidiscrete(noise_from(0), data, steps=600)

    def shares(potentials):
        return torch.bincount(semidiscrete_assign(draws, data, potentials), minlength=13).double() / len(draws)

    even = torch.full((13,), 1 / 13, dtype=torch.float64)
    assert (shares(torch.zeros_like(potentials)) - even).abs().sum() > 0.3
    torch.testing.assert_close(shares(potentials), even, rtol=0.15, atol=0)
    assert error < 0.05


def test_points_that_coincide_still_get_their_shares_together():
    data = torch.tensor([[0.0, 0.0]] * 3 + [[2.0, 1.0]])
    generator = torch.Generator().manual_seed(0)
    potentials, _ = semidiscrete(lambda n: torch.randn(n, 2, generator=generator), data, generator=generator)
    indices = semidiscrete_assign(torch.randn(20_000, 2, generator=generator), data, potentials)
    assert abs(float((indices == 3).double().mean()) - 0.25) < 0.02


def test_no_map_with_the_same_shares_is_cheaper_than_the_semidiscrete_one():
    data, x_0 = ring(12), noise_from(2)(13 * 20)
    potentials, _ = semidiscrete(noise_from(0), data, steps=600)
    assigned = data[semidiscrete_assign(x_0, data, potentials)]
    exact = data.repeat(20, 1)
    exact = exact[assignment(squared_euclidean(x_0, exact))]
    costs = [float((x_0 - x).square().sum(1).mean()) for x in (assigned, exact)]
    assert costs[0] == pytest.approx(costs[1], rel=0.1)
    assert (assigned == exact).all(1).double().mean() > 0.6


def test_with_groups_every_draw_is_assigned_within_its_group(draw):
    data, groups = ring(12), torch.tensor([0, 1] * 6 + [1])
    generator = torch.Generator().manual_seed(0)
    potentials, error = semidiscrete(noise_from(0), data, groups=groups, steps=600, generator=generator)
    assert error < 0.06
    group = torch.arange(2000) % 2
    result = semidiscrete_assign(draw(0, 2000, 2), data, potentials, groups=groups, group=group)
    assert torch.equal(groups[result], group)


def test_a_group_that_the_data_lack_is_rejected(draw):
    with pytest.raises(ValueError, match=r"group \[2\]"):
        semidiscrete_assign(
            draw(0, 2, 2),
            ring(3),
            torch.zeros(4).double(),
            groups=torch.tensor([0, 0, 1, 1]),
            group=torch.tensor([0, 2]),
        )


@pytest.mark.parametrize("mean", [0.05, 0.9, 1.0, 7.3, 64.0])
def test_the_floor_of_the_error_is_the_mean_deviation_of_poisson_counts(mean):
    counts = torch.poisson(torch.full((400_000,), mean), generator=torch.Generator().manual_seed(0))
    assert _poisson_deviation(mean) == pytest.approx(float((counts - mean).abs().mean()), rel=0.01)


@pytest.mark.parametrize(
    ("scale", "message"), [(1e20, "size 1e"), (1e-30, "size"), (float("nan"), "give finite points")]
)
def test_data_that_float32_cannot_square_are_rejected(scale, message):
    with pytest.raises(ValueError, match=f"semidiscrete: data.*{message}|semidiscrete: the data are of {message}"):
        semidiscrete(lambda n: torch.randn(n, 2), scale * torch.ones(4, 2))
