"""Data to learn to generate: built-in digits and toys, image folders, arrays, tables. All in memory, checked at the door."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.apps.generate.toys import TOYS
from monge.math.cost import Units
from monge.math.random import seeded
from monge.train.batches import shuffled

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class Dataset:
    """Items as they came, in their own units; images are (C, H, W)."""

    name: str
    x: Float[Tensor, "n *s"]
    labels: Int[Tensor, "n"] | None = None
    levels: float | None = None  # images: values lie in 0 .. levels, in whole steps

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one item."""
        return tuple(self.x.shape[1:])

    @property
    def classes(self) -> int:
        """How many classes there are; 0 without labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def units(self) -> Units:
        """Centre per feature; one scale for all pixels, one per column of a table. Over flattened items."""
        return Units.measure(self.x.flatten(1), per_feature=self.levels is None)

    def rows(self, rows: Tensor) -> "Dataset":
        """The items at `rows`."""
        return Dataset(self.name, self.x[rows], None if self.labels is None else self.labels[rows], self.levels)

    def split(self, *, held_out: float = 0.2) -> tuple["Dataset", "Dataset"]:
        """(training, held-out), the same for everybody who asks."""
        order = torch.randperm(len(self.x), generator=seeded(1781))
        cut = len(order) - max(1, round(len(order) * held_out))
        if cut < 1:
            raise ValueError(
                f"{self.name}: {len(order)} items are too few to train on and hold one out; give at least 2"
            )
        return self.rows(order[:cut]), self.rows(order[cut:])


def load(source: str) -> Dataset:
    """digits, a toy by name, or a path: an image folder (subfolders are classes), .npy, .npz (x, labels), .parquet."""
    if source == "digits":
        return digits()
    if source in TOYS:
        return Dataset(source, TOYS[source](5_000, seeded(0)))
    path = Path(source)
    if path.is_dir():
        found = image_folder(path)
    elif not path.exists():
        raise ValueError(f"data: {source!r} is no file or folder, nor one of digits, {', '.join(TOYS)}")
    elif path.suffix in READERS:
        found = READERS[path.suffix](path)
    else:
        raise ValueError(
            f"{path}: cannot read {path.suffix or 'a file without ending'}; give a folder of images, {', '.join(READERS)}"
        )
    return _checked(found)


def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels in 0 .. 16, with labels, from scikit-learn's wheel."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(pixels).float().reshape(-1, 1, 8, 8)
    return Dataset("digits", x, torch.as_tensor(labels).long(), levels=16.0)


def image_folder(folder: Path) -> Dataset:
    """All images under `folder`, of one size and mode; if they lie in subfolders, those are the classes."""
    from PIL import Image

    paths = sorted(p for p in _files(folder) if p.suffix.lower() in IMAGES)
    if not paths:
        raise ValueError(f"{folder}: no images; put files ending in {', '.join(IMAGES)} there")
    colour: list[bool] = []
    arrays: list[np.ndarray] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.mode.startswith(("I", "F")):
                    raise ValueError(f"{path}: mode {image.mode}, more than 8 bits a pixel; save it with 8")
                colour.append(image.mode not in ("1", "L", "I", "I;16", "F"))
                arrays.append(np.asarray(image.convert("RGB" if colour[-1] else "L")))
        except Exception as error:  # every decoder raises errors of its own
            raise ValueError(f"{path}: not a readable image ({error}); remove it or save it again") from error
        if arrays[-1].shape != arrays[0].shape:
            sizes = [" x ".join(map(str, array.shape)) for array in (arrays[-1], arrays[0])]
            raise ValueError(
                f"{path}: {sizes[0]}, but {paths[0].name} is {sizes[1]}; make all images one size and mode"
            )
    x = torch.from_numpy(np.stack(arrays)).float()
    x = x.permute(0, 3, 1, 2) if x.ndim == 4 else x[:, None]
    names = sorted({p.parent for p in paths})
    if len(names) > 1 and folder in names:
        stray = next(p for p in paths if p.parent == folder)
        raise ValueError(f"{stray}: lies beside subfolders, which are classes; move it into one of them")
    labels = torch.tensor([names.index(p.parent) for p in paths]) if len(names) > 1 else None
    return Dataset(str(folder), x.contiguous(), labels, levels=255.0)


def _files(folder: Path) -> list[Path]:
    """All files under a folder; PermissionError if a part of it cannot be read."""

    def stop(error: OSError) -> None:
        raise error

    return [Path(where) / name for where, _, names in os.walk(folder, onerror=stop) for name in names]


def numpy_array(path: Path) -> Dataset:
    """An .npy array of (n, D), or images of (n, C, H, W) or (n, H, W) in 0 .. 255; an .npz with x and, if wanted, labels."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"x": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except PermissionError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise errors of their own
        raise ValueError(
            f"{path}: not a whole numpy file of numbers ({type(error).__name__}); save it again"
        ) from error
    if "x" not in arrays:
        raise ValueError(f"{path}: no array 'x', only {sorted(arrays)}; save with np.savez(path, x=..., labels=...)")
    array, labels = arrays["x"], arrays.get("labels")
    if labels is not None and not (np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1):
        raise ValueError(
            f"{path}: labels are {labels.dtype} {labels.shape}; make them whole numbers from 0, one per item"
        )
    if (
        not np.issubdtype(array.dtype, np.number)
        or np.issubdtype(array.dtype, np.complexfloating)
        or not 2 <= array.ndim <= 4
    ):
        raise ValueError(
            f"{path}: an array of {array.dtype} {array.shape}; give numbers of (n, D), (n, H, W) or (n, C, H, W)"
        )
    with np.errstate(over="ignore"):
        x = torch.from_numpy(array.astype(np.float32))
    found = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    x = x[:, None] if x.ndim == 3 else x
    return Dataset(str(path), x, found, levels=255.0 if x.ndim == 4 else None)


