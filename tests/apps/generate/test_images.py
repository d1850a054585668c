"""Images are decoded as a viewer shows them, and subfolders become classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.testing import assert_close

from monge.apps.generate.data import load


def fill(folder: Path, *names: str, size: int = 8) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (size, size), number).save(folder / name)
    return folder


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "a/0.png", "b/0.png", ".ipynb_checkpoints/0.png", "a/.ipynb_checkpoints/0.png", "__MACOSX/a/0.png")
    (tmp_path / "a/._0.png").write_bytes(b"\0\5\x16\7Mac OS X")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "b/Thumbs.db").write_bytes(b"\0")
    (tmp_path / ".hidden.png").write_bytes(b"\0")
    data = load(str(tmp_path))
    assert data.layout.classes == ("a", "b")
    assert data.x[:, 0, 0, 0].tolist() == [0, 1]


def test_a_folder_below_a_hidden_one_is_read(tmp_path: Path) -> None:
    assert len(load(str(fill(tmp_path / ".cache/images", "a/0.png", "b/0.png"))).x) == 2


def test_links_are_followed_but_not_in_cycles(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "0.png", "1.png")
    fill(tmp_path / "images", "a/2.png")
    (tmp_path / "images/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/a/3.png").symlink_to(tmp_path / "elsewhere/0.png")
    (tmp_path / "images/a/loop").symlink_to(tmp_path / "images")
    data = load(str(tmp_path / "images"))
    assert data.labels is not None
    assert data.layout.classes == ("a", "b")
    assert data.labels.tolist() == [0, 0, 1, 1]


def test_folders_named_by_numbers_are_in_numerical_order(tmp_path: Path) -> None:
    data = load(str(fill(tmp_path, *(f"{k}/0.png" for k in range(12)))))
    assert data.layout.classes == tuple(str(k) for k in range(12))
    assert data.labels is not None
    assert data.labels.tolist() == data.x[:, 0, 0, 0].tolist()


def test_nested_images_have_the_class_of_their_first_level_folder_with_a_note(tmp_path: Path) -> None:
    data = load(str(fill(tmp_path, "a/0.png", "a/more/1.png", "b/0.png")))
    assert data.layout.classes == ("a", "b")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1]
    assert any("a/more" in note for note in data.notes)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load(str(fill(tmp_path, "bus/0.png", "train/0.png"))).layout.classes == ("bus", "train")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = orientation
    image.save(tmp_path / "0.png", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "0.png")))
    assert_close(load(str(tmp_path)).x[0], torch.from_numpy(shown.copy()).permute(2, 0, 1).float())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composited_on_white(tmp_path: Path, mode: str) -> None:
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 10, 10, 255)  # opaque
    rgba[1, 1] = (0, 0, 0, 51)  # a fifth opaque
    image = Image.fromarray(rgba)
    if mode == "P":
        image = Image.new("P", (2, 2), 1)
        image.putpalette([10, 10, 10, 99, 0, 0])
        image.putpixel((0, 0), 0)
        image.save(tmp_path / "0.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "0.png")
    data = load(str(tmp_path))
    levels = data.x[0, 0].tolist()
    assert data.shape[0] == (1 if mode == "LA" else 3)
    assert levels == [[10, 255], [255, 255 if mode == "P" else 204]]
    assert any("1 images with transparent pixels" in note for note in data.notes)


def test_opaque_images_have_no_note(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(tmp_path / "0.png")
    assert load(str(tmp_path)).notes == ()


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("CMYK", 3), ("YCbCr", 3)])
def test_modes_become_grey_or_colour(tmp_path: Path, mode: str, channels: int) -> None:
    Image.new("RGB", (4, 4), "white").convert(mode).save(tmp_path / ("0.png" if mode in "1LP" else "0.jpg"))
    x = load(str(tmp_path)).x
    assert x.shape == (1, channels, 4, 4)
    assert float(x.min()) >= 250
