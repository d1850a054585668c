"""Training in a run directory: a Recipe builds a Run, and `fit` trains it, saves it and resumes it.

runs/NAME/   recipe.json   constants.safetensors   metrics.jsonl   checkpoints/step-*/   and files of the application
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

import monge
from monge.files import atomic_write, locked, read_json, read_tensors, tensor_hash, write_json, write_tensors
from monge.math.random import forked_rng
from monge.math.types import Batch
from monge.runs import check_same
from monge.training import checkpoint
from monge.training.config import TrainConfig
from monge.training.distributed import Ranks, gathered, max_over_ranks, mean_over_ranks, peak_memory, ranks
from monge.training.log import Log
from monge.training.loop import Run, prepare, train
from monge.training.signals import Signals
from monge.training.state import State, trained


class Recipe(Protocol):
    """A frozen dataclass of settings that describes an experiment in full; `app` names its kind.

    The optional class attribute `relocatable` names fields that hold file paths. They may change when a run is resumed,
    since the constants of its Run hold a fingerprint of the files' contents.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    app: ClassVar[str]

    @property
    def train(self) -> TrainConfig: ...
    def build(self) -> Run[Any]: ...


class Interrupted(KeyboardInterrupt):
    """Training stopped by a signal, with a checkpoint saved. `code` is the exit code: 130 for Ctrl-C, 143 for SIGTERM."""

    advice: ClassVar[str] = "run the command again to continue, with --resume if it has that option"

    def __init__(self, directory: Path, step: int, number: int) -> None:
        super().__init__(f"interrupted at step {step}; its checkpoint is in {directory}; {self.advice}")
        self.code = 128 + number


def fit(recipe: Recipe, directory: Path, *, resume: bool = False, tensorboard: bool = False) -> State:
    """Train `recipe` in `directory`, from its last checkpoint if `resume`; return the final state.

    After a crash, the checkpoints are complete; at most the last line of metrics.jsonl is truncated. Ctrl-C and SIGTERM save a
    checkpoint and raise Interrupted. ValueError if the directory is in use, holds a run of another recipe (a resumed run may
    change the settings in RESUMABLE and in the recipe's `relocatable`), or holds a run and `resume` is False. ArithmeticError
    if a metric is not finite.
    """
    with (
        _threads(recipe.train.threads),
        ranks(recipe.train.device) as where,
        claim(directory, recipe, resume=resume, where=where),
        forked_rng(),
    ):
        torch.manual_seed(recipe.train.seed)
        run = recipe.build()
        if run.train.patience and run.evaluate is None:
            raise ValueError(f"patience {run.train.patience}: {recipe.app} runs are not evaluated; omit it")
        state, step = prepare(run, where)
        checkpoints = directory / "checkpoints"
        if saved := checkpoint.steps(checkpoints):
            _check_constants(directory / "constants.safetensors", run)
            state.load(*checkpoint.read(saved[-1], state.files()), where)
            _check_length(directory, state, run.train)
        _check_same_step(state, where, directory)
        if not saved and where.first:
            _draw_first_batch(run)
            with atomic_write(directory / "constants.safetensors") as temporary:
                write_tensors(temporary, run.constants)
        if where.first:
            _write_recipe(directory, recipe)
            _prune(checkpoints, state, run.train)  # including partial checkpoints left by a crash
        if not where.first:
            for _ in _loop(run, state, step, where, checkpoints, None):
                pass
            return state
        title = f"{recipe.app} {directory.resolve().name}"
        with Log(directory, step=state.step, steps=run.train.steps, title=title, tensorboard=tensorboard) as log:
            for number in _loop(run, state, step, where, checkpoints, log):
                log.advance(number)
        return state


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Set torch's number of threads per operation, and restore it at the end; 0 changes nothing."""
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _loop(
    run: Run[Any], state: State, step: nn.Module, where: Ranks, checkpoints: Path, log: Log | None
) -> Iterator[int]:
    """Train, record, evaluate and save; yields the number of each step."""
    config, window = run.train, dict[str, list[Any]]()
    if _converged(run, state, where, checkpoints):
        return  # a resumed run that had stopped
    with Signals(where.world) as signals:
        for number, metrics in train(run, state, step, where):
            for name, value in metrics.items():
                window.setdefault(name, []).append(value)
            saving = config.saves(number)
            recording = saving or number % config.log_every == 0
            stop = signals.agreed(number) if recording or signals.due(number) else 0
            # a logging window also ends at a checkpoint, so that a resumed run writes the same records
            if recording or stop:
                means = {name: mean_over_ranks(float(sum(x)) / len(x), where.world) for name, x in window.items()}
                window.clear()
                if saving:
                    means |= _evaluate(run, state, step)
                _check_finite(means, checkpoints.parent, number)
                if log:
                    log.write(number, means, examples=state.examples * where.world, memory=peak_memory(where.device))
            if saving or stop:
                checkpoint.save(checkpoints, state, where)
                if where.first:
                    _prune(checkpoints, state, config)
            if stop and number < config.steps:
                raise Interrupted(checkpoints.parent, number, stop)
            yield number
            if _converged(run, state, where, checkpoints):
                return


def _converged(run: Run[Any], state: State, where: Ranks, checkpoints: Path) -> bool:
    """True, with a warning, if the evaluation of this step shows that training can stop early."""
    if not run.train.saves(state.step) or not max_over_ranks(state.converged(run.train), where.world):
        return False
    if where.first:
        sentence = f"stopped early: no better {run.best_by} since step {state.best['step']:.0f}"
        logging.getLogger(__name__).warning("%s: %s", checkpoints.parent, sentence)
    return True


