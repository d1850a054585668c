"""The recipe of a molecular flow: a prepared set of molecules, a network, and the loss."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from monge.apps.molecules.atoms import FAKE
from monge.apps.molecules.conformers import Molecule
from monge.apps.molecules.dataset import Molecules
from monge.apps.molecules.encoded import Encoded
from monge.apps.molecules.encoders import BY_ELEMENT, ENCODERS
from monge.apps.molecules.fakes import SPREAD, with_fakes
from monge.apps.molecules.generator import Generator
from monge.apps.molecules.network import MoleculeNet, Shape
from monge.apps.molecules.objective import MoleculeMatching, by_element, later_state, noise, square_root
from monge.apps.molecules.targets import targets
from monge.math.coupling import Coupling, identity
from monge.math.random import forked_rng, seeded
from monge.math.rotation import RotationOT, random_rotations, rotated
from monge.math.times import Times
from monge.math.types import Pair
from monge.objective.alignment import Alignment, CachedTargets, HiddenLoss, schedule
from monge.objective.self_supervised import Dispersive, SelfAlignment
from monge.run import fingerprint
from monge.runs import Opened
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.distributed import world_size
from monge.training.loop import Run

COUPLINGS: dict[str, Coupling] = {
    "independent": identity,
    "rotation": RotationOT(),
    "permutation": RotationOT(permute=True),
}
WITHOUT_ENCODER = ("self", "dispersive")


@dataclass(frozen=True)
class Molecular:
    """A flow from noise to molecules. ValueError if a setting is out of range."""

    app: ClassVar[str] = "molecules"
    relocatable: ClassVar[frozenset[str]] = frozenset({"data", "align"})

    data: str = "runs/molecules-data"
    """Directory of a prepared set, written by `monge molecules prepare`."""
    max_atoms: int | None = None
    """Maximum number of heavy atoms of a molecule in training; all molecules of the set by default."""
    width: int = 128
    """Number of hidden channels per atom."""
    depth: int = 5
    """Number of blocks."""
    heads: int = 8
    """Number of attention heads."""
    architecture: Literal["equivariant", "transformer"] = "equivariant"
    """Network: equivariant, which moves atoms by weighted differences of positions, or transformer, which reads the
    coordinates, for large data sets and GPUs."""
    atom_index: bool = True
    """Let the network see the index of each atom in the canonical SMILES."""
    self_conditioning: bool = True
    """Show the network its own prediction: the first one for half of the molecules, that of the previous step in sampling."""
    distortion: float = 0.0
    """Standard deviation, in angstroms, of noise on a tenth of the atoms of half of the molecules (geometry distortion)."""
    prediction: Literal["residual", "x_1", "velocity"] = "residual"
    """Parametrisation of the positions: the network computes a correction that is scaled down as the noise vanishes (residual),
    the clean positions (x_1), or the velocity. The loss is the same."""
    fake_atoms: float = 0.0
    """Maximum number of fake atoms that a molecule is given in training and sampling, as a share of its atoms; 0.3 in FlowMol3.
    They let the network change the number of atoms."""
    coupling: Literal["independent", "rotation", "permutation"] = "rotation"
    """Coupling of noise and data: independent, targets rotated onto the noise (rotation), or rotated and with the noise atoms
    permuted (permutation), which requires `--no-atom-index`."""
    type_weight: float = 1.0
    """Weight of the cross-entropy of the types. The squared error of the positions is divided by its running mean at that t."""
    align: str = "none"
    """Alignment of a hidden state with a pretrained encoder (REPA): ani (ANI-2xt, sees the geometry), espaloma (the graph),
    descriptors (RDKit's), ani-random (ANI-2xt with random weights, a control), or the path of a directory created by `monge
    molecules pretrain` or of a model file of chemprop or CheMeleon (.pt, .ckpt) or MACE (.model). Without an encoder: self
    aligns with the last block of an EMA teacher at a later time (SRA), dispersive pushes hidden states of molecules apart."""
    align_layer: int = 2
    """Block whose output is aligned, counted from 1."""
    align_weight: float = 0.5
    """Weight of the alignment loss."""
    align_spatial: bool = False
    """Normalise the targets over the atoms of each molecule, as in iREPA."""
    align_shuffled: bool = False
    """Control: shuffle the targets among all atoms of the training set, and those of the pooled token among molecules."""
    align_pooled_weight: float = 0.0
    """Weight of the loss of a token that holds the mean of the targets over the atoms and is denoised together with them, in
    training and in sampling (REG, which uses 0.03); 0 leaves the token out."""
    align_until: int = 0
    """Number of training batches after which the alignment ends (HASTE); 0 keeps it."""
    align_times: Literal["all", "noisy", "clean"] = "all"
    """Weight of the alignment by t: equal (all), or proportional to 1 - t (noisy) or t (clean), with mean 1."""
    batch_size: int = 64
    """Number of molecules per batch."""
    solver_steps: int = 100
    """Number of steps of the samples in evaluations."""
    eval_samples: int = 128
    """Number of molecules to sample in each evaluation."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(
            steps=2000, lr=2e-3, warmup_steps=50, save_every=500, threads=0, weight_decay=0.01
        )
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", str(Path(self.data).resolve()))
        if self.align not in ("none", *WITHOUT_ENCODER, *ENCODERS):
            object.__setattr__(self, "align", str(Path(self.align).resolve()))
        if self.max_atoms is not None:
            check_at_least(self, max_atoms=1)
        check_at_least(self, width=1, depth=1, heads=1, batch_size=1, solver_steps=1, eval_samples=1)
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and divisible by {self.heads} (heads)")
        for name in ("type_weight", "distortion", "fake_atoms", "align_weight", "align_pooled_weight", "align_until"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        if self.align != "none" and not 1 <= self.align_layer <= self.depth:
            raise ValueError(f"align_layer {self.align_layer}: the network has {self.depth} blocks")
        if self.align != "none" and self.train.compile:
            raise ValueError("--compile has no effect on hidden states, which --align needs; leave it out")
        special = self.align_spatial or self.align_shuffled or self.align_pooled_weight or self.align_times != "all"
        if special and self.align in ("none", *WITHOUT_ENCODER):
            flags = "--align-spatial, --align-shuffled, --align-times and --align-pooled-weight"
            raise ValueError(f"--align {self.align}: {flags} need an encoder")
        if self.coupling == "permutation" and self.atom_index:
            raise ValueError("--coupling permutation needs --no-atom-index: it changes the order of the atoms")

    @property
    def rotates(self) -> bool:
        """True if the coupling rotates molecules onto the noise."""
        return self.coupling != "independent"

    def build(self) -> Run[Pair]:
        """Read the molecules and assemble the run."""
        data, held_out = self.encoded(), self.encoded("validation")
        with forked_rng():  # encoders draw weights, on which those of the network must not depend
            aligned = self.targets(data)
            pooled = self.pooled(data, held_out) if self.align_pooled_weight else None
        features = 0 if pooled is None else pooled[0].shape[1]
        network = self.network(len(data.types), data.scale, features)  # before the projector, for the same reason
        fakes = {"share": self.fake_atoms, "spread": SPREAD / data.scale}

        def batches(number: int) -> Pair:
            rows = shuffled(number, self.batch_size, len(data.x), self.train.seed)
            generator = seeded(self.train.seed, 1, number)
            x, mask = data.batch(rows)
            ended = aligned is None or 0 < self.align_until <= number - number % world_size()  # on all ranks at once
            target = None if ended or aligned is None else aligned[rows, : mask.shape[1]]
            if self.fake_atoms:
                x, mask, target = with_fakes(x, mask, target, **fakes, generator=generator)
            x_1 = rotated(x, random_rotations(len(rows), generator=generator))
            cond = {} if target is None else {"target": target}
            if pooled is not None:
                cond["pooled target"] = pooled[0][rows]
            return Pair(noise(mask, len(data.types), generator=generator), x_1, mask, cond)

        sizes = data.mask.sum(1).bincount()
        objective = MoleculeMatching(
            coupling=COUPLINGS[self.coupling],
            times=Times(square_root, stratified=True),
            type_weight=self.type_weight,
            self_conditioning=self.self_conditioning,
            distortion=self.distortion / data.scale,
            align=None if aligned is None else self.alignment(network, aligned.shape[-1], data.types),
            pooled_weight=self.align_pooled_weight,
        )

        @torch.no_grad()
        def evaluate(model: nn.Module) -> dict[str, float]:
            device, random = next(model.parameters()).device, torch.Generator().manual_seed(0)
            with forked_rng():
                torch.manual_seed(0)
                losses: list[float] = []
                for rows in torch.arange(len(held_out.x)).split(64):
                    x, mask = held_out.batch(rows)
                    if self.fake_atoms:
                        x, mask, _ = with_fakes(x, mask, None, **fakes, generator=random)
                    cond = {} if pooled is None else {"pooled target": pooled[1][rows]}
                    pair = Pair(noise(mask, len(data.types), generator=random), x, mask, cond)
                    loss = objective(model, pair.to(device))
                    losses.append(float(loss.metrics.get("flow loss", loss.value)))
            sampler = Generator(model, data.types, data.scale, sizes, self.fake_atoms, device, features, self.rotates)
            random = seeded(1)
            mask = sampler.mask(self.eval_samples, generator=random)
            results = [one.molecule() for one in sampler.draw(mask, steps=self.solver_steps, generator=random)]
            valid, connected = ([getattr(one, name) for one in results] for name in ("valid", "connected"))
            shares = {"valid": float(np.mean(valid)), "connected": float(np.mean(connected))}
            return {"held-out loss": float(np.mean(losses)), **shares}

        identity = torch.tensor(list(self.align.encode())) if aligned is None or not aligned.shape[-1] else aligned
        constants = {
            **({} if self.align == "none" else {"align": fingerprint(identity)}),
            "types": torch.tensor(data.types),
            "scale": torch.tensor(data.scale),
            **({} if pooled is None else {"pooled": torch.tensor(features)}),
            "sizes": sizes,
            "molecules": fingerprint(data.x),
        }
        return Run(network, objective, batches, self.train, evaluate, constants)

    def alignment(self, network: nn.Module, features: int, types: Sequence[int] = ()) -> HiddenLoss:
        """The loss on a hidden state. With an encoder, batches hold its targets, of `features` entries; `types` are the types
        of atoms in the order of their logits."""
        layer, weight, hidden = self.align_layer, self.align_weight, 2 * self.width
        if self.align == "dispersive":
            return Dispersive(layer=layer, weight=weight)
        if self.align == "self":
            options: dict[str, Any] = {"layer": layer, "teacher_layer": self.depth, "weight": weight, "hidden": hidden}
            return SelfAlignment(network, width=self.width, later=later_state, **options)
        targets = CachedTargets(lambda x: x, key="target")
        options = {"layer": layer, "weight": weight, "hidden": hidden, "spatial": self.align_spatial}
        options["schedule"] = schedule(self.align_times, square_root)
        options |= by_element(types) if self.align in BY_ELEMENT else {}
        return Alignment(targets, width=self.width, features=features, **options)

    def targets(self, data: Encoded) -> Float[Tensor, "n N F"] | None:
        """The alignment targets of the training molecules, or None without alignment. Molecules without features have zeros;
        losses without an encoder get empty targets (zero features)."""
        if self.align == "none":
            return None
        if self.align in WITHOUT_ENCODER:
            return torch.zeros(*data.mask.shape, 0)
        rows = targets(Molecules(Path(self.data)), self.align, data.molecules)
        result = torch.zeros(*data.mask.shape, next(iter(rows.values())).shape[1])
        for number, one in enumerate(data.molecules):
            if one.id in rows:
                result[number, : len(one.types)] = rows[one.id]
        if self.align_shuffled:
            atoms = result[data.mask]
            result[data.mask] = atoms[torch.randperm(len(atoms), generator=seeded(self.train.seed, 2))]
        return result

    def pooled(self, data: Encoded, held_out: Encoded) -> tuple[Float[Tensor, "n F"], Float[Tensor, "m F"]]:
        """The mean targets over the atoms of each molecule, with mean 0 and variance 1 over the training molecules, for
        training and held-out molecules; 0 for a molecule without targets. The control shuffles those of the training set.
        ValueError if all training molecules have the same."""
        rows = targets(Molecules(Path(self.data)), self.align, data.molecules, also=held_out.molecules)
        width = next(iter(rows.values())).shape[1]

        def means(part: Encoded) -> Tensor:
            return torch.stack(
                [rows[one.id].mean(0) if one.id in rows else torch.zeros(width) for one in part.molecules]
            )

        train, others = means(data), means(held_out)
        exists = (train != 0).any(-1)
        if not exists.any() or not (scale := train[exists].std(0, correction=0)).gt(1e-6).any():
            raise ValueError(f"{self.data}: all mean targets of {self.align} are equal; set --align-pooled-weight 0")
        centre, inverse = train[exists].mean(0), torch.where(scale > 1e-6, 1 / scale.clamp_min(1e-6), 0.0)
        first, second = (
            torch.where((x != 0).any(-1, keepdim=True), (x - centre) * inverse, 0.0) for x in (train, others)
        )
        if self.align_shuffled:
            first = first[torch.randperm(len(first), generator=seeded(self.train.seed, 3))]
        return first, second

    def network(self, types: int, scale: float, pooled: int = 0) -> MoleculeNet:
        """The network, with weights drawn from torch's global generator."""
        kinds = self.architecture, self.atom_index, self.self_conditioning, self.prediction, pooled
        return MoleculeNet(types, Shape(self.width, self.depth, self.heads, *kinds), scale=scale)

    def encoded(self, split: str = "train") -> Encoded:
        """The molecules of a split as tensors. The types and the scale are those of the training split."""
        parts = {name: self.molecules(name) for name in {"train", split}}
        types = {int(number) for one in parts["train"] for number in one.types}
        scale = float(np.sqrt(np.mean(np.concatenate([one.positions.ravel() for one in parts["train"]]) ** 2)))
        known = [one for one in parts[split] if set(one.types.tolist()) <= types]
        if not known or not scale:
            raise ValueError(f"{self.data}: too few molecules; prepare more, or raise --max-atoms")
        return Encoded.of(known, sorted(types | ({FAKE} if self.fake_atoms else set())), scale)

    def molecules(self, split: str) -> list[Molecule]:
        """The molecules of a split with at most `max_atoms` heavy atoms. ValueError if there are none."""
        limit = self.max_atoms
        chosen = [one for one in Molecules(Path(self.data)).split(split) if limit is None or one.heavy.sum() <= limit]
        if not chosen:
            size = "" if limit is None else f" of at most {limit} heavy atoms"
            raise ValueError(f"{self.data}: no molecules{size} in split {split}; prepare more, or raise --max-atoms")
        return chosen


def opened(run: Opened, *, which: str = "best", device: torch.device | str = "cpu") -> tuple[Molecular, Generator]:
    """(recipe, generator) of a trained run."""
    recipe = run.rebuilt(Molecular)
    types, scale = run.constants["types"].tolist(), float(run.constants["scale"])
    pooled = int(run.constants.get("pooled", 0))
    network = run.weights(recipe.network(len(types), scale, pooled), which=which).to(device)
    sizes = run.constants["sizes"]
    return recipe, Generator(network, types, scale, sizes, recipe.fake_atoms, device, pooled, recipe.rotates)
