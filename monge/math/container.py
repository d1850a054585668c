"""Sequences of any length in a container of fixed capacity whose free slots are voids, spread evenly (seed HERMES)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from monge.math.cost import void_order
from monge.math.ot import assignment


class Slots(NamedTuple):
    """What a container state means: content, where in the sequence, and whether there is a token at all."""

    content: Float[Tensor, "B N D"]
    priority: Float[Tensor, "B N"]  # in [0, 1): when it is called among those of its kind, see cost.void_order
    position: Float[Tensor, "B N"]  # in (0, 1]
    existence: Float[Tensor, "B N"]  # 1 active, 0 void; in between only along a flow


@dataclass(frozen=True)
class Container:
    """`capacity` slots of D content channels, and one each of turn, position and existence.

    Position has a channel of its own: added into the content it can neither be told from it nor be undone. The last three
    channels are multiplied by `aux_scale`, so that they weigh against D of content.
    """

    capacity: int
    aux_scale: float = 1.0

    def pack(self, sequences: Sequence[Float[Tensor, "_ D"]]) -> Float[Tensor, "B N D+3"]:
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
        return self.join(Slots(content, void_order(active).to(content.dtype), position, active.to(content.dtype)))

    def join(self, slots: Slots) -> Float[Tensor, "B N channels"]:
        """The state whose slots these are."""
        extra = torch.stack([slots.priority, slots.position, slots.existence], -1) * self.aux_scale
        return torch.cat([slots.content, extra], -1)

    def split(self, state: Float[Tensor, "B N channels"]) -> Slots:
        """The slots of a state, also half-way along a flow."""
        return Slots(state[..., :-3], *(state[..., -3:] / self.aux_scale).unbind(-1))

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


@dataclass(frozen=True)
class Additive:
    """The seed's form of a container's states: content and existence, a sinusoid of position added into the content."""

    container: Container

    def apply(self, state: Float[Tensor, "B N channels"]) -> Float[Tensor, "B N added"]:
        """Content + P(position), and existence."""
        slots = self.container.split(state)
        content = slots.content + self._sinusoid(slots.position, slots.content.shape[-1])
        return torch.cat([content, state[..., -1:]], -1)

    def undo(self, state: Float[Tensor, "B N added"]) -> Float[Tensor, "B N channels"]:
        """The inverse: n tokens lie at 1/n, 2/n, ..., 1, and the assignment that fits them best says which lies where.

        The position of a void cannot be told, nor a turn; they are 0.
        """
        content, existence = state[..., :-1], state[..., -1] / self.container.aux_scale
        position = torch.zeros_like(existence)
        plain = torch.zeros_like(content)
        for row, active in enumerate(existence > 0.5):
            n = int(active.sum())
            if n:
                places = torch.arange(1, n + 1, device=state.device, dtype=state.dtype) / n
                waves = self._sinusoid(places, content.shape[-1])
                found = assignment(-content[row, active] @ waves.mT)
                position[row, active] = places[found]
                plain[row, active] = content[row, active] - waves[found]
        return self.container.join(Slots(plain, torch.zeros_like(position), position, existence))

    def _sinusoid(self, position: Float[Tensor, "*b"], width: int) -> Float[Tensor, "*b width"]:
        """Vaswani et al. 2017, sec. 3.5, with places counted in slots: neighbours can be told apart."""
        powers = torch.arange(0, width, 2, device=position.device, dtype=position.dtype) / width
        angles = self.container.capacity * position[..., None] / 10_000**powers
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., :width]
