"""Recipes of `monge generate`: settings that describe an experiment and build its run, and functions that reopen a run."""

from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from monge.apps.generate.couplings import couplings
from monge.apps.generate.data import absolute_source, load
from monge.apps.generate.dataset import Layout
from monge.apps.generate.encoders import encoder_of
from monge.apps.generate.images import Range
from monge.apps.generate.pairs import NoisePairs, StoredPairs, ending, held_out_pairs, on_path, teacher_pairs
from monge.apps.generate.prepared import STORED, Prepared, held_out_evaluation
from monge.apps.generate.sample import Generator
from monge.math.cost import Units
from monge.math.path import Affine, linear, trigonometric
from monge.math.times import Quantile, Times, logit_normal, uniform
from monge.math.types import Pair
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiTShape, Patches
from monge.nets.mlp import MLP
from monge.nets.prediction import PredictsSource, PredictsTarget
from monge.objective.alignment import Alignment, CachedTargets, HiddenLoss, WithTargets, schedule
from monge.objective.flow_matching import FlowMatching
from monge.objective.self_supervised import Dispersive, SelfAlignment
from monge.run import fingerprint
from monge.runs import Opened, reopen
from monge.training.config import TrainConfig, check_at_least
from monge.training.distributed import device_named
from monge.training.loop import Run

PATHS = {"linear": Affine(linear), "trigonometric": Affine(trigonometric)}
WITHOUT_ENCODER = ("self", "dispersive")


