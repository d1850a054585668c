"""The experiments of `translate`: a recipe says all about one in scalars."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.translate.calibrate import Calibration, Prices, means, measured
from monge.apps.translate.contrast import Recognised
from monge.apps.translate.couple import Couplings, Packed, matches, reordered, softened
from monge.apps.translate.events import Branching, EventField, EventMatching
from monge.apps.translate.events import walk as live
from monge.apps.translate.field import Field, FieldShape
from monge.apps.translate.pair import ENDS, Pairs
from monge.math.container import Additive, Container
from monge.math.path import Affine, constant
from monge.math.random import seeded
from monge.math.solve import Step, euler, grid, integrate
from monge.math.times import Times
from monge.math.types import Pair, Velocity, VelocityModel
from monge.objective.base import Loss, Objective, Weighted
from monge.objective.flow_matching import FlowMatching
from monge.objective.flow_walking import FlowWalking
from monge.runs import Opened
from monge.train.batches import shuffled
from monge.train.config import TrainConfig
from monge.train.loop import Run


def with_ends(u: Tensor) -> Tensor:
    """Half of the draws uniform, a quarter 0, a quarter 1: there is most to learn where only one end is seen."""
    return (2 * u - 0.5).clamp(0, 1)


class OneWay(FlowWalking):
    """A walk that tells the field which way it goes."""

    def forward(self, model: VelocityModel, batch: Pair) -> Loss:
        back = torch.full((len(batch),), self.back, device=batch.x_0.device)
        return super().forward(model, replace(batch, cond={**batch.cond, "back": back}))


@dataclass(frozen=True)
class Translate:
    """Learn a flow from sequences of vectors to sequences of vectors of other lengths, both ways."""

    app: ClassVar[str] = "translate"

    pairs: str = "pairs"
    """A directory that `monge translate pair` made."""
    couplings: str = ""
    """A directory that `monge translate couple` made; empty couples each batch as it is made, in the background."""
    prices: Prices = field(default_factory=Prices)
    epsilon: float = 0.0
    """0 couples by the exact assignment; above, by the entropic plan's barycentre, in units of cost."""
    gain: float = 12.0
    """How much an entry of position or existence weighs against one of content."""
    additive: bool = False
    """Positions as sinusoids added into the content, as in the seed, instead of in a channel of their own."""
    sigma: float = 0.0
    """Standard deviation of noise around the path."""
    how: Literal["walk", "match", "events"] = "walk"
    """walk regresses where a walk ends, match the velocity between both ends (flow matching); with events tokens split and
    die."""
    walk: int = 1
    """Steps of such a walk, of random lengths: 1 is a regression of each end on the other, 3 is flow walking."""
    contrast: float = 0.1
    """Weight of InfoNCE between the means of what walks, if it walks, have found and of what is there; 0 for none."""
    shape: FieldShape = field(default_factory=FieldShape)
    batch: int = 16
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=3000, lr=3e-3, optimizer="muon", save_every=500, threads=0)
    )

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if self.sigma and self.how != "match":
            raise ValueError("sigma is noise around the path of match; the other ways have none")
        for name in ("epsilon", "sigma", "contrast"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.gain > 0:
            raise ValueError(f"gain must be above 0, got {self.gain}")
        if self.couplings and self.epsilon:
            raise ValueError("couplings on disk are exact; epsilon couples as it goes: give one of the two")
        if self.walk < 1:
            raise ValueError(f"walk must be at least 1 step, got {self.walk}")
        if self.walk > 1 and self.how != "walk":
            raise ValueError(f"walk counts the steps of a walk; {self.how} takes none")
        if self.additive and self.contrast and self.how == "walk":
            raise ValueError(
                "additive positions are part of the content, whose means contrast compares; give contrast 0"
            )
        if self.how == "events" and (self.epsilon or self.additive or self.sigma or self.shape.ways == 2):
            raise ValueError("events go without epsilon, additive, sigma and a second way")

    def container(self, capacity: int) -> Container:
        """The container of a run."""
        return Container(capacity, self.gain)

    def network(self, capacity: int, width: int) -> nn.Module:
        """The field, with weights drawn from torch's global generator."""
        if self.how == "events":
            return EventField(self.container(capacity), width + 2, self.shape)
        if self.additive:
            return Field(width + 1, self.shape, span=0.0)
        return Field(width + 3, self.shape, span=capacity / self.gain)

    def build(self) -> Run[Pair]:
        """Open the pairs, measure their units, and put the experiment together."""
        pairs = Pairs(Path(self.pairs))
        packed = Packed(pairs, measured(pairs, self.prices), self.container(pairs.capacity))
        learnt, kept = pairs.side("train"), pairs.side("valid")[:256]
        if not len(kept):
            raise ValueError(f"{self.pairs}: no pairs to validate on; give more pairs")
        coupled = self._coupled(packed)

        def batches(number: int) -> Pair:
            index = learnt[shuffled(number, self.batch, len(learnt), self.train.seed).numpy()]
            return self._both_ways(coupled(index), seeded(self.train.seed, 1, number))

        constants = packed.calibration.tensors() | {
            "capacity": torch.tensor(pairs.capacity),
            "width": torch.tensor(pairs.width),
            "pairs": torch.tensor(pairs.fingerprint),
            **{f"{end}_origin": torch.tensor(pairs.origin(end)) for end in ENDS},
        }
        objective = self._objective(packed)

        def evaluate(model: nn.Module) -> dict[str, float]:
            device, total = next(model.parameters()).device, 0.0
            for start in range(0, len(kept), self.batch):
                pair = self._both_ways(coupled(kept[start : start + self.batch]), seeded(start)).to(device)
                with torch.random.fork_rng():
                    torch.manual_seed(start)
                    total += float(objective(model, pair).value) * len(pair)
            return {"held-out loss": total / len(kept)}

        return Run(self.network(pairs.capacity, pairs.width), objective, batches, self.train, evaluate, constants)

    def _objective(self, packed: Packed) -> Objective:
        if self.how == "events":
            return EventMatching()
        if self.how == "match":
            path = Affine(spread=constant(self.sigma) if self.sigma else None)
            return FlowMatching(path=path, times=Times(with_ends, stratified=True))
        there, home = (
            OneWay(steps=self.walk, step=euler, back=back, also=self._recognised(packed, ENDS[not back]))
            for back in (False, True)
        )
        return Weighted(there=(0.5, there), back=(0.5, home))

    def _recognised(self, packed: Packed, end: str) -> Recognised | None:
        if not self.contrast:
            return None
        learnt = packed.pairs.side("train")[torch.randperm(len(packed.pairs.side("train")), generator=seeded(0, 12))]
        strangers = means(packed.pairs, end, learnt.tolist(), entries=2**21)
        return Recognised(packed.calibration.side(end).apply(strangers), self.contrast)

    def _both_ways(self, pair: Pair, draws: torch.Generator) -> Pair:
        """Half of the rows the way back, where it is for the rows to say which way the field goes."""
        if self.how == "walk" or (self.how == "match" and self.shape.ways == 1):
            return pair
        pair = replace(pair, cond={"back": torch.rand(len(pair), generator=draws) < 0.5})
        return Branching()(pair) if self.how == "events" else pair

    def _coupled(self, packed: Packed) -> Callable[[Sequence[int] | np.ndarray], Pair]:
        """Pairs by their numbers, coupled."""
        stored = Couplings.open(Path(self.couplings), packed, self.prices) if self.couplings else None

        def coupled(numbers: Sequence[int] | np.ndarray) -> Pair:
            pair = packed(list(numbers))
            if self.epsilon:
                pair = softened(packed, self.prices, pair, self.epsilon)
            else:
                pair = reordered(pair, stored(numbers) if stored else matches(packed, self.prices, pair))
            if self.additive:
                form = Additive(packed.container)
                pair = replace(pair, x_0=form.apply(pair.x_0), x_1=form.apply(pair.x_1))
            return pair

        return coupled


HERMES = Translate(
    prices=Prices(delete=1.0, create=1.0, create_norm=0.1, turn=0.0),
    epsilon=0.05,
    gain=1.0,
    additive=True,
    how="match",
    contrast=0.0,
    shape=FieldShape(width=2048, depth=6, head=256, rank=32, mean=False, recompute=True),
    train=TrainConfig(steps=10_000, lr=5e-4, precision="bfloat16", threads=0),
)
"""The seed's configuration, of 313 M parameters: flow matching on entropic plans, positions in the content, no turns."""


def stored(opened: Opened) -> Translate:
    """The recipe of a run on disk."""
    return opened.rebuilt(Translate)


def decided(v: Velocity, end: float, gain: float) -> Velocity:
    """The velocity that leads to the same end but for existence, the last channel, which leads to 0 or to `gain`, the nearer.

    Training has only seen slots on the way to one of the two. What is in doubt would walk between, and be taken for gone. The
    clamping trick of Li et al. 2205.14217, sec. 4.4.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        found = v(x, t)
        left = (end - t)[:, None]
        bound = gain * ((x[..., -1] + left * found[..., -1]) > gain / 2)
        existence = torch.where(left == 0, found[..., -1], (bound - x[..., -1]) / left)
        return torch.cat([found[..., :-1], existence[..., None]], -1)

    return velocity


@dataclass(frozen=True)
class Translator:
    """A trained field with all that it takes to translate. It computes on `device` and returns on the CPU."""

    model: nn.Module
    container: Container
    calibration: Calibration
    recipe: Translate
    device: torch.device | str = "cpu"

    @property
    def steps(self) -> int:
        """How many steps the field was taught to take; 8 where it was not."""
        return self.recipe.walk if self.recipe.how == "walk" else 8

    def walk(
        self,
        sequences: Sequence[Float[Tensor, "_ D"]],
        *,
        back: bool = False,
        steps: int | None = None,
        step: Step = euler,
        size: int = 64,
    ) -> Float[Tensor, "B N channels"]:
        """The container states where the flow carries calibrated sequences; `back` from the target's side to the source's."""
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if self.steps == 1 and (steps > 1 or step is not euler):
            raise ValueError(
                "this field was taught to arrive in one Euler step; teach it more by `--walk 3` or `--how match`"
            )
        form = Additive(self.container) if self.recipe.additive else None
        found: list[Tensor] = []
        for start in range(0, len(sequences), size):
            x = self.container.pack(sequences[start : start + size]).to(self.device)
            if isinstance(self.model, EventField):
                with torch.no_grad():
                    found.append(live(self.model, x, steps=steps, back=back).x.cpu())
                continue
            x = form.apply(x) if form else x
            cond = {"back": torch.full((len(x),), back, device=self.device)}
            times = grid(steps, x, start=float(back), end=1.0 - float(back))
            with torch.no_grad():
                v = partial(self.model, cond=cond)
                if self.recipe.how == "match":
                    v = decided(v, 1.0 - float(back), self.container.gain)
                x = integrate(v, x, times, step=step)
            found.append((form.undo(x) if form else x).cpu())
        return torch.cat(found)

    def translate(
        self,
        sequences: Sequence[Float[Tensor, "_ D"]],
        *,
        back: bool = False,
        steps: int | None = None,
        step: Step = euler,
    ) -> list[Float[Tensor, "_ D"]]:
        """Each sequence of source vectors as target vectors, both in the data's own units."""
        start, end = ENDS[back], ENDS[not back]
        states = self.walk(
            [self.calibration.side(start).apply(x) for x in sequences], back=back, steps=steps, step=step
        )
        return [self.calibration.side(end).undo(x) for x in self.container.unpack(states)]


def translator_of(opened: Opened, *, which: str = "last", device: torch.device | str = "cpu") -> Translator:
    """The run's field with the averaged weights of checkpoint `which`."""
    recipe, constants = stored(opened), opened.constants
    capacity, width = int(constants["capacity"]), int(constants["width"])
    model = opened.weights(recipe.network(capacity, width), which=which).to(device)
    return Translator(model, recipe.container(capacity), Calibration.of(constants), recipe, device)
