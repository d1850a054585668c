"""Output files of `monge generate sample`, moved into place once all are written: a full disk leaves earlier files intact."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monge.apps.generate import arrays, sheets, tables
from monge.apps.generate.dataset import Dataset
from monge.apps.generate.pictures import PAIRS, Cloud, clouds
from monge.apps.generate.sample import Generator
from monge.files import writing


@dataclass(frozen=True)
class Samples:
    """Samples (n, *s) in the data's units, their labels (n,), and states (m, *s) of the first m samples along the flow."""

    x: Tensor
    labels: Tensor | None
    states: Sequence[Tensor]


def save_samples(
    generator: Generator, samples: Samples, real: Dataset | None, out: Path, *, single_images: bool = False
) -> list[str]:
    """Write samples, a picture of them next to real items, and a film of the states into `out`; return the file names.

    ValueError if `single_images` is set and samples are not images of 1, 3 or 4 channels.
    """
    image = len(generator.shape) == 3
    if single_images and not image:
        raise ValueError(f"--save-images: samples of shape {generator.shape} are not images; leave it out")
    with writing(out), tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as name:
        temporary = Path(name)
        names = _write_numbers(generator, samples, temporary)
        if image:
            _draw_images(generator, samples, real, temporary)
        else:
            _draw_points(generator, samples, real, temporary)
        if single_images:
            classes = _class_names(generator)
            bounds = _bounds(generator, samples.x, real)
            sheets.save_images(samples.x, samples.labels, classes, temporary / "images", bounds=bounds)
            names.append("images/")
        for path in temporary.iterdir():
            if path.is_dir():
                shutil.rmtree(out / path.name, ignore_errors=True)
            path.replace(out / path.name)
    return ["samples.png", "film.png", *names]


def _write_numbers(generator: Generator, samples: Samples, out: Path) -> list[str]:
    """Write samples.npz and, for arrays and tables, the samples in the format of the data; return the file names."""
    contents: dict[str, Any] = {"x": samples.x.numpy()}
    layout = generator.layout
    if samples.labels is not None:
        contents["labels"] = samples.labels.numpy()
        if layout.classes:
            contents["class_names"] = np.array(layout.classes)
    np.savez(out / "samples.npz", **contents)
    if layout.kind == "array":
        np.save(out / "samples.npy", arrays.restore(samples.x, layout))
        return ["samples.npz", "samples.npy"]
    if layout.kind in ("table", "csv"):
        return ["samples.npz", *tables.write(tables.restore(samples.x, samples.labels, layout), out, layout)]
    return ["samples.npz"]


def _class_names(generator: Generator) -> tuple[str, ...]:
    """The names of the classes, or their numbers if they have none."""
    return generator.layout.classes or tuple(str(k) for k in range(generator.classes))


def _bounds(generator: Generator, x: Tensor, real: Dataset | None) -> tuple[float, float]:
    """Values drawn as black and white: the data's bounds or, without any, the 0.5 % and 99.5 % quantiles of real items or x."""
    if generator.bounds is not None:
        return generator.bounds
    shown = (x if real is None else real.x)[:, :3].flatten().double()
    low, high = (float(v) for v in torch.quantile(shown[:1_000_000], torch.tensor([0.005, 0.995]).double()))
    return (low, high) if low < high else (low - 1, low + 1)


def _draw_images(generator: Generator, samples: Samples, real: Dataset | None, out: Path) -> None:
    names, labels, n = _class_names(generator), samples.labels, len(samples.x)
    bounds = _bounds(generator, samples.x, real)
    in_turn = labels is not None and len(labels.unique()) > 1
    by_column = in_turn and len(names) <= min(16, n)
    columns = len(names) if by_column else max(1, round(n**0.5))
    legend = "" if labels is None else f", class {names[int(labels[0])]}"
    if in_turn:
        order = "one class per column" if by_column else "classes in turn"
        legend = f", {order}: {', '.join(names[: min(n, 40)])}"
    if generator.bounds is None:
        legend += f" ({3 if generator.shape[0] >= 3 else 1} of {generator.shape[0]} channels, contrast stretched)"
    grids = [sheets.Grid(samples.x, columns, f"generated{legend}")]
    if real is not None and len(chosen := _matching_real_images(real, labels, n)):
        grids.append(sheets.Grid(chosen, columns, "real"))
    sheets.sheet(grids, out / "samples.png", bounds=bounds)
    stops = _film_indices(len(samples.states), 10)
    strip = torch.stack([samples.states[stop] for stop in stops], 1).flatten(0, 1)
    sheets.sheet([sheets.Grid(strip, len(stops))], out / "film.png", bounds=bounds)


def _matching_real_images(real: Dataset, labels: Tensor | None, n: int) -> Tensor:
    """Real images in the order of the samples' classes: all of one class, or all classes in turn."""
    if labels is None or real.labels is None:
        return real.x[:n]
    if len(labels.unique()) == 1:
        return real.x[real.labels == labels[0]][:n]
    rows = [(real.labels == label).nonzero()[:, 0] for label in range(int(labels.max()) + 1)]
    rounds = max(1, min(map(len, rows)))
    order = [row[k] for k in range(rounds) for row in rows if k < len(row)]
    return real.x[torch.stack(order)][:n]


def _draw_points(generator: Generator, samples: Samples, real: Dataset | None, out: Path) -> None:
    columns, classes = generator.layout.columns, _class_names(generator)
    generated = Cloud(samples.x.flatten(1), "generated", samples.labels)
    shown, labels = [generated], samples.labels
    if real is not None:
        matching = real
        if labels is not None and real.labels is not None and len(labels.unique()) == 1:
            matching = real.rows(real.labels == labels[0])
        shown = [Cloud(matching.x.flatten(1), "real", matching.labels), generated] if len(matching.x) else shown
    clouds(shown, out / "samples.png", columns=columns, classes=classes, pairs=PAIRS if columns else 1)
    last = len(samples.states) - 1
    stops = _film_indices(len(samples.states), 6)
    film = [Cloud(samples.states[stop].flatten(1), f"t = {stop / max(1, last):.2f}") for stop in stops]
    clouds(film, out / "film.png", columns=columns)


def _film_indices(count: int, panels: int) -> list[int]:
    """Evenly spaced indices of at most `panels` out of `count` states, including the first and the last."""
    return torch.linspace(0, count - 1, min(panels, count)).round().long().tolist()
