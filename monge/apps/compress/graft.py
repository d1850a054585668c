"""The flow as a layer of a language model, with keys and values of its own for each evaluation."""

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from monge.apps.compress.estimator import Estimator
from monge.lm.blocks import blocks_of, replace_blocks
from monge.math.solve import integrate

FlowSolver: TypeAlias = Literal["euler", "midpoint", "heun", "rk4", "ab2", "ab3"]
"""Solvers of a flow between layers: those that need no path and have a fixed number of evaluations, each of which has its
place in the cache."""


class FlowLayer(nn.Module):
    """Integrates the estimator's velocity over `steps` steps of `solver`. Wu et al. 2505.14513, alg. 3.

    Each evaluation of the velocity has its own keys and values in a cache: the first at the layer's own index, the others
    after that of the model's last layer. `depth` is the model's number of layers. ValueError in a forward pass if `solver` is
    not a FlowSolver.
    """

    def __init__(self, estimator: Estimator, depth: int, *, steps: int = 1, solver: str = "euler") -> None:
        super().__init__()
        self.estimator, self.depth, self.steps, self.solver = estimator, depth, steps, solver

    def forward(self, hidden_states: Tensor, **context: Any) -> Tensor:
        if self.solver not in get_args(FlowSolver):
            raise ValueError(f"solver {self.solver!r}: use one of {', '.join(get_args(FlowSolver))}")
        cache = next(
            (context[name] for name in ("past_key_values", "layer_past") if context.get(name) is not None), None
        )
        attentions = self.estimator.attentions
        index, evaluations = attentions[0].layer_idx if attentions else 0, 0

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            nonlocal evaluations
            for attention in attentions:
                attention.layer_idx = index if evaluations == 0 else self.depth - 1 + evaluations
            if cache is not None and attentions:
                _reserve(cache, attentions[0].layer_idx)
            evaluations += 1
            return self.estimator.velocity(x, t, hidden_states, context, torch.full_like(t, 1 / self.steps))

        try:
            return integrate(velocity, hidden_states, steps=self.steps, step=self.solver)
        finally:
            for attention in attentions:
                attention.layer_idx = index


def _reserve(cache: Any, index: int) -> None:
    """Extend a dynamic cache to hold layer `index`."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if len(cache.layers) > index:
        return
    if not isinstance(cache, DynamicCache):
        raise ValueError(f"{type(cache).__name__}: a flow of several evaluations needs transformers' DynamicCache")
    while len(cache.layers) <= index:
        cache.layers.append(DynamicLayer())


def graft(
    model: nn.Module, estimator: Estimator, start: int, end: int, *, steps: int = 1, solver: str = "euler"
) -> FlowLayer:
    """Replace blocks [start, end) of a causal model by the flow, in place; return the flow layer."""
    layer = FlowLayer(estimator, len(blocks_of(model)) - (end - start) + 1, steps=steps, solver=solver)
    replace_blocks(model, start, end, layer)
    if not estimator.blocks:  # it caches nothing, but transformers reads the cached length from layer 0: close the gap
        for block in blocks_of(model)[start + 1 :]:
            for part in block.modules():
                if isinstance(getattr(part, "layer_idx", None), int):
                    part.layer_idx -= 1  # pyright: ignore
    return layer
