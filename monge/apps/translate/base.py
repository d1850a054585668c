"""The protocol of training methods, and functions that they share."""

from dataclasses import replace
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.translate.field import FieldShape
from monge.apps.translate.space import Packed
from monge.math.container import Container
from monge.math.solve import integrate, time_grid
from monge.math.steps import Step
from monge.math.types import Pair, Velocity
from monge.objective.base import Objective

States = Float[Tensor, "B N channels"]


class Options(Protocol):
    """Fields of a recipe that methods read."""

    @property
    def shape(self) -> FieldShape: ...
    @property
    def walking_steps(self) -> int: ...
    @property
    def contrast(self) -> float | None: ...
    @property
    def sigma(self) -> float: ...
    @property
    def additive(self) -> bool: ...
    @property
    def source_condition(self) -> bool: ...


class Method(Protocol):
    """A training method: a network, its objective and batches, and the integration of states to the other side."""

    options: ClassVar[frozenset[str]]
    """Fields of a recipe that have an effect with this method but not with all methods."""
    keeps_slots: ClassVar[bool]
    """True if a token stays in its slot, so that each slot's existence can be compared with a coupling."""

    @property
    def solver_steps(self) -> int:
        """Default number of solver steps of a translation."""
        ...

    def network(self, container: Container, width: int) -> nn.Module:
        """The field on states with `width` entries of content, with weights drawn from torch's global generator."""
        ...

    def objective(self, packed: Packed) -> Objective:
        """The training objective on these pairs."""
        ...

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        """A coupled pair prepared for the objective: reverse rows are marked in cond["reverse"] or have their ends swapped."""
        ...

    def transport(
        self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step
    ) -> States:
        """The states on the other side; `reverse` goes from the target side to the source side."""
        ...


def solve(v: Velocity, x: States, *, reverse: bool, steps: int, step: Step) -> States:
    """The states after integration from t = 0 to 1 or, with `reverse`, from 1 to 0."""
    return integrate(v, x, time_grid(steps, x, start=float(reverse), end=1.0 - float(reverse)), step=step)


def direction_condition(x: States, reverse: bool) -> dict[str, Tensor]:
    """The condition that marks every row's direction."""
    return {"reverse": torch.full((len(x),), reverse, device=x.device)}


def with_ends(u: Tensor) -> Tensor:
    """Times of which half are uniform, a quarter 0 and a quarter 1.

    At the ends the velocity is hardest to predict, because x_t shows only one of them.
    """
    return (2 * u - 0.5).clamp(0, 1)


def half_reversed(pair: Pair, generator: torch.Generator) -> Pair:
    """The pair with a random half of its rows marked in cond["reverse"]."""
    return replace(pair, cond={"reverse": torch.rand(len(pair), generator=generator) < 0.5})


def contrast_of(options: Options) -> float:
    """The weight of the contrastive loss: by default 0.1, or 0 with additive positions, which shift the means it compares."""
    return (0.0 if options.additive else 0.1) if options.contrast is None else options.contrast
