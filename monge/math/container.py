"""Sequences of any length in a container of fixed capacity whose free slots are voids, spread evenly (seed HERMES)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


class Slots(NamedTuple):
    """What a container state means: content, where in the sequence, and whether there is a token at all."""

    content: Float[Tensor, "B N D"]
    position: Float[Tensor, "B N"]  # in (0, 1]
    existence: Float[Tensor, "B N"]  # 1 active, 0 void; in between only along a flow


@dataclass(frozen=True)
class Container:
    """`capacity` slots of D content channels, one of position and one of existence.

    Position has channels of its own: added into the content it can neither be told from it nor be undone. The last two
    channels are multiplied by `gain`, so that they weigh against D of content.
    """

    capacity: int
    gain: float = 1.0

    def pack(self, sequences: Sequence[Float[Tensor, "_ D"]]) -> Float[Tensor, "B N D+2"]:
        """Tokens first, in order, at positions i/n; then the voids, at k/(N - n): a reserve bench along the whole sequence."""
        if not sequences:
            raise ValueError("container: no sequences to pack; give at least one, an empty tensor of (0, D) if need be")
        for row, tokens in enumerate(sequences):
            if len(tokens) > self.capacity:
                raise ValueError(
                    f"container: sequence {row} has {len(tokens)} tokens, capacity is {self.capacity}; raise it or truncate"
                )
        lengths = torch.tensor([len(tokens) for tokens in sequences], device=sequences[0].device)
        content = pad_sequence(list(sequences), batch_first=True)
        content = torch.nn.functional.pad(content, (0, 0, 0, self.capacity - content.shape[1]))
        slot = torch.arange(1, self.capacity + 1, device=content.device)
        active = slot <= lengths[:, None]
        n = lengths[:, None].to(content.dtype)
        voids = (self.capacity - n).clamp_min(1)
        position = torch.where(active, slot / n.clamp_min(1), (slot - n) / voids).to(content.dtype)
        return self.join(Slots(content, position, active.to(content.dtype)))

    def join(self, slots: Slots) -> Float[Tensor, "B N channels"]:
        """The state whose slots these are."""
        extra = torch.stack([slots.position, slots.existence], -1) * self.gain
        return torch.cat([slots.content, extra], -1)

    def split(self, state: Float[Tensor, "B N channels"]) -> Slots:
        """The slots of a state, also half-way along a flow."""
        return Slots(state[..., :-2], state[..., -2] / self.gain, state[..., -1] / self.gain)

    def active(self, state: Float[Tensor, "B N channels"]) -> Bool[Tensor, "B N"]:
        """Which slots hold a token: existence above one half."""
        return self.split(state).existence > 0.5

    def unpack(self, state: Float[Tensor, "B N channels"]) -> list[Float[Tensor, "_ D"]]:
        """The sequences: slots that exist, in the order of their positions."""
        slots, active = self.split(state), self.active(state)
        sequences: list[Tensor] = []
        for content, position, keep in zip(slots.content, slots.position, active, strict=True):
            sequences.append(content[keep][position[keep].argsort(stable=True)])
        return sequences
