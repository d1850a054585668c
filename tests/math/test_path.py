"""Paths: their ends, their velocity, and the predictions that determine it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.math.path import Affine, conditional_ot, constant, decreasing, linear, trigonometric

SCHEDULES = {"linear": linear, "trigonometric": trigonometric, "conditional_ot": conditional_ot(0.1)}
SPREADS = {
    "none": None,
    "constant": constant(0.3),
    "decreasing": decreasing(0.5),
    "bridge": lambda t: 0.7 * (t * (1 - t)).sqrt(),  # a custom one
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_spread = pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS)
seeds = st.integers(0, 2**31)


def times(*t):
    return torch.tensor(t, dtype=torch.float64)


@pytest.mark.parametrize("schedule", [linear, trigonometric])
@given(seed=seeds)
def test_a_path_starts_at_x_0_and_ends_at_x_1(draw, schedule, seed):
    x_0, x_1 = draw(seed, 2, 3, 4), draw(seed + 1, 2, 3, 4)
    path = Affine(schedule)
    torch.testing.assert_close(path(x_0, x_1, torch.zeros(2, dtype=torch.float64)).x_t, x_0)
    torch.testing.assert_close(path(x_0, x_1, torch.ones(2, dtype=torch.float64)).x_t, x_1)


def test_conditional_ot_leaves_noise_of_width_sigma_min_at_the_end(draw):
    x_0, x_1 = draw(0, 5, 3), draw(1, 5, 3)
    residual = Affine(conditional_ot(0.1))(x_0, x_1, torch.ones(5, dtype=torch.float64)).x_t - x_1
    torch.testing.assert_close(residual, x_0 / 10)


@every_schedule
@every_spread
@given(seed=seeds)
def test_the_velocity_is_the_derivative_of_the_position(draw, schedule, spread, seed):
    x_0, x_1 = draw(seed, 6, 3), draw(seed + 1, 6, 3)
    t = 0.05 + 0.9 * torch.rand(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    path, h = Affine(schedule, spread), 1e-5

    def point(t):
        return path(x_0, x_1, t, generator=torch.Generator().manual_seed(seed))

    slope = (point(t + h).x_t - point(t - h).x_t) / (2 * h)
    torch.testing.assert_close(point(t).u_t, slope, rtol=0, atol=1e-6)


def test_constant_noise_around_the_path_adds_no_velocity():
    """The velocity x_1 - (1 - sigma_min) x_0 belongs to conditional_ot, not to a path with spread sigma_min."""
    x_0, x_1 = times(1.0), times(3.0)
    assert float(Affine(linear, constant(0.1))(x_0, x_1, times(0.4)).u_t) == 2.0
    assert float(Affine(conditional_ot(0.1))(x_0, x_1, times(0.4)).u_t) == pytest.approx(2.1, abs=1e-12)


def test_the_trigonometric_path_at_its_middle():
    t, x_t, u_t = Affine(trigonometric)(times(1.0), times(0.0), times(0.5))
    assert float(x_t) == pytest.approx(math.sqrt(0.5), abs=1e-12)
    assert float(u_t) == pytest.approx(-math.pi / 2 * math.sqrt(0.5), abs=1e-12)
    assert float(t) == 0.5


def test_the_trigonometric_path_keeps_the_variance(draw):
    x_0, x_1 = draw(0, 50_000), draw(1, 50_000)
    for t in (0.2, 0.5, 0.9):
        assert float(Affine(trigonometric)(x_0, x_1, torch.full_like(x_0, t)).x_t.std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("spread", "t", "width"), [(constant(0.3), 0.7, 0.3), (decreasing(0.5), 0.25, 0.375), (decreasing(0.5), 1.0, 0.0)]
)
def test_the_spread_has_the_promised_standard_deviation(spread, t, width):
    zeros = torch.zeros(50_000, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x_t = Affine(linear, spread)(zeros, zeros, torch.full_like(zeros, t), generator=generator).x_t
    assert float(x_t.std()) == pytest.approx(width, rel=0.02)


@every_schedule
@given(seed=seeds)
def test_velocity_target_and_source_are_equivalent(draw, schedule, seed):
    x_0, x_1 = draw(seed, 4, 2, 3), draw(seed + 1, 4, 2, 3)
    t = 0.05 + 0.9 * torch.rand(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    path = Affine(schedule)
    _, x_t, u_t = path(x_0, x_1, t)
    for result, true in zip(path.endpoints(u_t, x_t, t), (x_0, x_1), strict=True):
        torch.testing.assert_close(result, true)
    torch.testing.assert_close(path.velocity_from_target(x_1, x_t, t), u_t)
    torch.testing.assert_close(path.velocity_from_source(x_0, x_t, t), u_t)


def test_a_mean_target_is_a_mean_velocity():
    """Predicting x_1 loses no information: v = (x_1 - x_t) / (1 - t)."""
    x_1, x_t, t = times(3.0), times(2.0), times(0.75)
    assert float(Affine().velocity_from_target(x_1, x_t, t)) == 4.0


def test_the_floor_bounds_the_velocity_at_the_ends(draw):
    x, wrong = draw(0, 1, 3), draw(1, 1, 3)
    for prediction, t in [(Affine().velocity_from_target, 1.0), (Affine().velocity_from_source, 0.0)]:
        assert not prediction(wrong, x, times(t)).isfinite().all()
        bounded = prediction(wrong, x, times(t), floor=0.05)
        assert bounded.isfinite().all()
        assert bounded.abs().max() < 21 * (x - wrong).abs().max() + wrong.abs().max()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_velocity_does_not_depend_on_whether_gradient_is_on(draw, mode):
    x_0, x_1, t = draw(0, 2, 3), draw(1, 2, 3), times(0.2, 0.6)
    with mode():
        silent = Affine(trigonometric)(x_0, x_1, t * 1.0).u_t.clone()
    torch.testing.assert_close(silent, Affine(trigonometric)(x_0, x_1, t).u_t)


def test_one_time_may_be_spread_over_the_batch_without_a_copy(draw):
    x_0, x_1, t = draw(0, 3, 2), draw(1, 3, 2), times(0.3).expand(3)
    torch.testing.assert_close(Affine(trigonometric)(x_0, x_1, t), Affine(trigonometric)(x_0, x_1, t.contiguous()))


def test_each_image_has_its_own_time(draw):
    """t is (B,), also for images."""
    x_0, x_1, t = draw(0, 3, 2, 4, 4), draw(1, 3, 2, 4, 4), times(0.1, 0.5, 0.9)
    together = Affine()(x_0, x_1, t)
    for row in range(3):
        alone = Affine()(x_0[row : row + 1], x_1[row : row + 1], t[row : row + 1])
        torch.testing.assert_close(together.x_t[row : row + 1], alone.x_t)


@every_schedule
def test_gradient_flows_through_the_times(draw, schedule):
    x_0, x_1, t = draw(0, 3, 2), draw(1, 3, 2), times(0.2, 0.5, 0.7).requires_grad_()
    _, x_t, u_t = Affine(schedule)(x_0, x_1, t)
    (slope,) = torch.autograd.grad(x_t.sum(), t)
    torch.testing.assert_close(slope, u_t.sum(1))
