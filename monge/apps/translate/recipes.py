"""The recipe of `translate`, i.e. its configuration, and the translator: a trained field with the space of its states."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from monge.apps.translate import lengths
from monge.apps.translate.base import Method
from monge.apps.translate.conditional import ConditionalMethod
from monge.apps.translate.couple import Couplings, soft_targets
from monge.apps.translate.field import FieldShape
from monge.apps.translate.held_out import LENGTH, METRICS, RANK, translation_metrics
from monge.apps.translate.lengths import LengthRidge
from monge.apps.translate.methods import METHODS
from monge.apps.translate.pair import ENDS, Pairs
from monge.apps.translate.prices import Prices
from monge.apps.translate.space import Packed, Space
from monge.math.container import Additive, Container
from monge.math.random import forked_rng, seeded
from monge.math.steps import Step, euler
from monge.math.types import Pair
from monge.runs import Opened
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.loop import Run


@dataclass(frozen=True)
class Translate:
    """A flow between sequences of vectors of different lengths, trained in both directions."""

    app: ClassVar[str] = "translate"
    relocatable: ClassVar[frozenset[str]] = frozenset({"pairs", "couplings"})

    pairs: str = "pairs"
    """Directory written by `monge translate pair`."""
    couplings: str = ""
    """Directory written by `monge translate couple`; without one, each batch is coupled in the background during training."""
    prices: Prices = field(default_factory=Prices)
    epsilon: float = 0.0
    """Entropic regularisation in units of cost; targets are barycentres of the entropic plan. 0 uses the exact assignment."""
    aux_scale: float = 12.0
    """Scale of the priority, position and existence channels relative to content."""
    additive: bool = False
    """Add positions to the content as sinusoids, as in HERMES, instead of using a separate channel."""
    sigma: float = 0.0
    """Standard deviation of Gaussian noise around the path (only with `--method flow-matching`)."""
    method: Literal["flow-walking", "flow-matching", "branching-flows", "conditional"] = "flow-walking"
    """Training method: flow-walking regresses endpoints, flow-matching regresses velocities on the straight path,
    branching-flows lets tokens split and die at random times, conditional starts from noise and sees the source."""
    walking_steps: int = 1
    """Number of flow-walking steps; 1 is direct regression of the endpoint (only with `--method flow-walking`)."""
    contrast: float | None = None
    """Weight of an InfoNCE loss on mean embeddings, 0 for none (default: 0.1, or 0 with `--additive`; not with
    `--method branching-flows`)."""
    source_condition: bool = False
    """Show the start of the flow to the field at all times (needs `--method flow-matching` and `--sigma` above 0)."""
    lengths: Literal["existence", "ridge"] = "existence"
    """Number of tokens of a translation: that of the slots with existence above one half, or the prediction of a ridge
    regression on the sum of the source's vectors and its length (not with `--method branching-flows` or `conditional`)."""
    shape: OmitArgPrefixes[FieldShape] = field(default_factory=FieldShape)
    batch_size: int = 16
    """Pairs per batch."""
    best_by: Literal["mrr", "loss", "length"] = "mrr"
    """Metric that selects the best checkpoint, and that `--patience` waits for: mean reciprocal rank (mrr) or length error
    (length) of held-out translations, or held-out loss."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(steps=3000, lr=3e-3, optimizer="muon", save_every=500, threads=0)
    )

    def __post_init__(self) -> None:
        for name in self.relocatable:  # so that they resolve from any working directory
            if path := getattr(self, name):
                object.__setattr__(self, name, str(Path(path).resolve()))
        check_at_least(self, batch_size=1)
        for name in ("epsilon", "sigma", *(() if self.contrast is None else ("contrast",))):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not self.aux_scale > 0:
            raise ValueError(f"aux_scale must be above 0, got {self.aux_scale}")
        if self.couplings and self.epsilon:
            raise ValueError("couplings on disk are exact, epsilon couples during training; use only one of them")
        self._check_options()

    def _check_options(self) -> None:
        """ValueError for an option that has no effect with this method, or that the method rejects."""
        method = self.trainer  # runs its own checks
        if self.lengths == "ridge" and not method.keeps_slots:
            raise ValueError(f"--lengths ridge has no effect with --method {self.method}; omit it")
        for name in sorted(set[str]().union(*(method.options for method in METHODS.values()))):
            value = getattr(self, name)
            if value and value != type(self).__dataclass_fields__[name].default and name not in method.options:
                others = " or ".join(other for other, kind in METHODS.items() if name in kind.options)
                raise ValueError(f"{name} {value} has no effect with --method {self.method}; use --method {others}")

    @property
    def trainer(self) -> Method:
        """The training method with its options."""
        return METHODS[self.method].of(self)

    def network(self, capacity: int, width: int) -> nn.Module:
        """The field, with weights drawn from torch's global generator."""
        return self.trainer.network(Container(capacity, self.aux_scale), width)

    def build(self) -> Run[Pair]:
        """Open the pairs, measure their units, and assemble the run."""
        pairs, method = Pairs(Path(self.pairs)), self.trainer
        packed = Packed(pairs, Space.measured(pairs, self.prices, aux_scale=self.aux_scale))
        training, held_out = pairs.split("train"), pairs.split("validation")[:256]
        if not len(held_out):
            raise ValueError(f"{self.pairs}: no validation pairs; add more pairs")
        coupled, objective = self._coupled(packed), method.objective(packed)
        regressions = lengths.fitted(pairs, packed.space) if self.lengths == "ridge" else None

        def batches(number: int) -> Pair:
            index = training[shuffled(number, self.batch_size, len(training), self.train.seed).numpy()]
            return method.prepare(coupled(index), seeded(self.train.seed, 1, number))

        def evaluate(model: nn.Module) -> dict[str, float]:
            device, total = next(model.parameters()).device, 0.0
            for start in range(0, len(held_out), self.batch_size):
                pair = method.prepare(coupled(held_out[start : start + self.batch_size]), seeded(start)).to(device)
                with forked_rng():
                    torch.manual_seed(start)
                    total += float(objective(model, pair).value) * len(pair)
            loss = total / len(held_out)
            if not math.isfinite(loss):
                return {"held-out loss": loss, **dict.fromkeys(METRICS, math.nan)}
            one = Translator(model, packed.space, self, device, lengths=regressions)
            return {"held-out loss": loss, **translation_metrics(one, pairs, held_out)}

        return Run(
            self.network(pairs.capacity, pairs.width),
            objective,
            batches,
            self.train,
            evaluate,
            constants(packed) | ({} if regressions is None else lengths.tensors(regressions)),
            best_by={"mrr": RANK, "loss": "held-out loss", "length": LENGTH}[self.best_by],
            best_mode="max" if self.best_by == "mrr" else "min",
        )

    def _coupled(self, packed: Packed) -> Callable[[Sequence[int] | np.ndarray], Pair]:
        """A function from the numbers of pairs to the coupled pairs."""
        couplings, space = Couplings.open(Path(self.couplings), packed) if self.couplings else None, packed.space
        form = Additive(space.container) if self.additive else None

        def coupled(numbers: Sequence[int] | np.ndarray) -> Pair:
            pair = packed(list(numbers))
            if self.epsilon:
                pair = soft_targets(space, pair, self.epsilon)
            else:
                transport = space.transport
                pair = transport.apply(pair, couplings(numbers) if couplings else transport.permutation(pair))
            return replace(pair, x_0=form.apply(pair.x_0), x_1=form.apply(pair.x_1)) if form else pair

        return coupled


