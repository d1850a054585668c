"""The state of training, sufficient for bit-identical resumption: trained weights, EMA, optimizer, random states, step.

The step also determines the next batches and their couplings, since batches are functions of their number.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from monge.files import tensor_hash
from monge.training.config import TrainConfig
from monge.training.distributed import Ranks, on_cpu, place_like
from monge.training.optim import EMA, Optimizers


@dataclass
class State:
    """The complete training state of a run."""

    model: nn.Module
    objective: nn.Module
    optimizers: Optimizers
    ema: EMA | None
    step: int = 0
    # examples that this process has seen since it started, for the rate in progress reports; not saved
    examples: int = 0
    # {"step": ..., "value": ...} of the best evaluation
    best: dict[str, float] = field(default_factory=dict[str, float])
    # fingerprints of the frozen weights of model and objective, which checkpoints do not hold
    frozen: list[str] = field(default_factory=list[str])

    @staticmethod
    def start(model: nn.Module, objective: nn.Module, config: TrainConfig) -> "State":
        """The state before the first step. The model must already be on its device and sharded."""
        ema = EMA(trained(model).items(), config.ema_width) if config.ema_width else None
        state = State(model, objective, Optimizers({"model": model, "objective": objective}, config), ema)
        for module in (model, objective):
            state.frozen.append(frozen_fingerprint(module, set(weights_of(module))))
        return state

    def tensors(self, where: Ranks) -> dict[str, dict[str, Tensor]]:
        """Tensors by file: the weights, their EMA, and those needed only to resume. Every rank must call it."""
        resume = {f"optimizer/{k}": on_cpu(v) for k, v in self.optimizers.state().items()}
        resume |= {f"objective/{k}": on_cpu(v) for k, v in weights_of(self.objective).items()}
        resume |= {f"rng/{k}": v for k, v in _random_states(where).items()}
        files = {"model": {k: on_cpu(v) for k, v in weights_of(self.model).items()}, "resume": resume}
        if self.ema:
            files["ema"] = {k: on_cpu(v) for k, v in self.ema.weights.items()}
        return files

    def files(self) -> list[str]:
        """The names of the tensor files, without suffix."""
        return ["model", "resume", "ema"] if self.ema else ["model", "resume"]

    def converged(self, config: TrainConfig) -> bool:
        """True before the last step if the best evaluation is `config.patience` times `config.save_every` steps old."""
        waited = self.step - self.best.get("step", self.step)
        return config.patience > 0 and self.step < config.steps and waited >= config.patience * config.save_every

    def scalars(self, where: Ranks) -> dict[str, Any]:
        """The contents of state.json: step, best evaluation, number of ranks, and fingerprints of the frozen weights."""
        return {"step": self.step, "best": self.best, "ranks": where.world, "frozen": self.frozen}

    def load(self, files: dict[str, dict[str, Tensor]], scalars: dict[str, Any], where: Ranks) -> None:
        """Restore a saved state. ValueError if the number of ranks, the shapes of weights, or frozen weights differ.

        Each rank has its own batches and random state, so the number of ranks must not change.
        """
        if scalars.get("ranks", where.world) != where.world:
            raise ValueError(
                f"the run was trained on {scalars['ranks']} ranks, got {where.world}; resume on {scalars['ranks']} ranks "
                "(gradient_accumulation cannot replace them)"
            )
        resume = files["resume"]
        model_base, objective_base = scalars.get("frozen") or (None, None)
        load_weights(self.model, files["model"], frozen=model_base)
        load_weights(self.objective, _with_prefix("objective/", resume), frozen=objective_base)
        self.optimizers.load(_with_prefix("optimizer/", resume))
        if self.ema:
            self.ema.weights = {k: place_like(v, self.ema.weights[k]) for k, v in files["ema"].items()}
        _set_random_states(_with_prefix("rng/", resume), where)
        self.step, self.best = scalars["step"], scalars["best"]


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name; a tied parameter appears once, under its first name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that training changes: trained parameters and persistent buffers, each tensor once.

    State entries that belong to a frozen parameter, such as the constants of its quantisation, are left out with it.

    ValueError if the state of the module includes anything that cannot be stored as safetensors.
    """
    state = module.state_dict()
    frozen_names = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    seen, unique = set[int](), dict[str, Tensor]()
    tensors = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{name!r} is a {type(value).__name__}, but a checkpoint holds only tensors; store it elsewhere"
            )
        if value.layout is not torch.strided or value.is_meta:
            kind = "on the meta device" if value.is_meta else f"of layout {value.layout}"
            raise ValueError(f"{name!r} is {kind}, which cannot be saved; make it a dense tensor on a device")
        tensor = tensors.get(name, value)
        if id(tensor) in seen or any(name[:k] in frozen_names for k in _ends_of_parts(name)):
            continue
        seen.add(id(tensor))
        unique[name] = value
    return unique


