"""The optimal permutation of points: that of float64, with or without screening by a bfloat16 product."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from monge.kernels import screen
from monge.math import ot

seeds = st.integers(0, 2**31)
DRAWS = {
    "gaussian": lambda n, d, g: (torch.randn(n, d, generator=g), torch.randn(n, d, generator=g)),
    "clusters": lambda n, d, g: (
        torch.randn(n, d, generator=g),
        torch.randn(8, d, generator=g)[torch.arange(n) % 8] + 0.5 * torch.randn(n, d, generator=g),
    ),
    "tight clusters": lambda n, d, g: (
        torch.randn(n, d, generator=g),
        torch.randn(8, d, generator=g)[torch.arange(n) % 8] + 0.01 * torch.randn(n, d, generator=g),
    ),
    "near duplicates": lambda n, d, g: (
        x := torch.randn(n, d, generator=g),
        x.flip(0) + 1e-4 * torch.randn(n, d, generator=g),
    ),
    "norms of all sizes": lambda n, d, g: (
        torch.randn(n, d, generator=g),
        torch.randn(n, d, generator=g) * torch.logspace(-3, 3, n)[:, None],
    ),
}


def total_cost(x_0, x_1, permutation):
    return float((x_0.double() - x_1.double()[permutation]).square().sum())


def assert_optimal(x_0, x_1, permutation, *, rounding=0.0):
    """`rounding` is the tolerance relative to the size of the costs; the costs of nearly equal points differ by less."""
    assert sorted(permutation.tolist()) == list(range(len(x_0)))
    a, b = x_0.double(), x_1.double()
    cost = ((a - b.mean(0)).square().sum(-1)[:, None] - 2 * (a - b.mean(0)) @ (b - b.mean(0)).T).numpy()
    optimum = total_cost(x_0, x_1, torch.from_numpy(linear_sum_assignment(cost)[1]))
    size = float(((a - a.mean(0)).norm(dim=1)).sum() * (b - b.mean(0)).norm(dim=1).max())
    size += float((a.mean(0) - b.mean(0)).norm() * (b - b.mean(0)).norm(dim=1).sum())
    assert total_cost(x_0, x_1, permutation) <= optimum * (1 + 1e-9) + rounding * size


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    kind=st.sampled_from(sorted(DRAWS)),
    n=st.integers(2, 150),
    d=st.sampled_from([1, 7, 64, 300]),
    scale=st.sampled_from([1e-15, 1e-3, 1.0, 1e3, 1e12]),
    offset=st.sampled_from([0.0, 100.0]),
)
def test_screened_is_optimal_or_declines(seed, kind, n, d, scale, offset):
    x_0, x_1 = DRAWS[kind](n, d, torch.Generator().manual_seed(seed))
    x_0, x_1 = (x_0 + offset) * scale, (x_1 - 2 * offset) * scale
    matching = ot.screened_permutation(x_0, x_1)
    if matching is not None:
        assert_optimal(x_0, x_1, matching, rounding=2.0**-22)
    assert_optimal(x_0, x_1, ot.optimal_permutation(x_0, x_1), rounding=2.0**-19)


@settings(max_examples=10, deadline=None)
@given(seed=seeds, kind=st.sampled_from(["gaussian", "clusters"]))
def test_typical_problems_are_screened(seed, kind):
    """From any prices, the screen does not decline, and its result is as good as that of float64."""
    x_0, x_1 = DRAWS[kind](300, 784, torch.Generator().manual_seed(seed))
    for prices in (None, torch.randn(300), -x_1.square().sum(-1) / 2):
        matching = ot.screened_permutation(x_0, x_1, prices)
        assert matching is not None
        assert_optimal(x_0, x_1, matching)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, exponent=st.integers(-18, 12), kind=st.sampled_from(sorted(DRAWS)))
def test_the_product_is_within_its_bound(seed, exponent, kind):
    """The assumption of the optimality proof, checked for the product on this machine."""
    x_0, x_1 = (x * 10.0**exponent for x in DRAWS[kind](64, 200, torch.Generator().manual_seed(seed)))
    low_0, low_1 = screen.rounded(x_0.numpy()), screen.rounded(x_1.numpy())
    b_0, b_1 = (torch.from_numpy(low.bits).view(torch.bfloat16) for low in (low_0, low_1))
    cost, bound = np.empty((64, 64), np.float32), np.empty(64)
    arguments = low_0.norm, low_0.error, low_1.norm.max(), low_1.error.max(), 200, cost, bound
    assert screen._widen(torch.mm(b_0, b_1.mT).view(torch.uint16).numpy(), *arguments)
    exact = -(x_0.numpy().astype(float) - low_0.centre) @ (x_1.numpy().astype(float) - low_1.centre).T
    assert (np.abs(cost - exact).max(1) <= bound).all()


def test_rounds_as_torch_does():
    x = torch.randn(33, 50, generator=torch.Generator().manual_seed(0)) * torch.logspace(-20, 20, 50)
    low = screen.rounded(x.numpy())
    centred = x - torch.from_numpy(low.centre)
    assert torch.equal(torch.from_numpy(low.bits).view(torch.bfloat16), centred.bfloat16())
    exact = centred.double()
    assert (exact.norm(dim=1).numpy() <= low.norm).all()
    assert ((exact - centred.bfloat16().double()).norm(dim=1).numpy() <= low.error).all()


def test_a_wrong_matched_entry_is_made_exact_and_solved_again(monkeypatch):
    """Without its candidates the screen still reaches the optimum, through the matched entries alone."""
    monkeypatch.setattr(screen, "_sharpen_near", lambda *_: True)
    monkeypatch.setattr(screen, "ROUNDS", 1000)
    x_0, x_1 = DRAWS["gaussian"](40, 100, torch.Generator().manual_seed(0))
    matching = ot.screened_permutation(x_0, x_1)
    assert matching is not None
    assert_optimal(x_0, x_1, matching)


@pytest.mark.parametrize("n", [1, 2, 300])
def test_equal_points(n):
    assert sorted(ot.optimal_permutation(torch.ones(n, 784), torch.ones(n, 784)).tolist()) == list(range(n))


@pytest.mark.parametrize(
    ("invalid", "message"), [(float("nan"), r"x_0\[7, 0\] is nan"), (float("inf"), r"x_0\[7, 0\] is inf")]
)
def test_the_error_names_a_non_finite_point(invalid, message):
    x_0, x_1 = DRAWS["gaussian"](400, 784, torch.Generator().manual_seed(0))
    x_0[7] = invalid
    assert ot.screened_permutation(x_0, x_1) is None
    with pytest.raises(ValueError, match=message):
        ot.optimal_permutation(x_0, x_1)


@pytest.mark.parametrize("separation", [1e3, 1e5])
def test_tight_clusters_far_apart_are_matched_as_in_float64(draw, separation):
    """In float32 the rounding of these products exceeds the width of the clusters."""
    centres = torch.tensor([[0.0, 0.0], [separation, 0.0]])
    x_0, x_1 = (draw(k, 128, 2).float() + centres[torch.arange(128) % 2] for k in (0, 1))
    cost = torch.cdist(x_0.double(), x_1.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    rows, columns = linear_sum_assignment(cost.numpy())
    matching = ot.optimal_permutation(x_0, x_1)
    assert float(cost[torch.arange(128), matching].sum()) == pytest.approx(float(cost[rows, columns].sum()), rel=1e-6)


def test_half_precision_is_widened_before_it_is_multiplied(draw):
    centres = torch.tensor([[0.0, 0.0], [100.0, 0.0]])
    x_0, x_1 = ((draw(k, 128, 2).float() + centres[torch.arange(128) % 2]).half() for k in (0, 1))
    assert torch.equal(ot.optimal_permutation(x_0, x_1), ot.optimal_permutation(x_0.double(), x_1.double()))


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-25, 1e-19, 1e-10, 1e10, 1e20, 1e37])
@pytest.mark.parametrize(("n", "d"), [(64, 3), (300, 784)])
def test_points_of_any_size_have_the_same_optimum(draw, n, d, scale):
    """The products of such points over- or underflow float32."""
    x_0, x_1 = (draw(k, n, d).float() * scale for k in range(2))
    matching = ot.optimal_permutation(x_0, x_1)
    exact = ot.optimal_permutation(x_0.double() / scale, x_1.double() / scale)
    total, best = (((x_0.double() - x_1.double()[p]) / scale).square().sum() for p in (matching, exact))
    assert sorted(matching.tolist()) == list(range(n))
    assert float(total) == pytest.approx(float(best), rel=1e-6)


@pytest.mark.parametrize(("left", "right"), [(1e-200, 1e-200), (1e200, 1e200), (1e-200, 1e200), (1e-300, 1.0)])
def test_the_sides_may_differ_in_scale(draw, left, right):
    x_0, x_1 = draw(0, 40, 3), draw(1, 40, 3)
    assert torch.equal(ot.optimal_permutation(left * x_0, right * x_1), ot.optimal_permutation(x_0, x_1))


def test_one_huge_point_is_matched_as_in_float64(draw):
    x_0, x_1 = draw(0, 100, 3).float(), draw(1, 100, 3).float()
    x_0[7] = 3e38
    assert torch.equal(ot.optimal_permutation(x_0, x_1), ot.optimal_permutation(x_0.double(), x_1.double()))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integer_points_are_matched_as_in_float64(draw, dtype):
    x_0, x_1 = ((50 * draw(k, 40, 3).abs()).to(dtype) for k in range(2))
    assert torch.equal(ot.optimal_permutation(x_0, x_1), ot.optimal_permutation(x_0.double(), x_1.double()))


def test_no_points_have_an_empty_matching():
    assert ot.optimal_permutation(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
