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
    """u(x, t) = A x_0 + b + g (layer(x, t) - x) on states (B, N, D), with a gate g per channel: a VelocityModel.

    The affine part depends on the state x_0 from which the trajectory starts, which `cond["start"]` holds. With g = 0 the flow
    is therefore the affine map, whatever the solver; with A = 0, b = 0 and g = 1 one Euler step is the layer. With several
    layers, each has its own gate and its own share of the time from 0 to 1. Without layers, the velocity is the affine part.

    Attention is causal, and padding must be on the right, where no token attends to it. `rotary` computes the position
    embeddings of the layers, if they take any. `affine=False` leaves out A and b.
    """

    def __init__(
        self, layers: Sequence[nn.Module], rotary: nn.Module | None, width: int, *, affine: bool = True, **options: Any
    ) -> None:
        super().__init__()
        if not layers and not affine:
            raise ValueError("Estimator: neither layers nor an affine part; give at least one of them")
        self.blocks: Sequence[Modulated] = nn.ModuleList(Modulated(layer, width, **options) for layer in layers)  # pyright: ignore
        self.gates = nn.ParameterList(torch.full((width,), float(len(layers))) for _ in layers)
        self.map = nn.Linear(width, width) if affine else None
        self.rotary = rotary
        if self.map is not None:
            nn.init.zeros_(self.map.weight)
            nn.init.zeros_(self.map.bias)

    @torch.no_grad()
    def start_from(self, affine: AffineMap) -> "Estimator":
        """Set the map to `affine` and close the gates. ValueError without an affine part."""
        if self.map is None:
            raise ValueError("Estimator: no affine part to start from; give affine=True")
        self.map.weight.copy_(affine.matrix)
        self.map.bias.copy_(affine.bias)
        for gate in self.gates:
            gate.zero_()
        return self

    def forward(self, x_t: Float[Tensor, "B N D"], t: Float[Tensor, "B"], cond: Condition | None = None) -> Tensor:
        if cond is None or "start" not in cond:
            raise ValueError('Estimator: cond lacks "start", the states at t = 0')
        context: dict[str, Any] = {"attention_mask": None}
        if self.rotary is not None:
            positions = torch.arange(x_t.shape[1], device=x_t.device)[None]
            context["position_embeddings"] = self.rotary(x_t, position_ids=positions)
        return self.velocity(x_t, t, cond["start"], context)

    def velocity(
        self, x: Float[Tensor, "B N D"], t: Float[Tensor, "B"], x_0: Float[Tensor, "B N D"], context: Mapping[str, Any]
    ) -> Tensor:
        """The velocity, with the keyword arguments that the model passes to its layers. All rows share one t if there are
        several layers."""
        u = torch.zeros_like(x) if self.map is None else self.map(x_0)
        if not self.blocks:
            return u
        number = self.number(t)
        return u + self.gates[number] * (self.blocks[number](x, t, context) - x)

    def number(self, t: Float[Tensor, "B"]) -> int:
        """The number of the layer at time t."""
        return 0 if len(self.blocks) == 1 else min(int(len(self.blocks) * float(t[0]) + 1e-4), len(self.blocks) - 1)

    @property
    def attentions(self) -> list[Any]:
        """The attention module of each layer."""
        return [parts_of(block.layer).attention for block in self.blocks]


def estimator_of(
    model: nn.Module, start: int, end: int, *, layers: Sequence[int] | None = None, **options: Any
) -> Estimator:
    """An estimator for blocks [start, end) of a causal model, with copies of `layers` (default: the first one).

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
    copies = [copy.deepcopy(blocks[number]) for number in ((start,) if layers is None else layers)]
    rotary = next((part for name, part in model.named_modules() if name.rpartition(".")[-1] == "rotary_emb"), None)
    return Estimator(copies, copy.deepcopy(rotary), int(config.hidden_size), **options)


@torch.no_grad()
def average(model: nn.Module, start: int, end: int, layer: nn.Module) -> None:
    """Set the weights of a copy of a layer to the mean over blocks [start, end)."""
    sources = [block.state_dict() for block in blocks_of(model)[start:end]]
    layer.load_state_dict({name: torch.stack([s[name].float() for s in sources]).mean(0) for name in sources[0]})
