"""The recipe of a flow that replaces layers [start, end) of a causal language model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from monge.apps.compress.affine import AffineMap, Moments
from monge.apps.compress.corpus import DOCUMENTATION, Corpus, corpus
from monge.apps.compress.estimator import Estimator, average, estimator_of, randomise
from monge.apps.compress.evaluate import quality
from monge.apps.compress.graft import FlowSolver
from monge.apps.compress.objectives import (
    EndpointError,
    LogitDivergence,
    OnTeacher,
    Sequences,
    Stages,
    WaypointMatching,
)
from monge.apps.compress.states import States
from monge.apps.compress.teacher import NOTHING, Teacher
from monge.lm.load import LanguageModel, causal
from monge.math.solve import integrate
from monge.math.solvers import solver
from monge.math.types import Pair
from monge.objective.base import Objective, Weighted
from monge.objective.flow_matching import FlowMatching
from monge.objective.flow_walking import FlowWalking
from monge.objective.frozen import Frozen
from monge.objective.mean_flow import MeanFlow, average_velocity
from monge.run import fingerprint
from monge.runs import Opened
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.distributed import world_size
from monge.training.loop import Run


@dataclass(frozen=True)
class Compress:
    """A flow layer in place of layers [start, end) of a causal language model."""

    app: ClassVar[str] = "compress"
    relocatable: ClassVar[frozenset[str]] = frozenset({"teacher", "data", "states"})

    teacher: str = "smollm2-135m"
    """Causal language model: a directory, a GGUF file, a packaged model such as smollm2-135m, or a name on the hub."""
    data: str = str(DOCUMENTATION)
    """Text file, or folder of .txt, .md and .rst files."""
    states: str = ""
    """Directory of the teacher's states, written by `monge compress states`; computed during training by default."""
    start: int = 9
    """First layer to replace, counted from 0."""
    end: int = 19
    """Layer after the last one to replace."""
    method: Literal["kl", "sfm", "fw", "hybrid", "meanflow", "regress"] = "kl"
    """Loss: divergence of the logits (kl), flow matching (sfm), flow walking (fw), both (hybrid), average velocity (meanflow),
    last state (regress)."""
    then: Literal["kl"] | None = None
    """Loss of a second stage, which begins after --then-after steps; None for a single stage."""
    then_after: int = 0
    """Number of steps before the second stage."""
    flow_steps: int = 1
    """Solver steps from the first to the last state, in training (except sfm and meanflow) and at inference."""
    solver: FlowSolver = "euler"
    """Solver of the flow, in training (except sfm and meanflow) and at inference."""
    match_weight: float = 0.01
    """Weight of the flow matching loss in --method hybrid."""
    parts: Literal["both", "map", "layer"] = "both"
    """Parts of the velocity: an affine map plus a transformer layer, or one of them alone."""
    layers: int = 1
    """Number of transformer layers, each for its share of the flow; they are copies of evenly spaced replaced layers."""
    waypoints: bool = False
    """In --method sfm, follow the teacher's states between the replaced layers instead of a straight line."""
    scale_dimensions: bool = False
    """Divide each dimension by its root mean square displacement in the losses on states (all but kl)."""
    init: Literal["map", "joint", "layer", "average", "random"] = "map"
    """Start: the least-squares map with closed gates (map); least squares over the map and the output projections of one layer
    (joint); or a zero map, with copies of the replaced layers, their average, or random weights."""
    rank: int | None = 16
    """Rank of the time modulation; None for full matrices."""
    ridge: float = 1e-3
    """Ridge penalty of the least-squares map, relative to the variance of each dimension."""
    map_sequences: int = 120
    """Number of sequences for the least-squares map."""
    length: int = 256
    """Length of a sequence in tokens."""
    batch_size: int = 4
    """Number of sequences per batch."""
    eval_sequences: int = 16
    """Number of held-out sequences in each evaluation during training."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(
            steps=300,
            lr=1.5e-3,
            warmup_steps=20,
            save_every=100,
            log_every=10,
            ema_width=0.0,
            threads=0,
        )
    )

    def __post_init__(self) -> None:
        for name in ("data", "states"):
            if path := getattr(self, name):
                object.__setattr__(self, name, str(Path(path).resolve()))
        check_at_least(self, flow_steps=1, layers=1, map_sequences=1, length=2, batch_size=1, eval_sequences=1)
        if (self.then is None) != (self.then_after == 0) or not 0 <= self.then_after < self.train.steps:
            raise ValueError(
                f"--then {self.then} --then-after {self.then_after}: give both, with --then-after from 1 to below --steps"
            )
        if self.waypoints and self.method != "sfm":
            raise ValueError(f"--waypoints has no effect with --method {self.method}; use --method sfm")
        if self.scale_dimensions and self.method == "kl":
            raise ValueError("--scale-dimensions has no effect with --method kl; leave it out")
        if self.init in ("map", "joint") and self.parts == "layer":
            raise ValueError("--parts layer has no map to start from; give --init layer, average or random")
        if self.init != "map" and self.parts == "map":
            raise ValueError(f"--init {self.init} starts from layers, but --parts map has none; give --init map")
        if self.method == "meanflow" and self.solver != "euler":
            raise ValueError(
                f"--method meanflow learns Euler steps, but --solver is {self.solver}; give --solver euler"
            )
        if self.init == "joint" and self.layers > 1:
            raise ValueError(f"--init joint fits one layer, but --layers is {self.layers}; give --init map")
        if self.layers > self.flow_steps:
            raise ValueError(f"--layers {self.layers} needs as many steps; give --flow-steps {self.layers} or more")
        if self.layers > 1 and self.solver not in ("euler", "midpoint"):
            raise ValueError(
                f"--solver {self.solver} mixes evaluations of several layers in a step; use euler or midpoint"
            )
        if self.layers > 1 and self.method not in ("kl", "regress"):
            raise ValueError(
                f"--method {self.method} draws times per sequence; several --layers need --method kl or regress"
            )
        if not self.ridge >= 0:
            raise ValueError(f"ridge must not be negative, got {self.ridge}")

    def build(self) -> Run[Sequences]:
        """Load the teacher, read the text, solve for the map, and assemble the run."""
        prepared = Prepared(self)
        teacher, texts, states = prepared.teacher, prepared.texts, prepared.states
        training = texts.training if states is None else texts.training[: len(states)]
        estimator = self.network(prepared.language_model.model)
        moments = prepared.moments(estimator.features) if self.init == "joint" else prepared.moments()
        displacement = moments.first(estimator.width)
        affine, scale = displacement.solve(ridge=self.ridge), 1 / displacement.spread().clamp_min(1e-6)
        self._initialise(estimator, prepared.language_model.model, affine, moments)
        frozen = Frozen(teacher)

        def batches(number: int) -> Sequences:
            rows = shuffled(number, self.batch_size, len(training), self.train.seed)
            known = NOTHING if states is None else states.read(rows.tolist())
            step = number // (self.train.gradient_accumulation * world_size())
            return Sequences(training[rows], int(self.then is not None and step >= self.then_after), known)

        def evaluate(model: nn.Module) -> dict[str, float]:
            held_out = texts.held_out[-self.eval_sequences :]  # `monge compress evaluate` takes the first ones
            result = quality(teacher, held_out, self.student(model), size=self.batch_size)
            return {"held-out loss": result.kl, "perplexity": result.perplexity, "displacement error": result.error}

        chosen = scale if self.scale_dimensions else None
        objective = Stages(*(self._loss(method, frozen, chosen) for method in (self.method, self.then or "kl")))
        constants = {
            "teacher": torch.tensor(prepared.identity()),
            "texts": fingerprint(training),
            "map.matrix": affine.matrix,
            "map.bias": affine.bias,
            "scale": scale,
        }
        return Run(estimator, objective, batches, self.train, evaluate, constants)

    def network(self, model: nn.Module) -> Estimator:
        """The estimator with copies of replaced layers; the rest is drawn from torch's global generator."""
        count = 0 if self.parts == "map" else self.layers
        layers = [self.start + number * (self.end - self.start) // count for number in range(count)]
        parallel = True if self.init == "joint" else None
        options = {"rank": self.rank, "affine": self.parts != "layer", "parallel": parallel}
        options |= {"durations": self.method == "meanflow"}
        return estimator_of(model, self.start, self.end, layers=layers, **options).requires_grad_(True)

    def _initialise(self, estimator: Estimator, model: nn.Module, affine: AffineMap, moments: Moments) -> None:
        if self.init == "map":
            estimator.start_from(affine)
        if self.init == "joint":
            estimator.start_from_features(moments.solve(ridge=self.ridge))
        for block in estimator.blocks:
            if self.init == "average":
                average(model, self.start, self.end, block.layer)
            if self.init == "random":
                randomise(block.layer)

    @property
    def single_pass(self) -> bool:
        """True if each layer of the flow is evaluated once, in an Euler step, so that `Estimator.merge` is exact."""
        return (self.solver, self.flow_steps) == ("euler", 1 if self.parts == "map" else self.layers)

    def student(self, model: Any) -> Any:
        """The function from x_0 to x_1 at the recipe's steps and solver."""

        def end(x_0: Tensor) -> Tensor:
            field = average_velocity(model, {"start": x_0}, self.flow_steps)
            return integrate(field, x_0, steps=self.flow_steps, step=self.solver)

        return end

    def _loss(self, method: str, teacher: Frozen, scale: Tensor | None) -> Objective:
        if method == "sfm" and self.waypoints:
            return WaypointMatching(teacher, scale=scale)
        walk = FlowWalking(steps=self.flow_steps, step=solver(self.solver))
        match method:
            case "kl":
                return OnTeacher(teacher, LogitDivergence(teacher, steps=self.flow_steps, solver=self.solver))
            case "sfm":
                loss = FlowMatching()
            case "fw":
                loss = walk
            case "hybrid":
                loss = Weighted(walk=(1.0, walk), match=(self.match_weight, FlowMatching()))
            case "meanflow":
                loss = MeanFlow()
            case _:
                loss = EndpointError(steps=self.flow_steps, solver=self.solver)
        return OnTeacher(teacher, loss, scale=scale)


@dataclass
class Prepared:
    """The teacher and the texts of a recipe."""

    recipe: Compress

    @cached_property
    def language_model(self) -> LanguageModel:
        """The teacher with its tokenizer."""
        return causal(self.recipe.teacher)

    def identity(self) -> int:
        """A hash of the teacher's weights."""
        return int(self.language_model.fingerprint()["weights"], 16) >> 1

    @cached_property
    def teacher(self) -> Teacher:
        """The frozen teacher around the replaced layers."""
        return Teacher(self.language_model.model, self.recipe.start, self.recipe.end)

    @cached_property
    def texts(self) -> Corpus:
        """The tokenised text."""
        return corpus(Path(self.recipe.data), self.language_model.tokenizer, self.recipe.length)

    @cached_property
    def states(self) -> States | None:
        """The stored states, if the recipe names any."""
        recipe = self.recipe
        if not recipe.states:
            return None
        needed = range(recipe.start, recipe.end + 1) if recipe.waypoints else (recipe.start, recipe.end)
        return States.open(Path(recipe.states), self.language_model, self.texts.training, needed)

    def pairs(self) -> Iterator[Pair]:
        """Yields states of the sequences for the least-squares map."""
        recipe, states = self.recipe, self.states
        count = min(recipe.map_sequences, len(self.texts.training if states is None else states))
        for rows in torch.arange(count).split(recipe.batch_size):
            known = NOTHING if states is None else states.read(rows.tolist())
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.train.precision == "bfloat16"):
                pair = self.teacher.pair(self.texts.training[rows], known)
            yield pair

    @torch.no_grad()
    def moments(self, features: Callable[[Tensor], Tensor] = lambda x_0: x_0) -> Moments:
        """Sums over the states that `pairs` yields, for the least-squares map from features of a state to its displacement."""
        moments = Moments()
        for pair in self.pairs():
            moments.add(features(pair.x_0)[pair.mask], (pair.x_1 - pair.x_0)[pair.mask])
        return moments


def opened_student(opened: Opened, *, which: str = "best") -> tuple[Compress, Prepared, Estimator]:
    """The recipe of a run, its teacher and texts, and its trained estimator."""
    recipe = opened.rebuilt(Compress)
    prepared = Prepared(recipe)
    estimator = recipe.network(prepared.language_model.model)
    if prepared.identity() != int(opened.constants["teacher"]):
        raise ValueError(f"{opened.directory}: {recipe.teacher} has other weights than the teacher in training")
    opened.weights(estimator, which=which)
    return recipe, prepared, estimator.eval()
