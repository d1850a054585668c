"""Encoders of images for alignment (REPA): a convolutional network trained on the classes, or without labels."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from monge.apps.generate.data import absolute_source, load
from monge.apps.generate.dataset import Dataset
from monge.apps.generate.images import Range
from monge.apps.generate.prepared import data_fingerprint
from monge.math.random import forked_rng
from monge.objective.base import Loss, Objective
from monge.runs import reopen
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.loop import Run

Method = Literal["classes", "contrastive"]


class Encoder(nn.Module):
    """A residual convolutional network on images (B, C, H, W), at full resolution; `outputs` is the size of its head."""

    def __init__(self, channels: int, *, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(1, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(depth)
        )
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B outputs"]:
        return self.head(self.map(x).mean((2, 3)))

    def map(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width H W"]:
        """The features of each pixel after the last block."""
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(h)
        return h

    @torch.no_grad()
    def tokens(self, x: Float[Tensor, "n C H W"], patch: int) -> Float[Tensor, "n N width"]:
        """The mean features of each patch, in row-major order, on the CPU."""
        device = next(self.parameters()).device
        parts = (nn.functional.avg_pool2d(self.map(part.to(device)), patch) for part in x.split(256))
        return torch.cat([part.flatten(2).mT.cpu() for part in parts])


@dataclass(frozen=True)
class Images:
    """A batch of normalised images, with their classes if there are any."""

    x: Float[Tensor, "B C H W"]
    labels: Int[Tensor, "B"] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def rows(self, rows: Tensor | slice) -> "Images":
        """The images at `rows`."""
        return Images(self.x[rows], None if self.labels is None else self.labels[rows])

    def to(self, device: torch.device | str) -> "Images":
        """The same batch on `device`."""
        return Images(self.x.to(device), None if self.labels is None else self.labels.to(device))


class Classes(Objective):
    """Cross-entropy of the classes, for images with Gaussian noise of standard deviation 0.1."""

    def forward(self, model: nn.Module, batch: Images) -> Loss:
        assert batch.labels is not None
        logits = model(batch.x + 0.1 * torch.randn_like(batch.x))
        value = nn.functional.cross_entropy(logits, batch.labels)
        accuracy = (logits.argmax(1) == batch.labels).float().mean()
        return Loss(value, {"loss": value.detach(), "accuracy": accuracy})


class Contrastive(Objective):
    """NT-Xent between two views of each image: shifts by up to an eighth of the side, an erased rectangle, and noise.

    Chen et al. 2002.05709 (SimCLR), equation 1, with these augmentations.
    """

    def __init__(self, *, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, model: nn.Module, batch: Images) -> Loss:
        views = torch.cat([view(batch.x), view(batch.x)])
        z = nn.functional.normalize(model(views), dim=1)
        logits = (z @ z.T / self.temperature).fill_diagonal_(-torch.inf)
        pairs = torch.arange(len(z), device=z.device).roll(len(batch))
        value = nn.functional.cross_entropy(logits, pairs)
        accuracy = (logits.argmax(1) == pairs).float().mean()
        return Loss(value, {"loss": value.detach(), "accuracy": accuracy})


def view(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """A random view of each image: shifted by up to an eighth of the side, with a half-side rectangle erased with probability
    1/2, plus Gaussian noise."""
    count, _, rows, columns = x.shape
    moved = torch.rand(2, count, 1, device=x.device) * 2 - 1
    place = [torch.arange(size, device=x.device).expand(count, -1) for size in (rows, columns)]
    steps = [(one * max(1, size // 8)).round().long() for one, size in zip(moved, (rows, columns), strict=True)]
    row, column = ((at + step).clamp(0, size - 1) for at, step, size in zip(place, steps, (rows, columns), strict=True))
    index = torch.arange(count, device=x.device)[:, None, None]
    shifted = x.transpose(0, 1)[:, index, row[:, :, None], column[:, None, :]].transpose(0, 1)
    corner = [torch.rand(count, 1, device=x.device) * size / 2 for size in (rows, columns)]
    inside = [(at >= low) & (at < low + size / 2) for at, low, size in zip(place, corner, (rows, columns), strict=True)]
    erased = inside[0][:, :, None] & inside[1][:, None, :] & (torch.rand(count, 1, 1, device=x.device) < 0.5)
    return shifted.masked_fill(erased[:, None], 0.0) + 0.1 * torch.randn_like(x)


@dataclass(frozen=True)
class Pretrain:
    """Recipe of an image encoder, trained on the training split. ValueError if a setting is out of range."""

    app: ClassVar[str] = "encoder"
    relocatable: ClassVar[frozenset[str]] = frozenset({"data"})

    data: str = "digits"
    """Data set with images: digits, or the path of an image folder or of an .npy or .npz file."""
    data_range: Range = "auto"
    """Value range of image arrays, as in `monge generate train`."""
    method: Method = "contrastive"
    """Training task: classes (classification), or contrastive, which needs no labels (SimCLR)."""
    width: int = 32
    """Number of channels, and of features per token."""
    depth: int = 3
    """Number of residual blocks of two convolutions."""
    batch_size: int = 128
    """Number of images per batch."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(steps=600, save_every=300, warmup_steps=50, weight_decay=0.05)
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", absolute_source(self.data))
        check_at_least(self, width=1, depth=1, batch_size=2)

    def build(self) -> Run[Images]:
        """Read the images and assemble the run. ValueError if the data are not images, or have no classes to train on."""
        data = load(self.data, data_range=self.data_range)
        if len(data.shape) != 3:
            raise ValueError(f"{data.name}: items of shape {data.shape} are not images; encoders are for images")
        if self.method == "classes" and data.labels is None:
            raise ValueError(f"{data.name}: no classes to train on; use --method contrastive")
        units = data.units()
        training, held_out = (Images(part.normalised(units), part.labels) for part in data.split())
        size = min(self.batch_size, len(training))  # no image twice: a copy is no negative

        def batches(number: int) -> Images:
            return training.rows(shuffled(number, size, len(training), self.train.seed))

        objective = Classes() if self.method == "classes" else Contrastive()

        @torch.no_grad()
        def evaluate(model: nn.Module) -> dict[str, float]:
            device = next(model.parameters()).device
            parts = [held_out.rows(slice(start, start + size)) for start in range(0, len(held_out), size)]
            with forked_rng():
                torch.manual_seed(0)
                metrics = [(len(part), objective(model, part.to(device)).metrics) for part in parts]
            return {
                f"held-out {name}": sum(count * float(row[name]) for count, row in metrics) / len(held_out)
                for name in metrics[0][1]
            }

        constants = {"data": data_fingerprint(data), "centre": units.centre, "scale": units.scale}
        constants |= {"channels": torch.tensor(data.shape[0]), "outputs": torch.tensor(self._outputs(data))}
        return Run(
            self.network(data.shape[0], self._outputs(data)), objective, batches, self.train, evaluate, constants
        )

    def _outputs(self, data: Dataset) -> int:
        return data.classes if self.method == "classes" else 64

    def network(self, channels: int, outputs: int) -> Encoder:
        """The encoder, with weights drawn from torch's global generator."""
        return Encoder(channels, width=self.width, depth=self.depth, outputs=outputs)


def encoder_of(directory: Path, data: Tensor) -> Encoder:
    """The trained encoder of a run of `monge generate pretrain`. ValueError if it was trained on other data than those with the
    fingerprint `data`."""
    if not (directory / "recipe.json").exists():
        raise ValueError(
            f"--align {directory}: choose none, self, dispersive, or a directory created by monge generate pretrain"
        )
    opened = reopen(directory, app=Pretrain.app)
    recipe, constants = opened.rebuilt(Pretrain), opened.constants
    if not torch.equal(constants["data"], data):
        raise ValueError(
            f"{directory}: this encoder was trained on other data ({recipe.data}); pretrain one on the data of this run"
        )
    encoder = recipe.network(int(constants["channels"]), int(constants["outputs"]))
    trained = opened.weights(encoder, which="best")
    assert isinstance(trained, Encoder)
    return trained
