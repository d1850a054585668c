"""Numpy files: points (n, D) or images (n, H, W), (n, C, H, W) or (n, H, W, C), with optional labels in an .npz."""

from pathlib import Path

import numpy as np
import torch

from monge.apps.generate.dataset import Dataset, Layout, check_distinct, classes_of, to_float_tensor, to_integers
from monge.apps.generate.images import Range, value_range

X, LABELS = ("x", "X"), ("labels", "label", "y", "Y")


def numpy_array(path: Path, data_range: Range = "auto") -> Dataset:
    """The data of an .npy file, or of the arrays x and, optionally, labels (or label, y) of an .npz file.

    `data_range` is the value range of images; auto infers it. ValueError if the file cannot be used.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"x": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except PermissionError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise their own errors
        raise ValueError(
            f"{path}: not a complete numpy file of numbers ({type(error).__name__}); save it again"
        ) from error
    array, values, notes = _select_arrays(path, arrays)
    if array.dtype.kind not in "iufb" or not 2 <= array.ndim <= 4:
        raise ValueError(
            f"{path}: the array is {array.dtype} {array.shape}; give numbers of shape (n, D),"
            " (n, H, W), (n, C, H, W) or (n, H, W, C)"
        )
    check_distinct(f"{path}: the array", array)
    labels, classes = (None, ()) if values is None else classes_of(f"{path}: labels", values)
    axes = _axes(array.shape)
    if not array.size or (axes == "ND" and data_range == "auto"):
        layout = Layout("array", str(array.dtype), axes, classes=classes)
        return Dataset(str(path), to_float_tensor(array), labels, None, layout, tuple(notes))
    if axes == "ND":
        raise ValueError(f"{path}: --data-range applies to images, but the array has shape {array.shape}; leave it out")
    if array.ndim == 4 and (axes == "NHWC" or array.shape[1] not in (1, 3, 4)):
        notes.append(f"{path}: shape {array.shape} is read as images (n, {', '.join(axes[1:])})")
    images = channels_first(array, axes)
    nonfinite = images[~np.isfinite(images)] if images.dtype.kind == "f" else images[:0]
    levels, bounds, range_notes = (None, None, []) if nonfinite.size else value_range(str(path), images, data_range)
    layout = Layout("array", str(array.dtype), axes, classes=classes, bounds=bounds)
    x = to_float_tensor(np.ascontiguousarray(images))
    return Dataset(str(path), x, labels, levels, layout, (*notes, *range_notes))


def _select_arrays(path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """(data, labels or None, notes), picked by name from the arrays of a file."""
    x = next((name for name in X if name in arrays), "arr_0" if list(arrays) == ["arr_0"] else None)
    if x is None:
        raise ValueError(f"{path}: no array 'x', only {sorted(arrays)}; save with np.savez(path, x=..., labels=...)")
    labels = [name for name in LABELS if name in arrays]
    if len(labels) > 1:
        raise ValueError(f"{path}: {' and '.join(map(repr, labels))} may both be labels; save only one of them")
    unused = sorted(arrays.keys() - {x, *labels})
    notes = [f"{path}: unused arrays: {', '.join(map(repr, unused))}"] if unused else []
    if labels and labels[0] != "labels":
        notes.append(f"{path}: {labels[0]!r} is read as labels")
    return arrays[x], arrays[labels[0]] if labels else None, notes


def _axes(shape: tuple[int, ...]) -> str:
    """The axes of an array of this shape: ND, NHW, NCHW or NHWC.

    Channels are last if the last axis, but not the second, has length 1, 3 or 4, except in square latents (n, 16, 4, 4).
    """
    if len(shape) < 4:
        return {2: "ND", 3: "NHW"}[len(shape)]
    first, rows, last = shape[1:]
    return "NHWC" if last in (1, 3, 4) and first not in (1, 3, 4) and rows != last else "NCHW"


def channels_first(array: np.ndarray, axes: str) -> np.ndarray:
    """Images with axes NHW, NCHW or NHWC as (n, C, H, W)."""
    if axes == "NHWC":
        return np.moveaxis(array, -1, 1)
    return array[:, None] if axes == "NHW" else array


def restore(x: torch.Tensor, layout: Layout) -> np.ndarray:
    """Samples with the axes and dtype of the original array: integers are rounded and clipped, booleans are true from 0.5."""
    array, dtype = x.numpy(), np.dtype(layout.dtype)
    if layout.axes == "NHWC":
        array = np.moveaxis(array, 1, -1)
    elif layout.axes == "NHW":
        array = array[:, 0]
    if dtype.kind == "b":
        return array >= 0.5
    return np.ascontiguousarray(to_integers(array, dtype) if dtype.kind in "iu" else array.astype(dtype))
