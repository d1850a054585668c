"""A transformer layer of a language model whose two branches are modulated by time."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

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


class Modulation(nn.Module):
    """Six modulation vectors as functions of time, initialised to zero. `rank` factorises the last map.

    With `durations`, they also depend on the duration of the step, for `MeanFlow`.
    """

    def __init__(self, width: int, rank: int | None, durations: bool) -> None:
        super().__init__()
        self.durations = durations
        entries = FREQUENCIES * (1 + durations)
        self.time = nn.Sequential(nn.Linear(entries, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.vectors = AdaLN(width, 6, rank)

    def forward(
        self, t: Float[Tensor, "B"], duration: Float[Tensor, "B"] | None = None
    ) -> tuple[Float[Tensor, "B 1 D"], ...]:
        times = [t]
        if self.durations:
            times.append(torch.zeros_like(t) if duration is None else duration)
        embedding = torch.cat([sinusoidal(1000 * time, FREQUENCIES) for time in times], -1)
        return self.vectors(self.time(embedding.to(self.vectors.expand.weight.dtype)))


class Constant(nn.Module):
    """Six modulation vectors that do not depend on time."""

    def __init__(self, values: Float[Tensor, "1 1 6*D"]) -> None:
        super().__init__()
        self.values = nn.Parameter(values, requires_grad=False)

    def forward(
        self, t: Float[Tensor, "B"], duration: Float[Tensor, "B"] | None = None
    ) -> tuple[Float[Tensor, "1 1 D"], ...]:
        return self.values.chunk(6, -1)


class Modulated(nn.Module):
    """The displacement of the state by a transformer layer, in two branches that are modulated as functions of time.

    The input of each branch is scaled and shifted, and its output is scaled. The six modulation vectors are initialised to
    zero, so that the layer is unchanged at first (DiT, Peebles & Xie 2212.09748, fig. 3; with parallel branches, Wu et al.
    2505.14513, fig. 1c). `rank` factorises the modulation.
    """

    def __init__(
        self,
        layer: nn.Module,
        width: int,
        *,
        rank: int | None = None,
        parallel: bool | None = None,
        durations: bool = False,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.parallel = parts_of(layer).parallel if parallel is None else parallel
        self.modulation: nn.Module = Modulation(width, rank, durations)

    @torch.no_grad()
    def fix(self, t: float, duration: float) -> None:
        """Make the modulation constant, as it is in a step of this duration from time t."""
        weight = next(self.parameters())
        values = self.modulation(*(weight.new_full((1,), number) for number in (t, duration)))
        self.modulation = Constant(torch.cat(values, -1))

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        t: Float[Tensor, "B"],
        context: Mapping[str, Any],
        duration: Float[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B N D"]]:
        """The displacements by attention and by feed-forward."""
        parts = parts_of(self.layer)
        scale_1, shift_1, gain_1, scale_2, shift_2, gain_2 = self.modulation(t, duration)
        attended, *_ = parts.attention(parts.norm_1(x) * (1 + scale_1) + shift_1, **context)
        attended = (1 + gain_1) * attended
        state = x if self.parallel else x + attended
        return attended, (1 + gain_2) * parts.mlp(parts.norm_2(state) * (1 + scale_2) + shift_2)
