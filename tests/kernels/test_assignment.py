"""Exact assignment: laws on any matrix, golden values of scipy, structured matrices, scales and errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from monge.kernels import assignment
from monge.kernels.assignment import assign, assign_many

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 130)
seeds = st.integers(0, 2**31)


def total(cost, permutation):
    return cost.astype(np.float64)[np.arange(len(cost)), permutation].sum()


def assert_optimal(cost, result):
    """Checks that the permutation costs as much as scipy's, and that the certificate proves it without scipy."""
    n, exact = len(cost), cost.astype(np.float64)
    size = np.abs(exact).max()
    assert sorted(result.permutation) == list(range(n))
    paid, optimum = total(cost, result.permutation), exact[linear_sum_assignment(exact)].sum()
    assert abs(paid - optimum) <= 1e-9 * abs(optimum) + 1e-15 * n * size
    dual = result.prices.sum() + (exact - result.prices).min(1).sum()
    assert paid - dual == pytest.approx(result.gap, abs=1e-13 * n * size)
    assert 0 <= result.gap <= 1e-13 * n * size


def squared_distance(x, y):
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def clusters_on_a_line(n, rng):
    return 10.0 * rng.integers(0, 5, (n, 1)) + rng.normal(size=(n, 1))


STRUCTURED = {
    "points in the plane": lambda n, rng: squared_distance(rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) + 1),
    "inner products": lambda n, rng: -rng.normal(size=(n, 50)) @ rng.normal(size=(50, n)),
    "nearly a permutation": lambda n, rng: squared_distance(
        x := rng.normal(size=(n, 2)), rng.permutation(x) + 1e-3 * rng.normal(size=x.shape)
    ),
    "identity optimal": lambda n, rng: squared_distance(x := rng.normal(size=(n, 2)), x),
    "clusters on a line": lambda n, rng: squared_distance(clusters_on_a_line(n, rng), clusters_on_a_line(n, rng)),
    "line, |x - y|": lambda n, rng: np.abs(clusters_on_a_line(n, rng) - clusters_on_a_line(n, rng).T),
    "lattice": lambda n, rng: squared_distance(rng.integers(0, 6, (n, 2)), rng.integers(0, 6, (n, 2))).astype(float),
    "duplicates": lambda n, rng: squared_distance(
        rng.normal(size=(n, 2))[rng.integers(0, n, n)], rng.normal(size=(n, 2))[rng.integers(0, n, n)]
    ),
    "constant": lambda n, rng: np.full((n, n), 3.5),
    "zero": lambda n, rng: np.zeros((n, n)),
    "uniform": lambda n, rng: rng.random((n, n)),
    "few integers": lambda n, rng: rng.integers(0, 3, (n, n)).astype(float),
    "product": lambda n, rng: np.outer(np.arange(1.0, n + 1), np.arange(1.0, n + 1)),
    "offset": lambda n, rng: 1e6 + rng.random((n, n)),
    "one huge column": lambda n, rng: np.where(np.arange(n) == 0, 1e12, rng.random((n, n))),
    "forbidden pairs": lambda n, rng: np.where(
        (rng.random((n, n)) < 0.7) & ~np.eye(n, dtype=bool), 1e9, rng.random((n, n))
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", STRUCTURED)
def test_equals_scipy_on_structured_matrices(kind, dtype):
    for n in SIZES:
        cost = STRUCTURED[kind](n, np.random.default_rng(n)).astype(dtype)
        assert_optimal(cost, assign(cost))


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    n=st.integers(1, 80),
    exponent=st.integers(-30, 30),
    double=st.booleans(),
    kind=st.sampled_from(sorted(STRUCTURED)),
)
def test_is_optimal_at_any_scale(seed, n, exponent, double, kind):
    cost = STRUCTURED[kind](n, np.random.default_rng(seed))
    cost = (cost * (10.0**exponent / max(np.abs(cost).max(), 1e-9))).astype(np.float64 if double else np.float32)
    assert_optimal(cost, assign(cost))


