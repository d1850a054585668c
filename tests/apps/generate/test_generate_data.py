"""Data are loaded with the values they have on disk, and samples have the same units."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from monge.apps.generate.data import Dataset, digits, load
from monge.apps.generate.recipes import Generate, generator_of
from monge.apps.generate.toys import TOYS
from monge.math.random import seeded
from monge.run import fit
from monge.runs import reopen
from monge.training.config import TrainConfig


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_colour_images_are_loaded_pixel_for_pixel(tmp_path: Path, ending: str) -> None:
    images = pixels(0, 5, 6, 4, 3)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.{ending}")
    data = load(str(tmp_path))
    assert data.labels is None
    assert data.levels == 255
    assert_close(data.x, torch.from_numpy(images).permute(0, 3, 1, 2).float(), rtol=0, atol=0)


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    images = pixels(1, 3, 6, 4)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.PNG")
    assert_close(load(str(tmp_path)).x, torch.from_numpy(images)[:, None].float(), rtol=0, atol=0)


def test_palettes_and_transparency_become_colours(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(2, 4, 4, 3))
    image.convert("P").save(tmp_path / "0.png")
    image.convert("RGBA").save(tmp_path / "1.png")
    x = load(str(tmp_path)).x
    assert x.shape == (2, 3, 4, 4)
    assert_close(x[1], torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float(), rtol=0, atol=0)


def test_subfolders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, count in (("zebra", 2), ("ant", 3), ("moth", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            Image.new("L", (4, 4), {"ant": 10, "moth": 20, "zebra": 30}[name]).save(tmp_path / name / f"{number}.png")
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    data = load(str(tmp_path))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1, 2, 2]
    assert data.classes == 3
    assert_close(data.x[:, 0, 0, 0], 10.0 * (data.labels + 1))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, np.uint8])
def test_arrays_are_loaded_unchanged(tmp_path: Path, dtype: type) -> None:
    x = pixels(3, 9, 5).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    data = load(str(tmp_path / "x.npy"))
    assert_close(data.x, torch.from_numpy(x.astype(np.float32)), rtol=0, atol=0)
    assert data.levels is None
    assert data.classes == 0


@pytest.mark.parametrize("shape", [(9, 4, 6), (9, 3, 4, 6)])
def test_arrays_of_three_and_four_axes_are_images(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = pixels(4, *shape)
    np.save(tmp_path / "x.npy", x)
    data = load(str(tmp_path / "x.npy"))
    assert data.shape == ((1, 4, 6) if len(shape) == 3 else (3, 4, 6))
    assert data.levels == 255
    assert_close(data.x.reshape(shape), torch.from_numpy(x).float(), rtol=0, atol=0)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_with_labels_are_loaded_unchanged(tmp_path: Path, save) -> None:
    x, labels = np.random.default_rng(5).standard_normal((9, 2)), np.arange(9) % 4
    save(tmp_path / "x.npz", x=x, labels=labels)
    data = load(str(tmp_path / "x.npz"))
    assert data.labels is not None
    assert data.labels.tolist() == labels.tolist()
    assert data.classes == 4
    assert_close(data.x, torch.from_numpy(x))


def test_tables_are_loaded_in_the_order_of_their_columns(tmp_path: Path) -> None:
    x = np.random.default_rng(6).standard_normal(8)
    columns = {"b": x, "label": np.arange(8) % 2, "a": np.arange(8), "c": x.astype(np.float32) ** 2}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=3)
    data = load(str(tmp_path / "x.parquet"))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1] * 4
    expected = np.stack([columns["b"], columns["a"], columns["c"]], 1)
    assert_close(data.x, torch.from_numpy(expected), rtol=0, atol=0)
    assert data.layout.columns == ("b", "a", "c")


def test_the_digits_have_the_known_shape_range_and_class_counts() -> None:
    data = digits()
    assert data.x.shape == (1797, 1, 8, 8)
    assert (float(data.x.min()), float(data.x.max())) == (0, 16)
    assert data.labels is not None
    assert torch.bincount(data.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_reproducible(name: str) -> None:
    one, two = load(name), load(name)
    assert torch.equal(one.x, two.x)
    assert one.shape == (2,)
    assert len(one.x.unique(dim=0)) > 0.99 * len(one.x)


def test_toys_have_the_geometry_of_their_docstrings() -> None:
    draw = {name: toy(4000, seeded(1)) for name, toy in TOYS.items()}
    radius = {name: x.norm(dim=1) for name, x in draw.items()}
    corner = (draw["gaussians"] / 5 - torch.tensor([1.0, 0.0])).norm(dim=1)
    assert abs(float((corner < 0.5).double().mean()) - 1 / 8) < 0.03
    assert draw["checkerboard"].abs().max() <= 4
    squares = (draw["checkerboard"] / 2).floor().sum(1) % 2
    assert len(squares.unique()) == 1
    assert (((radius["circles"] - 2).abs() < 0.8) | ((radius["circles"] - 4).abs() < 0.8)).all()
    assert radius["spirals"].max() < 4.6


@given(st.integers(2, 200), st.sampled_from([0.1, 0.2, 0.5]))
def test_the_split_is_deterministic_and_a_partition(n: int, held_out: float) -> None:
    data = Dataset("test", torch.arange(float(n))[:, None], torch.arange(n))
    training, rest = data.split(held_out=held_out)
    repeated, _ = data.split(held_out=held_out)
    assert torch.equal(training.x, repeated.x)
    assert sorted(training.x.flatten().tolist() + rest.x.flatten().tolist()) == list(range(n))
    assert len(rest.x) == max(1, round(n * held_out))
    for part in (training, rest):
        assert part.labels is not None
        assert torch.equal(part.labels.float(), part.x[:, 0])


@given(st.lists(st.integers(1, 30), min_size=2, max_size=9), st.integers(0, 2**31))
def test_every_class_has_a_training_item_if_a_swap_can_give_it_one(counts: list[int], seed: int) -> None:
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=seeded(seed))]
    data = Dataset("test", torch.arange(float(len(labels)))[:, None], labels)
    training, rest = data.split()
    assert training.labels is not None
    assert rest.labels is not None
    assert sorted([*training.x.flatten().tolist(), *rest.x.flatten().tolist()]) == list(range(len(labels)))
    assert torch.equal(labels[training.x.flatten().long()], training.labels)
    training_counts = torch.bincount(training.labels, minlength=len(counts))
    assert (training_counts > 0).all() or int(training_counts.max()) < 2
    plain, _ = replace(data, labels=None).split()
    if (torch.bincount(labels[plain.x.flatten().long()], minlength=len(counts)) > 0).all():
        assert torch.equal(training.x, plain.x)  # no swap where none is needed


def test_the_scale_is_one_for_all_pixels_and_one_per_column() -> None:
    x = torch.randn(500, 3, generator=seeded(2), dtype=torch.float64) * torch.tensor([1.0, 10, 100]) + 7
    table, images = Dataset("t", x), Dataset("i", x, levels=255.0)
    assert_close(table.units().apply(x).std(0, correction=0), torch.ones(3, dtype=torch.float64))
    scale = images.units().scale
    assert_close(scale, scale[:1].expand(3))
    for data in (table, images):
        units = data.units()
        assert_close(units.apply(x).mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-10)
        assert_close(units.undo(units.apply(x)), x)


@pytest.mark.slow
def test_samples_of_a_run_are_in_the_units_of_its_data(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    x = generator.standard_normal((400, 2)) * [0.1, 50] + [1000, -3]
    np.save(tmp_path / "x.npy", x)
    config = TrainConfig(steps=300, warmup_steps=10, lr=3e-3, save_every=300, device="cpu")
    recipe = Generate(data=str(tmp_path / "x.npy"), width=32, depth=1, batch_size=64, train=config)
    fit(recipe, tmp_path / "run")
    drawn, labels = generator_of(reopen(tmp_path / "run", app="generate")).sample(2000, generator=seeded(1))
    assert labels is None
    # 300 steps suffice for a normal cloud; a mistake in the units would be a factor of at least 50
    assert_close(drawn.double().mean(0), torch.tensor([1000.0, -3.0]).double(), rtol=0, atol=10)
    ratio = drawn.double().std(0) / torch.from_numpy(x.std(0))
    assert ((ratio > 0.7) & (ratio < 1.4)).all()
    assert abs(float(drawn[:, 0].double().mean()) - 1000) < 0.05


def test_an_unconditional_recipe_ignores_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(8).standard_normal((30, 2)), labels=np.arange(30) % 3)
    recipe = Generate(data=str(tmp_path / "x.npz"), width=8, depth=1, batch_size=4)
    assert recipe.build().constants["classes"] == 3
    unconditional = replace(recipe, conditional=False).build()
    assert unconditional.constants["classes"] == 0
    assert "label" not in unconditional.batches(0).cond
