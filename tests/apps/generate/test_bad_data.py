"""Unusable data give exit code 2, a one-line message with the place, the problem and the remedy, and no run."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

X = np.random.default_rng(0).standard_normal((40, 3))


def with_value(row: int | slice, column: int, value: float) -> np.ndarray:
    x = X.copy()
    x[row, column] = value
    return x


def npy(path: Path, x: np.ndarray) -> Path:
    np.save(path / "x.npy", x)
    return path / "x.npy"


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path / "x.npz", **arrays)
    return path / "x.npz"


def parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path / "x.parquet")
    return path / "x.parquet"


def parquet_with_duplicate_names(path: Path) -> Path:
    columns = [pa.array(X[:, 0]), pa.array(X[:, 1])]
    pq.write_table(pa.Table.from_arrays(columns, names=["a", "a"]), path / "x.parquet")
    return path / "x.parquet"


def csv(path: Path, text: str) -> Path:
    (path / "x.csv").write_text(text)
    return path / "x.csv"


def folders(path: Path, *names: str) -> Path:
    for name in names:
        file = path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
    return path / "images"


def image_of_16_bits(path: Path) -> Path:
    """A PNG of 16 bits per channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + bytes(6 * 8) for _ in range(8)))
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    path = path / "images"
    path.mkdir()
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (path / "0.png").write_bytes(png)
    return path


def animation(path: Path) -> Path:
    path = path / "images"
    path.mkdir()
    first, second = (Image.new("L", (8, 8), level) for level in (0, 200))
    first.save(path / "0.gif", save_all=True, append_images=[second])
    return path


def truncate(path: Path, part: float = 0.6) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    return path


def pictures(path: Path, *sizes: tuple[int, ...], mode: str = "RGB") -> Path:
    folder = path / "images"
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new(mode if len(size) == 2 else "L", size[:2], number).save(folder / f"{number}.png")
    return folder


def truncated_image(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "1.png")
    truncate(folder / "1.png")
    return folder


def with_stray_image(folder: Path) -> Path:
    for number in (1, 2):
        (folder / f"class{number}").mkdir()
        (folder / f"{number}.png").rename(folder / f"class{number}/{number}.png")
    return folder


