"""Image files: sheets of titled grids, and single images."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

FRAME = 96  # grey level between tiles
TITLE = 14  # height of a line of text in pixels


@dataclass(frozen=True)
class Grid:
    """Images in reading order, `columns` per row, under a title."""

    x: Float[Tensor, "n C H W"]
    columns: int
    title: str = ""


def pixels(x: Float[Tensor, "n C H W"], bounds: tuple[float, float]) -> Tensor:
    """Images as levels 0 to 255, clipped to `bounds`: the first three channels, or the first if there are fewer than three."""
    low, high = bounds
    shown = x[:, : 3 if x.shape[1] >= 3 else 1]
    return ((shown.clamp(low, high) - low) * (255 / (high - low))).round().to(torch.uint8)


def sheet(grids: Sequence[Grid], path: Path, *, bounds: tuple[float, float], side: int = 32) -> Path:
    """Write a PNG of grids, one below the other, whose images are enlarged to at least `side` pixels wide; return `path`."""
    from PIL import Image

    tiles = [_tiles(grid, bounds, side) for grid in grids]
    width, mode = max(part.shape[1] for part in tiles), "L" if tiles[0].ndim == 2 else "RGB"
    parts = []
    for grid, part in zip(grids, tiles, strict=True):
        parts += [_text(grid.title, width, mode)] if grid.title else []
        parts.append(Image.fromarray(part))
    canvas, top = Image.new(mode, (width, sum(part.height for part in parts)), "white"), 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    canvas.save(path)
    return path


def _tiles(grid: Grid, bounds: tuple[float, float], side: int) -> np.ndarray:
    """The images of a grid as one array, (H, W) or (H, W, 3), with frames between them."""
    x, columns = pixels(grid.x, bounds), grid.columns
    zoom = max(1, -(-side // x.shape[-1]))
    x = x.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    x = torch.nn.functional.pad(x, (1, 1, 1, 1), value=FRAME)
    rows = -(-len(x) // columns)
    missing = x.new_full((rows * columns - len(x), *x.shape[1:]), FRAME)
    tiles = torch.cat([x, missing]).unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    joined = tiles.reshape(tiles.shape[0], rows * tiles.shape[2], -1).numpy()
    return joined[0] if len(joined) == 1 else np.ascontiguousarray(np.moveaxis(joined, 0, -1))


def _text(text: str, width: int, mode: str):
    """An image of this width that shows the text, wrapped."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default()
    character = max(1.0, font.getlength("abcdefghij ,0123") / 16)  # mean width in pixels
    lines = textwrap.wrap(text, max(4, int((width - 4) / character)))
    picture = Image.new(mode, (width, TITLE * len(lines) + 2), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((2, 1 + number * TITLE), line, fill="black", font=font)
    return picture


def save_images(
    x: Float[Tensor, "n C H W"],
    labels: Tensor | None,
    classes: Sequence[str],
    folder: Path,
    *,
    bounds: tuple[float, float],
) -> None:
    """Write one PNG file per image, in a folder per class if there are labels. A fourth channel is alpha.

    `bounds` are the values of black and white. ValueError unless there are 1, 3 or 4 channels.
    """
    from PIL import Image

    if x.shape[1] not in (1, 3, 4):
        raise ValueError(f"--save-images: cannot write images of {x.shape[1]} channels; leave it out")
    low, high = bounds
    levels = ((x - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()
    names = folder_names(classes)
    for number, array in enumerate(levels):
        directory = folder if labels is None else folder / names[int(labels[number])]
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(directory / f"{number:05}.png")


def folder_names(classes: Sequence[str]) -> list[str]:
    """Folder names for the classes, distinct even if case is ignored."""
    names = [re.sub(r"[^\w +=@-]", "_", name)[:100].strip() or "_" for name in classes]
    folded, numbered = [name.lower() for name in names], [f"{k}_{name}" for k, name in enumerate(names)]
    mixed = [name if folded.count(name.lower()) == 1 else other for name, other in zip(names, numbered, strict=True)]
    return mixed if len({name.lower() for name in mixed}) == len(mixed) else numbered
