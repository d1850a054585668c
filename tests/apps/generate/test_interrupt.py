"""Ctrl-C and SIGTERM on the real command save a checkpoint, and --resume needs only the run directory."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monge.cli import main
from monge.run import Interrupted
from monge.training.log import read_records

pytestmark = pytest.mark.slow
TRAIN = ["--data", "gaussians", "--width", "16", "--depth", "1", "--batch-size", "32", "--log-every", "5"]
TRAIN += [
    "--save-every",
    "1000000",
    "--steps",
    "1000000",
    "--lr",
    "0.002",
    "--coupling",
    "independent",
]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_saves_and_resumes_without_flags(tmp_path: Path, number: int, code: int, capsys) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "monge", "generate", "train", *TRAIN, "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not read_records(run / "metrics.jsonl"):
        time.sleep(0.05)
    process.send_signal(number)
    out, error = process.communicate()
    assert process.returncode == code, error
    step = read_records(run / "metrics.jsonl")[-1]["step"]
    assert (
        error == f"monge generate train: interrupted at step {step}; its checkpoint is in {run}; {Interrupted.advice}\n"
    )
    assert out.startswith(f"generate {run.name}  step 5/1000000  ")
    assert (run / "checkpoints" / f"step-{step:08d}" / "model.safetensors").exists()

    assert main(["generate", "train", "--resume", "--out", str(run), "--steps", str(step + 5)]) == 0
    recipe = json.loads((run / "recipe.json").read_text())["recipe"]
    assert (recipe["train"]["steps"], recipe["train"]["lr"], recipe["width"]) == (step + 5, 0.002, 16)
    assert read_records(run / "metrics.jsonl")[-1]["step"] == step + 5
    assert main(["generate", "train", "--resume", f"--out={run}", "--width", "32"]) == 2
    assert "made with recipe.width = 16, not 32; resume with the same settings" in capsys.readouterr().err
