"""What a user can get wrong: one sentence that says where, what and what to do; exit code 2; nothing damaged."""

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from monge.cli import main

TINY = ["--width", "8", "--depth", "1", "--batch", "16", "--train.steps", "2", "--train.warmup", "1"]
TINY += ["--train.device", "cpu"]
X = np.random.default_rng(0).standard_normal((40, 3))


def changed(row: int | slice, column: int, value: float) -> np.ndarray:
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


def twice(path: Path) -> Path:
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


def deep(path: Path) -> Path:
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


def cut(path: Path, part: float = 0.6) -> Path:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    return path


def pictures(path: Path, *sizes: tuple[int, ...], mode: str = "RGB") -> Path:
    folder = path / "images"
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new(mode if len(size) == 2 else "L", size[:2], number).save(folder / f"{number}.png")
    return folder


def torn(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "1.png")
    cut(folder / "1.png")
    return folder


def stray(folder: Path) -> Path:
    for number in (1, 2):
        (folder / f"class{number}").mkdir()
        (folder / f"{number}.png").rename(folder / f"class{number}/{number}.png")
    return folder


DATA: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "nan": (
        lambda p: npy(p, changed(3, 1, np.nan)),
        ["x.npy", "item 3 holds nan at entry 1", "remove, fill or rescale"],
    ),
    "inf": (
        lambda p: npy(p, changed(7, 2, -np.inf)),
        ["x.npy", "item 7 holds -inf at entry 2", "remove, fill or rescale"],
    ),
    "nan in a table": (
        lambda p: parquet(p, a=X[:, 0], b=changed(5, 1, np.nan)[:, 1]),
        ["x.parquet", "column 'b' is nan in row 5", "remove or fill"],
    ),
    "a missing entry": (
        lambda p: parquet(p, a=[1.0, None, 3.0], b=X[:3, 0]),
        ["x.parquet", "column 'a' is null in row 1, one of 1 nulls"],
    ),
    "empty folder": (lambda p: pictures(p), ["images", "no images", ".png"]),
    "torn image": (lambda p: torn(pictures(p, (64, 64), (64, 64))), ["1.png", "not a readable image", "remove it"]),
    "no image at all": (lambda p: cut(pictures(p, (8, 8)) / "0.png", 0.1).parent, ["0.png", "not a readable image"]),
    "mixed sizes": (lambda p: pictures(p, (8, 8), (8, 9)), ["1.png", "9 x 8 x 3, but 0.png is 8 x 8 x 3", "one size"]),
    "mixed modes": (
        lambda p: pictures(p, (8, 8), (8, 8, 1)),
        ["1.png", "8 x 8, but 0.png is 8 x 8 x 3", "one size and mode"],
    ),
    "beyond double precision": (lambda p: npy(p, 1e300 * X), ["x.npy", "the largest entry is", "rescale the data"]),
    "vanishing": (lambda p: npy(p, 1e-300 * X), ["x.npy", "the largest entry is", "rescale the data"]),
    "an image beside classes": (
        lambda p: stray(pictures(p, (8, 8), (8, 8), (8, 8))),
        ["0.png", "beside subfolders", "move it"],
    ),
    "constant column": (
        lambda p: npy(p, changed(slice(None), 1, 2.5)),
        ["x.npy", "column 1 is 2.5 in every row; drop it"],
    ),
    "constant in a table": (lambda p: parquet(p, a=X[:, 0], b=[4] * 40), ["x.parquet", "column 'b' is 4.0", "drop it"]),
    "one item": (lambda p: npy(p, X[:1]), ["x.npy", "1 items are too few", "give at least 2"]),
    "no items": (lambda p: npy(p, X[:0]), ["x.npy", "0 items"]),
    "no features": (lambda p: npy(p, X[:, :0]), ["x.npy", "shape (0,)"]),
    "one axis": (lambda p: npy(p, X[:, 0]), ["x.npy", "float64 (40,)", "(n, D)"]),
    "complex": (lambda p: npy(p, X + 1j), ["x.npy", "complex128"]),
    "words": (lambda p: npy(p, np.array([["a", "b"]] * 4)), ["x.npy", "<U1"]),
    "objects": (lambda p: npy(p, np.array([{}], dtype=object)), ["x.npy", "not a whole numpy file of numbers"]),
    "integer images out of range": (
        lambda p: npy(p, np.arange(90).reshape(5, 3, 6) * 9),
        ["x.npy", "from 0 to 801", "scale them to 0 .. 255", "--data-range unbounded"],
    ),
    "words in a table": (
        lambda p: parquet(p, a=X[:, 0], b=["b"] * 40),
        ["x.parquet", "column 'b' is string", "numbers only"],
    ),
    "only labels": (lambda p: parquet(p, label=list(range(40))), ["x.parquet", "no columns of numbers"]),
    "fractions as labels": (
        lambda p: parquet(p, a=X[:, 0], label=X[:, 1]),
        ["x.parquet", "'label'", "float64", "one string or whole number per item"],
    ),
    "a missing label": (
        lambda p: parquet(p, a=X[:3, 0], label=[0, None, 1]),
        ["x.parquet", "column 'label' is null in row 1"],
    ),
    "two columns of one name": (
        lambda p: twice(p),
        ["x.parquet", "2 columns are named 'a'", "rename or drop"],
    ),
    "a list column": (lambda p: parquet(p, a=X[:2, 0], b=[[1], [2]]), ["x.parquet", "column 'b' is list"]),
    "CSV without names": (lambda p: csv(p, "1,2\n3,4\n"), ["x.csv", "first line holds numbers", "column names"]),
    "CSV with one name twice": (lambda p: csv(p, "a,a\n3,4\n"), ["x.csv", "2 columns are named 'a'"]),
    "CSV with a hole": (lambda p: csv(p, "a,b\n3,4\n,5\n"), ["x.csv", "column 'a' is null in row 1"]),
    "CSV with words": (lambda p: csv(p, "a,b\n3,x\n4,y\n"), ["x.csv", "column 'b' is string", "rename it to 'label'"]),
    "CSV with short rows": (lambda p: csv(p, "a,b\n3,4\n5\n"), ["x.csv", "not a readable CSV file"]),
    "an empty CSV": (lambda p: csv(p, ""), ["x.csv", "not a readable CSV file"]),
    "train and val": (
        lambda p: folders(p, "train/a/0.png", "val/a/0.png"),
        ["look like a split", "point --data at", "images/train"],
    ),
    "classes one level down": (
        lambda p: folders(p, "data/a/0.png", "data/b/0.png"),
        ["all images lie below data", "point --data at", "images/data"],
    ),
    "16-bit colour": (
        lambda p: deep(p),
        ["0.png", "more than 8 bits per channel", "save it with 8"],
    ),
    "an animation": (lambda p: animation(p), ["0.gif", "2 frames", "save each"]),
    "no x": (lambda p: npz(p, y=X), ["x.npz", "no array 'x', only ['y']", "np.savez"]),
    "labels too few": (lambda p: npz(p, x=X, labels=np.arange(30)), ["x.npz", "30 labels for 40 items"]),
    "labels of two axes": (lambda p: npz(p, x=X, labels=np.eye(40, dtype=int)), ["x.npz", "(40, 40)", "per item"]),
    "labels that are numbers": (
        lambda p: npz(p, x=X, labels=X[:, 0]),
        ["x.npz", "labels are float64", "whole number per item"],
    ),
    "labels twice": (
        lambda p: npz(p, x=X, labels=np.arange(40), y=np.arange(40)),
        ["x.npz", "'labels' and 'y' may both be labels"],
    ),
    "cut .npy": (lambda p: cut(npy(p, X)), ["x.npy", "not a whole numpy file"]),
    "cut .npz": (lambda p: cut(npz(p, x=X)), ["x.npz", "not a whole numpy file"]),
    "cut .parquet": (lambda p: cut(parquet(p, a=X[:, 0])), ["x.parquet", "not a whole parquet file"]),
    "another ending": (lambda p: npy(p, X).rename(p / "x.xyz"), ["x.xyz", "cannot read .xyz", ".parquet"]),
    "not there": (lambda p: p / "nowhere", ["nowhere' is no file or folder", "digits"]),
}