DATA: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "nan": (
        lambda p: npy(p, with_value(3, 1, np.nan)),
        ["x.npy", "item 3 holds nan at entry 1", "remove, fill or rescale"],
    ),
    "inf": (
        lambda p: npy(p, with_value(7, 2, -np.inf)),
        ["x.npy", "item 7 holds -inf at entry 2", "remove, fill or rescale"],
    ),
    "nan in a table": (
        lambda p: parquet(p, a=X[:, 0], b=with_value(5, 1, np.nan)[:, 1]),
        ["x.parquet", "column 'b' is nan in row 5", "remove or fill"],
    ),
    "a missing entry": (
        lambda p: parquet(p, a=[1.0, None, 3.0], b=X[:3, 0]),
        ["x.parquet", "column 'a' is null in row 1, one of 1 nulls"],
    ),
    "empty folder": (lambda p: pictures(p), ["images", "no images", ".png"]),
    "truncated image": (
        lambda p: truncated_image(pictures(p, (64, 64), (64, 64))),
        ["1.png", "not a readable image", "remove it"],
    ),
    "almost empty image file": (
        lambda p: truncate(pictures(p, (8, 8)) / "0.png", 0.1).parent,
        ["0.png", "not a readable image"],
    ),
    "mixed sizes": (lambda p: pictures(p, (8, 8), (8, 9)), ["1.png", "9 x 8 x 3, but 0.png is 8 x 8 x 3", "one size"]),
    "mixed modes": (
        lambda p: pictures(p, (8, 8), (8, 8, 1)),
        ["1.png", "8 x 8, but 0.png is 8 x 8 x 3", "one size and mode"],
    ),
    "squares that overflow float64": (
        lambda p: npy(p, 1e300 * X),
        ["x.npy", "the largest entry is", "rescale the data"],
    ),
    "squares that underflow float64": (
        lambda p: npy(p, 1e-300 * X),
        ["x.npy", "the largest entry is", "rescale the data"],
    ),
    "an image next to classes": (
        lambda p: with_stray_image(pictures(p, (8, 8), (8, 8), (8, 8))),
        ["0.png", "next to subfolders", "move it"],
    ),
    "constant column": (
        lambda p: npy(p, with_value(slice(None), 1, 2.5)),
        ["x.npy", "column 1 is 2.5 in every row; drop it"],
    ),
    "constant in a table": (lambda p: parquet(p, a=X[:, 0], b=[4] * 40), ["x.parquet", "column 'b' is 4.0", "drop it"]),
    "one item": (lambda p: npy(p, X[:1]), ["x.npy", "1 items are too few", "give at least 2"]),
    "no items": (lambda p: npy(p, X[:0]), ["x.npy", "0 items"]),
    "no features": (lambda p: npy(p, X[:, :0]), ["x.npy", "shape (0,)"]),
    "one axis": (lambda p: npy(p, X[:, 0]), ["x.npy", "float64 (40,)", "(n, D)"]),
    "complex": (lambda p: npy(p, X + 1j), ["x.npy", "complex128"]),
    "words": (lambda p: npy(p, np.array([["a", "b"]] * 4)), ["x.npy", "<U1"]),
    "objects": (lambda p: npy(p, np.array([{}], dtype=object)), ["x.npy", "not a complete numpy file of numbers"]),
    "integer images out of range": (
        lambda p: npy(p, np.arange(90).reshape(5, 3, 6) * 9),
        ["x.npy", "from 0 to 801", "scale them to 0 .. 255", "--data-range unbounded"],
    ),
    "words in a table": (
        lambda p: parquet(p, a=X[:, 0], b=["b"] * 40),
        ["x.parquet", "column 'b' is string", "only numeric"],
    ),
    "only labels": (lambda p: parquet(p, label=list(range(40))), ["x.parquet", "no numeric columns"]),
    "fractions as labels": (
        lambda p: parquet(p, a=X[:, 0], label=X[:, 1]),
        ["x.parquet", "'label'", "float64", "one string or whole number per item"],
    ),
    "a missing label": (
        lambda p: parquet(p, a=X[:3, 0], label=[0, None, 1]),
        ["x.parquet", "column 'label' is null in row 1"],
    ),
    "table with duplicate names": (
        lambda p: parquet_with_duplicate_names(p),
        ["x.parquet", "2 columns are named 'a'", "rename or drop"],
    ),
    "a list column": (lambda p: parquet(p, a=X[:2, 0], b=[[1], [2]]), ["x.parquet", "column 'b' is list"]),
    "CSV without a header": (lambda p: csv(p, "1,2\n3,4\n"), ["x.csv", "first line holds numbers", "column names"]),
    "CSV with duplicate names": (lambda p: csv(p, "a,a\n3,4\n"), ["x.csv", "2 columns are named 'a'"]),
    "CSV with an empty cell": (lambda p: csv(p, "a,b\n3,4\n,5\n"), ["x.csv", "column 'a' is null in row 1"]),
    "CSV with words": (lambda p: csv(p, "a,b\n3,x\n4,y\n"), ["x.csv", "column 'b' is string", "rename it to 'label'"]),
    "CSV with short rows": (lambda p: csv(p, "a,b\n3,4\n5\n"), ["x.csv", "not a readable CSV file"]),
    "an empty CSV": (lambda p: csv(p, ""), ["x.csv", "not a readable CSV file"]),
    "train and val": (
        lambda p: folders(p, "train/a/0.png", "val/a/0.png"),
        ["look like a split", "point --data at", "images/train"],
    ),
    "classes one level down": (
        lambda p: folders(p, "data/a/0.png", "data/b/0.png"),
        ["all images are below data", "point --data at", "images/data"],
    ),
    "16-bit colour": (
        lambda p: image_of_16_bits(p),
        ["0.png", "more than 8 bits per channel", "save it with 8"],
    ),
    "an animation": (lambda p: animation(p), ["0.gif", "2 frames", "save each"]),
    "no x": (lambda p: npz(p, y=X), ["x.npz", "no array 'x', only ['y']", "np.savez"]),
    "too few labels": (lambda p: npz(p, x=X, labels=np.arange(30)), ["x.npz", "30 labels for 40 items"]),
    "labels with two axes": (lambda p: npz(p, x=X, labels=np.eye(40, dtype=int)), ["x.npz", "(40, 40)", "per item"]),
    "labels with fractions": (
        lambda p: npz(p, x=X, labels=X[:, 0]),
        ["x.npz", "labels are float64", "whole number per item"],
    ),
    "two arrays of labels": (
        lambda p: npz(p, x=X, labels=np.arange(40), y=np.arange(40)),
        ["x.npz", "'labels' and 'y' may both be labels"],
    ),
    "truncated .npy": (lambda p: truncate(npy(p, X)), ["x.npy", "not a complete numpy file"]),
    "truncated .npz": (lambda p: truncate(npz(p, x=X)), ["x.npz", "not a complete numpy file"]),
    "truncated .parquet": (lambda p: truncate(parquet(p, a=X[:, 0])), ["x.parquet", "not a complete parquet file"]),
    "unknown extension": (lambda p: npy(p, X).rename(p / "x.xyz"), ["x.xyz", "cannot read .xyz", ".parquet"]),
    "missing file": (lambda p: p / "nowhere", ["nowhere' is not a file or folder", "digits"]),
}


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("make", "parts"), DATA.values(), ids=DATA.keys())
def test_unusable_data_are_rejected_with_a_one_line_message(
    tmp_path: Path, rejects, make: Callable[[Path], Path], parts: list[str]
) -> None:
    out = tmp_path / "run"
    rejects(["train", "--data", str(make(tmp_path)), "--steps", "2", "--out", str(out)], parts)
    assert not [path for path in out.rglob("*") if path.name != "lock"]
