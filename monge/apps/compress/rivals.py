"""Other ways to shorten a language model: layers selected by ShortGPT and SLEB, and ReplaceMe's merged map."""

import copy
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.apps.compress.affine import Moments
from monge.apps.compress.evaluate import perplexity
from monge.apps.compress.layer import parts_of
from monge.apps.compress.projections import merge, output_projection
from monge.lm.blocks import blocks_of, replace_blocks, shared_copy
from monge.lm.hidden import hidden_at
from monge.math.random import seeded


def without(model: nn.Module, layers: Iterable[int]) -> nn.Module:
    """The model without these layers. It shares all parameters with `model`."""
    result = shared_copy(model)
    for layer in sorted(set(layers), reverse=True):
        replace_blocks(result, layer, layer + 1)
    return result


def least_influential(influence: Float[Tensor, "layers"], count: int) -> list[int]:
    """The `count` layers with the smallest block influence, in ascending order. ShortGPT, Men et al. 2403.03853, sec. 3."""
    return sorted(influence.argsort()[:count].tolist())


def greedily_removed(model: nn.Module, ids: Int[Tensor, "n length"], count: int, *, size: int = 4) -> list[int]:
    """Layers removed one after the other, in this order, each time the one without which the perplexity is lowest.

    The first n of them are the choice for n layers. SLEB, Song et al. 2402.09025, alg. 1.
    """
    removed: list[int] = []
    for _ in range(count):
        left = [layer for layer in range(len(blocks_of(model))) if layer not in removed]
        removed.append(min(left, key=lambda layer: perplexity(without(model, [*removed, layer]), ids, size=size)))
    return removed


def replace_me(
    model: nn.Module,
    start: int,
    end: int,
    ids: Int[Tensor, "n length"],
    *,
    loss: Literal["squared", "cosine"] = "squared",
    ridge: float = 1e-3,
    epochs: int = 10,
    size: int = 4,
) -> nn.Module:
    """The model without layers [start, end), with a linear map applied to the feed-forward output of layer start - 1.

    The map minimises, over the tokens of `ids`, the squared or the cosine distance to the state before layer `end`, and is
    merged into the output projection. The first token of each sequence is left out. Training-free for "squared", in closed
    form; "cosine" takes `epochs` of Adam. ValueError if start is 0. ReplaceMe, Shopkhoev et al. 2505.02819, eq. 4 to 7.
    """
    if start < 1:
        raise ValueError("ReplaceMe changes the layer before the removed ones; give start >= 1")
    outputs, before, after = [], [], []
    mlp = parts_of(blocks_of(model)[start - 1]).mlp
    handle = mlp.register_forward_hook(lambda _, __, output: outputs.append(output[:, 1:].flatten(0, 1)))
    try:
        with torch.no_grad():
            for part in ids.split(size):
                x_0, x_1 = (state[:, 1:].flatten(0, 1) for state in hidden_at(model, part, [start, end]))
                before.append(x_0)
                after.append(x_1)
    finally:
        handle.remove()
    m, x_0, x_1 = torch.cat(outputs).float(), torch.cat(before).float(), torch.cat(after).float()
    matrix = _closed_form(m, x_1 - x_0, ridge) if loss == "squared" else _by_cosine(m, x_0, x_1, epochs)
    shorter = without(model, range(start, end))
    block = blocks_of(shorter)[start - 1] = copy.deepcopy(blocks_of(shorter)[start - 1])
    merge(output_projection(parts_of(block).mlp), matrix + torch.eye(len(matrix), device=matrix.device))
    return shorter


def _closed_form(m: Float[Tensor, "n D"], d: Float[Tensor, "n D"], ridge: float) -> Float[Tensor, "D D"]:
    moments = Moments()
    moments.add(m, d)
    return moments.solve(ridge=ridge, bias=False).matrix


@torch.enable_grad()
def _by_cosine(m: Tensor, x_0: Tensor, x_1: Tensor, epochs: int, *, batch: int = 1024, lr: float = 1e-4) -> Tensor:
    matrix = torch.zeros(m.shape[1], m.shape[1], device=m.device, requires_grad=True)
    optimizer = torch.optim.Adam([matrix], lr=lr)
    for epoch in range(epochs):
        for rows in torch.randperm(len(m), generator=seeded(epoch)).to(m.device).split(batch):
            loss = 1 - F.cosine_similarity(x_0[rows] + m[rows] @ matrix.mT, x_1[rows], dim=-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return matrix.detach()
