"""The commands in docs/generate.md run in order, with small data and networks."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monge.cli import main

PAGE = (Path(__file__).parents[3] / "docs" / "generate.md").read_text()
BLOCKS = re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)
COMMANDS = [shlex.split(line) for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
MODEL = ["--width", "16", "--depth", "2", "--batch-size", "16", "--warmup-steps", "1", "--device", "cpu"]
SMALL = {
    "pretrain": ["--width", "8", "--depth", "1", "--batch-size", "16", "--steps", "3", "--warmup-steps", "1"],
    "train": [*MODEL, *["--steps", "3", "--save-every", "5"]],
    "reflow": ["--steps", "3", "--num-pairs", "40"],
    "sample": ["--num-samples", "4", "--solver-steps", "2"],
    "evaluate": ["--num-samples", "30", "--solver-steps", "2"],
    "likelihood": ["--limit", "4", "--solver-steps", "2"],
}


def test_the_page_shows_every_verb_but_the_demo() -> None:
    shown = {words[2] for words in COMMANDS if words[0] == "monge"}
    assert shown == set(SMALL)
    assert {words[0] for words in COMMANDS} == {"monge", "torchrun"}


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the data files that the page names."""
    draw = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "photos" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    np.save(tmp_path / "latents.npy", draw.standard_normal((20, 4, 4, 4)).astype(np.float32))
    rows = [f"{x},{k % 7},{('red', 'blue')[k % 2]}" for k, x in enumerate(draw.standard_normal(40))]
    (tmp_path / "table.csv").write_text("\n".join(["size,count,label", *rows]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands_run(workspace: Path, torchrun) -> None:
    for words in COMMANDS:
        if words[0] == "torchrun":
            torchrun(*words[words.index("-m") :], *MODEL, "--steps", "2")
            continue
        if "moved.csv" in words and not Path("moved.csv").exists():
            shutil.move("table.csv", "moved.csv")
        if words[2] == "reflow" and not Path("table.csv").exists():
            shutil.move("moved.csv", "table.csv")
        steps = ["--steps", "5"] if words[2] == "train" and "digits" in words else []
        words = ["5" if word == "500" else word for word in words]  # the page's --weak is step 500
        assert main([*words[1:], *SMALL[words[2]], *steps]) == 0, words
    for name in ("straight", "two", "unbounded", "reflowed", "photos/samples/images/cat", "table/evaluation.json"):
        assert (workspace / "runs" / name).exists(), name
