"""The entropic plan and the exact permutation."""

import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from monge.math.cost import squared_euclidean
from monge.math.ot import assignment, sinkhorn, sinkhorn_on_device

seeds = st.integers(0, 2**31)
sizes = st.integers(1, 20)
epsilons = st.sampled_from([0.1, 0.3, 1.0])


def clouds(draw, seed, n, m, dimension=2):
    cost = squared_euclidean(draw(seed, n, dimension), draw(seed + 1, m, dimension) + 1)
    return cost / cost.mean()


@given(seed=seeds, n=sizes, m=sizes, epsilon=st.sampled_from([0.02, 0.1, 1.0]))
def test_a_plan_has_uniform_marginals_up_to_the_error_it_reports(draw, seed, n, m, epsilon):
    """The plan has mass one, and its reported marginal error is correct."""
    plan = sinkhorn(clouds(draw, seed, n, m), epsilon, max_iterations=20_000)
    rows, columns = plan.matrix.sum(-1), plan.matrix.sum(-2)
    error = float((rows - 1 / n).abs().sum() + (columns - 1 / m).abs().sum())
    assert float(plan.matrix.sum()) == pytest.approx(1, abs=1e-5)
    assert error == pytest.approx(float(plan.marginal_error), abs=1e-5)
    assert error <= 1.01e-3


def test_a_plan_that_was_stopped_early_reports_its_error(draw):
    cost = clouds(draw, 0, 64, 64)
    stopped, finished = sinkhorn(cost, 0.003, max_iterations=20), sinkhorn(cost, 0.003, max_iterations=20_000)
    assert int(stopped.iterations) < int(finished.iterations) < 20_000
    assert float(stopped.marginal_error) > 0.01
    assert float(finished.marginal_error) <= 1e-3


@given(seed=seeds, n=sizes, m=sizes, epsilon=epsilons)
def test_the_plan_is_that_of_pot(draw, seed, n, m, epsilon):
    cost = clouds(draw, seed, n, m)
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    reference = ot.sinkhorn(a, b, cost.numpy(), epsilon, "sinkhorn_log", numItermax=3000, stopThr=1e-10, warn=False)
    plan = sinkhorn(cost, epsilon, tolerance=1e-9, max_iterations=20_000)
    # a few problems of few points converge too slowly for either solver
    unconverged = float(plan.marginal_error) + np.abs(reference.sum(1) - a).sum() + np.abs(reference.sum(0) - b).sum()
    torch.testing.assert_close(plan.matrix, torch.from_numpy(reference), rtol=0, atol=1e-7 + unconverged)


@given(seed=seeds, n=sizes, m=sizes)
def test_swapping_the_sides_transposes_the_plan(draw, seed, n, m):
    cost = clouds(draw, seed, n, m)
    forward, reverse = (sinkhorn(c, 0.1, tolerance=1e-9, max_iterations=20_000) for c in (cost, cost.mT))
    unconverged = float(forward.marginal_error + reverse.marginal_error)  # reported after max_iterations
    torch.testing.assert_close(forward.matrix, reverse.matrix.mT, rtol=0, atol=1e-8 + unconverged)


@given(seed=seeds, n=sizes, m=sizes)
def test_terms_of_the_row_or_the_column_alone_do_not_change_the_plan(draw, seed, n, m):
    cost = clouds(draw, seed, n, m)
    tilted = cost + 3 * draw(seed + 2, n)[:, None] + 3 * draw(seed + 3, m)[None, :]
    plain, moved = (sinkhorn(c, 0.1, tolerance=1e-9, max_iterations=20_000) for c in (cost, tilted))
    unconverged = float(plain.marginal_error + moved.marginal_error)
    torch.testing.assert_close(plain.matrix, moved.matrix, rtol=0, atol=1e-8 + unconverged)


@given(seed=seeds, n=sizes, m=sizes, epsilon=epsilons)
def test_at_the_optimum_the_dual_equals_the_primal(draw, seed, n, m, epsilon):
    cost = clouds(draw, seed, n, m)
    plan = sinkhorn(cost, epsilon, tolerance=1e-9, max_iterations=20_000)
    entropy = (plan.matrix * (plan.log_plan + math.log(n * m))).sum()
    off = float(plan.marginal_error) * float(
        torch.cat([plan.f, plan.g]).abs().max()
    )  # what the error of a marginal adds
    torch.testing.assert_close(
        plan.f.mean() + plan.g.mean(), (plan.matrix * cost).sum() + epsilon * entropy, rtol=0, atol=1e-7 + off
    )


