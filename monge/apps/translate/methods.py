"""Methods of training a flow between container states: flow walking, flow matching and branching flows."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn

from monge.apps.translate.base import Options, States, contrast_of, direction_condition, half_reversed, solve, with_ends
from monge.apps.translate.conditional import ConditionalMethod
from monge.apps.translate.contrast import EndpointInfoNCE, check_contrast, mean_info_nce
from monge.apps.translate.events import Branching, EventField, EventMatching, simulate
from monge.apps.translate.field import Field, FieldShape, snap_existence
from monge.apps.translate.pair import ENDS
from monge.apps.translate.space import Packed
from monge.math.container import Container
from monge.math.path import Affine, constant
from monge.math.steps import Step, euler
from monge.math.times import Times
from monge.math.types import Pair, VelocityModel
from monge.objective.base import Loss, Objective, Weighted
from monge.objective.flow_matching import FlowMatching
from monge.objective.flow_walking import FlowWalking


def field(container: Container, width: int, shape: FieldShape, *, additive: bool, start: bool = False) -> Field:
    """The field on states with positions in a separate channel, or added to the content; `start` as in Field."""
    if additive:
        return Field(width + 1, shape, span=0.0, start=start)
    return Field(width + 3, shape, span=container.capacity / container.aux_scale, start=start)


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
        check_contrast(self.contrast, self.additive)

    @staticmethod
    def of(options: Options) -> "FlowWalkingMethod":
        """The method with the recipe's options."""
        return FlowWalkingMethod(options.shape, options.walking_steps, contrast_of(options), options.additive)

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
                endpoint_loss=mean_info_nce(packed, ENDS[not reverse], self.contrast) if self.contrast else None,
            )
            for reverse in (False, True)
        )
        return Weighted(to_target=(0.5, to_target), to_source=(0.5, to_source))

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
    """Flow matching on the straight path, with noise of standard deviation `sigma` around it. Lipman et al. 2210.02747.

    With `source_condition`, the field sees the start of the flow: without it, flow matching keeps the marginal distributions
    but not the pairs (De Bortoli et al. 2311.06978). It needs sigma above 0: without noise, the field could compute the
    velocity from the start and x_t alone, (x_t - start) / t.
    """

    shape: FieldShape
    sigma: float = 0.0
    contrast: float = 0.0
    additive: bool = False
    source_condition: bool = False

    options: ClassVar[frozenset[str]] = frozenset({"sigma", "contrast", "epsilon", "additive", "source_condition"})
    keeps_slots: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_contrast(self.contrast, self.additive)
        if self.source_condition and not self.sigma:
            raise ValueError(
                "source_condition needs sigma above 0: without noise, the velocity follows from the source and the state"
            )

    @staticmethod
    def of(options: Options) -> "FlowMatchingMethod":
        """The method with the recipe's options."""
        return FlowMatchingMethod(
            options.shape, options.sigma, contrast_of(options), options.additive, options.source_condition
        )

    @property
    def solver_steps(self) -> int:
        """8; training fixes no number."""
        return 8

    def network(self, container: Container, width: int) -> nn.Module:
        return field(container, width, self.shape, additive=self.additive, start=self.source_condition)

    def objective(self, packed: Packed) -> Objective:
        path = Affine(spread=constant(self.sigma) if self.sigma else None)
        contrast = None
        if self.contrast:
            to_target, to_source = (mean_info_nce(packed, end, self.contrast) for end in reversed(ENDS))
            contrast = EndpointInfoNCE(to_target, to_source)
        return FlowMatching(path=path, times=Times(with_ends, stratified=True), velocity_loss=contrast)

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        """The pair. If the field depends on the direction, a random half of its rows is marked in cond["reverse"];
        cond["start"] holds the starts of the flow, if the field sees them."""
        if not (self.shape.separate_reverse or self.source_condition):
            return pair
        pair = half_reversed(pair, generator)
        if not self.source_condition:
            return pair
        start = torch.where(pair.condition["reverse"][:, None, None], pair.x_1, pair.x_0)
        return replace(pair, cond={**pair.cond, "start": start})

    def transport(
        self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step
    ) -> States:
        cond = direction_condition(x, reverse) | ({"start": x} if self.source_condition else {})
        v = snap_existence(partial(model, cond=cond), 1.0 - float(reverse), container.aux_scale)
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


Kind = type[FlowWalkingMethod] | type[FlowMatchingMethod] | type[BranchingMethod] | type[ConditionalMethod]
METHODS: dict[str, Kind] = {
    "flow-walking": FlowWalkingMethod,
    "flow-matching": FlowMatchingMethod,
    "branching-flows": BranchingMethod,
    "conditional": ConditionalMethod,
}
