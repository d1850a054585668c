"""Assignments of any shape: golden values from scipy, forbidden pairs, exact integers, scales."""

import doctest
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import monge.math.assignment as module
from monge.math.assignment import assignment

seeds = st.integers(0, 2**31)
sizes = st.integers(1, 24)


def kinds(seed, n, m):
    """Matrices on which solvers differ: generic, ties, duplicated rows and columns, points, constant."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
    return {
        "generic": rng.normal(size=(n, m)),
        "ties": rng.integers(0, 3, (n, m)).astype(float),
        "duplicates": rng.normal(size=(n, m))[rng.integers(0, n, n)][:, rng.integers(0, m, m)],
        "points": ((x[:, None] - y) ** 2).sum(-1),
        "negative": -10 * rng.random((n, m)),
        "constant": np.full((n, m), 2.5),
    }


def assert_optimal(cost, result):
    """Checks that the result has min(n, m) distinct pairs and the cost of scipy's solution."""
    exact = cost.double().numpy()
    n, m = exact.shape
    rows = np.flatnonzero(result.numpy() >= 0)
    columns = result.numpy()[rows]
    assert len(rows) == len(set(columns)) == min(n, m)
    assert ((columns >= 0) & (columns < m)).all()
    assert (result.numpy()[np.setdiff1d(np.arange(n), rows)] == -1).all()
    finite = np.abs(exact[np.isfinite(exact)]).max(initial=0)
    optimum = exact[linear_sum_assignment(exact)].sum()
    assert abs(exact[rows, columns].sum() - optimum) <= 1e-9 * abs(optimum) + 1e-14 * min(n, m) * finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(seed=seeds, n=sizes, m=sizes)
def test_any_shape_has_the_cost_of_scipys_solution(dtype, seed, n, m):
    for cost in kinds(seed, n, m).values():
        cost = torch.from_numpy(cost).to(dtype)
        assert_optimal(cost, assignment(cost))


@pytest.mark.parametrize(("n", "m"), [(1, 9), (9, 1), (1, 1), (1, 200), (40, 300), (300, 40), (63, 64), (64, 63)])
def test_thin_and_nearly_square_shapes(n, m):
    for cost in kinds(n + m, n, m).values():
        assert_optimal(torch.from_numpy(cost), assignment(torch.from_numpy(cost)))


@given(seed=seeds, n=sizes, m=sizes, share=st.sampled_from([0.1, 0.5, 0.8, 0.95]))
def test_forbidden_pairs_are_never_assigned(seed, n, m, share):
    """Optimal where scipy finds an assignment, infeasible where scipy finds none."""
    rng = np.random.default_rng(seed)
    for cost in kinds(seed, n, m).values():
        cost = np.where(rng.random((n, m)) < share, np.inf, cost)
        try:
            linear_sum_assignment(cost)
        except ValueError:
            with pytest.raises(ValueError, match="is infeasible: its infinite entries rule out every assignment"):
                assignment(torch.from_numpy(cost))
        else:
            assert_optimal(torch.from_numpy(cost), assignment(torch.from_numpy(cost)))


@given(seed=seeds, n=sizes, m=sizes, scale=st.sampled_from([1e-300, 1e-30, 1e30, 1e300]))
def test_the_assignment_does_not_depend_on_the_units(seed, n, m, scale):
    for cost in kinds(seed, n, m).values():
        cost = torch.from_numpy(cost)
        result = assignment(scale * cost)
        assert_optimal(cost, result)


@given(seed=seeds, n=sizes, m=sizes)
def test_the_transposed_problem_has_the_inverse_map(seed, n, m):
    cost = torch.from_numpy(kinds(seed, n, m)["generic"])
    columns, rows = assignment(cost), assignment(cost.T)
    for i, j in enumerate(columns.tolist()):
        assert j < 0 or int(rows[j]) == i


