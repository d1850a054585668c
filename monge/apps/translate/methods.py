"""Three methods of training a flow between container states: flow walking, flow matching and branching flows."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.translate.calibrate import means
from monge.apps.translate.contrast import MeanInfoNCE
from monge.apps.translate.events import Branching, EventField, EventMatching, simulate
from monge.apps.translate.field import Field, FieldShape
from monge.apps.translate.pair import ENDS
from monge.apps.translate.space import Packed
from monge.math.container import Container
from monge.math.path import Affine, constant
from monge.math.random import seeded
from monge.math.solve import integrate, time_grid
from monge.math.steps import Step, euler
from monge.math.times import Times
from monge.math.types import Pair, Velocity, VelocityModel
from monge.objective.base import Loss, Objective, Weighted
from monge.objective.flow_matching import FlowMatching
from monge.objective.flow_walking import FlowWalking

States = Float[Tensor, "B N channels"]


class Options(Protocol):
    """Fields of a recipe that methods read."""

    @property
    def shape(self) -> FieldShape: ...
    @property
    def walking_steps(self) -> int: ...
    @property
    def contrast(self) -> float: ...
    @property
    def sigma(self) -> float: ...
    @property
    def additive(self) -> bool: ...


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


def field(container: Container, width: int, shape: FieldShape, *, additive: bool) -> Field:
    """The field on states with positions in a separate channel, or added to the content."""
    if additive:
        return Field(width + 1, shape, span=0.0)
    return Field(width + 3, shape, span=container.capacity / container.aux_scale)


def solve(v: Velocity, x: States, *, reverse: bool, steps: int, step: Step) -> States:
    """The states after integration from t = 0 to 1 or, with `reverse`, from 1 to 0."""
    return integrate(v, x, time_grid(steps, x, start=float(reverse), end=1.0 - float(reverse)), step=step)


def direction_condition(x: States, reverse: bool) -> dict[str, Tensor]:
    """The condition that marks every row's direction."""
    return {"reverse": torch.full((len(x),), reverse, device=x.device)}


class OneWay(FlowWalking):
    """Flow walking in one direction, which is passed to the field in cond["reverse"]."""

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        return super().forward(
            model, replace(batch, cond={**batch.cond, **direction_condition(batch.x_0, self.reverse)})
        )


@dataclass(frozen=True)
class FlowWalkingMethod:
    """Flow walking in both directions: regression of the endpoint after `steps` random steps. Wu et al. 2505.14513."""

    shape: FieldShape
    steps: int = 1
    contrast: float = 0.0
    additive: bool = False

    options: ClassVar[frozenset[str]] = frozenset({"walking_steps", "contrast", "epsilon", "additive"})
    keeps_slots: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"walking_steps must be at least 1, got {self.steps}")
        if self.additive and self.contrast:
            raise ValueError("contrast compares mean contents, which additive positions shift; set contrast to 0")

    @staticmethod
    def of(options: Options) -> "FlowWalkingMethod":
        """The method with the recipe's options."""
        return FlowWalkingMethod(options.shape, options.walking_steps, options.contrast, options.additive)

    @property
    def solver_steps(self) -> int:
        """The number of steps in training."""
        return self.steps

    def network(self, container: Container, width: int) -> nn.Module:
        return field(container, width, self.shape, additive=self.additive)

    def objective(self, packed: Packed) -> Objective:
        to_target, to_source = (
            OneWay(
                steps=self.steps,
                step=euler,
                reverse=reverse,
                endpoint_loss=self._endpoint_loss(packed, ENDS[not reverse]),
            )
            for reverse in (False, True)
        )
        return Weighted(to_target=(0.5, to_target), to_source=(0.5, to_source))

    def _endpoint_loss(self, packed: Packed, end: str) -> MeanInfoNCE | None:
        if not self.contrast:
            return None
        numbers = packed.pairs.split("train")
        numbers = numbers[torch.randperm(len(numbers), generator=seeded(0, 12)).numpy()]
        negatives = means(packed.pairs, end, numbers.tolist(), entries=2**21)
        return MeanInfoNCE(packed.space.calibration.side(end).apply(negatives), self.contrast)

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        return pair

    def transport(
        self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step
    ) -> States:
        if self.steps == 1 and (steps > 1 or step is not euler):
            raise ValueError(
                "this field was trained for a single Euler step; for more steps, train with `--walking-steps 3` or "
                "`--method flow-matching`"
            )
        return solve(partial(model, cond=direction_condition(x, reverse)), x, reverse=reverse, steps=steps, step=step)


