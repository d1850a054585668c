"""The smallest experiment, regression of x_1 on x_0, for tests of runs, ranks and resuming. torchrun can train it."""

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NoReturn

import torch
from torch import Tensor, nn

from monge.cli import exit_process
from monge.math.random import seeded
from monge.math.types import Pair
from monge.objective.base import Loss, Objective
from monge.run import Interrupted, fit
from monge.training.config import TrainConfig
from monge.training.loop import Run


class Network(nn.Module):
    """Two blocks between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        # gradients of full rank, since muon amplifies zero singular values
        self.enter, self.leave = nn.Linear(8, 8), nn.Linear(8, 8)
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            h = h + torch.tanh(block(h))
        return self.leave(h)


class Squares(Objective):
    """Mean squared error; `blur` adds noise from torch's global generator, and `gain` is a trained weight of the objective."""

    def __init__(self, blur: float) -> None:
        super().__init__()
        self.blur, self.gain = blur, nn.Parameter(torch.ones(1))  # not a scalar, which FSDP2 rejects

    def forward(self, model: nn.Module, batch: Pair) -> Loss:
        x = batch.x_0 + self.blur * torch.randn_like(batch.x_0) if self.blur else batch.x_0
        value = (self.gain * model(x) - batch.x_1).square().mean()
        return Loss(value, {"loss": value.detach()})


@dataclass(frozen=True)
class Regression:
    """Batch k of n rows holds rows k n to (k + 1) n - 1 of an infinite table."""

    app: ClassVar[str] = "regression"

    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=4, warmup_steps=0, save_every=2))
    size: int = 8
    blur: float = 0.0
    stop_at: int = -1  # number of the batch before which its rank receives SIGTERM
    trace: str = ""  # directory in which each rank records the numbers of its batches

    def batch(self, number: int) -> Pair:
        """Batch `number`."""
        if number == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        if self.trace:
            with (Path(self.trace) / str(torch.distributed.get_rank())).open("a") as file:
                file.write(f"{number}\n")
        rows = range(number * self.size, (number + 1) * self.size)
        x = torch.stack([torch.randn(8, generator=seeded(7, row)) for row in rows])
        return Pair(x, x.roll(1, 1) * x.sin())

    def build(self) -> Run[Pair]:
        """The experiment."""
        objective, held_out = Squares(self.blur), Regression(size=64).batch(10_000)

        def evaluate(model: nn.Module) -> dict[str, float]:
            return {"held-out loss": float((model(held_out.x_0) - held_out.x_1).square().mean())}

        return Run(Network(), objective, self.batch, self.train, evaluate, {"test": held_out.x_0})


def main(directory: str, settings: str, *resume: str) -> NoReturn:
    """Train with `settings`, a JSON object, and leave the process."""
    fields = json.loads(settings)
    try:
        fit(Regression(TrainConfig(**fields.pop("train")), **fields), Path(directory), resume=bool(resume))
    except Interrupted as stop:
        print(stop)
    exit_process(0)


def as_rank(rank: int, port: int, *words: str) -> NoReturn:
    """`main` as one of two ranks whose store listens on `port`, as torchrun starts them."""
    ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= ranks | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    main(*words)


if __name__ == "__main__":
    main(*sys.argv[1:])
