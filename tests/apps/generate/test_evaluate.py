"""The evaluator: real data score like the floor, which compares two halves of them; noise and copies score worse."""

from dataclasses import replace

import pytest
import torch

from monge.apps.generate import evaluate
from monge.apps.generate.data import digits, load
from monge.apps.generate.evaluate import Evaluator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator.of(digits())


def real_items(evaluator):
    return torch.cat([evaluator.training, evaluator.held_out])


def real_labels():
    training, held_out = digits().split()
    assert training.labels is not None
    assert held_out.labels is not None
    return torch.cat([training.labels, held_out.labels])


def test_the_classifier_generalises_to_held_out_digits(evaluator):
    assert evaluator.held_out_accuracy > 0.97


def test_the_evaluator_is_the_same_at_every_call(evaluator, train_classifier, monkeypatch):
    monkeypatch.setattr(evaluate, "train_classifier", train_classifier)
    other = Evaluator.of(digits())
    assert torch.equal(evaluator.features(evaluator.held_out), other.features(other.held_out))


def test_values_and_floors_use_equal_sample_sizes(evaluator):
    few, many = (evaluator.rows(evaluator.training[:n], None)["frechet"] for n in (200, 800))
    assert few.floor > 1.5 * many.floor  # the bias of the Frechet distance is of order 1 / n, also in the floor
    assert few.value > 1.5 * many.value


def test_a_held_out_quarter_of_the_real_data_scores_like_the_floor(evaluator):
    without_quarter = replace(evaluator, training=evaluator.training[:-400], held_out=evaluator.held_out)
    rows = without_quarter.rows(evaluator.training[-400:], None)
    for name in ("frechet", "sliced w2", "precision", "recall", "coverage"):
        assert rows[name].value == pytest.approx(rows[name].floor, rel=0.25), name


def test_noise_is_worse_than_the_floor_in_every_row(evaluator):
    noise = torch.randn(real_items(evaluator).shape, generator=torch.Generator().manual_seed(0))
    for name, row in evaluator.rows(noise, real_labels()).items():
        if row.better == "low":
            assert row.value > row.floor, name
        if row.better == "high":
            assert row.value < row.floor, name


def test_copies_of_the_training_data_have_memorisation_zero(evaluator):
    assert evaluator.rows(evaluator.training, None)["memorisation"].value == 0


def test_one_class_alone_has_precision_but_no_recall(evaluator):
    zeros = real_items(evaluator)[real_labels() == 0]
    rows = evaluator.rows(zeros, torch.zeros(len(zeros), dtype=torch.long))
    assert rows["precision"].value > 0.9
    assert rows["recall"].value < 0.3
    assert rows["coverage"].value < 0.3


def test_without_labels_the_features_are_the_data():
    evaluator = Evaluator.of(replace(load("moons"), labels=None))
    assert evaluator.classifier is None
    assert torch.equal(evaluator.features(evaluator.held_out), evaluator.held_out)
