"""A Recipe builds a Run; a run directory holds one, and how to open it again.

runs/NAME/   recipe.json   constants.safetensors   metrics.jsonl   checkpoints/step-*/   and what the app adds
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

import monge
from monge.files import locked, read_json, read_tensors, write_tensors, writing
from monge.runs import check_same
from monge.train import checkpoint
from monge.train.config import TrainConfig
from monge.train.distributed import Ranks, averaged, gathered, ranks
from monge.train.log import Log
from monge.train.loop import Run, prepare, train
from monge.train.state import State

R = TypeVar("R")


class Recipe(Protocol):
    """A frozen dataclass of scalars that says all about an experiment; `app` names the application it belongs to."""

    @property
    def app(self) -> str: ...
    @property
    def train(self) -> TrainConfig: ...
    def build(self) -> Run[Any]: ...


def fit(recipe: Any, directory: Path, *, resume: bool = False, tensorboard: bool = False) -> State:
    """Train `recipe` in `directory`, from its last checkpoint if `resume`. What is on disk is whole at any moment.

    ValueError for a directory that holds another recipe, is in use, or holds a run that is not to be resumed.
    """
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    with ranks(recipe.train.device) as where, claimed(directory, recipe, resume=resume, where=where):
        torch.manual_seed(recipe.train.seed)
        run = recipe.build()
        state, step = prepare(run, where)
        checkpoints = directory / "checkpoints"
        if found := checkpoint.steps(checkpoints):
            state.load(*checkpoint.read(found[-1], state.files()), where)
            _check_constants(directory / "constants.safetensors", run)
        elif where.first:
            _draw_first(run)
            _start(directory, recipe, run)
        if where.first:
            _prune(checkpoints, state, run.train)  # what a crash left
        if not where.first:
            for _ in _walk(run, state, step, where, checkpoints, None):
                pass
            return state
        title = f"{recipe.app} {directory.name}"
        with Log(directory, step=state.step, steps=run.train.steps, title=title, tensorboard=tensorboard) as log:
            for number in _walk(run, state, step, where, checkpoints, log):
                log.advance(number)
        return state


def _walk(
    run: Run[Any], state: State, step: nn.Module, where: Ranks, checkpoints: Path, log: Log | None
) -> Iterator[int]:
    """Train, record, evaluate and save; the number of each step is yielded."""
    config, sums, count = run.train, {}, 0
    for number, metrics in train(run, state, step, where):
        count += 1
        for name, value in metrics.items():
            sums[name] = sums.get(name, 0.0) + value
        saving = number % config.save_every == 0 or number in config.milestones or number == config.steps
        # a window of the log also ends where a checkpoint is: a resumed run then writes the same lines
        if saving or number % config.log_every == 0:
            means = {name: averaged(float(total) / count, where.world) for name, total in sums.items()}
            sums, count = {}, 0
            if saving:
                means |= _evaluated(run, state, step)
            for name, value in means.items():
                if not math.isfinite(value):
                    raise ArithmeticError(
                        f"{checkpoints.parent}: the {name} is {value} near step {number}; start anew elsewhere with a lower "
                        "learning rate. What was saved before is whole"
                    )
            if log:
                log.write(number, means)
        if saving:
            checkpoint.save(checkpoints, state, where)
            if where.first:
                _prune(checkpoints, state, config)
        yield number


def _draw_first(run: Run[Any]) -> None:
    """Draw batch 0 and keep it for the loop: data that give none leave the directory free."""
    kept, batches = {0: run.batches(0)}, run.batches
    run.batches = lambda number: kept.pop(number) if number in kept else batches(number)


def _start(directory: Path, recipe: Any, run: Run[Any]) -> None:
    """What a new run directory holds. The recipe comes last: a recipe that cannot be built leaves the directory free."""
    with writing(directory):
        write_tensors(directory / "constants.safetensors", run.constants)
        aside = directory / "recipe.tmp"
        aside.write_text(json.dumps(_described(recipe), indent=2) + "\n")
        os.replace(aside, directory / "recipe.json")


def _check_constants(path: Path, run: Run[Any]) -> None:
    """ValueError unless the data still fix what they fixed when the run began: its weights mean nothing in other units."""
    stored = read_tensors(path)
    for name in sorted(stored.keys() | run.constants.keys()):
        was, now = stored.get(name), run.constants.get(name)
        if was is None or now is None or not _same(was, now):
            raise ValueError(
                f"{path}: {name} is not what the data give now; put the data back as they were, or start anew"
            )


def _same(was: Tensor, now: Tensor) -> bool:
    """Equal; floats nearly, because other threads add in another order."""
    if was.shape != now.shape or was.dtype != now.dtype:
        return False
    return torch.allclose(was, now, rtol=1e-3, atol=1e-4) if was.is_floating_point() else torch.equal(was, now)


def fingerprint(*tensors: Tensor) -> Tensor:
    """One number that changes with any entry, to be stored among a run's constants."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return torch.tensor(int.from_bytes(digest.digest()[:8], "big", signed=True))


def _described(recipe: Any) -> dict[str, Any]:
    return {"monge": monge.__version__, "app": recipe.app, "recipe": asdict(recipe)}


def _prune(checkpoints: Path, state: State, config: TrainConfig) -> None:
    best = {int(state.best["step"])} if state.best else set[int]()
    checkpoint.prune(checkpoints, keep=config.keep, also=best | set(config.milestones))


def _evaluated(run: Run[Any], state: State, step: nn.Module) -> dict[str, float]:
    """The run's evaluation of the averaged weights, on random numbers of its own; remembers the best."""
    if run.evaluate is None:
        return {}
    kept = {name: p.detach().clone() for name, p in state.model.named_parameters()} if state.ema else {}
    training = state.model.training
    with torch.no_grad(), torch.random.fork_rng():
        if state.ema:
            _copy_into(state.model, state.ema.weights)
        with gathered(step):
            found = run.evaluate(state.model.eval())
        _copy_into(state.model, kept)
    state.model.train(training)
    value = next(iter(found.values()))
    if not state.best or value < state.best["value"] or math.isnan(state.best["value"]):
        state.best = {"step": state.step, "value": value}
    return found


def _copy_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)


@contextmanager
def claimed(directory: Path, recipe: Any, *, resume: bool, where: Ranks) -> Iterator[None]:
    """Hold `directory` for this recipe: made if new, checked if old, locked against a second process until the end."""
    if not where.first:
        yield
        return
    with locked(directory):
        path = directory / "recipe.json"
        if path.exists():
            if not resume:
                raise ValueError(f"{directory}: there is a run already; go on with --resume or name another directory")
            check_same(path, read_json(path), _described(recipe))
        elif checkpoint.steps(directory / "checkpoints"):
            raise ValueError(f"{path} is missing, but there are checkpoints; restore it, or name another directory")
        yield