@dataclass(frozen=True)
class FlowMatchingMethod:
    """Flow matching on the straight path, with noise of standard deviation `sigma` around it. Lipman et al. 2210.02747."""

    shape: FieldShape
    sigma: float = 0.0
    additive: bool = False

    options: ClassVar[frozenset[str]] = frozenset({"sigma", "epsilon", "additive"})
    keeps_slots: ClassVar[bool] = True

    @staticmethod
    def of(options: Options) -> "FlowMatchingMethod":
        """The method with the recipe's options."""
        return FlowMatchingMethod(options.shape, options.sigma, options.additive)

    @property
    def solver_steps(self) -> int:
        """8; training fixes no number."""
        return 8

    def network(self, container: Container, width: int) -> nn.Module:
        return field(container, width, self.shape, additive=self.additive)

    def objective(self, packed: Packed) -> Objective:
        path = Affine(spread=constant(self.sigma) if self.sigma else None)
        return FlowMatching(path=path, times=Times(with_ends, stratified=True))

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        """The pair; if there is a separate reverse layer, a random half of its rows is marked in cond["reverse"]."""
        return half_reversed(pair, generator) if self.shape.separate_reverse else pair

    def transport(
        self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step
    ) -> States:
        v = snap_existence(
            partial(model, cond=direction_condition(x, reverse)), 1.0 - float(reverse), container.aux_scale
        )
        return solve(v, x, reverse=reverse, steps=steps, step=step)


@dataclass(frozen=True)
class BranchingMethod:
    """Branching flows, without voids: tokens split and die at random times. Billera et al. 2511.09465."""

    shape: FieldShape

    options: ClassVar[frozenset[str]] = frozenset[str]()
    keeps_slots: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.shape.separate_reverse:
            raise ValueError(
                "separate_reverse has no effect with --method branching-flows, whose field always sees the direction; omit it"
            )

    @staticmethod
    def of(options: Options) -> "BranchingMethod":
        """The method with the recipe's options."""
        return BranchingMethod(options.shape)

    @property
    def solver_steps(self) -> int:
        """8; training fixes no number."""
        return 8

    def network(self, container: Container, width: int) -> nn.Module:
        return EventField(container, width + 2, self.shape)

    def objective(self, packed: Packed) -> Objective:
        return EventMatching()

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        """The pair as forests, a random half of them rooted in the target."""
        return Branching()(half_reversed(pair, generator))

    def transport(
        self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step
    ) -> States:
        if step is not euler:
            raise ValueError("a field trained with --method branching-flows has its own solver; omit --solver")
        return simulate(model, x, steps=steps, reverse=reverse).x


METHODS: dict[str, type[FlowWalkingMethod] | type[FlowMatchingMethod] | type[BranchingMethod]] = {
    "flow-walking": FlowWalkingMethod,
    "flow-matching": FlowMatchingMethod,
    "branching-flows": BranchingMethod,
}


def with_ends(u: Tensor) -> Tensor:
    """Times of which half are uniform, a quarter 0 and a quarter 1.

    At the ends the velocity is hardest to predict, because x_t shows only one of them.
    """
    return (2 * u - 0.5).clamp(0, 1)


def half_reversed(pair: Pair, generator: torch.Generator) -> Pair:
    """The pair with a random half of its rows marked in cond["reverse"]."""
    return replace(pair, cond={"reverse": torch.rand(len(pair), generator=generator) < 0.5})


def snap_existence(v: Velocity, end: float, aux_scale: float) -> Velocity:
    """The velocity v, with existence, the last channel, steered to 0 or `aux_scale`, whichever is nearer to v's endpoint.

    In training every slot ends at one of the two; without this, uncertain slots drift to intermediate existence and are
    dropped at decoding. This is the clamping trick of Li et al. 2205.14217, sec. 4.2.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        predicted = v(x, t)
        remaining = (end - t)[:, None]
        bound = aux_scale * ((x[..., -1] + remaining * predicted[..., -1]) > aux_scale / 2)
        existence = torch.where(remaining == 0, predicted[..., -1], (bound - x[..., -1]) / remaining)
        return torch.cat([predicted[..., :-1], existence[..., None]], -1)

    return velocity
