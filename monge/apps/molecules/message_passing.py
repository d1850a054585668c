"""An encoder of molecules that can be trained on any prepared set: a message-passing network that predicts masked types."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from monge.apps.molecules.atoms import HYDROGEN, TYPES
from monge.apps.molecules.conformers import Molecule
from monge.apps.molecules.dataset import Molecules
from monge.apps.molecules.network import COARSE, FINE, Radial, distances
from monge.math.random import forked_rng
from monge.objective.base import Loss, Objective
from monge.run import fingerprint
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.loop import Run

CUTOFF = 5.0
"""Atoms at least this far apart, in angstroms, exchange no messages."""
MASKED = 0.25
"""Share of the atoms whose types are masked in training."""


@dataclass(frozen=True)
class Atoms:
    """Molecules as numbers of types and positions in angstroms, padded to the largest."""

    types: Int[Tensor, "B N"]
    positions: Float[Tensor, "B N 3"]
    mask: Bool[Tensor, "B N"]

    @staticmethod
    def of(molecules: list[Molecule]) -> "Atoms":
        """The tensors of these molecules."""
        longest = max(len(one.types) for one in molecules)
        mask = torch.arange(longest) < torch.tensor([len(one.types) for one in molecules])[:, None]
        types, positions = torch.zeros(mask.shape, dtype=torch.long), torch.zeros(*mask.shape, 3)
        types[mask] = torch.cat([torch.as_tensor(one.types) for one in molecules])
        positions[mask] = torch.cat([torch.as_tensor(one.positions).float() for one in molecules])
        return Atoms(types, positions, mask)

    def __len__(self) -> int:
        return len(self.types)

    def rows(self, rows: Tensor | slice) -> "Atoms":
        """The molecules at `rows`, padded to the largest of them."""
        longest = int(self.mask[rows].sum(1).max())
        return Atoms(self.types[rows, :longest], self.positions[rows, :longest], self.mask[rows, :longest])

    def to(self, device: torch.device | str) -> "Atoms":
        """The same batch on `device`."""
        return Atoms(self.types.to(device), self.positions.to(device), self.mask.to(device))


class Messages(nn.Module):
    """Continuous-filter convolution between atoms (SchNet, Schuett et al. 1706.08566, sec. 4.2), with a residual update."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filter = nn.Sequential(nn.Linear(COARSE + FINE, width), nn.SiLU(), nn.Linear(width, width))
        self.enter = nn.Linear(width, width, bias=False)
        self.update = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(
        self, h: Float[Tensor, "B N width"], radial: Float[Tensor, "B N N R"], near: Float[Tensor, "B N N"]
    ) -> Float[Tensor, "B N width"]:
        weights = self.filter(radial) * near[..., None]
        return h + self.update((weights * self.enter(h)[:, None]).sum(2))


