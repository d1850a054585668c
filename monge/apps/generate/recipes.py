"""The experiments of `generate`: a recipe says all about one in scalars."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from monge.apps.generate.data import Dataset, dealt_labels, load
from monge.apps.generate.pairs import NoisePairs, StoredPairs, held_out_loss, held_out_pairs
from monge.apps.generate.sample import Generator
from monge.apps.generate.toys import TOYS
from monge.math.cost import Units
from monge.math.coupling import Coupling, MinibatchOT, SemidiscreteOT, given
from monge.math.path import Affine, linear, trigonometric
from monge.math.random import seeded
from monge.math.semidiscrete import semidiscrete
from monge.math.times import Times, logit_normal, uniform
from monge.math.types import Pair
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiTShape, Patches
from monge.nets.mlp import MLP
from monge.nets.prediction import PredictsSource, PredictsTarget
from monge.objective.flow_matching import FlowMatching
from monge.run import fingerprint
from monge.runs import Opened, reopen
from monge.train.config import TrainConfig
from monge.train.distributed import device_called
from monge.train.loop import Run

PATHS = {"linear": Affine(linear), "trigonometric": Affine(trigonometric)}
TIMES = {"uniform": Times(uniform, stratified=True), "logit-normal": Times(logit_normal(), stratified=True)}


@dataclass(frozen=True)
class Generate:
    """Learn to turn noise into data."""

    app: ClassVar[str] = "generate"

    data: str = "digits"
    """digits; gaussians, moons, checkerboard, circles, spirals; or a path: image folder, .npy, .npz, .parquet."""
    network: Literal["mlp", "dit"] = "mlp"
    """dit is for images only."""
    width: int = 256
    depth: int = 4
    patch: int = 2
    """Side of an image patch of the dit, in pixels."""
    conditional: bool = True
    """Use the labels, if the data have any."""
    path: Literal["linear", "trigonometric"] = "linear"
    predicts: Literal["velocity", "target", "source"] = "velocity"
    """What the network's output means; the loss is the velocity's, for source (the noise) weighted to be the noise's."""
    times: Literal["uniform", "logit-normal"] = "uniform"
    coupling: Literal["independent", "ot", "ot-across", "entropic", "semidiscrete"] = "ot"
    """ot is exact, within each class where there are classes; ot-across ignores them."""
    ot_factor: int = 1
    """Batches that are coupled together."""
    ot_warm: bool = False
    """Start each exact OT from semidiscrete potentials, fitted once: the same pairs, sooner where batches are large."""
    ot_after: int = 0
    """Batches that are left as they come before OT begins."""
    batch: int = 128
    reflow: str = ""
    """A run directory: learn its flow's own pairs instead of the data. The command `reflow` fills this in."""
    reflow_pairs: int = 10_000
    """Pairs drawn of that flow; a tenth as many are held out."""
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=3000, save_every=500, milestones=(500,)))

    def __post_init__(self) -> None:
        for name in ("width", "depth", "patch", "batch", "ot_factor", "reflow_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.ot_after < 0:
            raise ValueError(f"ot_after must not be negative, got {self.ot_after}")
        if self.ot_warm and self.coupling not in ("ot", "ot-across"):
            raise ValueError(f"ot_warm starts exact OT, not coupling {self.coupling!r}; leave it out")

    def network_for(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network, with weights drawn from torch's global generator."""
        if self.network == "dit":
            if len(shape) != 3:
                raise ValueError(f"network dit is for images, the data are of shape {shape}; use --network mlp")
            heads = max(1, self.width // 64)
            if self.width % (4 * heads):
                raise ValueError(
                    f"width {self.width}: a dit has a head for each 64 channels; give a multiple of 64, or of 4 below 128"
                )
            channels, rows, columns = shape
            block = DiTShape(BlockShape(self.width, heads), self.depth)
            net: nn.Module = Patches((channels, rows, columns), self.patch, block, classes=classes)
        else:
            octaves = 4 if len(shape) == 1 and shape[0] <= 4 else 0
            net = MLP(shape, self.width, self.depth, classes=classes, octaves=octaves)
        if self.predicts == "velocity":
            return net
        wrapper = PredictsTarget if self.predicts == "target" else PredictsSource
        return wrapper(net, PATHS[self.path])

    def build(self) -> Run[Pair]:
        """Read the data, fit what is fitted once, and put the experiment together."""
        everything = load(self.data)
        data = everything if self.conditional else replace(everything, labels=None)
        units = data.units()
        training, held_out = data.split()
        x = _normalised(training, units)
        path = PATHS[self.path]
        # an error of the predicted noise is 1 / beta times as large in the velocity, without bound near t = 0
        weight = (lambda t: path.rates(t)[0][1].square()) if self.predicts == "source" else None
        objective = FlowMatching(path=path, times=TIMES[self.times], weight=weight)
        model = self.network_for(data.shape, data.classes)
        constants = {
            "centre": units.centre,
            "scale": units.scale,
            "shape": torch.tensor(data.shape),
            "classes": torch.tensor(data.classes),
            "levels": torch.tensor(data.levels or 0.0),
            "data": data_fingerprint(everything),
        }
        if self.reflow:
            device = device_called(self.train.device)
            opened = reopen(Path(self.reflow), app=self.app)
            teacher = generator_of(opened, device=device)
            constants["teacher"] = fingerprint(*teacher.model.state_dict().values())
            if stored(opened).path == self.path:  # the student starts where the teacher ended
                model.load_state_dict(teacher.model.state_dict())
            count = self.reflow_pairs + -(-self.reflow_pairs // 10)
            pairs = teacher.pairs(
                dealt_labels(data, count, self.train.seed), count, generator=seeded(self.train.seed, 5)
            )
            learnt, validation = pairs.rows(slice(self.reflow_pairs)), pairs.rows(slice(self.reflow_pairs, None))
            batches: Any = StoredPairs(learnt, self.batch, classes=data.classes, seed=self.train.seed)
        else:
            coupling = self._coupling(x, training, constants)
            batches = NoisePairs(
                x,
                training.labels,
                self.batch,
                coupling,
                factor=self.ot_factor,
                after=self.ot_after,
                classes=data.classes,
                seed=self.train.seed,
            )
            validation = held_out_pairs(
                _normalised(held_out, units), held_out.labels, self._held_out_coupling(coupling)
            )

        def evaluate(model: nn.Module) -> dict[str, float]:
            device = next(model.parameters()).device

            def loss(pair: Pair, t: Tensor) -> Tensor:
                pair = pair.to(device)
                t, x_t, u_t = path(pair.x_0, pair.x_1, t.to(device))
                return (model(x_t, t, pair.cond) - u_t).square().mean()

            return {"held-out loss": held_out_loss(validation, loss)}

        return Run(model, objective, batches, self.train, evaluate, constants)

    def _held_out_coupling(self, coupling: Coupling) -> Coupling:
        """The run's coupling for data that it did not see: semidiscrete potentials are of the training data alone."""
        if isinstance(coupling, SemidiscreteOT):
            return MinibatchOT(condition=coupling.condition)
        if isinstance(coupling, MinibatchOT):
            return replace(coupling, potentials=None)
        return coupling

    def _coupling(self, x: Tensor, training: Dataset, constants: dict[str, Tensor]) -> Coupling:
        label = "label" if training.labels is not None else None
        if self.coupling == "independent":
            return given
        if self.coupling == "entropic":
            return MinibatchOT(epsilon=0.05, condition=label)
        if self.coupling == "ot-across":
            label = None
        if self.coupling != "semidiscrete" and not self.ot_warm:
            return MinibatchOT(condition=label)
        generator = seeded(self.train.seed, 2)
        potentials, error = semidiscrete(
            lambda n: torch.randn(n, x[0].numel(), generator=generator),
            x.flatten(1),
            groups=None if label is None else training.labels,
            generator=generator,
        )
        constants |= {"potentials": potentials, "potentials_error": torch.tensor(error)}
        if self.coupling != "semidiscrete":
            return MinibatchOT(condition=label, potentials=potentials)
        cond = {"index": torch.arange(len(x))} | ({} if training.labels is None else {"label": training.labels})
        return SemidiscreteOT(Pair(x, x, cond=cond), potentials, condition=label)


def stored(opened: Opened) -> Generate:
    """The recipe of a run on disk."""
    return opened.rebuilt(Generate)


def generator_of(
    opened: Opened, *, which: str = "last", weak: str | None = None, device: torch.device | str = "cpu"
) -> Generator:
    """The run's network with the averaged weights of checkpoint `which`; `weak` names an early one for autoguidance."""
    recipe, constants = stored(opened), opened.constants
    missing = {"shape", "classes", "centre", "scale", "levels"} - constants.keys()
    if missing:
        raise ValueError(f"{opened.directory}: its constants lack {', '.join(sorted(missing))}; restore the file")
    shape, classes = tuple(constants["shape"].tolist()), int(constants["classes"])
    units = Units(constants["centre"], constants["scale"])

    def network(name: str) -> nn.Module:
        return opened.weights(recipe.network_for(shape, classes), which=name).to(device)

    early, levels = None if weak is None else network(weak), float(constants["levels"])
    return Generator(network(which), PATHS[recipe.path], units, shape, classes, levels, early, device)


def data_fingerprint(data: Dataset) -> Tensor:
    """One number for the items and labels of a data set; the toys, whose last bits are the processor's, go by their name."""
    if data.name in TOYS:
        return fingerprint(torch.tensor(list(data.name.encode())))
    return fingerprint(data.x, *([] if data.labels is None else [data.labels]))


def _normalised(data: Dataset, units: Units) -> Tensor:
    return units.apply(data.x.flatten(1)).reshape(data.x.shape)
