"""The verbs write samples in the format of the data, and find data that have moved."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import csv

from monge.cli import main
from monge.files import read_tensors

TINY = [
    "--width",
    "8",
    "--depth",
    "1",
    "--batch-size",
    "16",
    "--steps",
    "2",
    "--warmup-steps",
    "1",
    "--device",
    "cpu",
]
DRAW = np.random.default_rng(0)


def run(*words: str | Path) -> None:
    assert main(["generate", *map(str, words)]) == 0


def trained(path: Path, data: Path, *more: str) -> Path:
    run("train", "--data", data, *TINY, *more, "--out", path / "run")
    return path / "run"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a CSV file of times, identifiers and flags."""
    path = tmp_path_factory.mktemp("table")
    columns = {
        "time": 1_700_000_000 + DRAW.integers(0, 3600, 60).astype(float),
        "id": 10**15 + DRAW.integers(0, 100, 60),
        "label": [["dog", "cat", "10", "9"][k % 4] for k in range(60)],
        "flag": DRAW.random(60) < 0.5,
    }
    csv.write_csv(pa.table(columns), path / "x.csv")
    return trained(path, path / "x.csv")


@pytest.mark.slow
def test_a_table_is_written_with_its_columns_and_types(table: Path, tmp_path: Path) -> None:
    run("sample", table, "--num-samples", 8, "--solver-steps", 2, "--out", tmp_path)
    samples = pq.read_table(tmp_path / "samples.parquet")
    assert samples.column_names == ["time", "id", "label", "flag"]
    assert samples.schema.types == [pa.int64(), pa.int64(), pa.string(), pa.bool_()]
    assert samples["label"].to_pylist() == ["9", "10", "cat", "dog"] * 2
    assert all(abs(value - 1_700_001_800) < 30_000 for value in samples["time"].to_pylist())
    assert len(set(samples["time"].to_pylist())) > 4
    assert all(abs(value - 10**15) < 2_000 for value in samples["id"].to_pylist())
    assert csv.read_csv(tmp_path / "samples.csv")["id"].to_pylist() == samples["id"].to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize(("label", "name"), [("10", "10"), ("dog", "dog"), ("1", "10")])
def test_label_selects_a_class_by_name_or_number(table: Path, tmp_path: Path, label: str, name: str) -> None:
    run("sample", table, "--num-samples", 3, "--solver-steps", 2, "--label", label, "--out", tmp_path)
    assert pq.read_table(tmp_path / "samples.parquet")["label"].to_pylist() == [name] * 3


@pytest.mark.slow
def test_classes_and_paths_with_brackets_are_printed_literally(tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "x.npz", x=DRAW.random((40, 3)), y=[["b", "a"][k % 2] for k in range(40)])
    out = tmp_path / "runs" / "lr[/2]" / "a [bold]"
    run("train", "--data", tmp_path / "x.npz", *TINY, "--out", out)
    run("sample", out, "--num-samples", 2, "--solver-steps", 1)
    run("evaluate", out, "--solver-steps", 1, "--num-samples", 8)
    printed = capsys.readouterr().out
    assert "Classes: 'a', 'b'" in printed
    assert f"The run is in {out}; next: monge generate evaluate '{out}'" in printed
    assert f"in {out}/samples:" in printed
    assert "a [bold]: euler, 1 steps" in printed


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_notes_about_how_data_were_read_are_logged(tmp_path: Path, caplog, ending: str) -> None:
    table = pa.table({"__index_level_0__": list(range(40)), "a": DRAW.random(40), "b": DRAW.random(40)})
    path = tmp_path / f"x.{ending}"
    pq.write_table(table, path) if ending == "parquet" else csv.write_csv(table, path)
    trained(tmp_path, path)
    assert "'__index_level_0__' is left out" in caplog.text


