"""Image folders, decoded as a viewer shows them, and the value range of image arrays."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from monge.apps.generate.dataset import Dataset, Layout, natural

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
HIDDEN = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "__pycache__"}
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"}
Range = Literal["auto", "0..255", "0..1", "-1..1", "unbounded"]
BOUNDS = {"0..255": (0.0, 255.0), "0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}


def image_folder(folder: Path) -> Dataset:
    """All images under `folder`. If there are several subfolders, each is a class and includes the folders below it.

    ValueError if there are no images, they differ in size or mode, or the subfolders do not form classes.
    """
    paths = [path for path in _visible(folder, frozenset()) if path.suffix.lower() in IMAGES]
    if not paths:
        raise ValueError(f"{folder}: no images; add files ending in {', '.join(IMAGES)}")
    names, labels, notes = _classes(folder, paths)
    arrays: list[np.ndarray] = []
    composited = 0
    for path in paths:
        array, transparent = _pixels(path)
        composited += transparent
        arrays.append(array)
        if array.shape != arrays[0].shape:
            sizes = [" x ".join(map(str, shape)) for shape in (array.shape, arrays[0].shape)]
            raise ValueError(
                f"{path} is {sizes[0]}, but {paths[0].name} is {sizes[1]}; convert all images to one size and mode"
            )
    if composited:
        notes.append(f"{folder}: {composited} images with transparent pixels are composited on white")
    x = torch.from_numpy(np.stack(arrays)).float()
    x = x.permute(0, 3, 1, 2) if x.ndim == 4 else x[:, None]
    layout = Layout("images", classes=names)
    return Dataset(str(folder), x.contiguous(), labels, 255.0, layout, tuple(notes))


def _visible(folder: Path, ancestors: frozenset[Path]) -> Iterator[Path]:
    """The files under a folder in natural order, without hidden ones. Follows links, but not in cycles."""
    real = folder.resolve()
    if real in ancestors:
        return
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: natural(entry.name))
    for entry in ordered:
        if entry.name.startswith(".") or entry.name.lower() in HIDDEN:
            continue
        if entry.is_dir():
            yield from _visible(Path(entry.path), ancestors | {real})
        else:
            yield Path(entry.path)


def _classes(folder: Path, paths: list[Path]) -> tuple[tuple[str, ...], torch.Tensor | None, list[str]]:
    """(class names, labels, notes). The class of an image is the subfolder of `folder` that contains it, at any depth.

    Images in `folder` itself, or all in one subfolder, have no classes. ValueError if the folders are ambiguous.
    """
    parts = [path.relative_to(folder).parts for path in paths]
    names = sorted({part[0] for part in parts if len(part) > 1}, key=natural)
    stray = next((path for path, part in zip(paths, parts, strict=True) if len(part) == 1), None)
    if not names:
        return (), None, []
    if stray is not None:
        raise ValueError(f"{stray} is next to subfolders, which are classes; move it into one of them")
    splits = [name for name in names if name.lower() in SPLITS]
    if len(splits) > 1:
        first = next((name for name in splits if name.lower().startswith("train")), splits[0])
        raise ValueError(
            f"{folder}: the subfolders {', '.join(splits)} look like a split, not like classes; "
            f"point --data at {folder / first} (a fifth of it is held out)"
        )
    nested = sorted({str(Path(*part[:-1])) for part in parts if len(part) > 2}, key=natural)
    if len(names) == 1 and nested:
        raise ValueError(
            f"{folder}: all images are below {names[0]}, in folders such as {nested[0]}; point --data at {folder / names[0]}"
        )
    if len(names) == 1:
        return (), None, []
    notes = (
        [f"{folder}: images in {', '.join(nested[:3])} have the class of their first-level folder"] if nested else []
    )
    return tuple(names), torch.tensor([names.index(part[0]) for part in parts]), notes


def _pixels(path: Path) -> tuple[np.ndarray, bool]:
    """(8-bit grey or RGB pixels, True if some were transparent), turned upright by EXIF and composited on white."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            problem = _problem(image)
            upright = ImageOps.exif_transpose(image)
            transparent = False
            grey = upright.mode in ("1", "L", "LA", "La")
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                transparent = min(upright.getchannel("A").getextrema()) != 255
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
            pixels = np.asarray(upright.convert("L" if grey else "RGB"))
    except PermissionError:
        raise
    except Exception as error:  # each decoder raises its own errors
        raise ValueError(f"{path}: not a readable image ({error}); remove it or save it again") from error
    if problem:
        raise ValueError(f"{path}: {problem}")
    return pixels, transparent


def _problem(image: Any) -> str:
    """The reason why this image cannot be used; empty if it can."""
    if image.mode.startswith(("I", "F")) or re.search(r";(16|32)[BLN]", str(image.tile)):
        return f"mode {image.mode} with more than 8 bits per channel; save it with 8 bits"
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        return f"{image.n_frames} frames; save each frame as a separate image"
    return ""


def value_range(
    name: str, x: np.ndarray, requested: Range
) -> tuple[float | None, tuple[float, float] | None, list[str]]:
    """(levels, bounds, notes) of an array of images (n, C, H, W), from its values if `requested` is auto.

    Whole numbers in 0 .. 255 are pixels, of two levels if all are 0 or 1. Other floats are continuous: bounded by 0..1 or -1..1
    if all lie in that range and there are 1, 3 or 4 channels, else unbounded, like latents. ValueError for other integers, and
    for values outside the requested range.
    """
    low, high = float(x.min()), float(x.max())
    integral = x.dtype.kind in "iub" or bool((x == x.round()).all())
    if requested != "auto":
        return _range_given(name, (low, high), integral, requested)
    if integral and 0 <= low <= high <= 255:
        return (1.0 if 0 < high <= 1 else 255.0), None, []
    if x.dtype.kind in "iub":
        raise ValueError(
            f"{name}: integer images with values from {low:g} to {high:g}; scale them to 0 .. 255, or read them"
            " as continuous with --data-range unbounded"
        )
    is_picture = x.shape[1] in (1, 3, 4)
    for text in ("0..1", "-1..1"):
        if is_picture and BOUNDS[text][0] <= low <= high <= BOUNDS[text][1]:
            return None, BOUNDS[text], [f"{name}: read as continuous images with values in {text} (see --data-range)"]
    note = f"{name}: read as continuous values without bounds, from {low:g} to {high:g} (see --data-range)"
    return None, None, [note]


def _range_given(
    name: str, ends: tuple[float, float], integral: bool, requested: str
) -> tuple[float | None, tuple[float, float] | None, list[str]]:
    """(levels, bounds, no notes) for a range that the user gave and values between `ends`."""
    if requested == "unbounded":
        return None, None, []
    low, high = BOUNDS[requested]
    if not low <= ends[0] <= ends[1] <= high:
        raise ValueError(
            f"{name}: values from {ends[0]:g} to {ends[1]:g} do not lie in --data-range {requested}; give another range"
        )
    if integral and low == 0:
        return high, None, []
    return None, (low, high), []
