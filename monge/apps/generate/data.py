"""Data sets by name or path: the built-in digits and toys, image folders, arrays and tables, checked and held in memory."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from monge.apps.generate.arrays import numpy_array
from monge.apps.generate.dataset import Dataset, Layout
from monge.apps.generate.images import Range, image_folder
from monge.apps.generate.tables import table
from monge.apps.generate.toys import TOYS
from monge.math.random import seeded
from monge.training.batches import shuffled

READERS: dict[str, Callable[[Path], Dataset]] = {
    ".npy": numpy_array,
    ".npz": numpy_array,
    ".parquet": table,
    ".csv": table,
}


def load(source: str, *, data_range: Range = "auto") -> Dataset:
    """The data set `source`: digits, the name of a toy, or the path of an image folder, .npy, .npz, .parquet or .csv file.

    `data_range` is the value range of image arrays; auto infers it. ValueError if there are no such data or they cannot be
    trained on.
    """
    path, suffix = Path(source), Path(source).suffix.lower()
    known = source == "digits" or source in TOYS or path.exists()
    if data_range != "auto" and known and not (path.is_file() and suffix in (".npy", ".npz")):
        raise ValueError(
            f"data_range {data_range} applies to .npy and .npz files of images, not to {source}; leave it out"
        )
    if source == "digits":
        return digits()
    if source in TOYS:
        return Dataset(source, TOYS[source](5_000, seeded(0)))
    if path.is_dir():
        return _validated(image_folder(path))
    if not known:
        raise ValueError(f"data: {source!r} is not a file or folder, nor one of digits, {', '.join(TOYS)}")
    if suffix not in READERS:
        raise ValueError(
            f"{path}: cannot read {suffix or 'a file without extension'}; give a folder of images, {', '.join(READERS)}"
        )
    return _validated(READERS[suffix](path) if data_range == "auto" else numpy_array(path, data_range))


def absolute_source(source: str) -> str:
    """`source` as an absolute path with links and ~ resolved; names of built-in data and missing paths are left unchanged."""
    path = Path(source).expanduser()
    return source if source == "digits" or source in TOYS or not path.exists() else str(path.resolve())


def digits() -> Dataset:
    """1,797 labelled images of handwritten digits, 8 x 8 pixels with values 0 .. 16, bundled with scikit-learn."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(pixels).float().reshape(-1, 1, 8, 8)
    names = tuple(str(k) for k in range(10))
    return Dataset("digits", x, torch.as_tensor(labels).long(), levels=16.0, layout=Layout("images", classes=names))


def _validated(data: Dataset) -> Dataset:
    """The data set, unchanged. ValueError if it cannot be trained on."""
    if not data.x.numel():
        raise ValueError(
            f"{data.name}: {len(data.x)} items of shape {data.shape} hold no values to train on; give more data"
        )
    if data.labels is not None and len(data.labels) != len(data.x):
        raise ValueError(f"{data.name}: {len(data.labels)} labels for {len(data.x)} items; give one label per item")
    flat = data.x.flatten(1)
    nonfinite = ~torch.isfinite(flat)
    if bool(nonfinite.any()):
        row, column = (int(i) for i in nonfinite.nonzero()[0])
        raise ValueError(
            f"{data.name}: item {row} holds {float(flat[row, column])} at entry {column}, one of {int(nonfinite.sum())}"
            " non-finite values; remove, fill or rescale them"
        )
    if len(flat) > 1 and len(data.shape) == 1:
        constant = (flat == flat[0]).all(0).nonzero()
        if len(constant):
            column = int(constant[0])
            raise ValueError(f"{data.name}: column {column} is {float(flat[0, column])} in every row; drop it")
    largest = float(flat.abs().max())
    if data.levels is None and not 1e-150 < largest < 1e150:
        raise ValueError(
            f"{data.name}: the largest entry is {largest:g}, whose square is outside the range of float64; "
            "rescale the data"
        )
    return data


def stratified_labels(data: Dataset, n: int, seed: int) -> Int[Tensor, "n"] | None:
    """n labels with the class frequencies of the data, shuffled; None if the data have no labels."""
    if data.labels is None:
        return None
    return data.labels[shuffled(0, n, len(data.labels), seed)]
