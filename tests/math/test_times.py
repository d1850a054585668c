"""Distributions of t."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from monge.math.times import Times, logit_normal, shifted, uniform

QUANTILES = {
    "uniform": uniform,
    "logit_normal": logit_normal(),
    "logit_normal moved": logit_normal(-0.5, 1.5),
    "shifted": shifted(3.0),
    "shifted logit_normal": shifted(0.2, logit_normal()),
}
positive = st.floats(0.05, 20)


@pytest.mark.parametrize("quantile", QUANTILES.values(), ids=QUANTILES)
def test_a_quantile_function_rises_from_0_to_1(quantile):
    t = quantile(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert (float(t[0]), float(t[-1])) == (0.0, 1.0)
    assert (t.diff() > 0).all()


def test_logit_normal_at_one_standard_deviation():
    u = torch.tensor([stats.norm.cdf(-1), 0.5, stats.norm.cdf(1)], dtype=torch.float64)
    expected = torch.tensor([0.2689414213699951, 0.5, 0.7310585786300049], dtype=torch.float64)
    torch.testing.assert_close(logit_normal()(u), expected)


@pytest.mark.parametrize("stratified", [False, True])
def test_the_logits_of_logit_normal_times_are_normal(stratified):
    rows = torch.empty(20_000, dtype=torch.float64)
    t = Times(logit_normal(-0.4, 1.3), stratified)(rows, generator=torch.Generator().manual_seed(0))
    assert stats.kstest(t.logit().numpy(), stats.norm(-0.4, 1.3).cdf).pvalue > 1e-3


@given(a=positive, b=positive)
def test_shifts_compose_by_multiplication(a, b):
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    torch.testing.assert_close(shifted(a, shifted(b))(u), shifted(a * b)(u))
    torch.testing.assert_close(shifted(a, shifted(1 / a))(u), u)


def test_a_shift_above_1_puts_more_draws_near_the_source():
    assert float(shifted(3.0)(torch.tensor(0.5))) == 0.25


@pytest.mark.parametrize("shift", [0.0, -1.0, math.inf, math.nan])
def test_a_shift_must_be_positive(shift):
    with pytest.raises(ValueError, match="positive"):
        shifted(shift)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 200))
def test_stratified_times_have_one_draw_in_each_bin(seed, n):
    rows = torch.empty(n, dtype=torch.float64)
    t = Times(stratified=True)(rows, generator=torch.Generator().manual_seed(seed))
    assert sorted((t * n).long().tolist()) == list(range(n))


def test_stratified_times_do_not_follow_the_order_of_the_rows():
    t = Times(stratified=True)(torch.empty(1000), generator=torch.Generator().manual_seed(0))
    assert abs(stats.spearmanr(t.numpy(), range(1000)).statistic) < 0.1


@pytest.mark.parametrize("stratified", [False, True])
def test_every_row_has_its_own_time_drawn_from_the_generator(stratified):
    """Not one t for the entire batch."""
    rows = torch.empty(64, 3, 8, 8, dtype=torch.float64)
    first, repeated, other = (
        Times(stratified=stratified)(rows, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert first.shape == (64,)
    assert first.dtype == rows.dtype
    assert len(first.unique()) == 64
    assert torch.equal(first, repeated)
    assert not torch.equal(first, other)