@given(seed=seeds, n=sizes, m=sizes, epsilon=epsilons)
def test_the_device_loop_finds_the_kernels_plan(draw, seed, n, m, epsilon):
    cost = clouds(draw, seed, n, m)
    f, g, error, _ = sinkhorn_on_device(cost, epsilon, 1e-9, 20_000)
    plan = sinkhorn(cost, epsilon, tolerance=1e-9, max_iterations=20_000)
    result = torch.exp((f[:, None] + g[None, :] - cost) / epsilon) / (n * m)
    # a few draws need more iterations: both loops then report their marginal error
    left = float(error) + float(plan.marginal_error)
    torch.testing.assert_close(result, plan.matrix, rtol=0, atol=1e-7 + left)
    assert left < 1e-4


@given(seed=seeds)
def test_the_device_loop_solves_a_batch_as_it_solves_each_problem(draw, seed):
    cost = torch.stack([clouds(draw, seed + k, 8, 6) for k in range(4)]).reshape(2, 2, 8, 6)
    f, g, error, iterations = sinkhorn_on_device(cost, 0.2, 1e-8, 5000)
    assert error.shape == iterations.shape == (2, 2)
    assert float(error.max()) <= 1e-8
    for k in range(4):
        f_k, g_k, _, _ = sinkhorn_on_device(cost.flatten(0, 1)[k], 0.2, 1e-8, 5000)
        total = f.flatten(0, 1)[k][:, None] + g.flatten(0, 1)[k][None, :]
        torch.testing.assert_close(total, f_k[:, None] + g_k[None, :], rtol=0, atol=1e-6)


@pytest.mark.parametrize("loop", ["kernel", "device"])
def test_small_epsilons_reach_the_exact_cost(draw, loop):
    """At 1e-4 of the mean cost exp(-cost / epsilon) underflows everywhere; the log domain does not."""
    n, epsilon = 24, 1e-4
    cost = clouds(draw, 0, n, n)
    exact = cost[torch.arange(n), assignment(cost)].mean()
    if loop == "kernel":
        plan = sinkhorn(cost, epsilon, max_iterations=100_000)
        matrix, error = plan.matrix, float(plan.marginal_error)
    else:
        f, g, residual, _ = sinkhorn_on_device(cost, epsilon, 1e-3, 30_000)
        matrix, error = torch.exp((f[:, None] + g - cost) / epsilon) / n**2, float(residual)
    assert error <= 1e-3
    excess = float((matrix * cost).sum() - exact)
    assert -1e-3 * float(cost.max()) <= excess <= epsilon * math.log(n) + 1e-3 * float(cost.max())


