"""Cost of a causal model: parameters, FLOPs and cache bytes per token, and tokens per second."""

import time
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


class Cost(NamedTuple):
    """Cost of a model on one sequence, and of generation after it."""

    parameters: int
    """Number of parameters; tied ones count once."""
    flops: float
    """Floating-point operations per token of the sequence, head included."""
    cache_bytes: float
    """Bytes per token that the key-value cache holds."""
    reading: float
    """Tokens per second of a forward pass over the sequence."""
    generating: float
    """Tokens per second of greedy generation with the cache, after the first token."""


@torch.no_grad()
def cost_of(model: nn.Module, ids: Int[Tensor, "1 N"], *, new_tokens: int = 16, rounds: int = 3) -> Cost:
    """The cost on one sequence of token ids. Speeds are the best of `rounds` runs, since other load
    slows some of them."""
    causal: Any = model
    ids = ids.to(next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter:
        output = causal(input_ids=ids, use_cache=True)
    layers = [layer for layer in output.past_key_values.layers if layer.keys is not None]
    size = sum(part.numel() * part.element_size() for layer in layers for part in (layer.keys, layer.values))
    reading = min(_seconds(lambda: causal(input_ids=ids, use_cache=False), ids) for _ in range(rounds))

    def generating(count: int) -> float:
        options = {"do_sample": False, "min_new_tokens": count, "max_new_tokens": count, "use_cache": True}
        return min(_seconds(lambda: causal.generate(ids, **options), ids) for _ in range(rounds))

    first, all_tokens = generating(1), generating(new_tokens)
    return Cost(
        sum(parameter.numel() for parameter in model.parameters()),
        counter.get_total_flops() / ids.shape[1],
        size / ids.shape[1],
        ids.shape[1] / reading,
        (new_tokens - 1) / max(all_tokens - first, 1e-9),
    )


def _seconds(call: Any, ids: Tensor) -> float:
    began = time.perf_counter()
    call()
    if ids.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
