"""Mistakes in options, recipes and run directories give exit code 2 and one line with the place, problem and remedy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from monge.cli import main

TINY = ["--width", "8", "--depth", "1", "--batch-size", "16", "--steps", "2", "--warmup-steps", "1"]
TINY += ["--device", "cpu"]
X = np.random.default_rng(0).standard_normal((40, 3))


def saved(path: Path, x: np.ndarray) -> Path:
    np.save(path / "x.npy", x)
    return path / "x.npy"


RECIPES = {
    "unknown data": (["--data", "gausians"], ["'gausians' is not a file or folder, nor one of digits, gaussians"]),
    "dit on vectors": (
        ["--data", "gaussians", "--network", "dit"],
        ["network dit is for images", "(2,)", "--network mlp"],
    ),
    "patch": (["--network", "dit", "--patch", "3"], ["8 x 8 pixels do not divide into patches of 3"]),
    "heads": (["--network", "dit", "--width", "200"], ["width 200", "one head per 64 channels", "multiple of 64"]),
    "after": (["--ot-after", "-3"], ["ot_after must not be negative, got -3"]),
    "factor": (["--ot-factor", "0"], ["ot_factor must be at least 1, got 0"]),
    "ema": (["--ema-width", "0.9"], ["ema: width 0.9 must lie in (0, 0.289)"]),
    "device": (["--device", "tpu"], ["device tpu", "give cpu, cuda or auto"]),
    "warm start of entropic OT": (["--coupling", "entropic", "--ot-warm"], ["ot_warm starts exact OT", "'entropic'"]),
    "a range of a missing file": (
        ["--data", "nothing.npy", "--data-range", "0..1"],
        ["'nothing.npy' is not a file or folder"],
    ),
    "a range of vectors": (
        ["--data", "moons", "--data-range", "0..1"],
        ["data_range 0..1 applies to .npy and .npz files"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("options", "parts"), RECIPES.values(), ids=RECIPES.keys())
def test_an_invalid_recipe_is_rejected_and_leaves_the_directory_free(
    tmp_path: Path, rejects, options: list[str], parts: list[str]
) -> None:
    valid = ["train", "--data", str(saved(tmp_path, X)), *TINY, "--out", str(tmp_path / "run")]
    rejects(["train", *TINY, *options, "--out", str(tmp_path / "run")], parts)
    if options[0] == "--data":
        assert main(["generate", *valid]) == 0


@pytest.mark.parametrize("option", ["--steps", "--lr", "--batch-size", "--gradient-accumulation", "--width"])
def test_zero_is_rejected_by_options_that_must_be_positive(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["generate", "train", option, "0"])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    name = option.removeprefix("--").replace("-", "_")
    assert f"{name} must be" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--max-grad-norm", "--warmup-steps", "--weight-decay", "--milestones"])
def test_negative_numbers_are_rejected(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "train", f"{option}=-1"]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "must not be negative" in message or "must be at least 1" in message


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--seed=99999999999999999999", "seed must fit in 64 bits"),
        ("--threads=1000000", "threads must be between 0 and 1024"),
        ("--loader-threads=100000", "loader_threads must be between 0 and 1024"),
    ],
)
def test_too_large_numbers_are_rejected(option: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "train", option]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_file_in_place_of_the_run_directory_is_rejected(tmp_path: Path, rejects) -> None:
    (tmp_path / "run").write_text("")
    rejects(["train", *TINY, "--out", str(tmp_path / "run")], ["run: a file is in the way", "another directory"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three classes."""
    path = tmp_path_factory.mktemp("run")
    data = path / "x.npz"
    np.savez(data, x=X, labels=np.arange(40) % 3)
    assert main(["generate", "train", "--data", str(data), *TINY, "--out", str(path / "run")]) == 0
    return path / "run"


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--label", "3"], ["label 3: the run has 3 classes: 0, 1, 2"]),
        (["--label", "cat"], ["label cat: the run has 3 classes: 0, 1, 2"]),
        (["--save-images"], ["--save-images", "(3,) are not images"]),
        (["--label", "-1"], ["label -1: the run has 3 classes"]),
        (["--checkpoint", "77"], ["no checkpoint '77'; available: last, best and steps 2"]),
        (["--weak", "77", "--guidance", "2"], ["no checkpoint '77'"]),
        (["--weak", "2"], ["--guidance 1"]),
        (["--interval", "0.9", "0.1"], ["--interval 0.9 0.1"]),
        (["--solver-steps", "0"], ["--solver-steps 0"]),
        (["--guidance", "nan"], ["--guidance nan: give a finite number"]),
        (["--threads", "-2"], ["--threads -2: give at least 1"]),
    ],
)
def test_invalid_options_of_sample_are_rejected(run: Path, rejects, options: list[str], parts: list[str]) -> None:
    rejects(["sample", str(run), *options], parts)


