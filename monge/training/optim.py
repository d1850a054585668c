"""Optimizers by parameter group, the learning-rate schedule, and the moving average (EMA) of the weights."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from monge.lm.blocks import block_lists
from monge.training.config import TrainConfig
from monge.training.distributed import full, is_sharded, place_like


class Optimizers:
    """AdamW, or Muon on the matrices inside blocks and AdamW on the rest, stepped as one.

    The learning rate is a function of the step, so it is not part of the state, which is keyed by parameter name.
    """

    def __init__(self, modules: Mapping[str, nn.Module], config: TrainConfig) -> None:
        self.config = config
        self.named = {
            f"{m}.{n}": p for m, module in modules.items() for n, p in module.named_parameters() if p.requires_grad
        }
        in_blocks = {
            id(p)
            for module in modules.values()
            for blocks in (block_lists(module) if config.optimizer == "muon" else ())
            for p in blocks.parameters()
        }
        matrices = {n for n, p in self.named.items() if p.ndim == 2 and id(p) in in_blocks}
        rest = [p for n, p in self.named.items() if n not in matrices]
        decayed = [p for p in rest if p.ndim >= 2]
        undecayed = [p for p in rest if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": undecayed, "weight_decay": 0.0},
        ]
        fused = not any(map(is_sharded, rest))
        self.all: list[torch.optim.Optimizer] = []
        if rest:
            self.all.append(torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, fused=fused))
        if matrices:
            # in the order of `named`: the order of a set differs between ranks
            muon = [p for n, p in self.named.items() if n in matrices]
            # Moonlight's scaling (2502.16982, eq. 4): Muon's updates are as large as AdamW's, so they share one rate
            self.all.append(
                torch.optim.Muon(muon, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
            )

    def step(self, step: int) -> Tensor:
        """Clip the gradients, take step number `step` (from 0), and clear them; return their norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.named.values(), self.config.max_grad_norm or math.inf)
        rate = self.config.lr * schedule(step, self.config)
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return full(norm)

    def state(self) -> dict[str, Tensor]:
        """The tensors of every parameter's state, by "parameter/key"."""
        tensors: dict[str, Tensor] = {}
        for optimizer in self.all:
            for name, parameter in self.named.items():
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{name}/{key}"] = torch.as_tensor(value)
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state`; tensors are placed and sharded like their parameters."""
        owner = {id(p): o for o in self.all for group in o.param_groups for p in group["params"]}
        for key, value in state.items():
            name, field = key.rsplit("/", 1)
            parameter = self.named[name]
            owner[id(parameter)].state[parameter][field] = place_like(value, parameter)


def schedule(step: int, config: TrainConfig) -> float:
    """Learning rate of `step` relative to its peak: linear warm-up, then cosine decay to `final_lr_fraction`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - 1 - config.warmup_steps)
    return config.final_lr_fraction + (1 - config.final_lr_fraction) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def power_exponent(width: float) -> float:
    """gamma of the power-function profile with relative width `width`. Karras et al. 2312.02696, eq. 123-126.

    ValueError unless 0 < width < 0.289.
    """
    if not 0 < width < 12**-0.5:
        raise ValueError(f"ema: width {width} must lie in (0, {12**-0.5:.3f})")
    # width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(roots[np.isreal(roots)].real.max())


class EMA:
    """Average of the weights over a window that grows with training: decay (1 - 1/step)^(gamma + 1). 2312.02696, eq. 121.

    `width` is relative to the number of steps so far. ValueError as in `power_exponent`.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], width: float) -> None:
        self.width, self.gamma = width, power_exponent(width)
        self.weights = {name: p.detach().clone() for name, p in parameters}

    def update(self, parameters: Iterable[tuple[str, Tensor]], step: int) -> None:
        """Update the average with the weights after `step` steps (counted from 1)."""
        decay = (1 - 1 / step) ** (self.gamma + 1)
        for name, weight in parameters:  # by name, since a loaded file may have another order
            self.weights[name].lerp_(weight.detach(), 1 - decay)
