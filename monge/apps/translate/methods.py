"""Three methods of learning a flow between container states: flow walking, flow matching, branching events."""

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
from monge.math.solve import Step, euler, integrate, time_grid
from monge.math.times import Times
from monge.math.types import Pair, Velocity, VelocityModel
from monge.objective.base import Loss, Objective, Weighted
from monge.objective.flow_matching import FlowMatching
from monge.objective.flow_walking import FlowWalking

States = Float[Tensor, "B N channels"]


class Options(Protocol):
    """The fields of a recipe that methods read."""

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
    """A network, its objective and batches, and the integration that carries states to the other side."""

    options: ClassVar[frozenset[str]]
    """Fields of a recipe that have an effect with this method and not with every other."""
    keeps_slots: ClassVar[bool]
    """True if a token stays in its slot, so that each slot's existence can be compared with a coupling."""

    @property
    def solver_steps(self) -> int:
        """Steps of a translation by default."""
        ...

    def network(self, container: Container, width: int) -> nn.Module:
        """The field on states with `width` entries of content, with weights drawn from torch's global generator."""
        ...

    def objective(self, packed: Packed) -> Objective:
        """The training objective on these pairs."""
        ...

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        """A coupled pair as the objective takes it: rows that go back are marked in cond["back"] or turned round."""
        ...

    def arrive(self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step) -> States:
        """The states on the other side; `back` goes from the target's side to the source's."""
        ...


def field(container: Container, width: int, shape: FieldShape, *, additive: bool) -> Field:
    """The field on states with positions in a channel of their own, or added into the content."""
    if additive:
        return Field(width + 1, shape, span=0.0)
    return Field(width + 3, shape, span=container.capacity / container.aux_scale)


def solve(v: Velocity, x: States, *, reverse: bool, steps: int, step: Step) -> States:
    """The end of the flow from t = 0 to 1, or `back` from 1 to 0."""
    return integrate(v, x, time_grid(steps, x, start=float(reverse), end=1.0 - float(reverse)), step=step)


def towards(x: States, reverse: bool) -> dict[str, Tensor]:
    """The condition that marks every row's direction."""
    return {"reverse": torch.full((len(x),), reverse, device=x.device)}


class OneWay(FlowWalking):
    """Flow walking in one direction, which the field sees in cond["back"]."""

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        return super().forward(model, replace(batch, cond={**batch.cond, **towards(batch.x_0, self.reverse)}))


@dataclass(frozen=True)
class Walk:
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
            raise ValueError("contrast compares means of contents, which additive positions shift; set contrast to 0")

    @staticmethod
    def of(options: Options) -> "Walk":
        """The method with the recipe's options."""
        return Walk(options.shape, options.walking_steps, options.contrast, options.additive)

    @property
    def solver_steps(self) -> int:
        """As many as in training."""
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

    def arrive(self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step) -> States:
        if self.steps == 1 and (steps > 1 or step is not euler):
            raise ValueError(
                "this field was trained for a single Euler step; for more steps, train with `--walking-steps 3` or "
                "`--method flow-matching`"
            )
        return solve(partial(model, cond=towards(x, reverse)), x, reverse=reverse, steps=steps, step=step)


@dataclass(frozen=True)
class Match:
    """Flow matching on the straight path, with noise of standard deviation `sigma` around it. Lipman et al. 2210.02747."""

    shape: FieldShape
    sigma: float = 0.0
    additive: bool = False

    options: ClassVar[frozenset[str]] = frozenset({"sigma", "epsilon", "additive"})
    keeps_slots: ClassVar[bool] = True

    @staticmethod
    def of(options: Options) -> "Match":
        """The method with the recipe's options."""
        return Match(options.shape, options.sigma, options.additive)

    @property
    def solver_steps(self) -> int:
        """8, since training fixes no number."""
        return 8

    def network(self, container: Container, width: int) -> nn.Module:
        return field(container, width, self.shape, additive=self.additive)

    def objective(self, packed: Packed) -> Objective:
        path = Affine(spread=constant(self.sigma) if self.sigma else None)
        return FlowMatching(path=path, times=Times(with_ends, stratified=True))

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Half of the rows train the second output layer, if there is one."""
        return pair if self.shape.ways == 1 else half_reversed(pair, generator)

    def arrive(self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step) -> States:
        v = snap_existence(partial(model, cond=towards(x, reverse)), 1.0 - float(reverse), container.aux_scale)
        return solve(v, x, reverse=reverse, steps=steps, step=step)


@dataclass(frozen=True)
class Events:
    """No voids: tokens split and die at random times. Branching flows, Billera et al. 2511.09465."""

    shape: FieldShape

    options: ClassVar[frozenset[str]] = frozenset[str]()
    keeps_slots: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.shape.ways == 2:
            raise ValueError(
                "shape.ways 2 has no effect with --method branching-flows; its field is told the direction"
            )

    @staticmethod
    def of(options: Options) -> "Events":
        """The method with the recipe's options."""
        return Events(options.shape)

    @property
    def solver_steps(self) -> int:
        """8, since training fixes no number."""
        return 8

    def network(self, container: Container, width: int) -> nn.Module:
        return EventField(container, width + 2, self.shape)

    def objective(self, packed: Packed) -> Objective:
        return EventMatching()

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Forests, half of them rooted in the target."""
        return Branching()(half_reversed(pair, generator))

    def arrive(self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step) -> States:
        if step is not euler:
            raise ValueError("a field trained with --method branching-flows takes steps of its own; leave --solver out")
        return simulate(model, x, steps=steps, reverse=reverse).x


METHODS: dict[str, type[Walk] | type[Match] | type[Events]] = {
    "flow-walking": Walk,
    "flow-matching": Match,
    "branching-flows": Events,
}


def with_ends(u: Tensor) -> Tensor:
    """Times, half of them uniform, a quarter 0 and a quarter 1: the velocity is hardest where one end alone is visible."""
    return (2 * u - 0.5).clamp(0, 1)


def half_reversed(pair: Pair, generator: torch.Generator) -> Pair:
    """The pair with a random half of its rows marked in cond["back"]."""
    return replace(pair, cond={"reverse": torch.rand(len(pair), generator=generator) < 0.5})


def snap_existence(v: Velocity, end: float, aux_scale: float) -> Velocity:
    """The velocity v with existence, the last channel, redirected to 0 or `aux_scale`, whichever v's prediction is nearer.

    In training every slot is on its way to one of the two: uncertain slots would drift to intermediate existence and be
    dropped at decoding. The clamping trick of Li et al. 2205.14217, sec. 4.4.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        predicted = v(x, t)
        left = (end - t)[:, None]
        bound = aux_scale * ((x[..., -1] + left * predicted[..., -1]) > aux_scale / 2)
        existence = torch.where(left == 0, predicted[..., -1], (bound - x[..., -1]) / left)
        return torch.cat([predicted[..., :-1], existence[..., None]], -1)

    return velocity
