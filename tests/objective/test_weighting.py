"""Weights by which every time counts the same."""

import pytest
import torch

from monge.objective.weighting import EqualTimes


def error_at(t):
    """A squared error that falls by four orders of magnitude towards t = 1."""
    return (0.01 + (1 - t)) ** 2


def test_the_weight_becomes_one_over_the_error():
    weights, random = EqualTimes(), torch.Generator().manual_seed(0)
    for _ in range(600):
        t = torch.rand(64, generator=random).sqrt()
        weights(t, error_at(t) * torch.rand(64, generator=random) * 2)
    t = torch.tensor([0.1, 0.5, 0.9, 0.97])
    torch.testing.assert_close(weights.eval()(t, error_at(t)) * error_at(t), torch.ones(4), rtol=0.2, atol=0)


def test_evaluation_leaves_the_means_unchanged():
    weights, t = EqualTimes().eval(), torch.linspace(0, 1, 9)
    before = weights.error.clone()
    weights(t, torch.zeros(9))
    assert torch.equal(weights.error, before)


def test_a_time_without_errors_keeps_its_mean():
    weights = EqualTimes(knots=3, decay=0.5)
    weights(torch.ones(4), torch.full((4,), 0.25))
    assert weights.error[:2].tolist() == [1, 1]
    assert float(weights.error[2]) == pytest.approx(0.25 + 0.75 * 0.5**4)


def test_a_batch_counts_as_much_as_its_errors_one_by_one():
    at_once, one_by_one = EqualTimes(knots=2, decay=0.9), EqualTimes(knots=2, decay=0.9)
    t = torch.ones(5)
    at_once(t, torch.full((5,), 0.5))
    for k in range(5):
        one_by_one(t[k : k + 1], torch.tensor([0.5]))
    torch.testing.assert_close(at_once.error, one_by_one.error)


def test_errors_that_do_not_count_leave_the_means_unchanged():
    all_, half = EqualTimes(), EqualTimes()
    t, error = torch.rand(8, generator=torch.Generator().manual_seed(0)), torch.full((8,), 0.1)
    all_(t[:4], error[:4])
    half(t, error, (torch.arange(8) < 4).float())
    assert torch.equal(all_.error, half.error)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_have_the_dtype_of_the_times(dtype):
    t = torch.tensor([0.25, 0.75], dtype=dtype)
    assert EqualTimes()(t, torch.ones(2, dtype=dtype)).dtype == dtype


def test_weights_carry_no_gradient():
    error = torch.ones(3, requires_grad=True)
    assert not EqualTimes()(torch.rand(3), error.square()).requires_grad


@pytest.mark.parametrize("settings", [{"knots": 1}, {"decay": 1.0}, {"decay": 0.0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="EqualTimes: needs at least two knots"):
        EqualTimes(**settings)
