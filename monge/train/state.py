"""All that a run needs to go on as if never interrupted: weights, EMA, optimizer, random numbers, and the step.

The step is also the position in the data and in the couplings, since batches are functions of their number.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from monge.train.config import TrainConfig
from monge.train.distributed import Ranks, whole
from monge.train.optim import EMA, Optimizers, laid_out


@dataclass
class State:
    """Where a run stands."""

    model: nn.Module
    objective: nn.Module
    optimizers: Optimizers
    ema: EMA | None
    step: int = 0
    # {"step": ..., "value": ...} of the lowest evaluation
    best: dict[str, float] = field(default_factory=dict[str, float])

    @staticmethod
    def start(model: nn.Module, objective: nn.Module, config: TrainConfig) -> "State":
        """A run that has not moved yet. Call it when the model is on its device and sharded."""
        ema = EMA(model.named_parameters(), config.ema) if config.ema else None
        return State(model, objective, Optimizers({"model": model, "objective": objective}, config), ema)

    def tensors(self, where: Ranks) -> dict[str, dict[str, Tensor]]:
        """Files of tensors: the weights, their EMA, and what only resuming needs. Every rank must call it."""
        resume = {f"optimizer/{k}": whole(v) for k, v in self.optimizers.state().items()}
        resume |= {f"objective/{k}": whole(v) for k, v in self.objective.state_dict().items()}
        resume |= {f"rng/{k}": v for k, v in _random_states(where).items()}
        files = {"model": {k: whole(v) for k, v in self.model.state_dict().items()}, "resume": resume}
        if self.ema:
            files["ema"] = {k: whole(v) for k, v in self.ema.weights.items()}
        return files

    def files(self) -> list[str]:
        """The names of the files of tensors."""
        return ["model", "resume", "ema"] if self.ema else ["model", "resume"]

    def scalars(self, where: Ranks) -> dict[str, Any]:
        """What goes beside the tensors, as JSON."""
        return {"step": self.step, "best": self.best, "ranks": where.world}

    def load(self, files: dict[str, dict[str, Tensor]], scalars: dict[str, Any], where: Ranks) -> None:
        """Become the state that was saved. ValueError with another number of ranks: the batches are dealt among them."""
        if scalars.get("ranks", where.world) != where.world:
            raise ValueError(
                f"the run was made by {scalars['ranks']} ranks, these are {where.world}; resume with as many as it had, "
                "accumulate changes the batches as well"
            )
        load_weights(self.model, files["model"])
        resume = files["resume"]
        load_weights(self.objective, _under("objective/", resume))
        self.optimizers.load(_under("optimizer/", resume))
        if self.ema:
            self.ema.weights = {k: laid_out(v, self.ema.weights[k]) for k, v in files["ema"].items()}
        _set_random_states(_under("rng/", resume), where)
        self.step, self.best = scalars["step"], scalars["best"]


def load_weights(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Full tensors into a module that may be sharded. ValueError if names or shapes are of another network."""
    own = module.state_dict()
    wrong = sorted(own.keys() ^ weights.keys()) or [k for k in own if own[k].shape != weights[k].shape]
    if wrong:
        raise ValueError(
            f"the weights are of another network: {len(wrong)} names or shapes differ, the first is {wrong[0]!r}"
        )
    module.load_state_dict({k: laid_out(v, own[k]) for k, v in weights.items()})


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _random_states(where: Ranks) -> dict[str, Tensor]:
    mine = {"cpu": torch.get_rng_state()}
    if where.device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state(where.device)
    everyones: list[Any] = [mine]
    if where.world > 1:
        everyones = [None] * where.world
        torch.distributed.all_gather_object(everyones, mine)
    return {f"{kind}/{rank}": state for rank, states in enumerate(everyones) for kind, state in states.items()}


def _set_random_states(states: dict[str, Tensor], where: Ranks) -> None:
    torch.set_rng_state(states[f"cpu/{where.rank}"])
    if where.device.type == "cuda" and f"cuda/{where.rank}" in states:
        torch.cuda.set_rng_state(states[f"cuda/{where.rank}"], where.device)