@dataclass(frozen=True)
class Settings:
    """The data, the network and the loss: the settings that all recipes share."""

    app: ClassVar[str] = "generate"
    relocatable: ClassVar[frozenset[str]] = frozenset({"data"})

    data: str = "digits"
    """Data set: digits, gaussians, moons, checkerboard, circles, spirals, or the path of an image folder, .npy, .npz, .parquet
    or .csv file."""
    data_range: Range = "auto"
    """Value range of image arrays, to which samples are clipped. auto reads whole numbers in 0..255 as pixels, fractions in
    0..1 or -1..1 with 1, 3 or 4 channels as images of that range, and other floats, such as latents, as unbounded."""
    network: Literal["mlp", "dit"] = "mlp"
    """Network architecture; dit is for images and latents only."""
    width: int = 256
    """Number of hidden channels of the network."""
    depth: int = 4
    """Number of residual blocks."""
    patch: int = 2
    """Side of the dit's image patches in pixels."""
    conditional: bool = True
    """Condition the flow on class labels, if the data have any."""
    path: Literal["linear", "trigonometric"] = "linear"
    """Interpolation path between noise and data."""
    predicts: Literal["velocity", "target", "source"] = "velocity"
    """Quantity that the network predicts: the velocity, the data (target) or the noise (source). The loss is on
    the velocity, except for source, where it is on the noise."""
    times: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of the flow time t in training."""
    times_std: float = 1.0
    """Standard deviation of the normal variable whose sigmoid is t, for logit-normal times."""
    batch_size: int = 128
    """Number of examples per batch."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", absolute_source(self.data))
        check_at_least(self, width=1, depth=1, patch=1, batch_size=1)
        if not 0 < self.times_std < float("inf"):
            raise ValueError(f"times_std must be positive and finite, got {self.times_std}")
        if self.times_std != 1 and self.times != "logit-normal":
            raise ValueError(f"times_std {self.times_std}: --times-std needs --times logit-normal")

    def network_for(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        """The network, with weights drawn from torch's global generator. ValueError if a dit does not fit the shape."""
        net = self._transformer(shape, classes) if self.network == "dit" else self._perceptron(shape, classes)
        if self.predicts == "velocity":
            return net
        wrapper = PredictsTarget if self.predicts == "target" else PredictsSource
        return wrapper(net, PATHS[self.path])

    def _perceptron(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        octaves = 4 if len(shape) == 1 and shape[0] <= 4 else 0
        return MLP(shape, self.width, self.depth, classes=classes, octaves=octaves)

    def _transformer(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 3:
            raise ValueError(f"network dit is for images, but the data have shape {shape}; use --network mlp")
        heads = max(1, self.width // 64)
        if self.width % (4 * heads):
            raise ValueError(
                f"width {self.width}: a dit has one head per 64 channels; give a multiple of 64, or of 4 below 128"
            )
        channels, rows, columns = shape
        block = DiTShape(BlockShape(self.width, heads), self.depth)
        return Patches((channels, rows, columns), self.patch, block, classes=classes)

    def prepared(self) -> Prepared:
        """The data, read, checked and split."""
        return Prepared.of(load(self.data, data_range=self.data_range), conditional=self.conditional)

    def quantile(self) -> Quantile:
        """The quantile function of the training times."""
        return uniform if self.times == "uniform" else logit_normal(std=self.times_std)

    def objective(self, align: HiddenLoss | None = None) -> FlowMatching:
        """The flow-matching loss on the velocity, weighted by beta^2 if the network predicts the source."""
        path = PATHS[self.path]
        # the error of the velocity is proportional to that of the noise over beta, and beta vanishes at t = 0
        weight = (lambda t: path.rates(t)[0][1].square()) if self.predicts == "source" else None
        return FlowMatching(path=path, times=Times(self.quantile(), stratified=True), weight=weight, align=align)


@dataclass(frozen=True)
class Generate(Settings):
    """Train a flow from noise to data."""

    relocatable: ClassVar[frozenset[str]] = Settings.relocatable | {"align"}

    coupling: Literal["independent", "ot", "ot-across", "entropic", "semidiscrete"] = "ot"
    """Coupling of noise and data: independent, exact OT of each batch (ot), entropic OT of each batch, or semidiscrete OT to
    all training data. OT is within each class if there are classes; ot-across is exact OT that ignores them."""
    ot_factor: int = 1
    """Number of consecutive batches to couple together, as one large batch."""
    ot_warm: bool = False
    """Start exact OT from semidiscrete potentials, which are fitted once. The pairs are the same; large batches are faster."""
    ot_after: int = 0
    """Number of initial batches to leave uncoupled, rounded up to a multiple of ot_factor."""
    align: str = "none"
    """Loss on a hidden state of a dit: none, the run directory of an encoder from `monge generate pretrain` (REPA), self for
    the last block of an EMA teacher at a later time (SRA), or dispersive."""
    align_layer: int = 2
    """Block whose output is aligned, counted from 1."""
    align_weight: float = 0.5
    """Weight of the alignment loss."""
    align_spatial: bool = False
    """Normalise the encoder's features over the patches of each image and project by a 3 x 3 convolution, as in iREPA."""
    align_times: Literal["all", "noisy", "clean"] = "all"
    """Weight of the alignment by t: equal (all), or proportional to 1 - t (noisy) or t (clean), with mean 1."""
    align_until: int = 0
    """Number of training batches after which the alignment ends (HASTE); 0 keeps it."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(steps=3000, save_every=500, milestones=(500,))
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, ot_factor=1)
        if self.ot_after < 0:
            raise ValueError(f"ot_after must not be negative, got {self.ot_after}")
        if self.ot_warm and self.coupling not in ("ot", "ot-across"):
            raise ValueError(f"ot_warm starts exact OT, but the coupling is {self.coupling!r}; leave it out")
        if self.align not in ("none", *WITHOUT_ENCODER):
            object.__setattr__(self, "align", str(Path(self.align).resolve()))
        if self.align != "none" and self.network != "dit":
            raise ValueError(f"network {self.network}: --align needs --network dit")
        if self.align != "none" and self.train.compile:
            raise ValueError("--compile has no effect on hidden states, which --align needs; leave it out")
        if self.align != "none" and not 1 <= self.align_layer <= self.depth:
            raise ValueError(f"align_layer {self.align_layer}: the network has {self.depth} blocks")
        if not 0 <= self.align_weight < float("inf") or self.align_until < 0:
            given = f"{self.align_weight}, {self.align_until}"
            raise ValueError(f"align_weight and align_until must be finite and not negative, got {given}")
        if (self.align_spatial or self.align_times != "all") and self.align in ("none", *WITHOUT_ENCODER):
            raise ValueError(f"--align {self.align}: --align-spatial and --align-times need an encoder")
        if self.align_until and self.align == "none":
            raise ValueError("--align-until has no effect without --align; leave it out")

    def build(self) -> Run[Pair]:
        """Read the data, fit the coupling, and assemble the run."""
        prepared = self.prepared()
        data, labels, (x, x_held_out) = prepared.data, prepared.training.labels, prepared.normalised()
        model = self.network_for(data.shape, data.classes)
        pairing = couplings(self.coupling, x, labels, warm=self.ot_warm, seed=self.train.seed)
        batches = NoisePairs(
            x,
            labels,
            self.batch_size,
            pairing.training,
            factor=self.ot_factor,
            after=self.ot_after,
            classes=data.classes,
            seed=self.train.seed,
        )
        evaluate = held_out_evaluation(
            held_out_pairs(x_held_out, prepared.held_out.labels, pairing.held_out), PATHS[self.path]
        )
        align, encoder = self.alignment(model, prepared)
        constants = prepared.constants | pairing.constants | encoder
        if align is not None and self.align_until:
            align, batches = WithTargets(align, "index"), ending(batches, self.align_until)
        return Run(model, self.objective(align), batches, self.train, evaluate, constants)

    def alignment(self, model: nn.Module, prepared: Prepared) -> tuple[HiddenLoss | None, dict[str, Tensor]]:
        """(loss on a hidden state or None, a constant of the run that identifies its encoder)."""
        layer, weight, hidden = self.align_layer, self.align_weight, 2 * self.width
        named = {"encoder": fingerprint(torch.tensor(list(self.align.encode())))}
        if self.align == "none":
            return None, {}
        if self.align == "dispersive":
            return Dispersive(layer=layer, weight=weight), named
        if self.align == "self":
            later = partial(on_path, PATHS[self.path])
            shape: dict[str, Any] = {"layer": layer, "teacher_layer": self.depth, "width": self.width, "hidden": hidden}
            return SelfAlignment(model, weight=weight, later=later, **shape), named
        encoder = encoder_of(Path(self.align), prepared.constants["data"]).to(device_named(self.train.device))
        targets = CachedTargets(encoder.tokens(prepared.normalised()[0], self.patch))
        _, *sides = prepared.data.shape
        grid = tuple(side // self.patch for side in sides) if self.align_spatial else None
        options: dict[str, Any] = {"weight": weight, "hidden": hidden, "spatial": self.align_spatial, "grid": grid}
        options["schedule"] = schedule(self.align_times, self.quantile())
        align = Alignment(targets, layer=layer, width=self.width, features=encoder.enter.out_channels, **options)
        return align, {"encoder": fingerprint(*encoder.cpu().state_dict().values())}


@dataclass(frozen=True)
class Reflow(Settings):
    """Train a straighter flow, the student, on pairs generated by a teacher. Rectified flow, Liu et al. 2209.03003, alg. 1."""

    relocatable: ClassVar[frozenset[str]] = Settings.relocatable | {"teacher"}

    teacher: str = ""
    """Run directory of the teacher, the flow that generates the pairs."""
    num_pairs: int = 10_000
    """Number of training pairs to generate; a tenth of that number is generated in addition and held out."""
    train: OmitArgPrefixes[TrainConfig] = field(default_factory=lambda: TrainConfig(steps=4000, save_every=500))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, num_pairs=1)
        if self.path != "linear":
            raise ValueError(f"path {self.path!r}: reflow uses the linear path; leave it out")

    @staticmethod
    def of(teacher: Path, *, steps: int, num_pairs: int) -> "Reflow":
        """The recipe with the data, network and training settings of the run `teacher`, and the linear path."""
        recipe = stored_recipe(reopen(teacher, app=Reflow.app))
        shared: dict[str, Any] = {item.name: getattr(recipe, item.name) for item in fields(Settings)} | {
            "path": "linear"
        }
        config = replace(recipe.train, steps=steps, milestones=())
        return Reflow(**shared, teacher=str(teacher.resolve()), num_pairs=num_pairs, train=config)

    def build(self) -> Run[Pair]:
        """Generate the teacher's pairs and assemble the run.

        The student starts with the teacher's weights if the teacher has the linear path too.
        """
        prepared, seed = self.prepared(), self.train.seed
        data = prepared.data
        model = self.network_for(data.shape, data.classes)
        opened = reopen(Path(self.teacher), app=self.app)
        teacher = generator_of(opened, device=device_named(self.train.device))
        constants = prepared.constants | {"teacher": fingerprint(*teacher.model.state_dict().values())}
        if stored_recipe(opened).path == self.path:
            model.load_state_dict(teacher.model.state_dict())
        training, held_out = teacher_pairs(teacher, data, self.num_pairs, seed)
        batches = StoredPairs(training, self.batch_size, classes=data.classes, seed=seed)
        evaluate = held_out_evaluation(held_out, PATHS[self.path])
        return Run(model, self.objective(), batches, self.train, evaluate, constants)


def stored_recipe(opened: Opened) -> Generate | Reflow:
    """The recipe of a run on disk: a Reflow if it has a teacher, else a Generate. ValueError if it is damaged."""
    return opened.rebuilt(Reflow if "teacher" in opened.recipe else Generate)


def generator_of(
    opened: Opened, *, which: str = "last", weak: str | None = None, device: torch.device | str = "cpu"
) -> Generator:
    """The run's network with the averaged weights of checkpoint `which`; `weak` is an early checkpoint for autoguidance.

    Both are last, best or a step number. ValueError if a checkpoint or a constant is missing.
    """
    recipe, constants = stored_recipe(opened), opened.constants
    missing = STORED - constants.keys()
    if missing:
        raise ValueError(
            f"{opened.directory}/constants.safetensors lacks {', '.join(sorted(missing))}; restore the file"
        )
    shape, classes = tuple(constants["shape"].tolist()), int(constants["classes"])
    units = Units(constants["centre"], constants["scale"])

    def network(name: str) -> nn.Module:
        return opened.weights(recipe.network_for(shape, classes), which=name).to(device)

    early, levels = None if weak is None else network(weak), float(constants["levels"])
    layout = Layout.unpack(constants["layout"])
    return Generator(network(which), PATHS[recipe.path], units, shape, classes, levels, early, device, layout)