@given(seed=seeds)
def test_a_batch_gives_the_plan_of_each_problem(draw, seed):
    cost = torch.stack([clouds(draw, seed + k, 7, 5) for k in range(6)]).reshape(2, 3, 7, 5)
    batch = sinkhorn(cost, 0.1)
    assert batch.marginal_error.shape == batch.iterations.shape == (2, 3)
    for k in range(6):
        alone = sinkhorn(cost[k // 3, k % 3], 0.1)
        assert torch.equal(batch.matrix[k // 3, k % 3], alone.matrix)


def test_single_precision_keeps_its_dtype_and_its_marginals(draw):
    plan = sinkhorn(clouds(draw, 0, 50, 40).float(), 0.05)
    assert plan.matrix.dtype == plan.log_plan.dtype == torch.float32
    assert plan.f.dtype == torch.float64  # division by epsilon amplifies errors of the potentials
    torch.testing.assert_close(plan.matrix, plan.log_plan.exp(), rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(plan.matrix.sum(-1), torch.full((50,), 1 / 50), rtol=1e-4, atol=0)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_epsilon_must_be_positive(epsilon):
    with pytest.raises(ValueError, match="use assignment"):
        sinkhorn(torch.ones(2, 2), epsilon)


@pytest.mark.parametrize("invalid", [math.nan, math.inf])
def test_the_error_names_a_cost_that_is_not_finite(invalid):
    cost = torch.ones(3, 3)
    cost[1, 2] = invalid
    with pytest.raises(ValueError, match=r"cost\[1, 2\]"):
        sinkhorn(cost, 0.1)


@given(seed=seeds)
def test_the_plan_of_integers_is_that_of_the_same_numbers_in_float64(draw, seed):
    cost = (5 * draw(seed, 6, 7).abs()).long()
    plan, expected = sinkhorn(cost, 0.5), sinkhorn(cost.double(), 0.5)
    assert torch.equal(plan.matrix, expected.matrix)
    assert float(plan.matrix.sum()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(plan.log_plan.exp(), plan.matrix, rtol=1e-3, atol=0)


def test_the_plan_of_half_precision_is_float32(draw):
    cost = clouds(draw, 0, 300, 300).half()
    plan = sinkhorn(cost, 0.5)
    assert plan.matrix.dtype == torch.float32
    torch.testing.assert_close(plan.matrix.sum(1), torch.full((300,), 1 / 300), rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [1e-300, 1e-150, 1e150, 1e300])
def test_the_plan_does_not_depend_on_the_units(draw, scale):
    cost = clouds(draw, 0, 12, 15)
    torch.testing.assert_close(sinkhorn(scale * cost, scale * 0.3).matrix, sinkhorn(cost, 0.3).matrix)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (5, 5)])
def test_equal_costs_have_the_uniform_plan(shape):
    for cost in (torch.zeros(shape), torch.full(shape, 3.0)):
        torch.testing.assert_close(sinkhorn(cost, 0.1).matrix, torch.full(shape, 1 / cost.numel()))


def test_the_barycentre_goes_from_the_partner_to_the_mean(draw):
    x_0, x_1 = draw(0, 9, 2), draw(1, 9, 2)
    cost = squared_euclidean(x_0, x_1)
    blurred = sinkhorn(cost, 1e6).barycentre(x_1)
    torch.testing.assert_close(blurred, x_1.mean(0).expand(9, 2), rtol=0, atol=1e-4)
    sharp = sinkhorn(cost, 1e-3, max_iterations=100_000).barycentre(x_1)
    torch.testing.assert_close(sharp, x_1[assignment(cost)], rtol=0, atol=0.02)


def test_barycentres_keep_the_mean(draw):
    cost = torch.stack([clouds(draw, k, 12, 12) for k in range(3)])
    x_1 = draw(9, 3, 12, 4)
    moved = sinkhorn(cost, 0.1, tolerance=1e-9, max_iterations=20_000).barycentre(x_1)
    torch.testing.assert_close(moved.mean(1), x_1.mean(1), rtol=0, atol=1e-6)


def test_samples_follow_the_rows_of_the_plan(draw):
    plan = sinkhorn(clouds(draw, 0, 4, 5).expand(5000, 4, 5), 0.5)
    drawn = plan.sample(generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (5000, 4)
    frequency = torch.nn.functional.one_hot(drawn, 5).double().mean(0) / 4
    torch.testing.assert_close(frequency, plan.matrix[0], rtol=0, atol=0.01)
    assert torch.equal(drawn, plan.sample(generator=torch.Generator().manual_seed(0)))


@given(seed=seeds, n=st.integers(1, 40))
def test_the_permutation_has_the_cost_of_scipys_solution(draw, seed, n):
    cost = clouds(draw, seed, n, n)
    match = assignment(cost)
    assert sorted(match.tolist()) == list(range(n))
    rows, columns = linear_sum_assignment(cost.numpy())
    torch.testing.assert_close(cost[torch.arange(n), match].sum(), cost[rows, columns].sum())


@given(seed=seeds)
def test_a_batch_gives_the_permutation_of_each_problem(draw, seed):
    cost = torch.stack([clouds(draw, seed + k, 9, 9) for k in range(6)]).reshape(3, 2, 9, 9)
    batch = assignment(cost)
    for k in range(6):
        assert torch.equal(batch[k // 2, k % 2], assignment(cost[k // 2, k % 2]))


@given(seed=seeds, scale=st.sampled_from([1e-12, 1e-3, 1e6, 1e12]))
def test_the_permutation_does_not_depend_on_the_units(draw, seed, scale):
    cost = clouds(draw, seed, 30, 30)
    assert torch.equal(assignment(scale * cost), assignment(cost))


@given(seed=seeds)
def test_any_prices_lead_to_the_same_optimum(draw, seed):
    cost = torch.stack([clouds(draw, seed + k, 40, 40) for k in range(2)])
    warm = assignment(cost, prices=draw(seed + 5, 2, 40))
    torch.testing.assert_close(
        cost.gather(2, warm[..., None]).sum(1), cost.gather(2, assignment(cost)[..., None]).sum(1)
    )


def test_an_empty_batch_has_no_permutations():
    assert assignment(torch.ones(0, 3, 3)).shape == (0, 3)


def test_a_plan_does_not_change_when_its_cost_is_overwritten(draw):
    cost, x_1 = clouds(draw, 0, 12, 9), draw(2, 9, 3)
    plan = sinkhorn(cost, 0.1)
    before = plan.barycentre(x_1)
    cost.zero_()
    assert torch.equal(plan.barycentre(x_1), before)
    torch.testing.assert_close(before, plan.matrix @ x_1 * 12, rtol=1e-4, atol=0)
