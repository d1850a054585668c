"""Solvers: their order, their direction, and the independence of the samples."""

import math
import pickle
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.math.dopri5 import dopri5
from monge.math.path import Affine, conditional_ot, linear, trigonometric
from monge.math.solve import integrate, solve, time_grid, trajectory
from monge.math.solvers import SOLVERS, SolverName
from monge.math.steps import adams_bashforth_2, adams_bashforth_3, dpm_solver_2m, euler, heun, midpoint, rk4
from monge.math.types import pad_like

ORDERS = {euler: 1, midpoint: 2, heun: 2, rk4: 4, adams_bashforth_2: 2, adams_bashforth_3: 3}
every_step = pytest.mark.parametrize("step", ORDERS, ids=lambda step: step.__name__)
ONE = torch.ones(1, 1, dtype=torch.float64)


def logistic(x, t):
    """x' = x (1 - x) cos t, solved by the logistic function of sin t + logit x_0."""
    return x * (1 - x) * pad_like(torch.cos(t), x)


def logistic_at(x_0, start, end):
    return torch.sigmoid(x_0.logit() + pad_like(torch.sin(end) - torch.sin(start), x_0))


def error(step, times):
    x_0 = torch.tensor([[0.1, 0.4], [0.6, 0.8]], dtype=torch.float64)
    times = times.to(torch.float64)
    result = integrate(logistic, x_0, times, step=step)
    return float((result - logistic_at(x_0, times[0].expand(2), times[-1].expand(2))).abs().max())


