"""Pictures show their input: the order, the colours and the range of images, titles and labels."""

import numpy as np
import torch
from PIL import Image

from monge.apps.generate import pictures
from monge.apps.generate.pictures import Cloud
from monge.apps.generate.sheets import Grid, folder_names, sheet


def test_a_grid_holds_every_image_in_reading_order(tmp_path):
    x = torch.stack([torch.full((1, 4, 4), float(level)) for level in range(6)])
    path = sheet([Grid(x, 3)], tmp_path / "grid.png", bounds=(0, 5), side=4)
    drawn = np.asarray(Image.open(path)).astype(int)
    centres = drawn[3::6, 3::6]  # tiles of 4 x 4 pixels with a frame of one pixel
    assert centres.tolist() == [[0, 51, 102], [153, 204, 255]]


def test_colour_channels_keep_their_order(tmp_path):
    x = torch.zeros(1, 3, 8, 8)
    x[:, 2] = 255
    path = sheet([Grid(x, 1)], tmp_path / "blue.png", bounds=(0, 255), side=8)
    assert np.asarray(Image.open(path))[4, 4].tolist() == [0, 0, 255]


def test_curves_and_clouds_are_written(tmp_path):
    lines = {"euler": [(1, 3.0), (2, 1.0)]}
    for path in (
        pictures.curves(lines, tmp_path / "curve.png", x="evaluations", y="frechet", floor=0.5),
        pictures.clouds(
            [Cloud(torch.randn(50, 3), "a"), Cloud(torch.randn(50, 3), "b", torch.arange(50) % 2)],
            tmp_path / "clouds.png",
            columns=["price $", "cost $", "_x"],
            classes=["cat", "_dog"],
            pairs=4,
        ),
        pictures.clouds([Cloud(torch.randn(50, 1), "a")], tmp_path / "line.png"),
    ):
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.min() < 100 < pixels.max()


def test_a_range_below_zero_is_drawn_from_black_to_white(tmp_path):
    x = torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 4, 4)
    path = sheet([Grid(x, 3)], tmp_path / "grid.png", bounds=(-1, 1), side=4)
    assert np.asarray(Image.open(path))[3, 3::6].tolist() == [0, 128, 255]


def test_titles_are_drawn_above_their_grids(tmp_path):
    x = torch.zeros(4, 5, 8, 8)  # five channels: the first three are drawn
    path = sheet(
        [Grid(x, 2, "generated: " + "a long name, " * 9), Grid(x, 2, "real")], tmp_path / "s.png", bounds=(0, 1)
    )
    image = Image.open(path)
    assert image.mode == "RGB"
    assert image.height > 4 * 34 + 4 * 14
    assert np.asarray(image)[:10].min() < 100 < np.asarray(image)[:10].max()


def test_class_names_become_distinct_folder_names():
    assert folder_names(["a/b", "a b", "Cat", "cat", "..", ""]) == ["a_b", "a b", "2_Cat", "3_cat", "__", "_"]
    assert folder_names(["a/b", "a_b", "1_a_b"]) == ["0_a_b", "1_a_b", "2_1_a_b"]
