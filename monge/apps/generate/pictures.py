"""Plots of points and tables, and of metric curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

LEFT, RIGHT = "#8a8f98", "#1f5fbf"  # grey for the first cloud and for reference lines, blue for all other clouds
PAIRS = 4  # maximum number of column pairs in the picture of a table


@dataclass(frozen=True)
class Cloud:
    """Points under a title, coloured by class if they have labels of 2 to 10 classes."""

    x: Float[Tensor, "n D"]
    title: str
    labels: Int[Tensor, "n"] | None = None


def clouds(
    states: Sequence[Cloud],
    path: Path,
    *,
    columns: Sequence[str] = (),
    classes: Sequence[str] = (),
    pairs: int = 1,
) -> Path:
    """Plot the states side by side with common limits, one row for each of the first `pairs` coordinate pairs; return `path`.

    If `columns` names the coordinates, each has its own limits and label. Otherwise all axes of a row have the same scale.
    """
    width = states[0].x.shape[1]
    shown = [(start, (start + 1) % width) for start in range(0, width, 2)][:pairs]
    figure, axes = _figure(len(shown), len(states), width=3.0, height=3.2)
    for row, (first, second) in enumerate(shown):
        limits = [_limits([state.x[:, k] for state in states]) for k in (first, second)]
        if not columns:
            reach = max(abs(end) for pair in limits for end in pair)
            limits = [(-reach, reach)] * 2
        for number, state in enumerate(states):
            axis = axes[row * len(states) + number]
            _scatter(axis, state, first, second, classes, LEFT if number == 0 else RIGHT)
            axis.set(xlim=limits[0], ylim=limits[1])
            if columns:
                axis.set(xlabel=_literal(columns[first]), ylabel=_literal(columns[second]))
            else:
                axis.set(xticks=[], yticks=[], aspect="equal")
            if row == 0:
                axis.set_title(_literal(state.title), fontsize=10)
    return _save(figure, path)


def _scatter(axis, state: Cloud, first: int, second: int, classes: Sequence[str], colour: str) -> None:
    style = {"s": 2, "alpha": 0.5, "linewidths": 0}
    x, y = state.x[:, first], state.x[:, second]
    if state.labels is None or not 1 < len(classes) <= 10:
        axis.scatter(x, y, color=colour, **style)
        return
    handles = [
        axis.scatter(x[state.labels == k], y[state.labels == k], color=f"C{k}", **style) for k in range(len(classes))
    ]
    axis.legend(handles, [_literal(name) for name in classes], fontsize=7, markerscale=3, frameon=False)


def _limits(values: Sequence[Float[Tensor, "n"]]) -> tuple[float, float]:
    """Axis limits: the 0.1 % and 99.9 % quantiles of the values, with a margin."""
    ends = [torch.quantile(v[:100_000].double(), torch.tensor([0.001, 0.999]).double()) for v in values]
    low, high = min(float(end[0]) for end in ends), max(float(end[1]) for end in ends)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _literal(text: str) -> str:
    """Text whose dollar signs are escaped, since matplotlib would read them as formulas."""
    return text.replace("$", r"\$")


def curves(
    lines: Mapping[str, Sequence[tuple[int, float]]], path: Path, *, x: str, y: str, floor: float | None = None
) -> Path:
    """Plot lines on logarithmic axes, with a dashed one at `floor`, the metric between real halves; return `path`."""
    from matplotlib.ticker import LogLocator

    figure, (axis,) = _figure(1, 1, width=6.0, height=4.0)
    for name, points in lines.items():
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    if floor is not None:
        axis.axhline(floor, color=LEFT, linestyle="--", label="real against real")
    axis.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    axis.yaxis.set_minor_locator(LogLocator(subs=(1.5, 2, 3, 5, 7)))  # nine labels per decade would overlap
    axis.yaxis.set_minor_formatter("{x:.2g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3, which="both", linewidth=0.5)
    axis.legend(frameon=False)
    return _save(figure, path)


def losses(records: Sequence[Mapping[str, float]], path: Path) -> Path:
    """Plot the training loss and the held-out loss by step, from the records of metrics.jsonl; return `path`."""
    lines = {name: [(int(r["step"]), r[name]) for r in records if name in r] for name in ("loss", "held-out loss")}
    return curves({name: points for name, points in lines.items() if points}, path, x="step", y="loss")


def _figure(rows: int, columns: int, *, width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]


def _save(figure, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
