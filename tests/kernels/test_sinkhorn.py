"""Entropic transport: laws of the plan, golden values of a float64 loop and of POT, small epsilons, scales."""

from typing import Any

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from monge.kernels.sinkhorn import sinkhorn, sinkhorn_many

seeds = st.integers(0, 2**31)


def squared_distance(n, m, seed, d=2):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 3 * rng.integers(0, 3, (m, 1))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    return cost / cost.mean()


def plan(cost, epsilon, result):
    return np.exp((result.f[:, None] + result.g - cost.astype(np.float64)) / epsilon) / cost.size


def error(matrix):
    n, m = matrix.shape
    return np.abs(matrix.sum(0) - 1 / m).sum() + np.abs(matrix.sum(1) - 1 / n).sum()


def converged(cost, epsilon, iterations=3000):
    """The log-domain iterations of Peyre & Cuturi 2019, remark 4.22, in float64."""
    (n, m), f, g = cost.shape, np.zeros(cost.shape[0]), np.zeros(cost.shape[1])
    for _ in range(iterations):
        before = g
        f = -epsilon * (logsumexp((g - cost) / epsilon, 1) - np.log(m))
        g = -epsilon * (logsumexp((f[:, None] - cost) / epsilon, 0) - np.log(n))
        if np.abs(g - before).max() < 1e-10 * epsilon:
            break
    return np.exp((f[:, None] + g - cost) / epsilon) / (n * m)


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    log_epsilon=st.floats(-4, 1),
    double=st.booleans(),
    exponent=st.integers(-30, 30),
)
def test_reports_the_actual_marginal_error(seed, n, m, log_epsilon, double, exponent):
    """For any shape, epsilon and scale, the reported marginal error is the actual one."""
    unit, relative = 10.0**exponent, 10.0**log_epsilon
    cost = (squared_distance(n, m, seed) * unit).astype(np.float64 if double else np.float32)
    result = sinkhorn(cost, relative * unit, max_iterations=300)
    assert error(plan(cost, relative * unit, result)) == pytest.approx(result.marginal_error, rel=1e-2, abs=2e-5)
    assert result.marginal_error <= 1e-3 or result.iterations == 300
    assert 1 <= result.iterations <= 300


@settings(max_examples=20, deadline=None)
@given(seed=seeds, epsilon=st.sampled_from([0.05, 0.2, 1.0]))
def test_plan_equals_the_float64_loop(seed, epsilon):
    cost = squared_distance(24, 31, seed)
    single = sinkhorn(cost.astype(np.float32), epsilon, tolerance=1e-5)
    double = sinkhorn(cost, epsilon, tolerance=1e-12, max_iterations=5000)
    expected = converged(cost, epsilon)
    assert np.abs(plan(cost, epsilon, double) - expected).max() * 24 < 1e-8
    assert np.abs(plan(cost, epsilon, single) - expected).max() * 24 < 1e-4


@pytest.mark.parametrize("epsilon", [0.02, 0.1])
def test_plan_equals_POT(epsilon):
    cost = squared_distance(40, 50, seed=0)
    expected: Any = ot.sinkhorn(
        np.full(40, 1 / 40), np.full(50, 1 / 50), cost, epsilon, numItermax=20000, stopThr=1e-12, warn=False
    )
    result = sinkhorn(cost, epsilon, tolerance=1e-10, max_iterations=20000)
    np.testing.assert_allclose(plan(cost, epsilon, result), expected, atol=1e-9)


@pytest.mark.parametrize("epsilon", [0.05, 0.01, 0.001, 0.0001])
@pytest.mark.parametrize("shape", [(64, 64), (37, 80)])
def test_small_epsilons_converge(epsilon, shape):
    cost = squared_distance(*shape, seed=1).astype(np.float32)
    result = sinkhorn(cost, epsilon, max_iterations=100_000)
    assert result.marginal_error <= 1e-3
    assert error(plan(cost, epsilon, result)) <= 1.01e-3