HERMES = Translate(
    prices=Prices(delete=1.0, create=1.0, create_norm=0.1, priority=0.0, rule="quantile"),
    epsilon=0.05,
    aux_scale=1.0,
    additive=True,
    method="flow-matching",
    contrast=0.0,
    shape=FieldShape(width=2048, depth=6, head_width=256, rank=32, mean_skip=False, recompute=True),
    train=TrainConfig(steps=10_000, lr=5e-4, precision="bfloat16", threads=0),
)
"""The configuration of the original HERMES, but with calibrated prices: flow matching on entropic plans, additive positions."""


def constants(packed: Packed) -> dict[str, Tensor]:
    """The constants that the data determine, stored with a run."""
    pairs = packed.pairs
    return packed.space.calibration.tensors() | {
        "capacity": torch.tensor(pairs.capacity),
        "width": torch.tensor(pairs.width),
        "pairs": torch.tensor(pairs.fingerprint),
        **{f"{end}_origin": torch.tensor(pairs.origin(end)) for end in ENDS},
    }


def stored_recipe(opened: Opened) -> Translate:
    """The recipe of a run on disk."""
    return opened.rebuilt(Translate)


@dataclass(frozen=True)
class Translator:
    """A trained field and the space of its states. It computes on `device` and returns results on the CPU."""

    model: nn.Module
    space: Space
    recipe: Translate
    device: torch.device | str = "cpu"
    seed: int = 0
    """Seed of the noise that a flow from noise starts with."""
    lengths: tuple[LengthRidge, LengthRidge] | None = None
    """Regressions of the lengths, forward and reverse; None if existence decides."""

    @property
    def method(self) -> Method:
        """The training method of the recipe, with this seed."""
        method = self.recipe.trainer
        return replace(method, seed=self.seed) if isinstance(method, ConditionalMethod) else method

    @property
    def steps(self) -> int:
        """Default number of solver steps: the number used in training, or that of the method if training fixes none."""
        return self.recipe.trainer.solver_steps

    def integrate(
        self,
        sequences: Sequence[Float[Tensor, "_ D"]],
        *,
        reverse: bool = False,
        steps: int | None = None,
        step: Step = euler,
        size: int = 64,
    ) -> Float[Tensor, "B N channels"]:
        """Integrate calibrated sequences, `size` at a time, to states on the other side; `reverse` starts at the target.

        ValueError if `steps` is below 1, if the training method does not support `steps` or `step`, or if a sequence has more
        vectors than the container's capacity.
        """
        steps = self.steps if steps is None else steps
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        container, method = self.space.container, self.method
        form = Additive(container) if self.recipe.additive else None
        ends: list[Tensor] = []
        for start in range(0, len(sequences), size):
            x = container.pack(sequences[start : start + size]).to(self.device)
            x = form.apply(x) if form else x
            with torch.no_grad():
                x = method.transport(self.model, container, x, reverse=reverse, steps=steps, step=step)
            ends.append((form.undo(x) if form else x).cpu())
        return torch.cat(ends)

    def unpack(
        self, sources: Sequence[Float[Tensor, "_ D"]], states: Float[Tensor, "B N channels"], *, reverse: bool = False
    ) -> list[Float[Tensor, "_ D"]]:
        """The calibrated sequences that the states hold, to which these calibrated sources were integrated."""
        counts = None if self.lengths is None else self.lengths[reverse].of_sequences(sources)
        return self.space.container.unpack(states, counts)

    def carry(
        self, sequences: Sequence[Float[Tensor, "_ D"]], *, reverse: bool = False, **solver: Any
    ) -> list[Float[Tensor, "_ D"]]:
        """Translate calibrated sequences to calibrated ones on the other side; `reverse` and `solver` as in `integrate`."""
        return self.unpack(sequences, self.integrate(sequences, reverse=reverse, **solver), reverse=reverse)

    def translate(
        self, sequences: Sequence[Float[Tensor, "_ D"]], *, reverse: bool = False, **solver: Any
    ) -> list[Float[Tensor, "_ D"]]:
        """Translate sequences to the other side, in the units of the data; `reverse` and `solver` as in `integrate`."""
        before, after = (self.space.calibration.side(end) for end in (ENDS[reverse], ENDS[not reverse]))
        return [after.undo(x) for x in self.carry([before.apply(x) for x in sequences], reverse=reverse, **solver)]


def translator_of(opened: Opened, *, which: str = "last", device: torch.device | str = "cpu") -> Translator:
    """The run's translator, with the weights (EMA, if there is one) of checkpoint `which`: last, best, or a step number."""
    recipe = stored_recipe(opened)
    space = Space.from_constants(opened.constants, recipe.prices, aux_scale=recipe.aux_scale)
    model = recipe.network(space.container.capacity, int(opened.constants["width"]))
    regressions = lengths.of_constants(opened.constants)
    return Translator(opened.weights(model, which=which).to(device), space, recipe, device, lengths=regressions)