ARRAYS = {
    "channels last": DRAW.integers(0, 256, (40, 6, 4, 3), dtype=np.uint8),
    "grey": DRAW.integers(0, 256, (40, 6, 4), dtype=np.int32),
    "booleans": DRAW.random((40, 4, 4)) < 0.5,
    "fractions": DRAW.random((40, 6, 4, 3)).astype(np.float32),
    "latents": DRAW.standard_normal((40, 4, 4, 4)).astype(np.float16),
    "two channels": 9 * DRAW.standard_normal((40, 2, 4, 4)),
    "points": DRAW.integers(0, 9, (40, 3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("x", ARRAYS.values(), ids=ARRAYS.keys())
def test_an_array_is_written_with_its_dtype_axes_and_range(tmp_path: Path, x: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", x)
    more = ["--network", "dit", "--width", "16"] if x.ndim == 4 else []
    out = trained(tmp_path, tmp_path / "x.npy", *more)
    run("sample", out, "--num-samples", 5, "--solver-steps", 2)
    samples = np.load(out / "samples/samples.npy")
    assert samples.dtype == x.dtype
    assert samples.shape == (5, *x.shape[1:])
    if x.ndim > 2 and x.min() >= 0:
        assert x.dtype == bool or samples.max() <= (255 if x.dtype.kind in "iu" else 1)
        assert samples.min() >= 0
    drawn = np.asarray(Image.open(out / "samples/samples.png").convert("L"))
    assert drawn.min() < 60
    assert drawn.max() > 180
    run("evaluate", out, "--solver-steps", 1, "--num-samples", 8)


def test_images_of_zeros_and_ones_are_saved_as_visible_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=(DRAW.random((40, 8, 8)) < 0.5).astype(np.uint8), labels=["a/b", "c"] * 20)
    out = trained(tmp_path, tmp_path / "x.npz")
    for n in (6, 4):  # the second time replaces the first
        run("sample", out, "--num-samples", n, "--solver-steps", 2, "--save-images")
    files = sorted(str(path.relative_to(out / "samples/images")) for path in out.glob("samples/images/*/*"))
    assert files == ["a_b/00000.png", "a_b/00002.png", "c/00001.png", "c/00003.png"]
    image = np.asarray(Image.open(out / "samples/images/c/00001.png"))
    assert image.shape == (8, 8)
    assert image.max() > 100
    samples = np.load(out / "samples/samples.npz")
    assert np.abs(image / 255.0 - samples["x"][1, 0]).max() < 0.01
    assert samples["class_names"].tolist() == ["a/b", "c"]


def test_saved_images_are_in_folders_named_after_their_classes(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / "images" / str(number % 12)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = DRAW.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    out = trained(tmp_path, tmp_path / "images")
    run("sample", out, "--num-samples", 3, "--solver-steps", 2, "--label", 10, "--save-images")
    assert [path.name for path in (out / "samples/images").iterdir()] == ["10"]
    assert np.load(out / "samples/samples.npz")["labels"].tolist() == [10] * 3


@pytest.mark.slow
def test_data_are_found_from_another_directory_and_at_a_new_path(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    np.save("x.npy", DRAW.standard_normal((40, 2)))
    run("train", "--data", "x.npy", *TINY, "--out", "run")
    run("train", "--data", "./x.npy", *TINY, "--out", "run", "--resume")
    monkeypatch.chdir(tmp_path)
    assert json.loads(Path("here/run/recipe.json").read_text())["recipe"]["data"] == str(tmp_path / "here/x.npy")
    run("likelihood", "here/run", "--limit", 4, "--solver-steps", 2)
    shutil.move("here/x.npy", "moved.npy")
    capsys.readouterr()
    for verb in ("evaluate", "likelihood"):
        assert main(["generate", verb, "here/run"]) == 2
        assert "--data NEWPATH" in capsys.readouterr().err
        assert main(["generate", verb, "here/run", "--data", "nowhere"]) == 2
        assert "--data nowhere: no such file or folder" in capsys.readouterr().err
    run("evaluate", "here/run", "--data", "moved.npy", "--num-samples", 8, "--solver-steps", 1)
    run("likelihood", "here/run", "--data", "moved.npy", "--limit", 4, "--solver-steps", 2)
    np.save("moved.npy", DRAW.standard_normal((40, 2)))
    assert main(["generate", "evaluate", "here/run", "--data", "moved.npy"]) == 2
    assert "not the data that" in capsys.readouterr().err


@pytest.mark.slow
def test_a_narrow_terminal_truncates_no_name_and_the_current_directory_has_a_title(
    table: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(table)
    monkeypatch.setenv("COLUMNS", "40")
    run("evaluate", ".", "--solver-steps", 1, "--num-samples", 8)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("run: euler, 1 steps")
    assert max(map(len, lines)) <= 40
    words = " ".join(lines).split()
    assert {"frechet", "precision", "memorisation", "accuracy", "close"} <= set(words)
    assert not any("…" in word for word in words)


@pytest.mark.slow
def test_a_student_can_be_sampled_evaluated_and_reflowed_again(table: Path, tmp_path: Path, capsys) -> None:
    student, second = tmp_path / "student", tmp_path / "second"
    run("reflow", table, "--out", student, "--steps", 2, "--num-pairs", 40)
    stored = json.loads((student / "recipe.json").read_text())["recipe"]
    assert stored["teacher"] == str(table.resolve())
    assert "coupling" not in stored
    run("reflow", "--out", student, "--resume", "--steps", 3)
    assert read_tensors(student / "checkpoints/step-00000003/model.safetensors")
    run("sample", student, "--num-samples", 4, "--solver-steps", 1, "--label", "cat")
    assert pq.read_table(student / "samples/samples.parquet")["label"].to_pylist() == ["cat"] * 4
    run("evaluate", student, "--solver-steps", 1, "--num-samples", 8)
    run("likelihood", student, "--limit", 4, "--solver-steps", 2)
    run("reflow", student, "--out", second, "--steps", 2, "--num-pairs", 40)
    run("sample", second, "--num-samples", 4, "--solver-steps", 1)
    capsys.readouterr()
    assert main(["generate", "reflow", str(table), "--out", str(student), "--steps", "2"]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["generate", "train", "--resume", "--out", str(student)]) == 2
    assert (
        "not a run of Generate (its recipe has num_pairs, teacher); use the command that created it"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_run_resumes_if_its_files_have_moved_but_not_if_they_have_changed(tmp_path: Path, capsys) -> None:
    here, moved = tmp_path / "here.npy", tmp_path / "there.npy"
    np.save(here, DRAW.normal(size=(60, 2)))
    teacher, student = trained(tmp_path / "old", here), tmp_path / "student"
    run("reflow", teacher, "--out", student, "--steps", 2, "--num-pairs", 40)
    here.rename(moved)
    teacher = teacher.rename(tmp_path / "teacher")
    capsys.readouterr()
    assert main(["generate", "reflow", "--resume", "--out", str(student), "--steps", "3"]) == 2
    assert "here.npy" in capsys.readouterr().err
    run("reflow", teacher, "--data", moved, "--resume", "--out", student, "--steps", 3)
    run("train", "--resume", "--out", teacher, "--data", moved, "--steps", 3)
    assert json.loads((teacher / "recipe.json").read_text())["recipe"]["data"] == str(moved)
    np.save(moved, DRAW.normal(size=(60, 2)))
    assert main(["generate", "train", "--resume", "--out", str(teacher), "--steps", "4"]) == 2
    assert (
        "does not match the current data, teacher or encoder; restore the original, or start a new run"
        in capsys.readouterr().err
    )