def parquet(path: Path) -> Dataset:
    """A table of numbers; an integer column named label holds classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except PermissionError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a whole parquet file ({error}); save it again") from error
    labels = None
    if "label" in table.column_names:
        column = table["label"].combine_chunks()
        if not pa.types.is_integer(column.type) or column.null_count:
            found = f"{column.type} with {column.null_count} entries missing"
            raise ValueError(f"{path}: column 'label' is {found}; make it whole numbers from 0, one per row")
        labels = torch.from_numpy(column.to_numpy(zero_copy_only=False).astype(np.int64))
        table = table.drop(["label"])
    columns: list[np.ndarray] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            raise ValueError(f"{path}: column {name!r} is {column.type}; keep columns of numbers only")
        columns.append(column.to_numpy().astype(np.float32))
        if len(columns[-1]) > 1 and np.all(columns[-1] == columns[-1][0]):
            raise ValueError(
                f"{path}: column {name!r} is {columns[-1][0]} in every row, in single precision; "
                "drop it, or take its mean off first"
            )
    if not columns:
        raise ValueError(f"{path}: no columns of numbers besides 'label'; add some")
    return Dataset(str(path), torch.from_numpy(np.stack(columns, 1)), labels)


def _checked(data: Dataset) -> Dataset:
    if not data.x.numel():
        raise ValueError(
            f"{data.name}: {len(data.x)} items of shape {data.shape}, which is nothing to learn from; give more"
        )
    flat = data.x.flatten(1)
    bad = ~torch.isfinite(flat)
    if bool(bad.any()):
        row, column = (int(i) for i in bad.nonzero()[0])
        raise ValueError(
            f"{data.name}: item {row} holds {float(flat[row, column])} at entry {column}, one of {int(bad.sum())}"
            " that are not finite in single precision; remove, fill or rescale them"
        )
    if data.levels is not None and not 0 <= float(flat.min()) <= float(flat.max()) <= data.levels:
        raise ValueError(
            f"{data.name}: images with values from {float(flat.min()):g} to {float(flat.max()):g};"
            f" scale them to 0 .. {data.levels:g}, or flatten them to (n, D) if they are no images"
        )
    if data.levels is not None and not torch.equal(flat, flat.round()):
        odd = float(flat[flat != flat.round()][0])
        raise ValueError(
            f"{data.name}: images with the value {odd:g}; give whole numbers in 0 .. {data.levels:g},"
            " or flatten them to (n, D) if they are no images"
        )
    if len(flat) > 1 and data.levels is None:
        constant = (flat == flat[0]).all(0).nonzero()
        if len(constant):
            column = int(constant[0])
            raise ValueError(
                f"{data.name}: column {column} is {float(flat[0, column])} in every row, in single precision; "
                "drop it, or take its mean off first"
            )
    largest = float(flat.abs().max())
    if not 1e-16 < largest < 1e16:
        raise ValueError(
            f"{data.name}: the largest entry is {largest:g}; squares of such numbers leave single precision, rescale the data"
        )
    if data.labels is None:
        return data
    if len(data.labels) != len(flat):
        raise ValueError(f"{data.name}: {len(data.labels)} labels for {len(flat)} items; give one each")
    if not 0 <= int(data.labels.min()) <= int(data.labels.max()) < len(flat):
        raise ValueError(
            f"{data.name}: labels from {int(data.labels.min())} to {int(data.labels.max())}; number the classes from 0"
        )
    unused = (torch.bincount(data.labels) == 0).nonzero()
    if len(unused):
        raise ValueError(
            f"{data.name}: no item has label {int(unused[0])}, but one has {int(data.labels.max())};"
            " number the classes without gaps"
        )
    return data


READERS: dict[str, Callable[[Path], Dataset]] = {".npy": numpy_array, ".npz": numpy_array, ".parquet": parquet}


def dealt_labels(data: Dataset, n: int, seed: int) -> Int[Tensor, "n"] | None:
    """n labels as often as the data have them; None without labels."""
    if data.labels is None:
        return None
    return data.labels[shuffled(0, n, len(data.labels), seed)]