def uneven(steps):
    """Knots on [0, 3], where each inner step differs from its neighbours, in the same way for every number of steps."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return 3 * (u + 0.1 * torch.sin(2 * math.pi * u))


@every_step
@pytest.mark.parametrize(
    "knots", [lambda n: time_grid(n, ONE, end=3), uneven, lambda n: time_grid(n, ONE, start=3, end=0)]
)
def test_halving_the_steps_divides_the_error_by_two_to_the_order(step, knots):
    errors = [error(step, knots(n)) for n in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[step], abs=0.35)


@pytest.mark.parametrize("step", [adams_bashforth_2, adams_bashforth_3])
def test_a_multistep_method_keeps_its_order_when_steps_alternate(step):
    def alternating(n):
        widths = torch.tensor([1.0, 3.0], dtype=torch.float64).repeat(n // 2)
        return torch.cat([torch.zeros(1, dtype=torch.float64), 3 * widths.cumsum(0) / widths.sum()])

    errors = [error(step, alternating(n)) for n in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[step], abs=0.35)


@pytest.mark.parametrize(("step", "degree"), [(euler, 0), (midpoint, 1), (heun, 1), (rk4, 3)])
def test_polynomials_in_t_below_the_order_are_integrated_exactly(step, degree):
    def v(x, t):
        return pad_like((degree + 1) * t**degree, x).expand_as(x)

    x = integrate(v, ONE, torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64), step=step)
    torch.testing.assert_close(x, 2 * ONE)


@pytest.mark.parametrize("step", [adams_bashforth_2, adams_bashforth_3])
def test_a_sample_may_rest_while_the_others_move(draw, step):
    x, steps = draw(0, 2, 3), torch.linspace(0, 1, 5, dtype=torch.float64)
    waiting = torch.tensor([0, 0.25, 0.25, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    times = torch.stack([waiting, torch.cat([steps, steps.new_ones(2)])], 1)
    end = integrate(lambda x, t: x * t[:, None], x, times, step=step)
    torch.testing.assert_close(end[1:], integrate(lambda x, t: x * t[:, None], x[1:], steps, step=step))
    torch.testing.assert_close(end[0], x[0] * math.exp(0.5), rtol=0.1, atol=0)


@every_step
@given(seed=st.integers(0, 2**31))
def test_samples_with_separate_times_are_integrated_as_if_alone(draw, step, seed):
    x = draw(seed, 3, 2).sigmoid()
    generator = torch.Generator().manual_seed(seed)
    times = torch.rand(5, 3, generator=generator, dtype=torch.float64).sort(0).values
    together = integrate(logistic, x, times, step=step)
    for k in range(3):
        alone = integrate(logistic, x[k : k + 1], times[:, k], step=step)
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-13, atol=1e-13)


@every_step
def test_descending_times_integrate_backward(draw, step):
    x = draw(0, 4, 2).sigmoid()
    forward = integrate(logistic, x, time_grid(256, x), step=step)
    back = integrate(logistic, forward, time_grid(256, x, start=1, end=0), step=step)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-3)
    assert (forward - x).abs().max() > 0.05


@every_step
def test_gradient_flows_through_start_parameters_and_times(step):
    def end(x, rate, times):
        return integrate(lambda x, t: rate * torch.sin(x) + pad_like(t, x), x, times, step=step)

    x = torch.tensor([[0.3], [1.0]], dtype=torch.float64, requires_grad=True)
    rate = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(end, (x, rate, times))


@pytest.mark.parametrize(
    ("step", "expected"),
    [(None, 8), (euler, 4), (midpoint, 8), (heun, 8), (rk4, 16), (adams_bashforth_2, 4), (adams_bashforth_3, 5)],
)
def test_evaluations_are_counted(step, expected):
    solution = solve(logistic, ONE / 2, time_grid(4, ONE), step=step)
    assert solution.evaluations == expected
    torch.testing.assert_close(solution.x, integrate(logistic, ONE / 2, time_grid(4, ONE), step=step))


def test_a_trajectory_shows_every_knot(draw):
    x, times = draw(0, 3, 2).sigmoid(), time_grid(5, ONE)
    states = list(trajectory(logistic, x, times, step=rk4))
    assert len(states) == 6
    for t, state in zip(times, states, strict=True):
        torch.testing.assert_close(state, logistic_at(x, torch.zeros(3).double(), t.expand(3)), rtol=0, atol=1e-5)


def test_times_keep_single_precision_where_the_state_does_not():
    x = torch.ones(2, 3, dtype=torch.bfloat16)
    end = integrate(lambda x, t: x * t.to(x.dtype)[:, None], x, 400, step=euler)
    assert time_grid(400, x).unique().numel() == 401
    assert end.dtype == torch.bfloat16


def test_a_grid_has_equal_steps_and_at_least_one():
    torch.testing.assert_close(
        time_grid(4, ONE, start=1, end=0), torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64)
    )
    with pytest.raises(ValueError, match="at least one step"):
        time_grid(0, ONE)


PATHS = {
    "linear": Affine(linear),
    "trigonometric": Affine(trigonometric),
    "conditional_ot": Affine(conditional_ot(0.1)),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


@every_path
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_dpm_solver_is_exact_where_the_predicted_target_is_constant(draw, path, steps):
    x_0, x_1 = draw(0, 3, 2), draw(1, 3, 2)

    def v(x, t):
        return path.velocity_from_target(x_1, x, t)

    result = integrate(v, x_0, time_grid(steps, x_0), step=dpm_solver_2m(path))
    torch.testing.assert_close(result, path(x_0, x_1, torch.ones(3, dtype=torch.float64)).x_t)


@pytest.mark.slow
@every_path
def test_dpm_solver_is_of_second_order_away_from_the_ends(draw, path):
    x = draw(0, 3, 2)

    def v(x, t):
        return path.velocity_from_target(torch.tanh(2 * x) + pad_like(t, x), x, t)

    def end_after(steps):
        return integrate(v, x, time_grid(steps, x, start=0.1, end=0.9), step=dpm_solver_2m(path))

    true = integrate(v, x, time_grid(100, x, start=0.1, end=0.9), step=rk4)
    errors = [float((end_after(n) - true).abs().max()) for n in (32, 64)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.35)


def test_dpm_solver_gives_each_sample_its_own_times(draw):
    x, path = draw(0, 3, 2), Affine(trigonometric)
    times = torch.rand(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).sort(0).values
    times[0], times[-1] = 0, 1

    def v(x, t):
        return path.velocity_from_target(torch.tanh(x), x, t, floor=1e-3)

    together = integrate(v, x, times, step=dpm_solver_2m(path))
    for k in range(3):
        alone = integrate(v, x[k : k + 1], times[:, k], step=dpm_solver_2m(path))
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-12, atol=1e-12)


def test_dpm_solver_rejects_descending_times(draw):
    with pytest.raises(ValueError, match="from source to target"):
        integrate(logistic, ONE, time_grid(3, ONE, start=1, end=0), step=dpm_solver_2m(Affine()))


def test_the_solvers_agree_on_where_a_flow_ends(draw):
    x = draw(0, 5, 3).sigmoid()
    reference = integrate(logistic, x, time_grid(1, x), step=dopri5(rtol=1e-10, atol=1e-10))
    for step in ORDERS:
        torch.testing.assert_close(integrate(logistic, x, time_grid(200, x), step=step), reference, rtol=0, atol=2e-3)


@pytest.mark.parametrize("schedule", [linear, trigonometric])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dpm_solver_reaches_the_end_in_every_precision(schedule, dtype):
    """In float64 the last log-SNR of the trigonometric path is finite only by rounding."""
    path, x_0 = Affine(schedule), torch.linspace(-2, 2, 9, dtype=dtype)[:, None]

    def v(x, t):  # transports N(0, 1) to N(2, 0.3^2)
        (alpha, beta), (d_alpha, d_beta) = ([pad_like(r, x) for r in pair] for pair in path.rates(t))
        spread = alpha**2 + 0.09 * beta**2
        return 2 * d_beta + (alpha * d_alpha + 0.09 * beta * d_beta) / spread * (x - 2 * beta)

    end = integrate(v, x_0, 40, step=dpm_solver_2m(path))
    torch.testing.assert_close(end, 2 + 0.3 * x_0, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "dpm2m"])
def test_a_velocity_is_called_in_the_dtype_of_its_state_whatever_the_knots_are(name, per_sample, dtype):
    dtypes = set()

    def v(x, t):
        dtypes.add((x.dtype, t.dtype))
        return -x

    x = torch.ones(3, 2, dtype=dtype)
    knots = torch.linspace(0, 1, 5, dtype=torch.float64)
    end = integrate(v, x, knots[:, None].expand(5, 3).contiguous() if per_sample else knots, step=name)
    assert end.dtype == dtype
    assert dtypes == {(dtype, torch.float64 if dtype == torch.float64 else torch.float32)}
    torch.testing.assert_close(end.double(), torch.full((3, 2), 1 / math.e).double(), rtol=0.15, atol=0)


@pytest.mark.parametrize("times", [4, np.int64(4), torch.tensor(4), [0, 0.25, 0.5, 0.75, 1], np.linspace(0, 1, 5)])
def test_knots_are_accepted_in_any_common_form(times):
    def v(x, t):
        return pad_like(t, x) * x

    x = torch.ones(3, 2)
    assert torch.equal(integrate(v, x, times), integrate(v, x, torch.linspace(0, 1, 5)))
    assert torch.equal(integrate(v, x, steps=4), integrate(v, x, 4))


@pytest.mark.parametrize("step", ["euler", "dopri5"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": [0.0, math.nan]}, r"times\[1\] is nan; give finite knots"),
        ({"times": [[0.0, 0.0], [1.0, math.inf]]}, r"times\[1, 1\] is inf"),
        ({"times": torch.zeros(3, 4)}, r"times has shape \(3, 4\) for 2 samples; give \(knots,\), or \(knots, 2\)"),
        ({"times": []}, r"times has shape \(0,\)"),
        ({"times": 4, "steps": 4}, r"give either times \(the knots\) or steps"),
        ({}, r"give either times \(the knots\) or steps"),
        ({"steps": 0}, "use at least one step, got 0"),
        ({"steps": True}, "True is not a number of steps"),
        ({"steps": torch.tensor([0.0, 1.0])}, "not a number of steps"),
        ({"times": torch.tensor(3.7)}, r"tensor\(3.7000\) is not a number of steps"),
        ({"times": np.array(3.7)}, r"array\(3.7\) is not a number of steps"),
    ],
)
def test_invalid_knots_are_rejected(step, arguments, message):
    with pytest.raises(ValueError, match=message):
        integrate(lambda x, t: -x, torch.ones(2, 3), step=step, **arguments)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_may_be_named(draw, name):
    x = draw(0, 3, 2)
    if name == "dpm2m":
        with pytest.raises(ValueError, match=r"depends on the path; give step=dpm_solver_2m\(path\)"):
            integrate(lambda x, t: -x, x, 4, step=name)
        return
    by_hand = SOLVERS[name][0](Affine())
    assert torch.equal(integrate(lambda x, t: -x, x, 4, step=name), integrate(lambda x, t: -x, x, 4, step=by_hand))


def test_an_unknown_solver_is_rejected_with_the_known_ones(draw):
    with pytest.raises(
        ValueError, match="no solver 'rk45'; known: euler, midpoint, heun, rk4, ab2, ab3, dpm2m, dopri5"
    ):
        integrate(lambda x, t: x, draw(0, 3, 2), 4, step="rk45")
    assert get_args(SolverName) == tuple(SOLVERS)


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 2), ()])
@pytest.mark.parametrize("solve", [integrate, solve])
def test_a_velocity_of_another_shape_is_rejected(draw, solve, shape):
    with pytest.raises(ValueError, match=r"velocity has shape .* for states of shape \(3, 2\)"):
        solve(lambda x, t: torch.zeros(shape), draw(0, 3, 2), 4)


def test_integer_states_are_rejected():
    with pytest.raises(ValueError, match=r"x is torch\.int64; give states of a floating dtype"):
        integrate(lambda x, t: x, torch.ones(3, 2, dtype=torch.long), 4)


@pytest.mark.parametrize("step", [dopri5(rtol=1e-3), dpm_solver_2m(Affine(conditional_ot(0.1)))])
def test_a_solver_can_be_pickled(draw, step):
    x, again = draw(0, 3, 2), pickle.loads(pickle.dumps(step))
    assert torch.equal(integrate(lambda x, t: -x, x, 4, step=again), integrate(lambda x, t: -x, x, 4, step=step))
