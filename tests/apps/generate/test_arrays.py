"""Axes, dtypes and value ranges of arrays are inferred, and samples are written with the same axes and dtypes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from monge.apps.generate.arrays import restore
from monge.apps.generate.data import load
from monge.apps.generate.dataset import Layout, classes_of

DRAW = np.random.default_rng(0)


def saved(path: Path, **arrays: np.ndarray) -> str:
    if list(arrays) == ["npy"]:
        np.save(path / "x.npy", arrays["npy"])
        return str(path / "x.npy")
    np.savez(path / "x.npz", **arrays)
    return str(path / "x.npz")


@pytest.mark.parametrize(
    ("shape", "axes", "item"),
    [
        ((9, 32, 30, 3), "NHWC", (3, 32, 30)),
        ((9, 28, 28, 1), "NHWC", (1, 28, 28)),
        ((9, 6, 5, 4), "NHWC", (4, 6, 5)),
        ((9, 3, 4, 6), "NCHW", (3, 4, 6)),
        ((9, 3, 6, 3), "NCHW", (3, 6, 3)),
        ((9, 16, 4, 4), "NCHW", (16, 4, 4)),
        ((9, 4, 6), "NHW", (1, 4, 6)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float16, np.float64])
def test_axes_are_inferred_and_restored(tmp_path: Path, shape, axes, item, dtype) -> None:
    x = DRAW.integers(0, 2, shape).astype(dtype) if dtype == np.bool_ else DRAW.integers(0, 256, shape).astype(dtype)
    data = load(saved(tmp_path, npy=x))
    assert (data.shape, data.layout.axes) == (item, axes)
    restored = restore(data.x, data.layout)
    assert restored.dtype == dtype
    assert np.array_equal(restored, x)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float32])
def test_images_of_zeros_and_ones_have_two_levels(tmp_path: Path, dtype) -> None:
    data = load(saved(tmp_path, npy=(DRAW.random((20, 4, 4)) < 0.5).astype(dtype)))
    assert data.levels == 1


RANGES = {
    "fractions in 0..1": (DRAW.random((9, 3, 8, 8)), "auto", None, (0, 1)),
    "fractions in -1..1": (2 * DRAW.random((9, 8, 8)) - 1, "auto", None, (-1, 1)),
    "latents": (DRAW.standard_normal((9, 4, 8, 8)), "auto", None, None),
    "large": (300 * DRAW.random((9, 3, 8, 8)), "auto", None, None),
    "small latents": (0.1 * DRAW.standard_normal((9, 8, 8, 8)), "auto", None, None),
    "requested 0..255": (255 * DRAW.random((9, 3, 8, 8)), "0..255", None, (0, 255)),
    "requested pixels": (DRAW.integers(0, 2, (9, 8, 8)), "0..255", 255, None),
    "requested unbounded": (DRAW.integers(0, 999, (9, 8, 8)), "unbounded", None, None),
    "requested -1..1": (DRAW.integers(-1, 2, (9, 8, 8)), "-1..1", None, (-1, 1)),
}


@pytest.mark.parametrize(("x", "requested", "levels", "bounds"), RANGES.values(), ids=RANGES.keys())
def test_ranges_are_inferred_or_given(tmp_path: Path, x, requested, levels, bounds) -> None:
    data = load(saved(tmp_path, npy=x), data_range=requested)
    assert (data.levels, data.layout.bounds) == (levels, bounds)
    assert bool(data.notes) == (requested == "auto")
    assert_close(data.x.double().reshape(x.shape), torch.from_numpy(x).double(), rtol=1e-12, atol=0)
    assert len(data.units().scale.unique()) == 1


def test_values_outside_the_requested_range_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"values from .* do not lie in --data-range 0\.\.1"):
        load(saved(tmp_path, npy=2 * DRAW.random((9, 8, 8))), data_range="0..1")


LABELS = {
    "y": (np.array([1, 0, 1, 0]), [1, 0, 1, 0], ("0", "1")),
    "labels": (np.array([7, -3, 7, 100]), [1, 0, 1, 2], ("-3", "7", "100")),
    "label": (np.array([1, 0, 2, 0], np.uint8), [1, 0, 2, 0], ("0", "1", "2")),
    "whole floats": (np.array([[1.0], [0.0], [2.0], [0.0]]), [1, 0, 2, 0], ("0", "1", "2")),
    "words": (np.array(["b", "a10", "a9", "b"]), [2, 1, 0, 2], ("a9", "a10", "b")),
    "bytes": (np.array([b"b", b"a", b"a", b"b"]), [1, 0, 0, 1], ("a", "b")),
    "booleans": (np.array([True, False, True, True]), [1, 0, 1, 1], ("False", "True")),
}


@pytest.mark.parametrize(("name", "case"), LABELS.items())
def test_labels_are_integers_whole_floats_strings_or_booleans(tmp_path: Path, name: str, case) -> None:
    values, labels, names = case
    key = name if name in ("y", "labels", "label") else "labels"
    data = load(saved(tmp_path, x=DRAW.random((4, 2)), **{key: values}))
    assert data.labels is not None
    assert data.labels.tolist() == labels
    assert data.layout.classes == names
    assert any(repr(key) in note for note in data.notes) == (key != "labels")


def test_unused_arrays_are_noted(tmp_path: Path) -> None:
    data = load(saved(tmp_path, x=DRAW.random((4, 2)), weights=np.ones(4)))
    assert "'weights'" in data.notes[0]


def test_an_unpacked_layout_equals_the_packed_one() -> None:
    layout = Layout("csv", "", "", ("a", "ü$"), "c2NoZW1h", ("x", "10"), (-1.0, 1.0))
    assert Layout.unpack(layout.pack()) == layout


def test_labels_with_fractions_are_rejected() -> None:
    with pytest.raises(ValueError, match="x: labels are float64"):
        classes_of("x: labels", np.array([0.5, 1.0]))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64])
def test_numbers_that_float32_cannot_hold_keep_their_spread(tmp_path: Path, dtype) -> None:
    x = (1_700_000_000 + DRAW.integers(0, 60, (50, 2))).astype(dtype)
    data = load(saved(tmp_path, npy=x))
    assert data.x.dtype == torch.float64
    normalised = data.normalised(data.units())
    assert normalised.dtype == torch.float32
    assert_close(normalised.double().std(0, correction=0), torch.ones(2).double())
    restored = restore(data.units().undo(normalised), data.layout)
    assert restored.dtype == dtype
    assert np.abs(restored.astype(np.float64) - x).max() < 0.01


@pytest.mark.parametrize("scale", [1e-25, 1e19])
def test_extreme_scales_are_normalised_in_double_precision(tmp_path: Path, scale: float) -> None:
    data = load(saved(tmp_path, npy=(scale * DRAW.standard_normal((50, 2))).astype(np.float32)))
    assert_close(data.normalised(data.units()).std(0, correction=0), torch.ones(2))
