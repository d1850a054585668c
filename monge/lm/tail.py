"""The upper part of a causal language model: from the hidden states after some block to next-token logits."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from monge.lm.blocks import blocks_of, replace_blocks, shared_copy


class Tail(nn.Module):
    """The blocks after the first `layer`, the final norm and the head of a causal Hugging Face model, which stays unchanged.

    ValueError unless 1 <= layer <= number of blocks.
    """

    def __init__(self, model: nn.Module, layer: int) -> None:
        super().__init__()
        depth = len(blocks_of(model))
        if not 1 <= layer <= depth:
            raise ValueError(f"layer {layer}: the model has {depth} blocks; give 1 to {depth}")
        self.given = Given()
        self.model: Any = shared_copy(model)
        replace_blocks(self.model, 0, layer, self.given)

    def forward(
        self, states: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N V"]:
        """The logits of the token after each state; `mask` is False at padding, which is on the right."""
        self.given.states = states
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        attention = None if mask is None else mask.to(states.device, torch.long)
        return self.model(input_ids=ids, attention_mask=attention, use_cache=False).logits


class Given(nn.Module):
    """A block whose output is `states`, whatever its input."""

    states: Tensor | None = None

    def forward(self, hidden_states: Tensor) -> Tensor:
        assert self.states is not None
        return self.states.to(hidden_states.dtype)
