"""Stepping, stopping, accumulating and resuming in one process."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from regression import Regression
from torch.testing import assert_close

from monge.objective.base import Weighted
from monge.training import checkpoint
from monge.training.config import TrainConfig
from monge.training.distributed import Ranks, ranks
from monge.training.loop import prepare, train
from monge.training.state import State

HERE = Ranks(0, 1, torch.device("cpu"))


def recipe(**settings) -> Regression:
    fields = {name: settings.pop(name) for name in ("size", "blur") if name in settings}
    return Regression(TrainConfig(**{"steps": 8, "warmup_steps": 2, **settings}), **fields)


def stepped(experiment: Regression, steps: int | None = None, into: Path | None = None) -> tuple[State, list[float]]:
    """(state, losses) after `steps` steps, resumed from the last checkpoint in `into`, if any, and saved there at the end."""
    torch.manual_seed(experiment.train.seed)
    run = experiment.build()
    state, step = prepare(run, HERE)
    if into and (saved := checkpoint.steps(into)):
        state.load(*checkpoint.read(saved[-1], state.files()), HERE)
    losses = [float(metrics["loss"]) for _, metrics in islice(train(run, state, step, HERE), steps)]
    if into:
        checkpoint.save(into, state, HERE)
    return state, losses


VARIANTS = {
    "plain": {},
    "muon": {"optimizer": "muon"},
    "bfloat16": {"precision": "bfloat16"},
    "accumulated": {"gradient_accumulation": 3},
    "no ema": {"ema_width": 0.0},
    "two workers": {"loader_threads": 2},
    "decay and no clip": {"weight_decay": 0.1, "max_grad_norm": 0.0},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_run_in_pieces_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, settings: dict) -> None:
    experiment = recipe(blur=0.3, **settings)  # the blur draws from torch's global generator
    uninterrupted, losses = stepped(experiment)
    pieces: list[float] = []
    for steps in (1, 3, 0, 2, None):
        torch.rand(5)  # the generator may be used in between
        state, piece = stepped(experiment, steps, tmp_path)
        pieces += piece
    assert pieces == losses
    files = state.tensors(HERE)
    assert files.keys() == uninterrupted.tensors(HERE).keys()
    for name, tensors in uninterrupted.tensors(HERE).items():
        assert files[name].keys() == tensors.keys()
        assert all(torch.equal(files[name][key], value) for key, value in tensors.items()), name


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_loader_threads_changes_nothing(workers: int) -> None:
    alone, losses = stepped(recipe(loader_threads=0, blur=0.3))
    prefetched, losses_prefetched = stepped(recipe(loader_threads=workers, blur=0.3))
    assert losses_prefetched == losses
    assert_close(prefetched.tensors(HERE), alone.tensors(HERE), rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_accumulated_batches_of_n_equal_one_of_2n(optimizer: str) -> None:
    two, losses = stepped(recipe(gradient_accumulation=2, size=8, optimizer=optimizer))
    one, losses_of_one = stepped(recipe(gradient_accumulation=1, size=16, optimizer=optimizer))
    assert_close(losses, losses_of_one, rtol=1e-5, atol=0)
    assert_close(two.tensors(HERE)["model"], one.tensors(HERE)["model"], rtol=1e-4, atol=1e-6)
    fewer, _ = stepped(recipe(gradient_accumulation=1, size=8, optimizer=optimizer))
    difference = one.model.enter.weight - fewer.model.enter.weight
    assert difference.abs().max() > 1e-4  # the test is not vacuous


def test_the_caller_steps_stops_and_resumes() -> None:
    run = recipe(steps=6).build()
    state, step = prepare(run, HERE)
    loop = train(run, state, step, HERE)
    assert [next(loop)[0] for _ in range(2)] == [1, 2]
    assert state.step == 2
    loop.close()
    seen = dict(train(run, state, step, HERE))
    assert list(seen) == [3, 4, 5, 6]
    assert {"loss", "grad_norm"} <= seen[3].keys()
    assert all(not value.requires_grad for metrics in seen.values() for value in metrics.values())
    assert list(train(run, state, step, HERE)) == []


def test_an_error_in_a_batch_ends_the_run_and_propagates() -> None:
    run = recipe(loader_threads=2).build()
    batches = run.batches

    def failing(number: int):
        if number == 3:
            raise ValueError("batch three")
        return batches(number)

    run = replace(run, batches=failing)
    state, step = prepare(run, HERE)
    with pytest.raises(ValueError, match="batch three"):
        list(train(run, state, step, HERE))
    assert state.step == 3


def test_weights_of_the_objective_are_trained_and_saved(tmp_path: Path) -> None:
    state, _ = stepped(recipe(), None, tmp_path)
    assert state.objective.gain.detach().item() != 1
    tensors, _ = checkpoint.read(checkpoint.steps(tmp_path)[-1], ["resume"])
    assert_close(tensors["resume"]["objective/gain"], state.objective.gain.detach(), rtol=0, atol=0)


def test_metrics_are_means_over_the_batches_of_a_step() -> None:
    experiment = recipe(steps=1, gradient_accumulation=4)
    _, (mean,) = stepped(experiment)
    torch.manual_seed(experiment.train.seed)
    run = experiment.build()
    parts = [run.objective(run.model, run.batches(number)).value.item() for number in range(4)]
    assert_close(mean, sum(parts) / 4)


def test_weighted_objectives_train_through_the_loop() -> None:
    run = recipe(steps=3).build()
    run = replace(run, objective=Weighted(a=(1.0, run.objective), b=(0.5, recipe(blur=0.1).build().objective)))
    state, step = prepare(run, HERE)
    metrics = [metrics for _, metrics in train(run, state, step, HERE)]
    assert metrics[0].keys() == {"loss", "a/loss", "b/loss", "grad_norm"}
    assert_close(metrics[0]["loss"], metrics[0]["a/loss"] + 0.5 * metrics[0]["b/loss"])


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"gradient_accumulation": 0}, {"keep_last": 0}, {"lr": 0.0}, {"save_every": 0}]
)
def test_invalid_settings_are_named(settings: dict) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=rf"{name} must be .*, got 0"):
        TrainConfig(**settings)


def test_a_missing_device_is_named() -> None:
    with pytest.raises(ValueError, match="device tpu: "), ranks("tpu"):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"torch finds no GPU; give cpu or auto"), ranks("cuda"):
            pass
