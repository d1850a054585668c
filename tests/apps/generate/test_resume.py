"""A run killed with SIGKILL at any moment and resumed leaves the same files as an uninterrupted one."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monge.training.log import read_records

pytestmark = pytest.mark.slow
WALL_CLOCK = {"seconds", "time", "per second"}  # entries of a record that depend on the clock; the rest must be equal
STEPS = 84
TINY = ["--width", 16, "--depth", 2, "--batch-size", 24]
TRAIN = ["--steps", STEPS, "--warmup-steps", 5, "--save-every", 7, "--log-every", 3]
TRAIN += ["--milestones", 14, 30, "--device", "cpu"]


def on_disk(run: Path) -> dict[str, object]:
    """The results of a run: the bytes of every checkpoint file, and the records of the log without wall-clock entries."""
    files: dict[str, object] = {
        str(path.relative_to(run)): path.read_bytes()
        for path in [*run.glob("checkpoints/**/*"), *run.glob("checkpoints/.*/*"), *run.glob("*.safetensors")]
        if path.is_file()
    }
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return files | {"log": [{k: v for k, v in record.items() if k not in WALL_CLOCK} for record in records]}


def kill_moments(run: Path, seed: int) -> Iterator[tuple[Callable[[], bool], float]]:
    """(condition, pause in seconds) of each kill.

    Kills come while a checkpoint is written, a random time after a random line of the log, at the start, and during a later
    checkpoint.
    """
    draw = random.Random(seed)
    checkpoints = run / "checkpoints"

    def writing() -> bool:
        return any(checkpoints.glob(".writing-*"))

    def lines(count: int) -> Callable[[], bool]:
        return lambda: (run / "metrics.jsonl").exists() and len(read_records(run / "metrics.jsonl")) >= count

    yield writing, 0.0
    yield lines(draw.randint(9, 16)), draw.uniform(0, 0.02)
    yield lambda: (run / "lock").exists(), draw.uniform(0, 0.2)
    yield lambda: lines(18)() and writing(), draw.uniform(0, 0.002)


VARIANTS = {
    "ot of three batches, from batch 10": ["--data", "gaussians", "--ot-factor", 3, "--ot-after", 10],
    "entropic": ["--data", "moons", "--coupling", "entropic", "--loader-threads", 0],
    "muon in bfloat16": ["--data", "digits", "--optimizer", "muon", "--precision", "bfloat16"],
    "accumulated": ["--data", "digits", "--gradient-accumulation", 2, "--loader-threads", 2],
    "dit": ["--data", "digits", "--network", "dit", "--patch", 4, "--path", "trigonometric", "--ema-width", 0.0],
}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(options, id=name, marks=[] if name == "dit" else [pytest.mark.long])
        for name, options in VARIANTS.items()
    ],
)
def test_a_repeatedly_killed_run_equals_an_uninterrupted_one(tmp_path: Path, monge, kill, options: list) -> None:
    words = ["train", *TINY, *TRAIN, *options, "--resume", "--out"]
    uninterrupted = monge.fork(*words, tmp_path / "uninterrupted")
    killed, kills = tmp_path / "killed", 0
    for condition, pause in kill_moments(killed, seed=len(options) + STEPS):
        kills += kill(monge.fork(*words, killed)).when(condition, pause=pause)
    last = monge.fork(*words, killed)
    for process in (uninterrupted, last):
        process.join()
        assert process.exitcode == 0
    assert kills >= 3
    assert read_records(killed / "metrics.jsonl")[-1]["step"] == STEPS
    assert on_disk(killed) == on_disk(tmp_path / "uninterrupted")


@pytest.mark.long
@pytest.mark.parametrize("data", ["checkerboard", "digits"])
def test_the_command_line_can_be_killed_and_resumed(tmp_path: Path, monge, kill, data: str) -> None:
    words = ["train", *TINY, *TRAIN, "--data", data, "--out"]
    uninterrupted, killed = monge.fork(*words, tmp_path / "uninterrupted"), tmp_path / "killed"
    condition, pause = list(kill_moments(killed, seed=len(data)))[data == "digits"]
    assert kill(monge.start(*words, killed)).when(condition, pause=pause)
    done = monge(*words, killed, "--resume")
    assert done.returncode == 0, done.stderr
    uninterrupted.join()
    assert on_disk(killed) == on_disk(tmp_path / "uninterrupted")


def test_the_last_best_and_milestone_checkpoints_are_kept(tmp_path: Path, monge) -> None:
    # training diverges at the end, so the best checkpoint is neither among the last nor a milestone
    words = ["train", *TINY, *TRAIN, "--data", "gaussians", "--lr", "1.0", "--warmup-steps", 1000]
    monge.fork(*words, "--out", tmp_path).join()
    records = [record for record in read_records(tmp_path / "metrics.jsonl") if "held-out loss" in record]
    best = min(records, key=lambda record: record["held-out loss"])["step"]
    steps = [int(path.name.removeprefix("step-")) for path in sorted(tmp_path.glob("checkpoints/*"))]
    assert steps == sorted({14, 30, best, 77, 84})
    assert json.loads((tmp_path / "checkpoints/step-00000084/state.json").read_text())["best"]["step"] == best


def test_the_log_has_one_record_per_window(tmp_path: Path, monge) -> None:
    monge.fork("train", *TINY, *TRAIN, "--data", "gaussians", "--out", tmp_path).join()
    steps = [record["step"] for record in read_records(tmp_path / "metrics.jsonl")]
    assert steps == sorted({*range(3, STEPS + 1, 3), *range(7, STEPS + 1, 7), 14, 30})


@pytest.mark.parametrize("options", [["--ot-factor", 2, "--ot-after", 3], ["--coupling", "entropic"]])
def test_the_number_of_loader_threads_changes_nothing(tmp_path: Path, monge, options: list) -> None:
    short = ["--steps", 12, "--save-every", 12, "--ema-width", 0.1]
    runs = {threads: tmp_path / str(threads) for threads in (0, 1, 2)}
    processes = [
        monge.fork("train", *TINY, *short, *options, "--loader-threads", threads, "--out", out)
        for threads, out in runs.items()
    ]
    for process in processes:
        process.join()
    assert on_disk(runs[0]) == on_disk(runs[1]) == on_disk(runs[2])
    assert "checkpoints/step-00000012/ema.safetensors" in on_disk(runs[0])
