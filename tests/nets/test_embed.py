"""Embeddings of time, class and position."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.nets.embed import Rotary, rotate, sinusoidal

seeds = st.integers(0, 2**31)


def test_sinusoids_of_a_quarter_turn():
    quarter = torch.tensor([0.0, torch.pi / 2], dtype=torch.float64)
    result = sinusoidal(quarter, 4, longest=4.0)  # frequencies 1 and 1/2
    root = 0.5**0.5
    expected = torch.tensor([[1, 1, 0, 0], [0, root, 1, root]], dtype=torch.float64)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-7)


@given(shift=st.floats(-100, 100))
def test_sinusoids_encode_differences_of_positions(draw, shift):
    places = 10 * draw(0, 5)
    original, shifted = sinusoidal(places, 16), sinusoidal(places + shift, 16)
    torch.testing.assert_close(original @ original.T, shifted @ shifted.T)


@given(seed=seeds, axes=st.sampled_from([1, 2]), shift=st.integers(-50, 50))
def test_rotated_queries_see_only_relative_positions(draw, seed, axes, shift):
    q, k = draw(seed, 1, 2, 6, 8), draw(seed + 1, 1, 2, 6, 8)
    places = 5 * draw(seed + 2, 6, axes)

    def scores(places):
        angles = Rotary()(places, 8)
        return rotate(q, angles) @ rotate(k, angles).mT

    torch.testing.assert_close(scores(places), scores(places + shift))
    torch.testing.assert_close(rotate(q, Rotary()(places, 8)).norm(dim=-1), q.norm(dim=-1))
    assert (scores(places) - scores(2 * places)).abs().max() > 1e-3


def test_each_axis_rotates_separate_channels(draw):
    places = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    by_row, by_column = (Rotary()(places, 8)[k] != 0 for k in (1, 2))
    assert int(by_row.sum()) == int(by_column.sum()) == 4
    assert not (by_row & by_column).any()


def test_a_head_that_the_axes_cannot_share_is_rejected():
    with pytest.raises(ValueError, match="multiple of 4"):
        Rotary()(torch.zeros(3, 2), 6)
