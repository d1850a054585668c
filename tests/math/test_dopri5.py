"""The adaptive method: accuracy, independence of the samples, and termination."""

import math

import pytest
import torch
import torchdiffeq
from hypothesis import given, settings
from hypothesis import strategies as st

from monge.math.dopri5 import dopri5
from monge.math.solve import Counted, integrate, solve, time_grid, trajectory
from monge.math.types import pad_like

TIGHT = dopri5(rtol=1e-9, atol=1e-9)
seeds = st.integers(0, 2**31)


def pendulum(x, t):
    """A driven pendulum, (angle, speed)."""
    return torch.stack([x[:, 1], -9 * torch.sin(x[:, 0]) + torch.cos(3 * t)], 1)


def elementwise(x, t):
    return torch.sin(5 * x) * pad_like(1 + t, x) - x * x * x


@pytest.mark.slow
@settings(max_examples=5)
@given(seed=seeds)
def test_the_result_equals_that_of_torchdiffeq(draw, seed):
    x, times = draw(seed, 3, 2), torch.tensor([0.0, 0.4, 2.0], dtype=torch.float64)
    reference = torchdiffeq.odeint(
        lambda t, x: pendulum(x, t.expand(len(x))), x, times, rtol=1e-10, atol=1e-10, method="dopri5"
    )
    ours = torch.stack(list(trajectory(pendulum, x, times, step=TIGHT)))
    torch.testing.assert_close(ours, reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-8])
def test_the_error_follows_the_tolerance(draw, tolerance):
    x = draw(0, 4, 2)
    result = integrate(pendulum, x, time_grid(1, x), step=dopri5(rtol=tolerance, atol=tolerance))
    off = (result - integrate(pendulum, x, time_grid(1, x), step=TIGHT)).abs().max()
    assert off < 30 * tolerance


def test_a_tighter_tolerance_takes_more_evaluations(draw):
    x = draw(0, 4, 2)
    counts = [solve(pendulum, x, time_grid(1, x), step=dopri5(rtol=r, atol=r)).evaluations for r in (1e-3, 1e-6, 1e-9)]
    assert counts[0] < counts[1] < counts[2] < 1000


@pytest.mark.slow
@settings(max_examples=5)
@given(seed=seeds)
def test_the_result_of_a_sample_does_not_depend_on_the_rest_of_the_batch(draw, seed):
    x = draw(seed, 5, 3) * torch.tensor([0.01, 1.0, 3.0, 1.0, 10.0], dtype=torch.float64)[:, None]
    together = integrate(elementwise, x, time_grid(3, x), step=dopri5())
    for k in range(5):
        assert torch.equal(together[k : k + 1], integrate(elementwise, x[k : k + 1], time_grid(3, x), step=dopri5()))
    assert torch.equal(together.flip(0), integrate(elementwise, x.flip(0), time_grid(3, x), step=dopri5()))


@settings(max_examples=5)
@given(seed=seeds)
def test_integrating_forward_and_back_returns_to_the_start(draw, seed):
    x = draw(seed, 3, 2)
    end = integrate(pendulum, x, time_grid(1, x), step=TIGHT)
    start = integrate(pendulum, end, time_grid(1, x, start=1, end=0), step=TIGHT)
    torch.testing.assert_close(start, x, rtol=1e-6, atol=1e-6)


def test_many_knots_change_the_result_by_no_more_than_the_tolerance(draw):
    x = draw(0, 3, 2)
    few, many = (integrate(pendulum, x, time_grid(n, x), step=TIGHT) for n in (1, 50))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-7)


def test_a_knot_just_ahead_does_not_shorten_the_steps_after_it(draw):
    x = draw(0, 1, 2)
    knots = torch.tensor([0.0, 0.5, 0.5 + 1e-9, 1.0], dtype=torch.float64)
    without_extra, with_extra = (
        solve(pendulum, x, times, step=dopri5()).evaluations for times in (time_grid(1, x), knots)
    )
    assert with_extra <= without_extra + 24


@settings(max_examples=5)
@given(seed=seeds)
def test_samples_can_have_separate_knots(draw, seed):
    x = draw(seed, 3, 2)
    times = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).sort(0).values
    times[2] = times[1]  # a step of length zero
    together = integrate(elementwise, x, times, step=dopri5())
    for k in range(3):
        assert torch.equal(together[k : k + 1], integrate(elementwise, x[k : k + 1], times[:, k], step=dopri5()))


