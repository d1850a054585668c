"""The original language model, frozen: hidden states at the ends of the replaced layers, and the layers after them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.lm.blocks import blocks_of, replace_blocks, shared_copy
from monge.lm.hidden import hidden_at
from monge.math.types import Pair

Known = Mapping[int, Tensor]
"""States by depth that need not be computed."""
NOTHING: Known = {}


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
        self.depth, self.injected = depth, _Injected()
        self._tails = nn.ModuleDict({str(layer): self._after(layer) for layer in (end, depth)})

    def _after(self, layer: int) -> Any:
        """The layers from `layer` on, with the head. They share the model's parameters."""
        tail = shared_copy(self.model)
        replace_blocks(tail, 0, layer, self.injected)
        return tail

    @torch.no_grad()
    def states(
        self, ids: Int[Tensor, "B N"], layers: Sequence[int], known: Known = NOTHING
    ) -> list[Float[Tensor, "B N D"]]:
        """The states at `layers`: computed or, if `known` is not empty, taken from it."""
        return [known[layer] for layer in layers] if known else hidden_at(self.model, ids, layers)

    def pair(self, ids: Int[Tensor, "B N"], known: Known = NOTHING) -> Pair:
        """The states before and after the replaced layers, with cond["start"] = x_0; see `pair_of`.

        cond["target"] holds the state after the last layer if it is known.
        """
        pair = pair_of(*self.states(ids, [self.start, self.end], known))
        if self.depth in known:
            pair.cond["target"] = known[self.depth]
        return pair

    def waypoints(self, ids: Int[Tensor, "B N"], known: Known = NOTHING) -> tuple[Pair, Float[Tensor, "K B N D"]]:
        """The pair of states, and the states before each of the replaced layers and after the last one."""
        states = self.states(ids, range(self.start, self.end + 1), known)
        return pair_of(states[0], states[-1]), torch.stack(states)

    def last(self, state: Float[Tensor, "B N D"], *, layer: int | None = None) -> Float[Tensor, "B N D"]:
        """The head's input, computed from a state after the replaced layers or, with `layer` = `depth`, after all layers.

        Gradients flow to the state.
        """
        self.injected.state = state
        ids: Any = torch.zeros(state.shape[:2], dtype=torch.long, device=state.device)
        tail: Any = self._tails[str(self.end if layer is None else layer)]
        return tail.base_model(input_ids=ids, use_cache=False).last_hidden_state

    def logits(self, state: Float[Tensor, "B N D"]) -> Float[Tensor, "B N vocabulary"]:
        """The logits that follow from a state after the replaced layers, with gradients with respect to it."""
        return self.head(self.last(state))

    @torch.no_grad()
    def target(self, pair: Pair) -> Float[Tensor, "B N D"]:
        """The input of the head in the teacher itself, computed from the last state if the pair holds it."""
        state = pair.cond.get("target")
        return self.last(pair.x_1) if state is None else self.last(state, layer=self.depth)

    @property
    def head(self) -> nn.Linear:
        """The map from the last, normalised states to logits."""
        return self.model.get_output_embeddings()  # pyright: ignore[reportCallIssue]


class _Injected(nn.Module):
    """A block that returns a given state, whatever its input is."""

    state: Tensor

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.state.to(hidden_states.dtype)


def pair_of(x_0: Float[Tensor, "B N D"], x_1: Float[Tensor, "B N D"]) -> Pair:
    """States as a pair, with cond["start"] = x_0 and a mask without the first token of each sequence.

    The displacement of the first token, that of an attention sink, can be hundreds of times as large as those of other
    tokens, and would dominate every squared error.
    """
    mask = torch.ones(x_0.shape[:2], dtype=torch.bool, device=x_0.device)
    mask[:, 0] = False
    return Pair(x_0, x_1, mask, {"start": x_0})