RECIPES = {
    "unknown data": (["--data", "gausians"], ["'gausians' is no file or folder, nor one of digits, gaussians"]),
    "dit on vectors": (
        ["--data", "gaussians", "--network", "dit"],
        ["network dit is for images", "(2,)", "--network mlp"],
    ),
    "patch": (["--network", "dit", "--patch", "3"], ["8 x 8 pixels do not divide into patches of 3"]),
    "heads": (["--network", "dit", "--width", "200"], ["width 200", "a head for each 64 channels", "multiple of 64"]),
    "after": (["--ot-after", "-3"], ["ot_after must not be negative, got -3"]),
    "factor": (["--ot-factor", "0"], ["ot_factor must be at least 1, got 0"]),
    "ema": (["--train.ema", "0.9"], ["ema: width 0.9 must lie in (0, 0.289)"]),
    "device": (["--train.device", "tpu"], ["device tpu", "give cpu, cuda or auto"]),
    "warm start of nothing": (["--coupling", "entropic", "--ot-warm"], ["ot_warm starts exact OT", "'entropic'"]),
    "a range of vectors": (["--data", "moons", "--data-range", "0..1"], ["data_range 0..1 is for .npy and .npz files"]),
}


def told(capsys: pytest.CaptureFixture[str], words: list[str], parts: list[str]) -> None:
    """The command ends with 2 and one line on stderr that holds these parts."""
    assert main(["generate", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"monge generate {words[0]}: ")
    assert shown.count("\n") == 1
    for part in parts:
        assert part in shown


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("make", "parts"), DATA.values(), ids=DATA.keys())
def test_bad_data_are_named(tmp_path: Path, capsys, make: Callable[[Path], Path], parts: list[str]) -> None:
    out = tmp_path / "run"
    told(capsys, ["train", "--data", str(make(tmp_path)), *TINY, "--out", str(out)], parts)
    assert not [path for path in out.rglob("*") if path.name != "lock"]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "parts"), RECIPES.values(), ids=RECIPES.keys())
