"""Pretraining: invalid sizes are rejected, a run resumes only with the same texts, and files of texts are read."""

from dataclasses import replace
from pathlib import Path

import pytest

from monge.pretrain import Pretrain, read_lines
from monge.run import fit
from monge.training.config import TrainConfig


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1, got 0")
            for name in ("vocabulary", "width", "depth", "heads", "batch_size")
        ),
        ({"length": 1}, "length must be at least 2, got 1"),
        ({"width": 100}, "width 100 does not divide into 6 heads of even width; use a multiple of 12"),
        ({"width": 6}, "width 6 does not divide into 6 heads"),
    ],
)
def test_invalid_sizes_are_rejected(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pretrain(**sizes)


def test_a_run_resumes_only_with_the_same_texts(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.write_text("( ph -> ps )\nA e. B\n" * 40)
    config = TrainConfig(steps=2, save_every=1, warmup_steps=0, device="cpu", ema_width=0.0, loader_threads=0)
    recipe = Pretrain(str(texts), vocabulary=300, width=16, depth=1, heads=2, length=8, batch_size=2, train=config)
    fit(recipe, tmp_path / "run")
    assert fit(recipe, tmp_path / "run", resume=True).step == 2
    texts = texts.rename(tmp_path / "moved")
    recipe = replace(recipe, texts=str(texts))
    assert fit(recipe, tmp_path / "run", resume=True).step == 2
    texts.write_text(texts.read_text().replace("A e. B", "B e. A", 1))
    with pytest.raises(
        ValueError, match="texts does not match the current data, teacher or encoder; restore the original"
    ):
        fit(recipe, tmp_path / "run", resume=True)


def test_a_text_may_span_lines_as_a_json_string(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('"theorem t :\\n  True"\n\n"A e. B"\n')
    assert read_lines(path) == ["theorem t :\n  True", "A e. B"]
    for line in ('{"formal": 1}', '""'):
        path.write_text(f'"A e. B"\n\n{line}\n')
        with pytest.raises(ValueError, match=r"texts.jsonl: line 3 is not a JSON string with text"):
            read_lines(path)
