"""Retrieval ranks, intervals, and the similarity of sequences."""

import pytest
import torch

from monge.apps.translate.metrics import (
    chamfer_scores,
    kendall_tau,
    matched_cosine,
    pooled_scores,
    ranks,
    squared_w2,
)
from monge.math.interval import Interval


def test_an_empty_prediction_ranks_last() -> None:
    scores = pooled_scores(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.eye(2))
    assert ranks(scores).tolist() == [1, 2]
    assert chamfer_scores([torch.zeros(0, 2)], [torch.ones(1, 2)]).tolist() == [[-2.0]]


def test_a_pool_holds_the_true_entry_and_at_most_its_size() -> None:
    scores = torch.full((40, 40), 1.0) + torch.eye(40)
    assert (ranks(scores, pool=10) == 1).all()
    assert (ranks(-scores, pool=10) == 10).all()
    assert (ranks(-scores) == 40).all()


def test_intervals_contain_the_mean_and_shrink_with_more_values() -> None:
    few, many = (Interval.of(torch.randn(n, generator=torch.Generator().manual_seed(n)) + 3) for n in (20, 2000))
    for interval in (few, many):
        assert interval.low < interval.value < interval.high
    assert many.high - many.low < 0.3 * (few.high - few.low)


def test_similarity_is_one_for_equal_sequences_and_falls_with_each_missing_token() -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert matched_cosine(x, x) == pytest.approx(1, abs=1e-5)
    assert matched_cosine(x[:3], x) == pytest.approx(0.5, abs=1e-5)
    assert matched_cosine(x[:0], x) == 0
    assert squared_w2(x, x[[3, 1, 0, 5, 2, 4]]) == pytest.approx(0, abs=1e-4)
    assert squared_w2(x[:2], x[[0, 0, 0, 1, 1, 1]]) == pytest.approx(0, abs=1e-4)
    assert kendall_tau(x, x) == 1
    assert kendall_tau(x.flip(0), x) == -1
