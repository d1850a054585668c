"""The demo with one language model for both sides."""

import json
from pathlib import Path

import pytest

from monge.apps.translate.metamath import INSTALLED, theorems
from monge.cli import main
from monge.lm.load import encoder
from monge.pretrain import Pretrain
from monge.training.config import TrainConfig

FEW = TrainConfig(steps=10, warmup_steps=2, save_every=10, device="cpu", threads=1, ema_width=0.0)


@pytest.mark.long
@pytest.mark.skipif(not INSTALLED.exists(), reason="needs set.mm: apt install metamath-databases")
def test_one_model_embeds_both_sides_and_decodes_its_own_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lines = [
        text
        for row, _ in zip(theorems(INSTALLED), range(300), strict=False)
        for text in (row.comment, " ".join(row.statement))
    ]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    shape = {"vocabulary": 500, "width": 32, "depth": 2, "heads": 2, "length": 192, "batch_size": 4}
    Pretrain(str(tmp_path / "lines.txt"), **shape, train=FEW).pretrain(tmp_path / "lm")
    model, out = str(tmp_path / "lm" / "model"), tmp_path / "demo"
    words = ["--limit", "200", "--steps", "4", "--decoder-steps", "4", "--model", model]
    assert main(["translate", "demo", "--out", str(out), *words]) == 0
    printed = capsys.readouterr().out
    settings = json.loads((out / "pairs" / "pairs.json").read_text())
    sides = [settings["fingerprint"][end] for end in ("source", "target")]
    assert all(side["model"] == model and side["layer"] == "2" for side in sides)
    assert not (out / "formal").exists()
    assert all(f"  {name}:" in printed for name in ("nearest", "decoded", "own head"))
    rows = [json.loads(line) for line in (out / "own-head.jsonl").read_text().splitlines()]
    assert rows
    assert all("well_formed" in one for row in rows for one in row["candidates"])
    assert main(["translate", "demo", "--out", str(out), *words, "--layer", "1"]) == 2
    assert "prepared.json: made with layer = None, not 1" in capsys.readouterr().err


def test_a_model_without_a_head_is_an_error_before_the_work_begins(language_model: Path, tmp_path: Path, capsys):
    encoder(str(language_model)).model.save_pretrained(tmp_path / "headless")
    encoder(str(language_model)).tokenizer.save_pretrained(tmp_path / "headless")
    words = ["translate", "demo", "--out", str(tmp_path / "demo"), "--model", str(tmp_path / "headless")]
    assert main(words) == 2
    assert "no complete Hugging Face model" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_a_layer_needs_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["translate", "demo", "--out", str(tmp_path), "--layer", "1"]) == 2
    assert "--layer needs --model" in capsys.readouterr().err
