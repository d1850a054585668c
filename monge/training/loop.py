"""The training loop as a generator; logging, saving and stopping are left to the caller."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from monge.math.types import Batch
from monge.objective.base import Loss, Objective
from monge.training.batches import Batches, prefetched
from monge.training.config import TrainConfig
from monge.training.distributed import Ranks, parallelize, without_sync
from monge.training.state import State, trained

B = TypeVar("B", bound=Batch)


@dataclass
class Run(Generic[B]):
    """An experiment, ready to train.

    `evaluate(model)` returns metrics by name; `fit` calls it at each checkpoint (except one saved because of Ctrl-C or
    SIGTERM), with the EMA weights if there is an EMA. `best_by` names the metric that selects the best checkpoint: the lowest
    value, or the highest if `best_mode` is "max". `constants` are tensors measured on the data, such as units or potentials;
    they are stored with the run.
    """

    model: nn.Module
    objective: Objective
    batches: Batches[B]
    train: TrainConfig
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    constants: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    best_by: str = "held-out loss"
    best_mode: Literal["min", "max"] = "min"


class Step(nn.Module):
    """Model and objective as one module whose forward returns the loss of a batch, for DDP and FSDP2."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Any) -> Loss:
        return self.objective(self.model, batch)


def prepare(run: Run[Any], where: Ranks) -> tuple[State, nn.Module]:
    """(state before the first step, module whose forward returns the loss), moved, compiled and distributed as configured.

    Seeds torch's global generator, differently on each rank.
    """
    config = run.train
    # the weights were drawn when the recipe was built, identically on all ranks; from here on each rank draws its own noise
    torch.manual_seed(config.seed + 1 + where.rank)
    model, objective = run.model.to(where.device), run.objective.to(where.device)
    if config.compile:
        model.compile()
    step = parallelize(Step(model, objective), model, config.parallel, where.world)
    return State.start(model, objective, config), step


def train(
    run: Run[Any], state: State, step: nn.Module, where: Ranks
) -> Iterator[tuple[int, dict[str, Tensor | float]]]:
    """Yields (step, metrics) after each optimizer step, up to step run.train.steps; `state` can be saved at each yield.

    Metrics are those of this rank, as detached tensors or numbers; "grad_norm" is the gradient norm before clipping. Reading a
    tensor waits for the device, so it is left to the caller.
    """
    config = run.train
    rounds = range(state.step * config.gradient_accumulation, config.steps * config.gradient_accumulation)
    numbers = (n * where.world + where.rank for n in rounds)
    batches = prefetched(run.batches, numbers, workers=config.loader_threads)
    autocast = torch.autocast(where.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
    step.train()

    def backward(metrics: dict[str, Any]) -> None:
        batch = next(batches).to(where.device)
        state.examples += len(batch)
        with autocast:
            loss: Loss = step(batch)
        (loss.value / config.gradient_accumulation).backward()
        for name, value in loss.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + value / config.gradient_accumulation

    while state.step < config.steps:
        metrics: dict[str, Any] = {}
        for _ in range(config.gradient_accumulation - 1):
            with without_sync(step):
                backward(metrics)
        backward(metrics)
        metrics["grad_norm"] = state.optimizers.step(state.step)
        state.step += 1
        if state.ema:
            state.ema.update(trained(state.model).items(), state.step)
        yield state.step, metrics
