"""The parts of a run that are computed from the data: the split, the units, the constants and the evaluation."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.generate.dataset import Dataset, Layout
from monge.apps.generate.pairs import held_out_loss
from monge.apps.generate.toys import TOYS
from monge.math.cost import Units
from monge.math.path import Affine
from monge.math.types import Pair
from monge.run import fingerprint
from monge.runs import Opened
from monge.training.distributed import is_first

log = logging.getLogger(__name__)
STORED = {"shape", "classes", "centre", "scale", "levels", "layout"}


@dataclass(frozen=True)
class Prepared:
    """A data set with its split, the units of its network, and the constants of its run."""

    data: Dataset
    training: Dataset
    held_out: Dataset
    units: Units
    constants: dict[str, Tensor]

    @staticmethod
    def of(everything: Dataset, *, conditional: bool) -> "Prepared":
        """The prepared data, with labels if `conditional`. Rank zero logs the notes about how they were read."""
        training, held_out = everything.split()
        parts = everything, training, held_out
        data, training, held_out = parts if conditional else (part.without_labels() for part in parts)
        units = data.units()
        if is_first():
            for note in [*data.notes, *_missing_class_notes(data, training)]:
                log.warning(note)
        constants = {
            "centre": units.centre,
            "scale": units.scale,
            "shape": torch.tensor(data.shape),
            "classes": torch.tensor(data.classes),
            "levels": torch.tensor(data.levels or 0.0),
            "data": data_fingerprint(everything),
            "layout": data.layout.pack(),
        }
        return Prepared(data, training, held_out, units, constants | _examples(data))

    def normalised(self) -> tuple[Float[Tensor, "n *s"], Float[Tensor, "m *s"]]:
        """(training, held-out) items in the network's units, i.e. normalised."""
        return self.training.normalised(self.units), self.held_out.normalised(self.units)


def _missing_class_notes(data: Dataset, training: Dataset) -> list[str]:
    """A note if classes have no training item, else nothing."""
    if data.labels is None or training.labels is None:
        return []
    absent = (torch.bincount(training.labels, minlength=data.classes) == 0).nonzero()[:, 0].tolist()
    if not absent:
        return []
    names = ", ".join(repr(data.layout.classes[k]) if data.layout.classes else str(k) for k in absent[:5])
    return [f"{data.name}: {len(absent)} of {data.classes} classes have no training item, such as {names}"]


def _examples(data: Dataset) -> dict[str, Tensor]:
    """The constants that hold a few items for pictures, in 8 bits if their values fit."""
    examples = data.examples()
    x = examples.x.to(torch.uint8) if data.levels and data.levels <= 255 else examples.x.clone()
    return {"examples": x} | ({} if examples.labels is None else {"example_labels": examples.labels.clone()})


def examples_of(opened: Opened) -> Dataset | None:
    """The real items that the run stores for pictures; None if it stores none."""
    constants = opened.constants
    if "examples" not in constants:
        return None
    layout = Layout.unpack(constants["layout"])
    levels = float(constants["levels"]) or None
    x = constants["examples"]
    return Dataset("examples", x.float() if levels else x, constants.get("example_labels"), levels, layout)


def data_fingerprint(data: Dataset) -> Tensor:
    """A fingerprint of items and labels; for a toy, of its name, since the last bits of its items depend on the processor."""
    if data.name in TOYS:
        return fingerprint(torch.tensor(list(data.name.encode())))
    return fingerprint(data.x, *([] if data.labels is None else [data.labels]))


def held_out_evaluation(pairs: Pair, path: Affine) -> Callable[[nn.Module], dict[str, float]]:
    """The evaluation function of a run: the flow-matching loss on these pairs, at fixed times."""

    def evaluate(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device

        def loss(pair: Pair, t: Tensor) -> Tensor:
            pair = pair.to(device)
            t, x_t, u_t = path(pair.x_0, pair.x_1, t.to(device))
            return (model(x_t, t, pair.condition) - u_t).square().mean()

        return {"held-out loss": held_out_loss(pairs, loss)}

    return evaluate
