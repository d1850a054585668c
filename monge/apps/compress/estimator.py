"""The velocity u(x, t) between two depths of a language model: an affine map plus a gated, time-modulated layer."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.compress.affine import AffineMap
from monge.lm.blocks import blocks_of
from monge.math.types import Condition
from monge.nets.blocks import AdaLN
from monge.nets.embed import sinusoidal

FAMILIES = ("gpt2", "gpt_neox", "llama", "qwen2", "qwen3")
"""Model types whose layers can be modulated."""
FREQUENCIES = 128


class Parts(NamedTuple):
    """The modules of a pre-norm transformer layer."""

    norm_1: nn.Module
    attention: nn.Module
    norm_2: nn.Module
    mlp: nn.Module
    parallel: bool
    """True if attention and feed-forward read the same state (GPT-NeoX), instead of one after the other."""


def parts_of(layer: nn.Module) -> Parts:
    """The parts of a layer of one of FAMILIES. ValueError for another one."""

    def first(*names: str) -> nn.Module:
        for name in names:
            if isinstance(part := getattr(layer, name, None), nn.Module):
                return part
        raise ValueError(f"{type(layer).__name__}: unknown kind of layer; use a model of type {', '.join(FAMILIES)}")

    return Parts(
        first("input_layernorm", "ln_1"),
        first("self_attn", "attention", "attn"),
        first("post_attention_layernorm", "ln_2"),
        first("mlp"),
        bool(getattr(layer, "use_parallel_residual", False)),
    )


class Modulated(nn.Module):
    """A transformer layer whose two branches are scaled and shifted before, and scaled after, as functions of time.

    The six modulation vectors are zero at first, so that the layer starts as it was (DiT, Peebles & Xie 2212.09748, fig. 3;
    with parallel branches, Wu et al. 2505.14513, fig. 1c). `rank` factorises the modulation.
    """

    def __init__(self, layer: nn.Module, width: int, *, rank: int | None = None, parallel: bool | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.parallel = parts_of(layer).parallel if parallel is None else parallel
        self.time = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulation = AdaLN(width, 6, rank)

    def forward(self, x: Float[Tensor, "B N D"], t: Float[Tensor, "B"], context: Mapping[str, Any]) -> Tensor:
        parts = parts_of(self.layer)
        c = self.time(sinusoidal(1000 * t, FREQUENCIES).to(x.dtype))
        scale_1, shift_1, gain_1, scale_2, shift_2, gain_2 = self.modulation(c)
        attended, *_ = parts.attention(parts.norm_1(x) * (1 + scale_1) + shift_1, **context)
        h = x + (1 + gain_1) * attended
        fed = parts.mlp(parts.norm_2(x if self.parallel else h) * (1 + scale_2) + shift_2)
        return h + (1 + gain_2) * fed


class Estimator(nn.Module):
    """u(x, t) = A x + b + g (layer(x, t) - x), with a gate g per channel: a VelocityModel on states (B, N, D).

    With g = 0 one Euler step is the affine map; with A = 0, b = 0 and g = 1 it is the layer. Attention is causal, and padding
    must be on the right, where no token attends to it. `rotary` computes the position embeddings of the layer, if it takes any.
    """

    def __init__(self, layer: nn.Module, rotary: nn.Module | None, width: int, **options: Any) -> None:
        super().__init__()
        self.block = Modulated(layer, width, **options)
        self.map = nn.Linear(width, width)
        self.gate = nn.Parameter(torch.ones(width))
        self.rotary = rotary
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    @torch.no_grad()
    def start_from(self, affine: AffineMap) -> "Estimator":
        """Set the map to `affine` and close the gate."""
        self.map.weight.copy_(affine.matrix)
        self.map.bias.copy_(affine.bias)
        self.gate.zero_()
        return self

    def forward(self, x_t: Float[Tensor, "B N D"], t: Float[Tensor, "B"], cond: Condition | None = None) -> Tensor:
        context: dict[str, Any] = {"attention_mask": None}
        if self.rotary is not None:
            positions = torch.arange(x_t.shape[1], device=x_t.device)[None]
            context["position_embeddings"] = self.rotary(x_t, position_ids=positions)
        return self.velocity(x_t, t, context)

    def velocity(self, x: Float[Tensor, "B N D"], t: Float[Tensor, "B"], context: Mapping[str, Any]) -> Tensor:
        """The velocity, with the keyword arguments that the model passes to its layers."""
        return self.map(x) + self.gate * (self.block(x, t, context) - x)


def estimator_of(
    model: nn.Module, start: int, end: int, *, layers: Sequence[int] | None = None, **options: Any
) -> Estimator:
    """An estimator for blocks [start, end) of a causal model, with the mean weights of `layers` (default: the first one).

    ValueError for a model type that is not in FAMILIES, and for a range outside the model.
    """
    config: Any = model.config
    if config.model_type not in FAMILIES:
        raise ValueError(f"{config.model_type}: unknown model type; use one of {', '.join(FAMILIES)}")
    blocks = blocks_of(model)
    if not 0 <= start < end <= len(blocks):
        raise ValueError(
            f"layers [{start}, {end}): the model has {len(blocks)}; give 0 <= start < end <= {len(blocks)}"
        )
    sources = [blocks[number].state_dict() for number in layers or (start,)]
    layer = copy.deepcopy(blocks[start])
    layer.load_state_dict({k: torch.stack([source[k].float() for source in sources]).mean(0) for k in sources[0]})
    rotary = next((part for name, part in model.named_modules() if name.rpartition(".")[-1] == "rotary_emb"), None)
    return Estimator(layer, copy.deepcopy(rotary), int(config.hidden_size), **options)
