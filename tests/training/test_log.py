"""metrics.jsonl has no missing, duplicate or truncated line, whatever happened before it was opened."""

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monge.training.log import JSONL, Log, _progress, read_records


def written(path: Path, steps: range) -> None:
    log = JSONL(path, step=steps.start - 1)
    for step in steps:
        log.write({"step": step, "loss": 1 / step})
    log.close()


def test_reopening_drops_the_records_after_the_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    written(path, range(1, 9))
    written(path, range(6, 11))
    assert [record["step"] for record in read_records(path)] == list(range(1, 11))
    assert read_records(path)[6] == {"step": 7, "loss": 1 / 7}


@given(cut=st.integers(0, 10_000))
def test_a_line_truncated_at_any_byte_is_ignored(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    written(path, range(1, 9))
    content = path.read_bytes()
    cut %= len(content) + 1
    path.write_bytes(content[:cut])
    steps = [record["step"] for record in read_records(path)]
    ends = [i for i in range(1, cut + 1) if content[:i].count(b"}") > content[: i - 1].count(b"}")]
    assert steps == list(range(1, len(ends) + 1))
    written(path, range(len(steps) + 1, 9))
    assert path.read_bytes() == content


def test_a_damaged_line_before_the_last_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl: line 2 is not JSON; restore the file"):
        read_records(path)


def test_a_line_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = JSONL(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "loss": float("nan")})
    assert [record["step"] for record in read_records(tmp_path / "metrics.jsonl")] == [1]
    log.close()


def test_a_file_without_the_record_of_the_checkpoint_is_rejected(tmp_path: Path) -> None:
    written(tmp_path / "metrics.jsonl", range(1, 4))
    with pytest.raises(ValueError, match="the record of step 5, from which the run resumes, is missing"):
        JSONL(tmp_path / "metrics.jsonl", step=5)


def test_a_missing_file_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "metrics.jsonl") == []


def test_event_files_hold_the_same_values_as_the_lines(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Log(tmp_path, step=0, steps=3, title="test", tensorboard=True) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": step / 4, "grad_norm": 1.0})
    accumulator = events.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(e.step, e.value) for e in accumulator.Scalars("loss")] == [(r["step"], r["loss"]) for r in lines]


def test_no_event_files_unless_requested(tmp_path: Path) -> None:
    with Log(tmp_path, step=0, steps=1, title="test") as log:
        log.write(1, {"loss": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_missing_tensorboard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'monge\[tensorboard\]'"):
        Log(tmp_path, step=0, steps=1, title="test", tensorboard=True)


def test_without_a_terminal_progress_is_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Log(tmp_path, step=0, steps=100, title="generate lr[/2]") as log:
        for step in range(1, 101):
            log.write(step, {"loss": 1 / step, "grad_norm": 1.0}, examples=32 * step, memory=1.25)
    first, last = capsys.readouterr().out.splitlines()
    pattern = r"generate lr\[/2\]  step {}  loss {}  \d[\d.]*[kM]? examples/s  1\.2 GB  {} left"
    assert re.fullmatch(pattern.format("1/100", "1", r"\d:\d\d:\d\d"), first)
    assert re.fullmatch(pattern.format("100/100", r"0\.01", "0:00:00"), last)


@pytest.mark.parametrize("width", [40, 100])
def test_on_a_terminal_progress_shows_name_step_and_loss_at_any_width(tmp_path: Path, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    progress, task = _progress("generate lr[/2]", 0, 100)
    progress.update(task, completed=7, note="loss 0.125")
    with progress.console.capture() as shown:
        progress.console.print(progress.get_renderable())
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.get())
    assert all(part in text for part in ("generate lr[/2]", "7/100", "loss 0.125"))
