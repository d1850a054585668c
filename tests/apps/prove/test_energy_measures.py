"""Measures of an energy."""

from typing import Any

import pytest
import torch
from torch import nn

from monge.apps.prove.contrast import ContrastBatch
from monge.apps.prove.energy_measures import alarms, calibration, quality
from monge.objective.contrastive import IndexedCandidates


class Linear(nn.Module):
    """An energy and an estimate of log(1 + remaining depth), read from the first two entries of a state."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def both(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, 0], x[:, 1].log1p()


def batch() -> ContrastBatch:
    """Three positive states whose true remaining depths are 1, 1 and 2, each with the same negative one."""
    x = torch.tensor([[0.0, 1.5], [5.0, 0.5], [1.0, 4.0], [3.0, 0.0]])
    index = torch.tensor([[0, 3], [1, 3], [2, 3]])
    return ContrastBatch(IndexedCandidates(x, index, torch.ones(3, 2, dtype=torch.bool)), torch.tensor([1.0, 1.0, 2.0]))


def test_quality_ranks_positive_states_and_compares_depths():
    found = quality(Linear(), [batch()])
    assert found["top-1"] == pytest.approx(2 / 3)
    assert found["chance"] == 0.5
    assert found["gap"] == pytest.approx((3 - 2 + 2) / 3)
    assert found["depth error (steps)"] == pytest.approx((0.5 + 0.5 + 2) / 3)
    assert found["depth correlation"] == pytest.approx(0.866, abs=1e-3)


def test_calibration_has_a_row_for_each_true_depth():
    rows: list[Any] = calibration(Linear(), [batch(), batch()])
    assert [(row["remaining"], row["draws"]) for row in rows] == [(1, 4), (2, 2)]
    assert [row["predicted"] for row in rows] == pytest.approx([1, 4])
    assert [row["spread"] for row in rows] == pytest.approx([0.5, 0])


def test_alarms_name_collapse_inverted_sign_and_overfitting():
    good = {"spread": 1.0, "gap": 2.0}
    assert alarms(good, [1.0, 0.9]) == []
    assert "collapsed" in alarms(good | {"spread": 0.0}, [])[0]
    assert "wrong sign" in alarms(good | {"gap": -1.0}, [])[0]
    assert "Overfitting: the held-out loss rose from 0.500 to 1.000" in alarms(good, [0.5, 1.0])[0]
