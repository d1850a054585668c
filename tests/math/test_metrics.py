"""Metrics on sets and flows whose values are known."""

import inspect
import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.math.coupling import MinibatchOT
from monge.math.metrics import (
    _points,
    frechet,
    kernel_distance,
    manifold,
    memorisation,
    mmd,
    nmse,
    normalised_path_energy,
    path_energy,
    recoupling_ratio,
    sliced_w2,
    squared_w2,
    straightness,
)
from monge.math.types import Pair

seeds = st.integers(0, 2**31)


@given(seed=seeds, n=st.integers(2, 40))
def test_squared_w2_equals_that_of_pot(draw, seed, n):
    x, y = draw(seed, n, 3), draw(seed + 1, n, 3) + 1
    weights = np.full(n, 1 / n)
    assert squared_w2(x, y) == pytest.approx(ot.emd2(weights, weights, ot.dist(x.numpy(), y.numpy())), rel=1e-9)


@given(seed=seeds)
def test_shifting_a_set_costs_the_square_of_the_shift(draw, seed):
    x = draw(seed, 20, 3)
    displacement = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    assert squared_w2(
        x, x[torch.randperm(20, generator=torch.Generator().manual_seed(seed))] + displacement
    ) == pytest.approx(9)


def test_sliced_w2_of_a_shifted_set(draw):
    x = draw(0, 50, 4)
    displacement = torch.tensor([3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    result = sliced_w2(x, (x + displacement).flip(0), slices=4000, generator=generator)
    assert result == pytest.approx(3 / math.sqrt(4), rel=0.05)  # a random direction captures a quarter of the square
    assert sliced_w2(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="50 points against 49"):
        inspect.unwrap(sliced_w2)(x, x[1:])  # outside of the tests, annotations are not checked


@pytest.mark.parametrize("discrepancy", [mmd, kernel_distance])
def test_a_discrepancy_is_near_zero_for_equal_distributions_and_large_for_different_ones(draw, discrepancy):
    same = [discrepancy(draw(2 * k, 300, 3), draw(2 * k + 1, 300, 3)) for k in range(20)]
    other = discrepancy(draw(0, 300, 3), draw(1, 300, 3) + 1)
    assert min(same) < 0 < max(same)  # unbiased
    assert other > 5 * max(abs(value) for value in same)


@pytest.mark.parametrize("discrepancy", [mmd, kernel_distance])
@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (0, 5)])
def test_an_unbiased_discrepancy_needs_two_points_in_each_set(draw, discrepancy, n, m):
    with pytest.raises(ValueError, match=f"sets of {n} and {m} points; the unbiased estimate needs at least 2 in each"):
        discrepancy(draw(0, n, 3), draw(1, m, 3))


def test_mmd_of_two_pairs_by_hand():
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    y = torch.tensor([[0.0], [2.0]], dtype=torch.float64)
    k = {d: math.exp(-(d**2) / 2) for d in (0, 1, 2)}
    cross = (k[0] + k[2] + k[1] + k[1]) / 4
    with pytest.raises(ValueError, match="the bandwidth is 0; give a positive one"):
        mmd(x, y, bandwidth=0.0)
    assert mmd(x, y, bandwidth=1.0) == pytest.approx(k[1] + k[2] - 2 * cross)


def test_frechet_of_gaussians_on_the_line():
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # variance 2
    y = torch.tensor([[1.0], [5.0]], dtype=torch.float64)  # variance 8, mean 3
    assert frechet(x, y) == pytest.approx(3**2 + (math.sqrt(8) - math.sqrt(2)) ** 2)


@given(seed=seeds)
def test_frechet_is_the_distance_of_the_gaussians(draw, seed):
    """The optimal map between Gaussians is linear: for y = m x, with m positive definite, the distance is E|y - x|^2."""
    root = draw(seed, 4, 4)
    m = root @ root.T / 4 + 0.1 * torch.eye(4, dtype=torch.float64)
    x = draw(seed + 1, 60, 4)
    y = (x - x.mean(0)) @ m + x.mean(0) + 2
    true = (y - x - 2).square().sum() / 59 + 4 * 2**2
    assert frechet(x, y) == pytest.approx(float(true), rel=1e-6)
    assert frechet(y, x) == pytest.approx(float(true), rel=1e-6)