def _check_finite(means: dict[str, float], directory: Path, number: int) -> None:
    for name, value in means.items():
        if not math.isfinite(value):
            raise ArithmeticError(
                f"{directory}: the {name} is {value} near step {number}; start a new run with a lower learning rate. "
                "Earlier checkpoints are intact"
            )


def _draw_first_batch(run: Run[Any]) -> None:
    """Draw batch 0 and cache it for the loop, so that unusable data raise before anything is written."""
    first, batches = run.batches(0), run.batches
    if not isinstance(first, Batch):
        raise TypeError(f"a batch needs .to(device) and a length; got {type(first).__name__}, see monge.Batch")
    cached = {0: first}
    run.batches = lambda number: cached.pop(number) if number in cached else batches(number)


RESUMABLE = frozenset(
    f"recipe.train.{name}"
    for name in (
        "steps",
        "save_every",
        "keep_last",
        "milestones",
        "patience",
        "log_every",
        "loader_threads",
        "threads",
        "device",
        "compile",
    )
)
"""Settings that may change when a run is resumed: how long it trains, how often it saves and logs, and where it runs."""


def _write_recipe(directory: Path, recipe: Recipe) -> None:
    """Write recipe.json, once the recipe has been built, so that one that cannot be built does not claim the directory."""
    write_json(directory / "recipe.json", _description(recipe))


def _check_same_step(state: State, where: Ranks, directory: Path) -> None:
    """ValueError, on all ranks, if some have loaded another checkpoint than others, or none."""
    last, first = max_over_ranks(state.step, where.world), -max_over_ranks(-state.step, where.world)
    if first != last:
        raise ValueError(
            f"{directory}: ranks see checkpoints of steps {int(first)} and {int(last)}; put the run directory on a shared file "
            "system"
        )


def _check_length(directory: Path, state: State, config: TrainConfig) -> None:
    if state.step > config.steps:
        raise ValueError(
            f"{directory}: train.steps is {config.steps}, but the run is at step {state.step}; use at least that many"
        )


def _check_constants(path: Path, run: Run[Any]) -> None:
    """ValueError if constants measured on the data, a teacher or an encoder differ from those of the stored run."""
    stored = read_tensors(path)
    for name in sorted(stored.keys() | run.constants.keys()):
        was, now = stored.get(name), run.constants.get(name)
        if was is None or now is None or not same_constant(was, now):
            raise ValueError(
                f"{path}: {name} does not match the current data, teacher or encoder; restore the original, or start a new run"
            )


def same_constant(was: Tensor, now: Tensor) -> bool:
    """True if the tensors are equal, floats up to a relative 1e-3 plus 1e-4 of the largest entry: the order of sums depends
    on the number of threads."""
    if was.shape != now.shape or was.dtype != now.dtype:
        return False
    if not was.is_floating_point() or not was.numel():
        return torch.equal(was, now)
    return torch.allclose(was, now, rtol=1e-3, atol=1e-4 * float(was.abs().max()))


def fingerprint(*tensors: Tensor) -> Tensor:
    """A 64-bit hash of the tensors, to be stored among a run's constants."""
    digest = tensor_hash(("", tensor) for tensor in tensors)
    return torch.tensor(int.from_bytes(digest[:8], "big", signed=True))


def _description(recipe: Recipe) -> dict[str, Any]:
    return {"monge": monge.__version__, "app": recipe.app, "recipe": asdict(recipe)}


def _prune(checkpoints: Path, state: State, config: TrainConfig) -> None:
    best = {int(state.best["step"])} if state.best else set[int]()
    checkpoint.prune(checkpoints, keep=config.keep_last, keep_steps=best | set(config.milestones))


def _evaluate(run: Run[Any], state: State, step: nn.Module) -> dict[str, float]:
    """Metrics of the EMA weights, if there is an EMA. Updates the best evaluation; leaves the random state unchanged."""
    if run.evaluate is None:
        return {}
    current = {name: p.detach().clone() for name, p in trained(state.model).items()} if state.ema else {}
    training = state.model.training
    with torch.no_grad(), forked_rng():
        if state.ema:
            _copy_into(state.model, state.ema.weights)
        with gathered(step):
            metrics = run.evaluate(state.model.eval())
        _copy_into(state.model, current)
    state.model.train(training)
    if run.best_by not in metrics:
        raise ValueError(f"best_by: no metric {run.best_by!r}; evaluate returns {', '.join(metrics)}")
    value, best = metrics[run.best_by], state.best.get("value", math.nan)
    if math.isnan(best) or (value > best if run.best_mode == "max" else value < best):
        state.best = {"step": state.step, "value": value}
    return metrics


def _copy_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(value)


@contextmanager
def claim(directory: Path, recipe: Recipe, *, resume: bool, where: Ranks) -> Iterator[None]:
    """Lock `directory` for this recipe, creating it if needed; ranks other than zero do nothing.

    ValueError if the directory is in use, holds a run of other settings, or holds a run and `resume` is False.
    """
    if not where.first:
        yield
        return
    with locked(directory):
        path = directory / "recipe.json"
        if path.exists():
            if not resume:
                raise ValueError(
                    f"{directory} already holds a run; choose another directory, or add --resume to continue it"
                )
            relocatable = {f"recipe.{name}" for name in getattr(recipe, "relocatable", ())}
            check_same(path, read_json(path), _description(recipe), free=RESUMABLE | relocatable)
        elif checkpoint.steps(directory / "checkpoints"):
            raise ValueError(f"{path} is missing, but there are checkpoints; restore it or choose another directory")
        elif resume:
            logging.getLogger(__name__).warning("%s: no run to resume; starting a new one", directory)
        yield