@pytest.mark.parametrize("limit", [1, 2, 5, 40])
def test_stops_at_the_maximum_number_of_iterations(limit):
    cost = squared_distance(40, 40, seed=1).astype(np.float32)
    result = sinkhorn(cost, 1e-6, max_iterations=limit)
    assert result.iterations == limit
    assert error(plan(cost, 1e-6, result)) == pytest.approx(result.marginal_error, rel=1e-2)


def test_small_epsilon_tends_to_the_assignment():
    cost = squared_distance(50, 50, seed=2)
    result = sinkhorn(cost, 1e-4, tolerance=1e-4, max_iterations=100_000)
    optimum = cost[linear_sum_assignment(cost)].mean()
    assert (plan(cost, 1e-4, result) * cost).sum() == pytest.approx(optimum, rel=1e-2)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.integers(1, 40), m=st.integers(1, 40), shift=st.floats(-1e3, 1e3))
def test_shifted_costs_shift_the_potentials(seed, n, m, shift):
    """cost + a_i + b_j has the same plan."""
    rng = np.random.default_rng(seed)
    cost = squared_distance(n, m, seed)
    moved = cost + shift + rng.normal(size=(n, 1)) + rng.normal(size=m)
    plans = [plan(c, 0.1, sinkhorn(c, 0.1, tolerance=1e-11, max_iterations=20000)) for c in (cost, moved)]
    np.testing.assert_allclose(*plans, atol=1e-8)


@pytest.mark.parametrize("epsilon", [0.05, 0.002])
def test_converged_potentials_end_the_iterations_at_once(epsilon):
    cost = squared_distance(60, 45, seed=3).astype(np.float32)
    first = sinkhorn(cost, epsilon, tolerance=1e-4, max_iterations=50_000)
    assert first.iterations > 20
    assert sinkhorn(cost, epsilon, tolerance=1.1e-4, g=first.g).iterations == 1
    assert sinkhorn(cost, epsilon, tolerance=1e-3, f=first.f).iterations < first.iterations


@settings(max_examples=20, deadline=None)
@given(seed=seeds, size=st.sampled_from([1.0, 1e3, 1e12]))
def test_any_start_converges(seed, size):
    rng = np.random.default_rng(seed)
    cost = squared_distance(30, 30, seed)
    result = sinkhorn(cost, 0.05, g=size * rng.normal(size=30), max_iterations=5000)
    assert result.marginal_error <= 1e-3
    np.testing.assert_allclose(plan(cost, 0.05, result) * 30, converged(cost, 0.05) * 30, atol=5e-2)


def test_constant_cost_gives_the_independent_plan():
    result = sinkhorn(np.full((5, 9), 7.0, np.float32), 0.1)
    np.testing.assert_allclose(plan(np.full((5, 9), 7.0), 0.1, result), 1 / 45, rtol=1e-6)


def test_ragged_many_equals_each():
    costs = [squared_distance(n, m, n).astype(np.float32) for n, m in ((5, 7), (40, 33), (1, 9), (64, 64))]
    for workers in (1, 3):
        for cost, result in zip(costs, sinkhorn_many(costs, 0.05, workers=workers), strict=True):
            assert np.array_equal(result.g, sinkhorn(cost, 0.05).g)


@pytest.mark.parametrize("invalid", [np.nan, np.inf])
def test_names_the_cost_that_is_not_finite(invalid):
    cost = np.ones((6, 9), np.float32)
    cost[3, 7] = invalid
    with pytest.raises(ValueError, match=rf"cost\[3, 7\] is {invalid}"):
        sinkhorn(cost, 0.1)


def test_rejects_invalid_arguments():
    with pytest.raises(ValueError, match="epsilon is 0"):
        sinkhorn(np.ones((2, 2)), 0)
    with pytest.raises(ValueError, match=r"shape \(0, 2\)"):
        sinkhorn(np.ones((0, 2)), 0.1)
    with pytest.raises(ValueError, match="g must be 2 finite numbers"):
        sinkhorn(np.ones((2, 2)), 0.1, g=np.ones(3))