def _ends_of_parts(name: str) -> list[int]:
    """The length of each prefix of a dotted name that ends with a part.

    >>> _ends_of_parts("a.weight")
    [1, 8]
    """
    return [k for k in range(1, len(name)) if name[k] == "."] + [len(name)]


def frozen_fingerprint(module: nn.Module, saved: Container[str]) -> str:
    """A hash of the parameters that are not in `saved`: the base model of a checkpoint. Empty if there are none."""
    base = {name: p for name, p in module.named_parameters() if name not in saved}
    if not base:
        return ""
    return tensor_hash((name, on_cpu(parameter)) for name, parameter in sorted(base.items())).hex()[:16]


def load_weights(module: nn.Module, weights: dict[str, Tensor], *, frozen: str | None = None) -> None:
    """Load full tensors into a module, which may be sharded.

    If the fingerprint `frozen` is given, `weights` may lack untrained parameters, which keep their values. ValueError if names
    or shapes differ, or if the parameters left out do not have that fingerprint.
    """
    current, parameters = module.state_dict(), dict(module.named_parameters())
    weights = {  # a scalar of an earlier version may have become a vector of one entry
        k: v.reshape(current[k].shape) if k in current and v.numel() == current[k].numel() == 1 else v
        for k, v in weights.items()
    }
    buffers = {name for name, _ in module.named_buffers() if name in current}
    left_out = parameters.keys() - weights.keys()
    missing = buffers - weights.keys() | (
        left_out if not frozen else {n for n in left_out if parameters[n].requires_grad}
    )
    wrong = sorted(weights.keys() - current.keys() | missing) or [
        k for k in weights if current[k].shape != weights[k].shape
    ]
    if wrong:
        raise ValueError(
            f"the weights belong to another network: {len(wrong)} names or shapes differ, the first is {wrong[0]!r}"
        )
    if frozen and frozen_fingerprint(module, weights) != frozen:
        raise ValueError("the frozen weights differ from those that the run was trained on; load the same base model")
    module.load_state_dict({k: place_like(v, current[k]) for k, v in weights.items()}, strict=False)


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _random_states(where: Ranks) -> dict[str, Tensor]:
    local = {"cpu": torch.get_rng_state()}
    if where.device.type == "cuda":
        local["cuda"] = torch.cuda.get_rng_state(where.device)
    gathered: list[Any] = [local]
    if where.world > 1:
        gathered = [None] * where.world
        torch.distributed.all_gather_object(gathered, local)
    return {f"{kind}/{rank}": state for rank, states in enumerate(gathered) for kind, state in states.items()}


def _set_random_states(states: dict[str, Tensor], where: Ranks) -> None:
    torch.set_rng_state(states[f"cpu/{where.rank}"])
    if where.device.type == "cuda" and f"cuda/{where.rank}" in states:
        torch.cuda.set_rng_state(states[f"cuda/{where.rank}"], where.device)