def test_a_batch_is_solved_one_by_one(draw):
    cost = draw(0, 3, 2, 5, 8)
    result = assignment(cost)
    assert result.shape == (3, 2, 5)
    for k in range(6):
        assert torch.equal(result[k // 2, k % 2], assignment(cost[k // 2, k % 2]))


def test_empty_sides_leave_every_row_without_a_column():
    assert assignment(torch.ones(0, 5)).shape == (0,)
    assert assignment(torch.ones(3, 0)).tolist() == [-1, -1, -1]
    assert assignment(torch.ones(0, 3, 4)).shape == (0, 3)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2)])
@pytest.mark.parametrize("invalid", [float("nan"), -float("inf")])
def test_the_error_names_an_invalid_cost(shape, invalid):
    cost = torch.ones(shape)
    cost[1, 0] = invalid
    with pytest.raises(ValueError, match=rf"cost\[1, 0\] is {invalid}"):
        assignment(cost)


def test_prices_of_a_rectangular_cost_and_nan_prices_are_rejected(draw):
    with pytest.raises(ValueError, match="prices require a square cost, got 2 x 3"):
        assignment(draw(0, 2, 3), prices=draw(1, 3))
    with pytest.raises(ValueError, match=r"prices\[1\] is nan"):
        assignment(draw(0, 2, 2), prices=torch.tensor([0.0, float("nan")]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
@given(seed=seeds, n=sizes, m=sizes)
def test_integers_are_solved_exactly(dtype, seed, n, m):
    cost = torch.from_numpy(np.random.default_rng(seed).integers(0, 2 if dtype == torch.bool else 100, (n, m))).to(
        dtype
    )
    assert_optimal(cost, assignment(cost))


def exact_cost(cost, result):
    return sum(int(cost[i, j]) for i, j in enumerate(result.tolist()) if j >= 0)


@settings(max_examples=50)
@given(seed=seeds, n=st.integers(1, 6), m=st.integers(1, 6), bits=st.integers(40, 52))
def test_integers_beyond_float64_are_solved_exactly_where_their_differences_fit(seed, n, m, bits):
    """Offset by 2^61, every entry and total is beyond 2^53; the optimum is that of the differences."""
    small = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, (n, m)))
    large = small + 2**61
    try:
        result = assignment(large)
    except ValueError as error:
        message = str(error)
        assert "too large to be solved exactly" in message or "differ by more" in message
        return
    assert exact_cost(small, result) == exact_cost(small, assignment(small))


@settings(max_examples=50)
@given(seed=seeds, n=st.integers(2, 5))
def test_large_negative_integers_are_solved_exactly_or_rejected(seed, n):
    cost = -torch.from_numpy(np.random.default_rng(seed).integers(2**53 - 5, 2**53, (n, n)))
    try:
        result = assignment(cost)
    except ValueError as error:
        message = str(error)
        assert "too large to be solved exactly" in message
        return
    totals = (sum(int(cost[i, j]) for i, j in enumerate(p)) for p in itertools.permutations(range(n)))
    assert exact_cost(cost, result) == min(totals)


def test_integers_one_apart_beyond_float64_are_distinguished():
    cost = torch.tensor([[2**60 + 1, 2**60], [2**60, 2**60]])
    assert assignment(cost).tolist() == [1, 0]
    assert assignment(2**60 - torch.tensor([[1, 0], [0, 0]])).tolist() == [0, 1]


def test_integers_too_far_apart_are_rejected():
    with pytest.raises(ValueError, match=r"differ by more than 2\^53"):
        assignment(torch.tensor([[0, 2**54 + 1], [1, 2**54]]))
    with pytest.raises(ValueError, match=r"differ by more than 2\^53"):
        assignment(torch.tensor([[-(2**63), 2**63 - 1], [1, 2]]))


def test_the_examples_run():
    assert doctest.testmod(module, extraglobs={"torch": torch}).attempted > 0
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0