@settings(max_examples=30, deadline=None)
@given(seed=seeds, n=st.integers(2, 120), size=st.sampled_from([0.0, 1e-3, 1.0, 1e3, 1e300]))
def test_any_start_gives_the_optimum(seed, n, size):
    rng = np.random.default_rng(seed)
    cost = squared_distance(rng.normal(size=(n, 2)), rng.normal(size=(n, 2))).astype(np.float32)
    assert_optimal(cost, assign(cost, size * rng.uniform(-1, 1, n)))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, n=st.integers(2, 60))
def test_relabelling_and_potentials_do_not_change_the_optimum(seed, n):
    """cost[p, q] + a_i + b_j has the optimum of cost, permuted and shifted."""
    rng = np.random.default_rng(seed)
    cost, a, b = rng.random((n, n)), rng.normal(size=(n, 1)), rng.normal(size=n)
    p, q = rng.permutation(n), rng.permutation(n)
    result, moved = assign(cost), assign(cost[p][:, q] + a + b)
    assert np.array_equal(q[moved.permutation], result.permutation[p])


def test_optimal_prices_end_the_search_at_once():
    cost = np.random.default_rng(0).random((100, 100))
    first = assign(cost)
    again = assign(cost, first.prices)
    assert np.array_equal(again.permutation, first.permutation)
    assert again.gap <= 1e-12


def test_golden():
    """The example of scipy's documentation, whose minimum cost is 5."""
    result = assign(np.array([[4.0, 1, 3], [2, 0, 5], [3, 2, 2]]))
    assert result.permutation.tolist() == [1, 0, 2]
    assert (result.permutation.dtype, result.prices.dtype) == (np.int64, np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_magnitudes(dtype):
    """The largest and the smallest numbers of the format neither overflow nor hang."""
    rng, limits = np.random.default_rng(0), np.finfo(dtype)
    for size in (limits.max, limits.tiny):
        cost = (rng.uniform(-1, 1, (40, 40)) * float(size)).astype(dtype)
        result = assign(cost)
        assert sorted(result.permutation) == list(range(40))
        scaled = cost.astype(np.float64) / float(size)
        assert total(scaled, result.permutation) == pytest.approx(scaled[linear_sum_assignment(scaled)].sum(), rel=1e-9)


def test_ragged_many_equals_each():
    rng = np.random.default_rng(0)
    costs = [rng.random((n, n)).astype(np.float32) for n in (5, 40, 1, 90, 17)]
    for workers in (1, 3):
        for cost, result in zip(costs, assign_many(costs, workers=workers), strict=True):
            assert np.array_equal(result.permutation, assign(cost).permutation)


def test_accepts_views_and_read_only_matrices():
    cost = np.random.default_rng(0).random((50, 50))
    frozen = cost.copy()
    frozen.setflags(write=False)
    expected = assign(cost).permutation
    assert np.array_equal(assign(frozen).permutation, expected)
    assert np.array_equal(assign(np.asfortranarray(cost)).permutation, expected)
    assert np.array_equal(assign(np.repeat(cost, 2, 1)[:, ::2]).permutation, expected)


def test_empty_matrix():
    assert assign(np.empty((0, 0))).permutation.tolist() == []


@pytest.mark.parametrize("invalid", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 9, 70])
def test_names_the_cost_that_is_not_finite(invalid, n):
    cost = np.ones((n, n), np.float32)
    cost[n // 2, n - 1] = invalid
    with pytest.raises(ValueError, match=rf"cost\[{n // 2}, {n - 1}\] is {invalid}"):
        assign(cost)


def test_rejects_invalid_arguments():
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        assign(np.ones((2, 3)))
    with pytest.raises(ValueError, match="int64"):
        assign(np.ones((2, 2), np.int64))
    with pytest.raises(ValueError, match=r"prices\[1\] is nan"):
        assign(np.ones((2, 2)), np.array([0, np.nan]))
    with pytest.raises(ValueError, match="one for each of the 2 columns"):
        assign(np.ones((2, 2)), np.zeros(3))


def test_fallback_is_exact(monkeypatch):
    """If the kernel fails, scipy solves the problem, with a valid but loose certificate."""
    cost = np.random.default_rng(0).random((30, 30))
    expected = assign(cost).permutation
    monkeypatch.setattr(assignment, "_solve", lambda *_: np.nan)
    result = assign(cost)
    assert np.array_equal(result.permutation, expected)
    assert 0 <= result.gap <= total(cost, expected)