def test_a_field_at_rest_stays_and_a_constant_one_moves_straight(draw):
    x = draw(0, 3, 2)
    assert torch.equal(integrate(lambda x, t: torch.zeros_like(x), x, time_grid(2, x), step=dopri5()), x)
    torch.testing.assert_close(integrate(lambda x, t: torch.ones_like(x), x, time_grid(2, x), step=dopri5()), x + 1)


def test_gradient_flows_through_the_adaptive_steps():
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.3, 1.1]], dtype=torch.float64, requires_grad=True)
    end = integrate(lambda x, t: rate * x, x, time_grid(1, x), step=TIGHT)
    by_rate, by_x = torch.autograd.grad(end.sum(), (rate, x))
    torch.testing.assert_close(by_rate, (x.sum() * rate.exp()).detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(by_x, rate.exp().detach().expand(1, 2), rtol=1e-6, atol=0)


def to_nan(x, t):
    return torch.where(pad_like(t > 0.5, x), torch.nan, 1.0).expand_as(x)


@pytest.mark.parametrize(
    "v",
    [
        pytest.param(lambda x, t: x * x, id="a pole before the end"),
        pytest.param(lambda x, t: -1e7 * (x - pad_like(t, x).cos()), id="too stiff"),
    ],
)
def test_an_impossible_integration_ends_with_an_error(v):
    x = torch.full((2, 1), 2.0, dtype=torch.float64)
    with pytest.raises(
        ArithmeticError, match=r"2 of 2 samples did not reach the next knot|not finite for 2 of 2 samples"
    ):
        integrate(v, x, time_grid(1, x), step=dopri5(max_steps=300))


def test_max_steps_is_the_number_of_steps_that_suffice():
    x = torch.ones(2, 1, dtype=torch.float64)
    needed = 1
    while True:
        try:
            end = integrate(lambda x, t: x, x, time_grid(1, x), step=dopri5(max_steps=needed))
            break
        except ArithmeticError:
            needed += 1
    counted = Counted(lambda x, t: x)
    assert torch.equal(end, integrate(counted, x, time_grid(1, x), step=dopri5()))
    # two evaluations choose the first step; each step has six
    assert needed == (counted.evaluations - 2) // 6


def test_the_error_counts_only_unfinished_samples():
    x = torch.tensor([[0.1], [5.0], [0.2]], dtype=torch.float64)  # x' = x^2 has its pole at 1 / x_0
    with pytest.raises(ArithmeticError, match=r"1 of 3 samples did not reach|not finite for 1 of 3 samples, rows 1,"):
        integrate(lambda x, t: x * x, x, time_grid(1, x), step=dopri5(max_steps=300))


@pytest.mark.parametrize(
    ("v", "limit"),
    [
        pytest.param(lambda x, t: torch.where(x > 1, torch.nan, -x), 2, id="never finite"),
        pytest.param(lambda x, t: torch.where(x > 1, to_nan(x, t), -x), 600, id="not finite from half-way"),
        pytest.param(
            lambda x, t: torch.where((x > 1) & pad_like(t > 0, x), torch.nan, -x), 200, id="finite at the start only"
        ),
    ],
)
def test_a_non_finite_velocity_is_an_immediate_error_that_names_the_sample(v, limit):
    x = torch.full((4, 1), 0.5, dtype=torch.float64)
    x[2] = 2.0
    counted = Counted(v)
    with pytest.raises(ArithmeticError, match=r"not finite for 1 of 4 samples, rows 2, near t = 0(\.|;)"):
        integrate(counted, x, time_grid(1, x), step=dopri5())
    assert counted.evaluations <= limit


def test_a_step_out_of_the_domain_is_retried_with_a_smaller_size():
    """The solution of x' = -sqrt(x), x(0) = 1 is (1 - t / 2)^2; too long a step makes x negative, and the velocity nan."""
    x = torch.ones(1, 1, dtype=torch.float64)
    end = integrate(lambda x, t: -torch.sqrt(x), x, torch.tensor([0.0, 1.9]), step=dopri5())
    assert float(end) == pytest.approx(0.05**2, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_accurate_to_its_own_precision(dtype):
    """The network sees and returns half precision; the state between the knots is float32."""
    dtypes = set()

    def v(x, t):
        dtypes.add((x.dtype, t.dtype))
        return -x

    x = torch.tensor([[1.0], [2.0]], dtype=dtype)
    solution = solve(v, x, time_grid(2, x), step=dopri5())
    assert solution.x.dtype == dtype
    torch.testing.assert_close(solution.x.float(), x.float() * math.exp(-1), rtol=0.02, atol=0)
    assert dtypes == {(dtype, torch.float32)}
    assert solution.evaluations < 200