@pytest.mark.parametrize("points", [5, 200])
def test_frechet_to_itself_is_zero_even_for_a_singular_covariance(draw, points):
    x = draw(0, points, 20)
    assert frechet(x, x.flip(0)) == pytest.approx(0, abs=1e-6)
    flat = torch.cat([x, torch.zeros_like(x)], 1)
    assert frechet(flat, flat + 1) == pytest.approx(40, rel=1e-6)


def test_extreme_values_of_the_manifold_metrics(draw):
    real = draw(0, 200, 3)
    assert manifold(real, real)[:2] == (1, 1)
    assert manifold(real, real).coverage == 1
    assert manifold(real, real + 100) == (0, 0, 0, 0)
    collapsed = real[:1] + 1e-3 * draw(1, 200, 3)
    result = manifold(real, collapsed, k=3)
    assert result.precision == 1
    assert max(result.recall, result.coverage) < 0.1
    with pytest.raises(ValueError, match="5 points have no 5-th neighbour"):
        manifold(real[:5], real)


def test_density_and_coverage_of_equal_distributions_are_near_one(draw):
    result = manifold(draw(0, 1000, 2), draw(1, 1000, 2))
    assert result.density == pytest.approx(1, abs=0.1)
    assert result.coverage == pytest.approx(1 - 0.5**5, abs=0.05)  # Naeem et al., eq. 11


def test_memorisation_is_zero_for_copies_and_one_for_the_unseen(draw):
    train, unseen = draw(0, 500, 4), draw(1, 300, 4)
    assert memorisation(train[:100], train, unseen) == pytest.approx(0, abs=1e-5)
    assert memorisation(unseen, train, unseen) == 1
    assert memorisation(draw(2, 300, 4), train, unseen) == pytest.approx(1, abs=0.15)


def test_a_straight_flow_has_the_energy_of_its_displacement_and_zero_straightness(draw):
    x_0, displacement = draw(0, 30, 2), torch.tensor([3.0, 4.0], dtype=torch.float64)
    end, energy = path_energy(lambda x, t: displacement.expand_as(x), x_0)
    torch.testing.assert_close(end, x_0 + displacement)
    assert energy == pytest.approx(25)
    assert straightness(lambda x, t: displacement.expand_as(x), x_0) == pytest.approx(0, abs=1e-9)
    assert normalised_path_energy(energy, squared_w2(x_0, end)) == pytest.approx(0, abs=1e-9)


def test_a_half_turn_has_the_energy_of_its_arc_and_is_not_straight(draw):
    x_0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)

    def turn(x, t):
        return math.pi * torch.stack([-x[:, 1], x[:, 0]], 1)

    _, energy = path_energy(turn, x_0, steps=4000)
    assert energy == pytest.approx(math.pi**2, rel=5e-3)
    assert straightness(turn, x_0, steps=4000) == pytest.approx(math.pi**2 - 4, rel=5e-3)
    assert normalised_path_energy(energy, 4.0) == pytest.approx(math.pi**2 / 4 - 1, rel=1e-2)
    assert normalised_path_energy(energy, 0.0) == math.inf


def test_the_nmse_of_the_identity_is_one_with_origin_x_0_and_nearly_zero_with_origin_zero(draw):
    x_0 = 100 + draw(0, 50, 8)
    x_1 = x_0 + draw(1, 50, 8)
    assert nmse(x_0, x_1, origin=x_0) == 1
    assert nmse(x_0, x_1) < 1e-3
    assert nmse(x_1, x_1, origin=x_0) == 0


