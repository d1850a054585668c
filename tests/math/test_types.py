"""Pair and pad_like."""

import pytest
import torch

from monge.math.types import Pair, pad_like


def some_pair(draw):
    mask = torch.tensor([[True, True], [True, False], [False, True]])
    return Pair(draw(0, 3, 2, 4), draw(1, 3, 2, 4), mask, {"label": torch.tensor([5, 6, 7])})


def test_mask_and_conditions_follow_the_target(draw):
    pair = some_pair(draw)
    i, j = torch.tensor([2, 0]), torch.tensor([1, 2])
    taken = pair.take(i, j)
    torch.testing.assert_close(taken.x_0, pair.x_0[[2, 0]])
    torch.testing.assert_close(taken.x_1, pair.x_1[[1, 2]])
    assert taken.cond["label"].tolist() == [6, 7]
    assert taken.mask is not None
    assert taken.mask.tolist() == [[True, False], [False, True]]


def test_rows_in_two_halves_make_up_the_pair(draw):
    pair = some_pair(draw)
    first, second = pair.rows(slice(0, 1)), pair.rows(slice(1, None))
    assert (len(first), len(second)) == (1, 2)
    assert torch.equal(torch.cat([first.x_1, second.x_1]), pair.x_1)
    assert torch.equal(torch.cat([first.cond["label"], second.cond["label"]]), pair.cond["label"])


def test_the_model_gets_the_mask_only_if_there_is_one(draw):
    pair = some_pair(draw)
    assert set(pair.condition) == {"label", "mask"}
    assert set(Pair(pair.x_0, pair.x_1).condition) == set()
    assert "mask" not in pair.cond


def test_pad_like_scales_each_row_of_any_event(draw):
    t = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    for shape in [(3,), (3, 2), (3, 2, 4, 4)]:
        x = draw(0, *shape)
        scaled = pad_like(t, x) * x
        assert scaled.shape == x.shape
        for row in range(3):
            assert torch.equal(scaled[row], row * x[row])


@pytest.mark.parametrize(
    ("x_0", "mask", "label", "message"),
    [
        ((5, 2, 3), (4, 2), (4,), r"x_0 has shape \(5, 2, 3\), x_1 \(4, 2, 3\)"),
        ((1, 2, 3), (4, 2), (4,), "give one source per target"),
        ((4, 2, 1), (4, 2), (4,), "give one source per target"),
        ((4, 2, 3), (3, 2), (4,), r"mask has shape \(3, 2\), the tokens \(4, 2\)"),
        ((4, 2, 3), (4, 3), (4,), "give one entry per token"),
        ((4, 2, 3), (4, 2), (5,), r"cond\['label'\] has shape \(5,\) for 4 targets"),
        ((4, 2, 3), (4, 2), (), "give one row each"),
    ],
)
def test_a_pair_of_inconsistent_shapes_is_rejected(x_0, mask, label, message):
    with pytest.raises(ValueError, match=message):
        Pair(torch.zeros(x_0), torch.zeros(4, 2, 3), torch.ones(mask, dtype=torch.bool), {"label": torch.zeros(label)})
