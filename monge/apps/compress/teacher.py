"""The original language model, frozen: hidden states at the ends of the replaced layers, and the layers after them."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.lm.blocks import blocks_of, replace_blocks, shared_copy
from monge.lm.hidden import hidden_at
from monge.math.types import Pair


class Teacher(nn.Module):
    """A causal language model around its layers [start, end). Its parameters do not require gradients.

    ValueError if the model lacks the range.
    """

    def __init__(self, model: nn.Module, start: int, end: int) -> None:
        super().__init__()
        depth = len(blocks_of(model))
        if not 0 <= start < end <= depth:
            raise ValueError(f"layers [{start}, {end}): the model has {depth}; give 0 <= start < end <= {depth}")
        self.model, self.start, self.end = model.eval().requires_grad_(False), start, end
        self.injected = _Injected()
        self._tail = shared_copy(model)
        replace_blocks(self._tail, 0, end, self.injected)

    @torch.no_grad()
    def pair(self, ids: Int[Tensor, "B N"]) -> Pair:
        """The states before and after the replaced layers, with cond["start"] = x_0.

        The mask leaves out the first token of each sequence. Its displacement, that of an attention sink, can be hundreds of
        times as large as those of other tokens, and would dominate every squared error.
        """
        return pair_of(*hidden_at(self.model, ids, [self.start, self.end]))

    @torch.no_grad()
    def waypoints(self, ids: Int[Tensor, "B N"]) -> tuple[Pair, Float[Tensor, "K B N D"]]:
        """The pair of states, and the states before each of the replaced layers and after the last one."""
        states = hidden_at(self.model, ids, range(self.start, self.end + 1))
        return pair_of(states[0], states[-1]), torch.stack(states)

    def logits(self, x_1: Float[Tensor, "B N D"]) -> Float[Tensor, "B N vocabulary"]:
        """The logits of the remaining layers after the state x_1, with gradients with respect to it."""
        self.injected.state = x_1
        ids: Any = torch.zeros(x_1.shape[:2], dtype=torch.long, device=x_1.device)
        return self._tail(input_ids=ids, use_cache=False).logits


class _Injected(nn.Module):
    """A block that returns a given state, whatever its input is."""

    state: Tensor

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.state.to(hidden_states.dtype)


def pair_of(x_0: Float[Tensor, "B N D"], x_1: Float[Tensor, "B N D"]) -> Pair:
    """States as a pair, with cond["start"] = x_0 and a mask without the first token of each sequence."""
    mask = torch.ones(x_0.shape[:2], dtype=torch.bool, device=x_0.device)
    mask[:, 0] = False
    return Pair(x_0, x_1, mask, {"start": x_0})
