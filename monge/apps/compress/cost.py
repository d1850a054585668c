"""Cost of a causal model: parameters, FLOPs and cache bytes per token, and tokens per second."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """Cost of a model on one sequence, and of generation after it. Speeds are in tokens per second."""

    parameters: int
    """Number of parameters; tied ones count once."""
    flops: float
    """Floating-point operations per token of the sequence, with the logits of all tokens."""
    cache_bytes: float
    """Bytes per token that the key-value cache holds."""
    scoring: float
    """Speed of a forward pass with the logits of all tokens, without a cache."""
    prefill: float
    """Speed of a forward pass with the logits of the last token, which fills the cache."""
    decode: float
    """Speed of greedy generation with the cache, after the first token."""


@torch.no_grad()
def costs_of(
    models: Mapping[str, nn.Module], ids: Int[Tensor, "1 N"], *, new_tokens: int = 16, rounds: int = 3
) -> dict[str, Cost]:
    """The cost of each model on one sequence of token ids.

    The models take turns, and the fastest of `rounds` runs counts, since other load slows some of them.
    """
    passes = {name: _passes(model, ids, new_tokens) for name, model in models.items()}
    seconds: dict[str, list[list[float]]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, calls in passes.items():
            seconds[name].append([_seconds(call, ids) for call in calls])
    return {
        name: _cost(model, ids, new_tokens, [min(times) for times in zip(*seconds[name], strict=True)])
        for name, model in models.items()
    }


def _passes(model: Any, ids: Tensor, new_tokens: int) -> list[Callable[[], Any]]:
    """Scoring, prefill, and the generation of one and of `new_tokens` tokens."""

    def generate(count: int) -> Any:
        return model.generate(ids, do_sample=False, min_new_tokens=count, max_new_tokens=count, use_cache=True)

    return [
        lambda: model(input_ids=ids, use_cache=False),
        lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1),
        lambda: generate(1),
        lambda: generate(new_tokens),
    ]


def _cost(model: Any, ids: Tensor, new_tokens: int, seconds: list[float]) -> Cost:
    with FlopCounterMode(display=False) as counter:
        output = model(input_ids=ids, use_cache=True)
    layers = [layer for layer in output.past_key_values.layers if layer.keys is not None]
    size = sum(part.numel() * part.element_size() for layer in layers for part in (layer.keys, layer.values))
    scoring, prefill, first, all_tokens = seconds
    return Cost(
        sum(parameter.numel() for parameter in model.parameters()),
        counter.get_total_flops() / ids.shape[1],
        size / ids.shape[1],
        ids.shape[1] / scoring,
        ids.shape[1] / prefill,
        (new_tokens - 1) / max(all_tokens - first, 1e-9),
    )


def _seconds(call: Callable[[], Any], ids: Tensor) -> float:
    began = time.perf_counter()
    call()
    if ids.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
