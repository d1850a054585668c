"""Types shared by all parts of the library: Pair, Batch, Velocity, VelocityModel, Energy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Condition: TypeAlias = Mapping[str, Tensor]
Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (x "B *s", t "B") -> v "B *s"
Energy: TypeAlias = Callable[..., Tensor]  # (x "B *s"), or (x, cond) if there are conditions, -> "B"; low is good

BOOKKEEPING = frozenset({"index", "target"})
"""Entries of cond for couplings and objectives: the row in the data set, a cached target. Networks ignore them."""


@runtime_checkable
class Batch(Protocol):
    """Input of an objective: it can be moved to a device, and its length is its number of examples.

    >>> isinstance(Pair(torch.zeros(2, 3), torch.ones(2, 3)), Batch)
    True
    """

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str) -> "Batch": ...


@runtime_checkable
class VelocityModel(Protocol):
    """A network for the velocity: t is always (B,), in training and in solving; `cond` maps names to tensors of B rows."""

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor: ...


@runtime_checkable
class FeatureModel(VelocityModel, Protocol):
    """A VelocityModel that can also return the hidden state after block `layer`, counted from 1."""

    def with_features(self, x_t: Tensor, t: Tensor, cond: Condition | None, layer: int) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Pair:
    """A batch: row i of x_0 is the source of row i of x_1, which has the same shape. Mask and cond describe the target.

    >>> pair = Pair(torch.zeros(2, 3), torch.ones(2, 3), cond={"label": torch.tensor([4, 7])})
    >>> pair.take(torch.tensor([0]), torch.tensor([1])).cond["label"]
    tensor([7])
    """

    # "..." where __post_init__ checks the shape and raises a clearer error
    x_0: Float[Tensor, "..."]
    x_1: Float[Tensor, "B *s"]
    mask: Bool[Tensor, "..."] | None = None  # (B, N), True where the target has a token
    cond: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        parts = {"x_0": self.x_0, "x_1": self.x_1, "mask": self.mask, **self.cond}
        for name, part in parts.items():
            if not isinstance(part, Tensor) and (name != "mask" or part is not None):
                raise ValueError(
                    f"Pair: {name} is a {type(part).__name__}; give a tensor, for example torch.as_tensor(...)"
                )
        if self.x_0.shape != self.x_1.shape:
            raise ValueError(
                f"Pair: x_0 has shape {tuple(self.x_0.shape)}, x_1 {tuple(self.x_1.shape)}; give one source per target"
            )
        if self.mask is not None and self.mask.shape != self.x_1.shape[:2]:
            raise ValueError(
                f"Pair: the mask has shape {tuple(self.mask.shape)}, the tokens {tuple(self.x_1.shape[:2])}; "
                "give one entry per token"
            )
        for name, value in self.cond.items():
            if value.shape[:1] != self.x_1.shape[:1]:
                raise ValueError(
                    f"Pair: cond[{name!r}] has shape {tuple(value.shape)} for {len(self.x_1)} targets; give one row each"
                )

    def __len__(self) -> int:
        return len(self.x_1)

    def take(self, i: Int[Tensor, "M"], j: Int[Tensor, "M"]) -> "Pair":
        """Source i[k] with target j[k]; mask and cond follow the target."""
        mask = None if self.mask is None else self.mask[j]
        return Pair(self.x_0[i], self.x_1[j], mask, {name: value[j] for name, value in self.cond.items()})

    def rows(self, rows: slice) -> "Pair":
        """The pairs in `rows`, unchanged."""
        mask = None if self.mask is None else self.mask[rows]
        cond = {name: value[rows] for name, value in self.cond.items()}
        return Pair(self.x_0[rows], self.x_1[rows], mask, cond)

    def to(self, device: torch.device | str) -> "Pair":
        """The same pair on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        cond = {name: value.to(device) for name, value in self.cond.items()}
        return replace(self, x_0=self.x_0.to(device), x_1=self.x_1.to(device), mask=mask, cond=cond)

    @property
    def condition(self) -> dict[str, Tensor]:
        """The conditions passed to a model: cond, with the mask, if there is one, as cond["mask"]."""
        return self.cond if self.mask is None else {**self.cond, "mask": self.mask}


def pad_like(t: Shaped[Tensor, "B *n"], x: Float[Tensor, "B *s"]) -> Tensor:
    """t with trailing axes of length one, so that it can multiply x.

    >>> tuple(pad_like(torch.zeros(2), torch.zeros(2, 3, 4)).shape)
    (2, 1, 1)
    """
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """The dtype of times for x of this dtype, float32 or wider: bfloat16 has only 128 values between 1/2 and 1.

    >>> at_least_single(torch.bfloat16)
    torch.float32
    """
    return torch.promote_types(dtype, torch.float32)


def floating(*x: Shaped[Tensor, "..."]) -> list[Float[Tensor, "..."]]:
    """The tensors in the widest of their computing dtypes: float64 for integers, float32 or wider for floating dtypes.

    >>> [part.dtype for part in floating(torch.tensor([1]), torch.tensor([0.5]))]
    [torch.float64, torch.float64]
    """
    dtypes = [at_least_single(part.dtype) if part.is_floating_point() else torch.float64 for part in x]
    dtype = max(dtypes, key=lambda dtype: dtype.itemsize)
    return [part.to(dtype) for part in x]
