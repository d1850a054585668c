"""Data in memory: items, labels, and the layout of their source."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.math.cost import Units
from monge.math.random import seeded


@dataclass(frozen=True)
class Layout:
    """The format of the data source, stored with the run as JSON so that samples can be written in the same format."""

    kind: str = "points"  # points, array, table, csv or images
    dtype: str = ""  # numpy dtype of an array
    axes: str = ""  # axes of an array: ND, NHW, NCHW or NHWC
    columns: tuple[str, ...] = ()  # columns of a table, without the label
    schema: str = ""  # Arrow schema of a table, including the label, serialised in base64
    classes: tuple[str, ...] = ()  # name of each label
    bounds: tuple[float, float] | None = None  # range of continuous images, to which samples are clipped

    def pack(self) -> Int[Tensor, "bytes"]:
        """The layout as a tensor of bytes, for a run's constants."""
        return torch.tensor(list(json.dumps(asdict(self)).encode()), dtype=torch.uint8)

    @staticmethod
    def unpack(packed: Int[Tensor, "bytes"]) -> "Layout":
        """The layout that `pack` wrote."""
        fields: dict[str, Any] = json.loads(bytes(packed.tolist()).decode())
        fields.update({name: tuple(value) for name, value in fields.items() if isinstance(value, list)})
        return Layout(**fields)


POINTS = Layout()


@dataclass(frozen=True)
class Dataset:
    """Items in their original units; images are (C, H, W). x is float32, or float64 where `to_float_tensor` requires it."""

    name: str
    x: Float[Tensor, "n *s"]
    labels: Int[Tensor, "n"] | None = None
    levels: float | None = None  # maximum of images with integer values 0 .. levels; None for other data
    layout: Layout = POINTS
    notes: tuple[str, ...] = ()  # messages about how the source was read

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one item."""
        return tuple(self.x.shape[1:])

    @property
    def classes(self) -> int:
        """The number of classes; 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def units(self) -> Units:
        """Units of flattened items: a centre per feature, and one scale for all pixels or one per column of a table."""
        return Units.measure(self.x.flatten(1), per_feature=self.levels is None and len(self.shape) < 3)

    def normalised(self, units: Units) -> Float[Tensor, "n *s"]:
        """The items in these units, in float32."""
        return units.apply(self.x.flatten(1)).reshape(self.x.shape).float()

    def rows(self, rows: Tensor) -> "Dataset":
        """The items at `rows`."""
        return replace(self, x=self.x[rows], labels=None if self.labels is None else self.labels[rows])

    def without_labels(self) -> "Dataset":
        """The same items, unlabelled."""
        return replace(self, labels=None, layout=replace(self.layout, classes=()))

    def split(self, *, held_out: float = 0.2) -> tuple["Dataset", "Dataset"]:
        """(training, held-out) data, the same at every call; `held_out` is a fraction. ValueError for fewer than two items.

        Every class has a training item if the counts allow it.
        """
        order = torch.randperm(len(self.x), generator=seeded(1781))
        cut = len(order) - max(1, round(len(order) * held_out))
        if cut < 1:
            raise ValueError(
                f"{self.name}: {len(order)} items are too few for training and held-out data; give at least 2"
            )
        training, rest = order[:cut], order[cut:]
        if self.labels is not None:
            training, rest = _every_class_in_training(training, rest, self.labels)
        return self.rows(training), self.rows(rest)

    def examples(self) -> "Dataset":
        """A few items for pictures: up to 64 images, spread over the classes, or 2,000 points; fewer if items are large."""
        image = len(self.shape) == 3
        count = min(64 if image else 2_000, max(1, 2**22 // max(1, self.x[0].numel())))
        if not image or self.labels is None:
            return self.rows(torch.randperm(len(self.x), generator=seeded(1788))[:count])
        each = -(-count // self.classes)
        rows = [(self.labels == label).nonzero()[:each, 0] for label in range(self.classes)]
        return self.rows(torch.cat(rows)[:count])


def _every_class_in_training(training: Tensor, rest: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The split after each class without a training item has received one of its held-out items, in exchange for a training
    item of the most frequent class."""
    counts = torch.bincount(labels[training], minlength=int(labels.max()) + 1)
    training, rest = training.clone(), rest.clone()
    for label in (counts == 0).nonzero()[:, 0].tolist():
        largest, candidates = int(counts.argmax()), (labels[rest] == label).nonzero()[:, 0]
        if counts[largest] < 2 or not len(candidates):
            continue
        surplus, missing = int((labels[training] == largest).nonzero()[-1]), int(candidates[0])
        training[surplus], rest[missing] = rest[missing].clone(), training[surplus].clone()
        counts[largest] -= 1
        counts[label] += 1
    return training, rest


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key for natural order: 2 comes before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if number % 2 else part.lower() for number, part in enumerate(parts)], name


def classes_of(name: str, values: np.ndarray) -> tuple[Int[Tensor, "n"], tuple[str, ...]]:
    """(labels counted from 0, names of the classes) from one string, whole number or boolean per item, (n,) or (n, 1).

    Names are in natural order, numbers in numerical order. ValueError for fractional numbers and other shapes; its message
    starts with `name`.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    integral = (
        np.issubdtype(values.dtype, np.floating) and np.isfinite(values).all() and (values == values.round()).all()
    )
    if integral:
        values = values.astype(np.int64)
    if values.ndim != 1 or values.dtype.kind not in "iubUS":
        raise ValueError(
            f"{name} are {values.dtype} {values.shape}; give one string or whole number per item, or leave them out"
        )
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    distinct, inverse = np.unique(values, return_inverse=True)
    names: Sequence[str] = [str(value) for value in distinct]
    order = (
        sorted(range(len(names)), key=lambda k: natural(names[k])) if values.dtype.kind == "U" else range(len(names))
    )
    position = np.empty(len(names), dtype=np.int64)
    position[list(order)] = np.arange(len(names))
    return torch.from_numpy(position[inverse.reshape(-1)]), tuple(names[k] for k in order)


def check_distinct(where: str, values: np.ndarray) -> None:
    """ValueError if distinct integers become equal in float64, the widest type in which data are held."""
    if values.dtype.kind not in "iu":
        return
    rounded = values.astype(np.float64)
    if np.abs(rounded).max(initial=0) > 2**53 and len(np.unique(rounded)) < len(np.unique(values)):
        raise ValueError(
            f"{where} holds numbers of up to {np.abs(rounded).max():.0f} that float64 cannot distinguish; "
            "drop it if it identifies the rows, or subtract an offset"
        )


def to_float_tensor(values: np.ndarray) -> Tensor:
    """A float32 tensor if that is exact and the square of the largest value is within its range, else a float64 tensor."""
    if values.dtype.itemsize <= 2:
        return torch.from_numpy(values.astype(np.float32))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        single = values.astype(np.float32)
    exact = values.dtype == np.float32 or np.array_equal(single, values)
    largest = float(np.abs(single).max(initial=0))
    fits = not np.isfinite(largest) or largest == 0 or 1e-16 < largest < 1e16
    return torch.from_numpy(single if exact and fits else values.astype(np.float64))


def to_integers(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """x rounded to integers and clipped to the range of `dtype`."""
    info = np.iinfo(dtype)
    top = float(info.max) if int(float(info.max)) <= info.max else np.nextafter(float(info.max), 0)
    return np.clip(np.rint(x.astype(np.float64)), float(info.min), top).astype(dtype)
