"""What a run looks like: grids and film strips of images, clouds of points, curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

LEFT, RIGHT = "#8a8f98", "#1f5fbf"  # source and target, in every picture


def images(x: Float[Tensor, "n C H W"], path: Path, *, columns: int, levels: float, side: int = 32) -> Path:
    """A PNG grid of images with values in 0 .. levels, each enlarged to at least `side` pixels."""
    from PIL import Image

    zoom = max(1, -(-side // x.shape[-1]))
    pixels = (x.clamp(0, levels) * (255 / levels)).round().to(torch.uint8)
    pixels = pixels.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)
    pixels = torch.nn.functional.pad(pixels, (1, 1, 1, 1), value=96)
    rows = -(-len(x) // columns)
    missing = pixels.new_full((rows * columns - len(x), *pixels.shape[1:]), 96)
    tiles = torch.cat([pixels, missing]).unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    sheet = tiles.reshape(tiles.shape[0], rows * tiles.shape[2], -1).numpy()
    Image.fromarray(sheet[0] if len(sheet) == 1 else np.moveaxis(sheet[:3], 0, -1)).save(path)
    return path


def clouds(states: Sequence[Float[Tensor, "n D"]], path: Path, *, titles: Sequence[str]) -> Path:
    """The first two coordinates of point sets, side by side on the same axes."""
    figure, axes = _figure(len(states), width=3.0, height=3.2)
    reach = 1.05 * max(float(state[:, :2].abs().quantile(0.999)) for state in states)
    for number, (axis, state, title) in enumerate(zip(axes, states, titles, strict=True)):
        colour = LEFT if number == 0 else RIGHT
        axis.scatter(
            state[:, 0], state[:, -1 if state.shape[1] == 1 else 1], s=2, alpha=0.5, color=colour, linewidths=0
        )
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
        axis.set_title(title, fontsize=10)
    return _save(figure, path)


def curves(
    lines: Mapping[str, Sequence[tuple[int, float]]], path: Path, *, x: str, y: str, floor: float | None = None
) -> Path:
    """Lines on logarithmic axes, with the floor between halves of the real data dashed."""
    from matplotlib.ticker import LogLocator

    figure, (axis,) = _figure(1, width=6.0, height=4.0)
    for name, points in lines.items():
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    if floor is not None:
        axis.axhline(floor, color=LEFT, linestyle="--", label="real against real")
    axis.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axis.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 5, 7)))  # nine labels to a decade would overlap
    axis.yaxis.set_minor_formatter("{x:.2g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3, which="both", linewidth=0.5)
    axis.legend(frameon=False)
    return _save(figure, path)


def losses(records: Sequence[Mapping[str, float]], path: Path) -> Path:
    """The training loss and the held-out loss by step, from metrics.jsonl."""
    lines = {name: [(int(r["step"]), r[name]) for r in records if name in r] for name in ("loss", "held-out loss")}
    return curves({name: points for name, points in lines.items() if points}, path, x="step", y="loss")


def _figure(panels: int, *, width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * panels, height), layout="constrained")
    return figure, [figure.add_subplot(1, panels, i + 1) for i in range(panels)]


def _save(figure, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