@pytest.mark.parametrize("verb", ["sample", "evaluate", "likelihood"])
def test_a_directory_without_a_run_is_rejected(tmp_path: Path, rejects, verb: str) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        rejects([verb, str(path)], [f"{path}: no run here (no recipe.json)", "give a directory"])
    assert not (tmp_path / "nowhere").exists()


def test_a_truncated_checkpoint_is_rejected(run: Path, tmp_path: Path, rejects) -> None:
    weights = run / "checkpoints/step-00000002/ema.safetensors"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[: len(content) // 2])
        rejects(["sample", str(run), "--out", str(tmp_path)], [str(weights), "not a complete safetensors file"])
    finally:
        weights.write_bytes(content)


def test_missing_averaged_weights_are_rejected(run: Path, tmp_path: Path, rejects) -> None:
    weights = run / "checkpoints/step-00000002/ema.safetensors"
    weights.rename(tmp_path / "ema")
    try:
        rejects(["sample", str(run), "--out", str(tmp_path)], [str(weights), "not a complete safetensors file"])
    finally:
        (tmp_path / "ema").rename(weights)


@pytest.mark.parametrize("damage", [{"path": "spiral"}, {"network": "foo"}, {"train": None}, None])
def test_a_damaged_recipe_is_rejected(run: Path, tmp_path: Path, rejects, damage: dict | None) -> None:
    path = run / "recipe.json"
    content = path.read_text()
    stored = json.loads(content)
    stored["recipe"] = [1] if damage is None else stored["recipe"] | damage
    try:
        path.write_text(json.dumps(stored))
        rejects(["sample", str(run), "--out", str(tmp_path)], ["recipe"])
    finally:
        path.write_text(content)


def test_a_missing_teacher_is_rejected(tmp_path: Path, rejects) -> None:
    out = ["--out", str(tmp_path / "student")]
    rejects(["reflow", str(tmp_path / "nowhere"), *out], ["nowhere: no run here", "give a directory"])
    rejects(["reflow", *out], ["give the run directory of the teacher"])


def test_checkpoints_without_a_recipe_are_rejected_and_left_unchanged(run: Path, tmp_path: Path, rejects) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/recipe.json").unlink()
    before = sorted((tmp_path / "run").rglob("*"))
    rejects(["train", *TINY, "--out", str(tmp_path / "run")], ["recipe.json is missing", "restore it"])
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_too_few_samples_to_compare_are_rejected(run: Path, rejects) -> None:
    rejects(
        ["evaluate", str(run), "--num-samples", "3"],
        ["3 samples against 40 items are too few; give at least 6 samples and 12 items"],
    )


def test_a_file_in_place_of_the_output_directory_is_rejected(run: Path, tmp_path: Path, rejects) -> None:
    (tmp_path / "taken").write_text("")
    rejects(["sample", str(run), "--out", str(tmp_path / "taken")], ["taken", "choose another path"])


def test_all_files_of_a_run_have_the_same_permissions(run: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in run.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_moved_data_are_reported_with_the_option_for_the_new_path(run: Path, tmp_path: Path, rejects) -> None:
    data = run.parent / "x.npz"
    data.rename(tmp_path / "x.npz")
    try:
        rejects(["evaluate", str(run)], ["x.npz' is not a file or folder", "--data NEWPATH"])
    finally:
        (tmp_path / "x.npz").rename(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["--batch-size", "100"], ["--batch-size", "1"], ["--batch-size", "7", "--ot-factor", "9"]]
)
@pytest.mark.parametrize("coupling", ["ot", "entropic", "independent"])
def test_batches_may_be_larger_than_the_data_or_hold_one_item(
    tmp_path: Path, options: list[str], coupling: str
) -> None:
    words = ["--data", str(saved(tmp_path, X)), *TINY, *options, "--coupling", coupling, "--out", str(tmp_path / "run")]
    assert main(["generate", "train", *words]) == 0
    assert (tmp_path / "run/checkpoints/step-00000002/model.safetensors").exists()


def test_two_items_are_enough(tmp_path: Path) -> None:
    words = ["--data", str(saved(tmp_path, X[:2])), *TINY, "--out", str(tmp_path / "run")]
    assert main(["generate", "train", *words]) == 0
