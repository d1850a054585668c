"""What the verbs leave on disk: written aside and renamed, so that a full disk leaves the earlier files whole."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from monge.apps.generate import pictures
from monge.apps.generate.sample import Generator
from monge.files import writing


def save_samples(
    generator: Generator, final: torch.Tensor, states: Sequence[torch.Tensor], labels: torch.Tensor | None, out: Path
) -> None:
    """samples.npz, samples.png, and film.png of the states on the way, in `out`."""
    with writing(out), tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as aside:
        _draw(generator, final, states, labels, Path(aside))
        for path in Path(aside).iterdir():
            path.replace(out / path.name)


def _draw(
    generator: Generator, final: torch.Tensor, states: Sequence[torch.Tensor], labels: torch.Tensor | None, out: Path
) -> None:
    import numpy as np

    if labels is None:
        np.savez(out / "samples.npz", x=final.numpy())
    else:
        np.savez(out / "samples.npz", x=final.numpy(), labels=labels.numpy())
    panels = min(10 if generator.levels else 6, len(states))
    stops = torch.linspace(0, len(states) - 1, panels).round().long().tolist()
    if generator.levels:
        columns = max(1, round(len(final) ** 0.5))
        pictures.images(final, out / "samples.png", columns=columns, levels=generator.levels)
        strip = torch.stack([states[stop] for stop in stops], 1).flatten(0, 1)
        pictures.images(strip, out / "film.png", columns=len(stops), levels=generator.levels)
    else:
        pictures.clouds([final.flatten(1)], out / "samples.png", titles=["samples"])
        titles = [f"t = {stop / (len(states) - 1):.2f}" for stop in stops]
        pictures.clouds([states[stop].flatten(1) for stop in stops], out / "film.png", titles=titles)
