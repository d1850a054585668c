"""The experiments of `translate`: a recipe says all about one in scalars."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.translate.calibrate import Calibration, Prices, measure, token_cost
from monge.apps.translate.couple import Packed, shard_path
from monge.apps.translate.field import Field
from monge.apps.translate.pair import ENDS, Pairs
from monge.math.container import Container
from monge.math.coupling import TokenOT
from monge.math.path import Affine
from monge.math.solve import euler, grid, integrate
from monge.math.times import Times, uniform
from monge.math.types import Pair
from monge.objective.flow_matching import FlowMatching
from monge.run import Opened
from monge.train.batches import seeded, shuffled
from monge.train.config import TrainConfig
from monge.train.loop import Run


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
    gain: float = 4.0
    """How much an entry of position or existence weighs against one of content."""
    width: int = 256
    depth: int = 4
    heads: int = 1
    """2 gives the way back an output layer of its own."""
    batch: int = 32
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=3000, save_every=1000, threads=0))

    def __post_init__(self) -> None:
        for name in ("width", "depth", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % 64:
            raise ValueError(f"width {self.width}: a head has 64 channels; give a multiple of 64")

    def container(self, capacity: int) -> Container:
        """The container of a run."""
        return Container(capacity, self.gain)

    def network(self, capacity: int, width: int) -> Field:
        """The field, with weights drawn from torch's global generator."""
        return Field(self.container(capacity), width, self.width, self.depth, heads=self.heads)

    def build(self) -> Run[Pair]:
        """Open the pairs, measure their units, and put the experiment together."""
        pairs = Pairs(Path(self.pairs))
        calibration = measure(pairs, seed=self.train.seed)
        packed = Packed(pairs, calibration, self.container(pairs.capacity))
        learnt, kept = pairs.side("train"), pairs.side("valid")[:256]
        if not len(kept):
            raise ValueError(f"{self.pairs}: no pairs to validate on; give more pairs")
        coupled = self._coupled(packed)

        def batches(number: int) -> Pair:
            index = learnt[shuffled(number, self.batch, len(learnt), self.train.seed).numpy()]
            pair = coupled(index)
            if self.heads == 1:
                return pair
            back = torch.rand(len(pair), generator=seeded(self.train.seed, 1, number)) < 0.5
            return replace(pair, cond={"back": back})

        path = Affine()
        model = self.network(pairs.capacity, pairs.width)
        constants = calibration.tensors() | {
            "capacity": torch.tensor(pairs.capacity),
            "width": torch.tensor(pairs.width),
        }

        def evaluate(model: nn.Module) -> dict[str, float]:
            device, total = next(model.parameters()).device, 0.0
            for start in range(0, len(kept), self.batch):
                pair = coupled(kept[start : start + self.batch]).to(device)
                t = (torch.arange(len(pair), device=device) + 0.5) / len(pair)
                t, x_t, u_t = path(pair.x_0, pair.x_1, t)
                total += float((model(x_t, t, pair.cond) - u_t).square().mean()) * len(pair)
            return {"held-out loss": total / len(kept)}

        objective = FlowMatching(path, times=Times(uniform, stratified=True))
        return Run(model, objective, batches, self.train, evaluate, constants)

    def _coupled(self, packed: Packed) -> Callable[[Sequence[int] | np.ndarray], Pair]:
        if self.couplings:
            return lambda numbers: stored_coupling(packed, Path(self.couplings), numbers)
        cost = packed.calibration.cost(self.prices)
        couple = TokenOT(lambda pair: token_cost(packed.container, cost, pair), self.epsilon)
        return lambda numbers: couple(packed(list(numbers)))


def stored_coupling(packed: Packed, directory: Path, numbers: Any, *, size: int = 512) -> Pair:
    """The pairs, with the target's slots in the order that the shards say."""
    pair = packed(list(numbers))
    rows = [np.load(shard_path(directory, int(n) // size), mmap_mode="r")[int(n) % size] for n in numbers]
    order = torch.from_numpy(np.stack(rows).astype(np.int64))
    return replace(pair, x_1=pair.x_1.gather(1, order[..., None].expand_as(pair.x_1)))


def stored(opened: Opened) -> Translate:
    """The recipe of a run on disk."""
    return opened.rebuilt(Translate)


@dataclass(frozen=True)
class Translator:
    """A trained field with all that it takes to translate. It computes on `device` and returns on the CPU."""

    model: nn.Module
    container: Container
    calibration: Calibration
    prices: Prices
    device: torch.device | str = "cpu"

    def walk(
        self, sequences: Sequence[Float[Tensor, "_ D"]], *, back: bool = False, steps: int = 8, size: int = 64
    ) -> Float[Tensor, "B N channels"]:
        """The container states where the flow carries calibrated sequences; `back` from the target's side to the source's."""
        found: list[Tensor] = []
        for start in range(0, len(sequences), size):
            x = self.container.pack(sequences[start : start + size]).to(self.device)
            cond = {"back": torch.full((len(x),), back, device=self.device)}
            times = grid(steps, x, start=float(back), end=1.0 - float(back))
            with torch.no_grad():
                x = integrate(lambda x, t, cond=cond: self.model(x, t, cond), x, times, step=euler)
            found.append(x.cpu())
        return torch.cat(found)

    def translate(
        self, sequences: Sequence[Float[Tensor, "_ D"]], *, back: bool = False, steps: int = 8
    ) -> list[Float[Tensor, "_ D"]]:
        """Each sequence of source vectors as target vectors, both in the data's own units."""
        start, end = (self.calibration.units(end) for end in (ENDS[back], ENDS[not back]))
        states = self.walk([start.apply(x) for x in sequences], back=back, steps=steps)
        return [end.undo(x) for x in self.container.unpack(states)]


def translator_of(opened: Opened, *, which: str = "last", device: torch.device | str = "cpu") -> Translator:
    """The run's field with the averaged weights of checkpoint `which`."""
    recipe, constants = stored(opened), opened.constants
    capacity, width = int(constants["capacity"]), int(constants["width"])
    model = opened.weights(recipe.network(capacity, width), which=which).to(device)
    return Translator(model, recipe.container(capacity), Calibration.of(constants), recipe.prices, device)