@given(seed=seeds)
def test_optimal_pairs_are_not_recoupled(draw, seed):
    coupled = MinibatchOT()(Pair(draw(seed, 40, 3), draw(seed + 1, 40, 3)))
    assert recoupling_ratio(coupled.x_0, coupled.x_1) == 0


def test_random_pairs_are_nearly_all_recoupled(draw):
    ratios = [recoupling_ratio(draw(2 * k, 50, 3), draw(2 * k + 1, 50, 3)) for k in range(40)]
    assert sum(ratios) / 40 == pytest.approx(49 / 50, abs=0.015)


def test_two_crossed_pairs_of_four_give_a_ratio_of_one_half():
    x = torch.tensor([[0.0], [1.0], [10.0], [20.0]], dtype=torch.float64)
    assert recoupling_ratio(x, x[[1, 0, 2, 3]]) == 0.5


def test_large_float32_states_are_not_recoupled_by_rounding(draw):
    """An entropic plan would fail here: exp(-cost / 0.1) of such states is 0 everywhere, which gives a ratio of 0.996."""
    h_m = 20 * draw(0, 256, 512)
    h_m[:, 3] += 3000  # a massive dimension
    h_n = h_m + 4 * draw(1, 256, 512)
    assert recoupling_ratio(h_m.float(), h_n.float()) == 0


@pytest.mark.parametrize(("n", "m", "d"), [(20, 30, 5), (5, 7, 40), (6, 60, 20), (60, 6, 20), (10, 10, 10)])
def test_frechet_is_the_formula_of_covariances(draw, n, m, d):
    """With fewer points than features, the D x D formula is not used but still holds."""
    x, y = draw(0, n, d), draw(1, m, d) * draw(2, d) + 0.3
    a, b = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    cross = np.linalg.eigvals(a @ b).real.clip(0)
    mean = float((x.mean(0) - y.mean(0)).square().sum())
    assert frechet(x, y) == pytest.approx(mean + a.trace() + b.trace() - 2 * np.sqrt(cross).sum(), rel=1e-6)


def test_frechet_of_one_point_is_rejected(draw):
    with pytest.raises(ValueError, match="1 and 5 points have no covariance"):
        frechet(draw(0, 1, 3), draw(1, 5, 3))


SETS = {
    "squared_w2": squared_w2,
    "sliced_w2": lambda x, y: sliced_w2(x, y, generator=torch.Generator().manual_seed(0)),
    "mmd": mmd,
    "kernel_distance": kernel_distance,
    "frechet": frechet,
    "manifold": manifold,
    "memorisation": lambda x, y: memorisation(x, y, y.flip(1)),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.bfloat16])
def test_every_dtype_gives_the_result_of_the_same_values_in_a_wide_dtype(draw, name, dtype):
    x, y = ((5 * draw(seed, 12, 3)).abs().to(dtype) for seed in (0, 1))
    wide = torch.float32 if dtype.is_floating_point else torch.float64
    assert SETS[name](x, y) == SETS[name](x.to(wide), y.to(wide))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("invalid", [math.nan, math.inf])
def test_the_error_names_a_point_that_is_not_finite(draw, name, invalid):
    x, y = draw(0, 12, 3), draw(1, 12, 3)
    y[4, 1] = invalid
    with pytest.raises(ValueError, match=r"set 1\[4, 1\] is (nan|inf); give finite points"):
        SETS[name](x, y)


def test_sets_of_different_dimensions_are_rejected(draw):
    with pytest.raises(ValueError, match=r"frechet: points of shape \(12, 3\) and \(12, 2\); give sets of points"):
        _points("frechet", draw(0, 12, 3), draw(1, 12, 2))


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_distances_have_the_scale_of_their_points(draw, scale):
    x, y = draw(0, 12, 3).float(), draw(1, 12, 3).float()
    for name, power in (("squared_w2", 2), ("sliced_w2", 1), ("frechet", 2), ("mmd", 0)):
        result, expected = SETS[name](scale * x, scale * y), scale**power * SETS[name](x, y)
        assert result == pytest.approx(expected, rel=1e-4), name
