"""The verbs on one trained run and on separate small ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from monge.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "teacher"
    words = "--width 64 --depth 2 --steps 300 --save-every 100 --milestones 100"
    assert main(["generate", "train", *words.split(), "--out", str(out)]) == 0
    return out


def test_a_run_directory_holds_the_documented_files(run):
    assert {"recipe.json", "constants.safetensors", "metrics.jsonl", "checkpoints", "loss.png"} <= {
        p.name for p in run.iterdir()
    }
    assert json.loads((run / "recipe.json").read_text())["recipe"]["width"] == 64
    held_out = [r["held-out loss"] for r in map(json.loads, (run / "metrics.jsonl").open()) if "held-out loss" in r]
    assert len(held_out) == 3
    assert held_out[-1] < held_out[0]


def test_sample_draws_the_requested_class_and_is_reproducible(run, tmp_path):
    words = [
        "generate",
        "sample",
        str(run),
        "--num-samples",
        "12",
        "--label",
        "3",
        "--solver-steps",
        "5",
        "--guidance",
        "2",
        "--solver",
        "ab2",
    ]
    for name in ("a", "b"):
        assert main([*words, "--out", str(tmp_path / name)]) == 0
    first, second = (np.load(tmp_path / name / "samples.npz") for name in ("a", "b"))
    assert (first["labels"] == 3).all()
    assert first["x"].shape == (12, 1, 8, 8)
    assert (first["x"] == second["x"]).all()
    assert 0 <= first["x"].min() < first["x"].max() <= 16
    film, grid = (Image.open(tmp_path / "a" / name).size for name in ("film.png", "samples.png"))
    assert film[0] > grid[0]
    assert grid[1] > 2 * 4 * 32  # four rows of generated digits, and of real ones below them


def test_autoguidance_uses_the_early_checkpoint(run, tmp_path):
    words = ["generate", "sample", str(run), "--num-samples", "6", "--solver-steps", "4", "--guidance", "1.5"]
    assert main([*words, "--out", str(tmp_path / "class")]) == 0
    assert main([*words, "--weak", "100", "--out", str(tmp_path / "auto")]) == 0
    first, second = (np.load(tmp_path / name / "samples.npz")["x"] for name in ("class", "auto"))
    assert not np.allclose(first, second)


def test_evaluate_and_likelihood_print_their_metrics(run, capsys):
    assert main(["generate", "evaluate", str(run), "--solver-steps", "4", "--num-samples", "200", "--curve"]) == 0
    assert main(["generate", "likelihood", str(run), "--limit", "16", "--solver-steps", "4"]) == 0
    printed = capsys.readouterr().out
    for word in ("frechet", "kid", "recall", "memorisation", "class accuracy", "bits per dimension", "curve.png"):
        assert word in printed
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    assert rows["frechet"]["value"] > 0
    assert rows["frechet"]["floor"] > 0


def test_an_unconditional_run_is_evaluated_with_the_same_features(run, tmp_path):
    unconditional = tmp_path / "unconditional"
    words = "--no-conditional --width 16 --depth 1 --steps 2 --milestones 1"
    assert main(["generate", "train", *words.split(), "--out", str(unconditional)]) == 0
    floors = []
    for directory in (run, unconditional):
        assert main(["generate", "evaluate", str(directory), "--solver-steps", "2", "--num-samples", "100"]) == 0
        floors.append(json.loads((directory / "evaluation.json").read_text())["rows"]["frechet"]["floor"])
    assert floors[0] == floors[1]


def test_changed_data_are_rejected(tmp_path, capsys):
    data, rng = tmp_path / "x.npy", np.random.default_rng(0)
    np.save(data, rng.standard_normal((60, 3)))
    words = f"--data {data} --width 16 --depth 1 --steps 2 --milestones 1 --out {tmp_path / 'run'}"
    assert main(["generate", "train", *words.split()]) == 0
    np.save(data, 100 * rng.standard_normal((60, 3)))
    for verb in ("evaluate", "likelihood"):
        assert main(["generate", verb, str(tmp_path / "run")]) == 2
        assert "not the data that" in capsys.readouterr().err


def test_the_student_of_a_trigonometric_teacher_has_the_linear_path(tmp_path):
    words = "--path trigonometric --width 16 --depth 1 --steps 2 --milestones 1 --data moons"
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    assert main(["generate", "train", *words.split(), "--out", str(teacher)]) == 0
    assert main(["generate", "reflow", str(teacher), "--out", str(student), "--steps", "2", "--num-pairs", "50"]) == 0
    assert json.loads((student / "recipe.json").read_text())["recipe"]["path"] == "linear"
    assert "teacher" in load_file(student / "constants.safetensors")


def test_reflow_straightens_the_flow(run, tmp_path):
    from pathlib import Path

    from monge.apps.generate.recipes import generator_of
    from monge.math.metrics import straightness
    from monge.runs import reopen

    student = tmp_path / "student"
    assert main(["generate", "reflow", str(run), "--out", str(student), "--steps", "300", "--num-pairs", "2000"]) == 0
    curvatures = []
    for path in (run, student):
        generator = generator_of(reopen(Path(path), app="generate"))
        x_0, labels = generator.noise(200, generator=torch.Generator().manual_seed(0)), generator.labels(200)
        with torch.no_grad():
            curvatures.append(straightness(generator.velocity(labels), x_0, steps=20))
    assert curvatures[1] < curvatures[0]


def test_semidiscrete_potentials_are_stored_with_the_run_and_their_error_is_printed(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((200, 2)))
    words = f"--coupling semidiscrete --width 16 --depth 1 --steps 2 --milestones 1 --data {tmp_path}/x.npy"
    assert main(["generate", "train", *words.split(), "--out", str(tmp_path / "run")]) == 0
    assert "an L1 error of 0." in capsys.readouterr().out
    constants = load_file(tmp_path / "run" / "constants.safetensors")
    assert constants["potentials"].shape == (160,)
    assert constants["potentials_error"] < 0.5
