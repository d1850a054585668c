"""Pictures show what they are given."""

import numpy as np
import torch
from PIL import Image

from monge.apps.generate import pictures


def test_a_grid_holds_every_image_in_reading_order(tmp_path):
    x = torch.stack([torch.full((1, 4, 4), float(level)) for level in range(6)])
    path = pictures.images(x, tmp_path / "grid.png", columns=3, levels=5, side=4)
    sheet = np.asarray(Image.open(path)).astype(int)
    centres = sheet[3::6, 3::6]  # tiles of 4 pixels, framed by one
    assert centres.tolist() == [[0, 51, 102], [153, 204, 255]]


def test_colours_stay_where_they_are(tmp_path):
    x = torch.zeros(1, 3, 8, 8)
    x[:, 2] = 255
    path = pictures.images(x, tmp_path / "blue.png", columns=1, levels=255, side=8)
    assert np.asarray(Image.open(path))[4, 4].tolist() == [0, 0, 255]


def test_curves_and_clouds_are_written(tmp_path):
    lines = {"euler": [(1, 3.0), (2, 1.0)]}
    for path in (
        pictures.curves(lines, tmp_path / "curve.png", x="evaluations", y="frechet", floor=0.5),
        pictures.clouds([torch.randn(50, 2), torch.randn(50, 1)], tmp_path / "clouds.png", titles=["a", "b"]),
    ):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.min() < 100 < pixels.max()
