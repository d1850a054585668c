"""Named conditions of a network: their kinds, their embeddings, and a check of the names in a batch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.math.types import BOOKKEEPING, Condition
from monge.nets.embed import sinusoidal


@dataclass(frozen=True)
class Categorical:
    """A class index below `classes` per sample or, with `per_token`, per token. Index `classes` means "no class"."""

    classes: int
    per_token: bool = False


@dataclass(frozen=True)
class Continuous:
    """A vector of `width` numbers per sample or, with `per_token`, per token. A zero vector means "no condition"."""

    width: int
    per_token: bool = False


Kind: TypeAlias = Categorical | Continuous
Conditions: TypeAlias = Mapping[str, Kind]  # keyed by the entry's name in cond
RESERVED = BOOKKEEPING | {"mask", "positions"}


class Classes(nn.Module):
    """Class embedding. Without an entry in cond, every sample or token has "no class"."""

    def __init__(self, name: str, kind: Categorical, width: int) -> None:
        super().__init__()
        self.name, self.kind = name, kind
        self.embedding = nn.Embedding(kind.classes + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, value: Tensor | None, shape: torch.Size) -> Float[Tensor, "..."]:
        return embed(self.embedding, self.name, value, shape)


class Vectors(nn.Module):
    """Linear map of vectors, without bias. Without an entry in cond, it adds nothing."""

    def __init__(self, name: str, kind: Continuous, width: int) -> None:
        super().__init__()
        self.name, self.kind = name, kind
        self.linear = nn.Linear(kind.width, width, bias=False)

    def forward(self, value: Tensor | None, shape: torch.Size) -> Float[Tensor, "..."]:
        if value is None:
            return self.linear.weight.new_zeros(())
        if value.shape == shape and self.kind.width == 1:
            value = value[..., None]
        if value.shape != (*shape, self.kind.width):
            raise ValueError(
                f"condition: cond[{self.name!r}] has shape {tuple(value.shape)}; give {(*shape, self.kind.width)}"
            )
        return self.linear(value.to(self.linear.weight.dtype))


class ConditionEmbedding(nn.Module):
    """Time and the per-sample conditions as one vector of `width`; per-token conditions as one vector per token.

    `classes` is short for conditions={"label": Categorical(classes)}. An entry missing from a batch counts as "no class" or
    "no condition", as classifier-free guidance requires; an entry with an undeclared name is an error.
    """

    def __init__(
        self, width: int, *, classes: int = 0, conditions: Conditions | None = None, frequencies: int = 128
    ) -> None:
        super().__init__()
        conditions = dict(conditions or {})
        if classes and "label" in conditions:
            raise ValueError("conditions: 'label' is declared twice, by classes and by conditions; give one of them")
        if RESERVED & conditions.keys():
            raise ValueError(f"conditions: {sorted(RESERVED & conditions.keys())} have a fixed meaning; rename them")
        self.classes, self.frequencies = classes, frequencies
        self.time = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        # prefixed, since a ModuleDict rejects keys that are names of its methods, such as "type"
        self.named = nn.ModuleDict({f"of_{name}": _embedding(name, kind, width) for name, kind in conditions.items()})
        self.per_sample = tuple(name for name, kind in conditions.items() if not kind.per_token)
        self.per_token = tuple(name for name, kind in conditions.items() if kind.per_token)
        self.names = (("label",) if classes else ()) + tuple(conditions)

    def forward(self, t: Float[Tensor, "B"], cond: Condition | None) -> Float[Tensor, "B width"]:
        """One vector per sample."""
        cond = cond or {}
        c = self.time(sinusoidal(1000 * t, self.frequencies).to(next(self.time.parameters()).dtype))
        if self.label is not None:
            c = c + embed(self.label, "label", cond.get("label"), t.shape)
        for name in self.per_sample:
            c = c + self.named[f"of_{name}"](cond.get(name), t.shape)
        return c

    def tokens(self, h: Float[Tensor, "B N width"], cond: Condition) -> Float[Tensor, "B N width"]:
        """h plus the embeddings of the per-token conditions."""
        for name in self.per_token:
            h = h + self.named[f"of_{name}"](cond.get(name), h.shape[:2]).to(h.dtype)
        return h


def _embedding(name: str, kind: Kind, width: int) -> nn.Module:
    return Classes(name, kind, width) if isinstance(kind, Categorical) else Vectors(name, kind, width)


def embed(embedding: nn.Embedding, name: str, value: Tensor | None, shape: torch.Size) -> Float[Tensor, "..."]:
    """The embeddings of class indices; the last row of the table, "no class", if `value` is None."""
    no_class = embedding.num_embeddings - 1
    if value is None:
        return embedding(torch.full(shape, no_class, dtype=torch.long, device=embedding.weight.device))
    if value.shape == (*shape, 1):
        value = value.squeeze(-1)
    if value.shape != shape:
        raise ValueError(
            f"condition: cond[{name!r}] has shape {tuple(value.shape)}; give class indices of shape {tuple(shape)}"
        )
    if value.is_floating_point() and bool((value != value.round()).any()):
        raise ValueError(f"condition: cond[{name!r}] holds fractions; give class indices from 0 to {no_class}")
    try:
        return embedding(value.long())
    except IndexError as error:
        raise ValueError(
            f"condition: cond[{name!r}] ranges from {int(value.min())} to {int(value.max())}; "
            f"classes are 0 to {no_class - 1}, and {no_class} means no class"
        ) from error


def check_known(network: str, cond: Condition | None, names: Iterable[str]) -> None:
    """ValueError if cond has an entry that the network does not know: ignoring it would train an unconditional model.

    `index` and `target`, which are for couplings and objectives, are accepted.
    """
    unknown = [name for name in cond or () if name not in names and name not in BOOKKEEPING]
    if unknown:
        known = ", ".join(sorted(names)) or "none"
        raise ValueError(
            f"{network}: unknown condition {', '.join(unknown)}; known: {known}. "
            "Rename the entry of cond, drop it, or declare it with classes= or conditions="
        )


def check_dtype(network: str, x: Tensor, weight: Tensor) -> None:
    """ValueError if the states are not in the dtype of the weights, unless autocast is enabled."""
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"{network}: x is {x.dtype}, the weights are {weight.dtype}; convert x, x.to({weight.dtype}), or the network"
        )