def test_a_bad_recipe_is_named_and_leaves_the_directory_to_a_good_one(
    tmp_path: Path, capsys, options: list[str], parts: list[str]
) -> None:
    good = ["train", "--data", str(npy(tmp_path, X)), *TINY, "--out", str(tmp_path / "run")]
    bad = ["train", *TINY, *options, "--out", str(tmp_path / "run")]
    told(capsys, bad, parts)
    if options[0] == "--data":
        assert main(["generate", *good]) == 0


@pytest.mark.parametrize("option", ["--train.steps", "--train.lr", "--batch", "--train.accumulate", "--width"])
def test_numbers_that_cannot_be_are_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["generate", "train", option, "0"])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    name = option.removeprefix("--")
    assert f"{name} must be" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--train.clip", "--train.warmup", "--train.weight-decay", "--train.milestones"])
def test_numbers_below_zero_are_named(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["generate", "train", option, "-1"])
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "must not be negative" in said or "are steps from 1 on" in said


def test_a_file_where_the_run_should_be_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").write_text("")
    told(capsys, ["train", *TINY, "--out", str(tmp_path / "run")], ["run: a file is in the way", "another directory"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three classes."""
    path = tmp_path_factory.mktemp("run")
    data = npz(path, x=X, labels=np.arange(40) % 3)
    assert main(["generate", "train", "--data", str(data), *TINY, "--out", str(path / "run")]) == 0
    return path / "run"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--label", "3"], ["label 3: the run has 3 classes: 0, 1, 2"]),
        (["--label", "cat"], ["label cat: the run has 3 classes: 0, 1, 2"]),
        (["--save-images"], ["--save-images", "(3,), no images"]),
        (["--label", "-1"], ["label -1: the run has 3 classes"]),
        (["--checkpoint", "77"], ["no checkpoint '77'; there are last, best and steps 2"]),
        (["--weak", "77", "--guidance", "2"], ["no checkpoint '77'"]),
        (["--weak", "2"], ["--guidance 1"]),
        (["--interval", "0.9", "0.1"], ["--interval 0.9 0.1"]),
        (["--steps", "0"], ["--steps 0"]),
        (["--guidance", "nan"], ["--guidance nan: give a number"]),
        (["--threads", "-2"], ["--threads -2: give at least 1"]),
    ],
)
def test_bad_wishes_for_samples_are_named(run: Path, capsys, options: list[str], parts: list[str]) -> None:
    told(capsys, ["sample", str(run), *options], parts)


@pytest.mark.parametrize("verb", ["sample", "evaluate", "likelihood"])
def test_a_directory_without_a_run_is_named(tmp_path: Path, capsys, verb: str) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        told(capsys, [verb, str(path)], [f"{path}: no run here (no recipe.json)", "name a directory"])
    assert not (tmp_path / "nowhere").exists()


def test_a_torn_checkpoint_is_named(run: Path, tmp_path: Path, capsys) -> None:
    weights = run / "checkpoints/step-00000002/ema.safetensors"
    whole = weights.read_bytes()
    try:
        cut(weights)
        told(capsys, ["sample", str(run), "--out", str(tmp_path)], [str(weights), "not a whole safetensors file"])
    finally:
        weights.write_bytes(whole)


def test_average_weights_that_are_gone_are_missed(run: Path, tmp_path: Path, capsys) -> None:
    weights = run / "checkpoints/step-00000002/ema.safetensors"
    weights.rename(tmp_path / "ema")
    try:
        told(capsys, ["sample", str(run), "--out", str(tmp_path)], [str(weights), "not a whole safetensors file"])
    finally:
        (tmp_path / "ema").rename(weights)


@pytest.mark.parametrize("damage", [{"path": "spiral"}, {"network": "foo"}, {"train": None}, None])
def test_a_damaged_recipe_is_named(run: Path, tmp_path: Path, capsys, damage: dict | None) -> None:
    path = run / "recipe.json"
    whole = path.read_text()
    found = json.loads(whole)
    found["recipe"] = [1] if damage is None else found["recipe"] | damage
    try:
        path.write_text(json.dumps(found))
        told(capsys, ["sample", str(run), "--out", str(tmp_path)], ["recipe"])
    finally:
        path.write_text(whole)


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "student")]
    told(capsys, ["reflow", str(tmp_path / "nowhere"), *out], ["nowhere: no run here", "name a directory"])
    told(capsys, ["reflow", *out], ["name the run directory of the teacher"])


def test_checkpoints_without_a_recipe_are_left_alone(run: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/recipe.json").unlink()
    before = sorted((tmp_path / "run").rglob("*"))
    told(capsys, ["train", *TINY, "--out", str(tmp_path / "run")], ["recipe.json is missing", "restore it"])
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_too_few_samples_to_compare_are_named(run: Path, capsys) -> None:
    told(capsys, ["evaluate", str(run), "--samples", "3"], ["3 samples against 40 items: at least 6"])


def test_a_file_where_samples_should_go_is_named(run: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "taken").write_text("")
    told(capsys, ["sample", str(run), "--out", str(tmp_path / "taken")], ["taken", "name another path"])


def test_weights_can_be_read_by_whom_other_files_can(run: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in run.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_data_that_moved_away_are_named(run: Path, tmp_path: Path, capsys) -> None:
    data = run.parent / "x.npz"
    data.rename(tmp_path / "x.npz")
    try:
        told(capsys, ["evaluate", str(run)], ["x.npz' is no file or folder", "--data NEWPATH"])
    finally:
        (tmp_path / "x.npz").rename(data)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--batch", "100"], ["--batch", "1"], ["--batch", "7", "--ot-factor", "9"]])
@pytest.mark.parametrize("coupling", ["ot", "entropic", "independent"])
def test_batches_may_span_epochs_or_hold_one_item(tmp_path: Path, options: list[str], coupling: str) -> None:
    words = ["--data", str(npy(tmp_path, X)), *TINY, *options, "--coupling", coupling, "--out", str(tmp_path / "run")]
    assert main(["generate", "train", *words]) == 0
    assert (tmp_path / "run/checkpoints/step-00000002/model.safetensors").exists()


def test_two_items_are_enough(tmp_path: Path) -> None:
    words = ["--data", str(npy(tmp_path, X[:2])), *TINY, "--out", str(tmp_path / "run")]
    assert main(["generate", "train", *words]) == 0