class MessagePassing(nn.Module):
    """Logits of the type of each atom from the types (index len(TYPES) stands for a masked type) and the distances within
    CUTOFF."""

    def __init__(self, *, width: int, depth: int) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Embedding(len(TYPES) + 1, width)
        self.radial = Radial()
        self.blocks = nn.ModuleList(Messages(width) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(TYPES)))

    def forward(
        self, types: Int[Tensor, "B N"], positions: Float[Tensor, "B N 3"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N K"]:
        return self.head(self.states(types, positions, mask))

    def states(
        self, types: Int[Tensor, "B N"], positions: Float[Tensor, "B N 3"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B N width"]:
        """The hidden states after the last block; they do not depend on the rotation of a molecule."""
        h, distance = self.embed(types), distances(positions)
        smooth = 0.5 * (torch.cos(torch.pi * distance / CUTOFF) + 1) * (distance < CUTOFF)
        others = ~torch.eye(types.shape[1], dtype=torch.bool, device=types.device)
        near = smooth * (mask[:, :, None] & mask[:, None] & others)
        radial = self.radial(distance)
        for block in self.blocks:
            h = block(h, radial, near)
        return h * mask[..., None]

    @torch.no_grad()
    def features(self, molecules: list[Molecule], *, pairs: int = 40_000) -> Iterator[Float[Tensor, "n F"]]:
        """Yields the hidden states of the atoms of each molecule, on the CPU; `pairs` of atoms are held at a time."""
        device = next(self.parameters()).device
        size = max(1, pairs // max(len(one.types) for one in molecules) ** 2) if molecules else 1
        for start in range(0, len(molecules), size):
            batch = Atoms.of(molecules[start : start + size]).to(device)
            states = self.states(batch.types, batch.positions, batch.mask).cpu()
            yield from (row[exists] for row, exists in zip(states, batch.mask.cpu(), strict=True))


class MaskedTypes(Objective):
    """Cross-entropy of masked types (attribute masking, Hu et al. 1905.12265), for positions with Gaussian noise of standard
    deviation `noise` angstroms."""

    def __init__(self, *, noise: float = 0.05) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, model: nn.Module, batch: Atoms) -> Loss:
        hidden = (torch.rand(batch.mask.shape, device=batch.mask.device) < MASKED) & batch.mask
        hidden |= (~hidden.any(1, keepdim=True)) & (torch.arange(hidden.shape[1], device=hidden.device) == 0)
        positions = batch.positions + self.noise * torch.randn_like(batch.positions)
        logits = model(batch.types.masked_fill(hidden, len(TYPES)), positions, batch.mask)[hidden]
        value = nn.functional.cross_entropy(logits, batch.types[hidden])
        accuracy = (logits.argmax(1) == batch.types[hidden]).float().mean()
        return Loss(value, {"loss": value.detach(), "accuracy": accuracy})


@dataclass(frozen=True)
class Pretrain:
    """Recipe of an encoder of molecules, trained on the training split. ValueError if a setting is out of range."""

    app: ClassVar[str] = "molecule-encoder"
    relocatable: ClassVar[frozenset[str]] = frozenset({"data"})

    data: str = "runs/molecules-data"
    """Directory of a prepared set, written by `monge molecules prepare`."""
    width: int = 128
    """Number of channels, and of features per atom."""
    depth: int = 4
    """Number of rounds of messages."""
    batch_size: int = 64
    """Number of molecules per batch."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(steps=1000, save_every=250, warmup_steps=50, weight_decay=0.01, threads=0)
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", str(Path(self.data).resolve()))
        check_at_least(self, width=1, depth=1, batch_size=1)

    def build(self) -> Run[Atoms]:
        """Read the molecules and assemble the run. ValueError if a split is empty."""
        data = Molecules(Path(self.data))
        parts = {name: data.split(name) for name in ("train", "validation")}
        if empty := [name for name, part in parts.items() if not part]:
            raise ValueError(f"{self.data}: no molecules in split {empty[0]}; prepare more")
        training, held_out = (Atoms.of(part) for part in parts.values())

        def batches(number: int) -> Atoms:
            return training.rows(shuffled(number, self.batch_size, len(training), self.train.seed))

        objective = MaskedTypes()

        @torch.no_grad()
        def evaluate(model: nn.Module) -> dict[str, float]:
            device, total = next(model.parameters()).device, {"loss": 0.0, "accuracy": 0.0}
            with forked_rng():
                torch.manual_seed(0)
                for rows in torch.arange(len(held_out)).split(256):
                    metrics = objective(model, held_out.rows(rows).to(device)).metrics
                    total = {name: value + len(rows) * float(metrics[name]) for name, value in total.items()}
            return {f"held-out {name}": value / len(held_out) for name, value in total.items()}

        explicit = bool((training.types[training.mask] == HYDROGEN).any())
        constants = {
            "molecules": fingerprint(training.types, training.positions),
            "explicit_hydrogens": torch.tensor(explicit),
        }
        return Run(self.network(), objective, batches, self.train, evaluate, constants)

    def network(self) -> MessagePassing:
        """The encoder, with weights drawn from torch's global generator."""
        return MessagePassing(width=self.width, depth=self.depth)
