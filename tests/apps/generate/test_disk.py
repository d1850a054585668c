"""A full disk gives exit code 1 and a one-line message, leaves checkpoints readable, and the run resumes once it has space."""

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from monge.apps.generate.recipes import generator_of
from monge.runs import reopen
from monge.training import checkpoint

pytestmark = pytest.mark.slow
WORDS = ["train", "--data", "digits", "--width", "64", "--depth", "2", "--batch-size", "16", "--device", "cpu"]
WORDS += ["--steps", "10", "--save-every", "2", "--keep-last", "9", "--warmup-steps", "2"]


def checkpoint_files(run: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(run)): path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()
    }


def readable_steps(run: Path) -> list[int]:
    """The steps of the checkpoints. Reads each of them and raises if one is damaged."""
    for path in checkpoint.steps(run / "checkpoints"):
        generator_of(reopen(run, app="generate"), which=str(checkpoint.step_of(path)))
        checkpoint.read(path, ["model", "ema", "resume"])
    return [checkpoint.step_of(path) for path in checkpoint.steps(run / "checkpoints")]


def reports_full_disk(done: subprocess.CompletedProcess[str], path: Path) -> bool:
    """Asserts exit code 1 and a one-line message about the disk that starts with `path`; returns True."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(f"monge generate train: {path}")
    assert "Free disk space and run the command again" in done.stderr
    assert done.stderr.count("\n") == 1
    return True


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory on a separate file system of 5 MB."""
    path = tmp_path / "small"
    path.mkdir()
    if sys.platform != "linux" or shutil.which("mount") is None:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "monge", str(path)], capture_output=True)
    if done.returncode:
        pytest.skip("only root can mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.long
def test_a_run_resumes_after_a_full_disk(monge, small: Path, tmp_path: Path) -> None:
    uninterrupted, run = monge.fork(*WORDS, "--out", tmp_path / "uninterrupted"), small / "run"
    assert reports_full_disk(monge(*WORDS, "--out", run), run / "checkpoints")
    saved = readable_steps(run)
    assert saved
    assert saved == list(range(2, 10, 2))[: len(saved)]
    assert not list((run / "checkpoints").glob(".writing-*"))
    with (small / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while True:  # until not even a line of the log fits
            filler.write(bytes(512))
    before = checkpoint_files(run)
    assert reports_full_disk(monge(*WORDS, "--out", run, "--resume"), run)
    assert checkpoint_files(run) == before
    (small / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
    last = monge.fork(*WORDS, "--out", run, "--resume")
    for process in (last, uninterrupted):
        process.join()
    assert checkpoint_files(run) == checkpoint_files(tmp_path / "uninterrupted")
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "uninterrupted" / "metrics.jsonl").read_bytes()


@pytest.mark.long
def test_a_run_resumes_after_a_limit_on_file_sizes(monge, kill, tmp_path: Path) -> None:
    uninterrupted, run = monge.fork(*WORDS, "--out", tmp_path / "uninterrupted"), tmp_path / "run"
    first = run / "checkpoints" / "step-00000002"
    assert kill(monge.fork(*WORDS, "--out", run)).when(first.exists)
    before = readable_steps(run)
    done = subprocess.run(
        monge.command(*WORDS, "--out", run, "--resume"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        text=True,
        capture_output=True,
    )
    assert reports_full_disk(done, run / "checkpoints")
    assert readable_steps(run) == before
    last = monge.fork(*WORDS, "--out", run, "--resume")
    for process in (last, uninterrupted):
        process.join()
    assert checkpoint_files(run) == checkpoint_files(tmp_path / "uninterrupted")
