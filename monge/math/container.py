"""Sequences of variable length in a container of fixed capacity, whose unused slots are evenly spread voids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from monge.math.cost import void_order
from monge.math.ot import assignment


class Slots(NamedTuple):
    """The parts of a container state: token content, priority, position and existence.

    >>> Slots(torch.zeros(1, 3, 4), *torch.zeros(3, 1, 3)).existence
    tensor([[0., 0., 0.]])
    """

    content: Float[Tensor, "B N D"]
    priority: Float[Tensor, "B N"]  # in [0, 1): rank among the slots of the same kind, see cost.void_order
    position: Float[Tensor, "B N"]  # in (0, 1]
    existence: Float[Tensor, "B N"]  # 1 active, 0 void; other values occur only along a flow


@dataclass(frozen=True)
class Container:
    """`capacity` slots, each with D content channels and one channel for each of priority, position and existence.

    Position has a separate channel, because a position added into the content cannot be separated from it again. The last
    three channels are multiplied by `aux_scale` to balance them against the D content channels.

    >>> container = Container(capacity=3)
    >>> state = container.pack([torch.ones(2, 4), torch.zeros(1, 4)])
    >>> tuple(state.shape), [len(tokens) for tokens in container.unpack(state)]
    ((2, 3, 7), [2, 1])
    """

    capacity: int
    aux_scale: float = 1.0

    def pack(self, sequences: Sequence[Float[Tensor, "_ D"]]) -> Float[Tensor, "B N D+3"]:
        """Tokens come first, in order, at positions i/n; voids follow at k/(N - n), spread evenly over the sequence.

        ValueError if there are no sequences or one has more tokens than `capacity`.
        """
        if not sequences:
            raise ValueError("container: no sequences to pack; give at least one (an empty one has shape (0, D))")
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
        """The state with the given slots, the inverse of `split`."""
        extra = torch.stack([slots.priority, slots.position, slots.existence], -1) * self.aux_scale
        return torch.cat([slots.content, extra], -1)

    def split(self, state: Float[Tensor, "B N channels"]) -> Slots:
        """The slots of a state, at any time along a flow."""
        return Slots(state[..., :-3], *(state[..., -3:] / self.aux_scale).unbind(-1))

    def active(self, state: Float[Tensor, "B N channels"]) -> Bool[Tensor, "B N"]:
        """True for slots that hold a token: those with existence above one half."""
        return self.split(state).existence > 0.5

    def unpack(
        self, state: Float[Tensor, "B N channels"], counts: Int[Tensor, "B"] | None = None
    ) -> list[Float[Tensor, "_ D"]]:
        """The sequences: active slots in the order of their positions, or the `counts` slots with the highest existence."""
        slots, active = self.split(state), self.active(state)
        if counts is not None:
            rank = slots.existence.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            active = rank < counts[:, None].to(rank.device)
        sequences: list[Tensor] = []
        for content, position, keep in zip(slots.content, slots.position, active, strict=True):
            sequences.append(content[keep][position[keep].argsort(stable=True)])
        return sequences


@dataclass(frozen=True)
class Additive:
    """Container states as in the original HERMES implementation: content plus a sinusoid of position, and existence.

    >>> container = Container(capacity=3)
    >>> tuple(Additive(container).apply(container.pack([torch.ones(2, 4)])).shape)
    (1, 3, 5)
    """

    container: Container

    def apply(self, state: Float[Tensor, "B N channels"]) -> Float[Tensor, "B N added"]:
        """Content plus a sinusoid of position, and existence."""
        slots = self.container.split(state)
        content = slots.content + self._sinusoid(slots.position, slots.content.shape[-1])
        return torch.cat([content, state[..., -1:]], -1)

    def undo(self, state: Float[Tensor, "B N added"]) -> Float[Tensor, "B N channels"]:
        """An estimate of the inverse of `apply`: n tokens lie at 1/n, 2/n, ..., 1, and each gets its position from the
        assignment that best fits the contents. It is wrong where the content outweighs the sinusoid.

        The positions of voids and all priorities cannot be recovered; they are 0.
        """
        content, existence = state[..., :-1], state[..., -1] / self.container.aux_scale
        position = torch.zeros_like(existence)
        plain = torch.zeros_like(content)
        for row, active in enumerate(existence > 0.5):
            n = int(active.sum())
            if n:
                positions = torch.arange(1, n + 1, device=state.device, dtype=state.dtype) / n
                waves = self._sinusoid(positions, content.shape[-1])
                columns = assignment(-content[row, active] @ waves.mT)
                position[row, active] = positions[columns]
                plain[row, active] = content[row, active] - waves[columns]
        return self.container.join(Slots(plain, torch.zeros_like(position), position, existence))

    def _sinusoid(self, position: Float[Tensor, "*b"], width: int) -> Float[Tensor, "*b width"]:
        """Vaswani et al. 2017, sec. 3.5, with positions counted in slots, so that neighbours can be distinguished."""
        powers = torch.arange(0, width, 2, device=position.device, dtype=position.dtype) / width
        angles = self.container.capacity * position[..., None] / 10_000**powers
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)[..., :width]
