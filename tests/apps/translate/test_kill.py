"""`couple` and `train` are killed at random moments and resumed; the files on disk equal those of an uninterrupted run."""

import json
import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from monge.apps.translate.pair import Pairs, pair
from monge.cli import main
from monge.lm.store import write

pytestmark = pytest.mark.slow
KILLS, COUNT, CAPACITY = 3, 7000, 24
TRAIN = ["--width", 64, "--depth", 1, "--batch-size", 8, "--warmup-steps", 5]
TRAIN += [
    "--device",
    "cpu",
    "--threads",
    1,
    "--steps",
    120,
    "--save-every",
    8,
    "--log-every",
    1,
    "--keep-last",
    99,
    "--resume",
]
Words = list[str | int | Path]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs for fourteen shards of couplings."""
    path, draws = tmp_path_factory.mktemp("many"), torch.Generator().manual_seed(0)
    for end in ("a", "b"):
        lengths = torch.randint(3, CAPACITY + 1, (COUNT,), generator=draws).tolist()
        rows = [(f"row-{k}", torch.randn(n, 8, generator=draws)) for k, n in enumerate(lengths)]
        write(path / end, [rows], dtype="float16", fingerprint={})
    pair(path / "a", path / "b", path / "pairs", capacity=CAPACITY)
    return path / "pairs"


def start(words: Words) -> BaseProcess:
    """The command in a process that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    later = ["torch._dynamo", "rich.progress", "numba.np.arraymath", "numba.cpython.charseq"]
    context.set_forkserver_preload(["monge.apps.translate.cli", *later])
    process = context.Process(target=main, args=(["translate", *map(str, words)],))
    process.start()
    return process


def on_disk(directory: Path, pattern: str = "**/*") -> dict[str, bytes]:
    """Every file, hidden ones included, byte for byte."""
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.glob(pattern)) if p.is_file()}


def killed(words: Words, done: Callable[[], float], moment: float, pause: float) -> bool:
    """Kill the command `pause` seconds after it passed `moment` and made progress. True if it was still running."""
    before, process = done(), start(words)
    while process.is_alive() and (done() < moment or done() <= before):
        time.sleep(0.001)
    time.sleep(pause)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def killed_and_completed(words: Words, tmp_path: Path, units: str, done: Callable[[Path], int], seed: int) -> Path:
    """Kill a command KILLS times, then let it finish; return its directory, compared with that of an uninterrupted run.

    Kills are spread over two thirds of the work counted by `done`; `units` are files that are complete once they exist.
    """
    complete, cut, draw = tmp_path / "complete", tmp_path / "cut", random.Random(seed)
    start([*words, "--out", complete]).join()
    expected, work = on_disk(complete), done(complete)
    assert work, "the command did no work"
    times = [path.stat().st_mtime for path in complete.glob(units)]
    for number in range(KILLS):
        moment = 2 / 3 * work * (number + draw.random()) / KILLS
        pause = draw.random() * (max(times) - min(times)) / work
        assert killed([*words, "--out", cut], lambda: done(cut), moment, pause), (
            f"the command had finished before kill {number}"
        )
        assert on_disk(cut, units).items() <= expected.items()
    start([*words, "--out", cut]).join()
    assert on_disk(cut).keys() == expected.keys()
    assert [name for name, content in on_disk(cut).items() if content != expected[name]] == []
    return cut


@pytest.mark.long  # many starts of the program
@pytest.mark.parametrize("seed", [0])
def test_couplings_killed_repeatedly_are_those_of_an_uninterrupted_run(many: Path, tmp_path: Path, seed: int) -> None:
    def shards(out: Path) -> int:
        return len(list(out.glob("shard-*.npy")))

    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / ".writing-shard-00013.npy").write_bytes(b"half")  # left by a kill during the last write
    out = killed_and_completed(["couple", many], tmp_path, "shard-*.npy", shards, seed)
    assert shards(out) == 14
    rows = np.concatenate([np.load(path) for path in sorted(out.glob("shard-*.npy"))])
    assert len(rows) == len(Pairs(many).ids) == COUNT
    assert (np.sort(rows, 1) == np.arange(CAPACITY)).all()


@pytest.mark.long  # generate uses the same loop, and its kill test is not marked long
@pytest.mark.parametrize("seed", [1])
def test_a_training_run_killed_repeatedly_has_the_weights_of_an_uninterrupted_one(
    pairs: Pairs, tmp_path: Path, seed: int
) -> None:
    def lines(out: Path) -> int:
        path = out / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    words = ["train", "--pairs", pairs.directory, *TRAIN]
    out = killed_and_completed(words, tmp_path, "checkpoints/step-*/*", lines, seed)
    last = on_disk(out / "checkpoints" / "step-00000120")
    assert last.keys() >= {"model.safetensors", "ema.safetensors", "resume.safetensors"}
    assert last["model.safetensors"] != last["ema.safetensors"]
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 121))
