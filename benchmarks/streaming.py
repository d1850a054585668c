"""Pairing and training with four gigabytes of vectors on disk: resident memory, and step time compared with data in memory.

    python benchmarks/streaming.py --work DIRECTORY [--gigabytes 4]        # 9 GB of disk, of which 4 stay for the next run

Targets: under 1.5 GB resident in pairing and in training; a step within 10 % of one with pairs in memory. Vectors are random,
float16, of width 2048, 40 to 120 per sequence; the target file holds noisy copies in reverse order. The field is small, so that
the cost of the data is visible. Before training from disk, the vectors are dropped from the page cache.
"""

import side_by_side as side  # sets one thread

# isort: split

import multiprocessing
import os
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro
from torch import Tensor

from monge.apps.translate.calibrate import measured
from monge.apps.translate.field import FieldShape
from monge.apps.translate.pair import ENDS, Pairs, pair
from monge.apps.translate.prices import Prices
from monge.apps.translate.recipes import Translate
from monge.lm.store import Row, write
from monge.math.random import seeded
from monge.training.config import TrainConfig
from monge.training.distributed import ranks
from monge.training.loop import Run, prepare, train

WIDTH, CAPACITY, LENGTHS, WARM = 2048, 128, (40, 120), 5
GB = 1e9


def sequence(end: str, number: int) -> Tensor:
    """A sequence of the source, or of the target: a noisy copy up to the shorter length."""
    draws = seeded(0, number)
    n, m = torch.randint(LENGTHS[0], LENGTHS[1] + 1, (2,), generator=draws).tolist()
    x = torch.randn(max(n, m), WIDTH, generator=draws)
    return x[:n] if end == "source" else x[:m] + 0.5 * torch.randn(m, WIDTH, generator=draws)


def ensure_file(path: Path, count: int, rows: int) -> Path:
    """The file of `count` sequences, written in groups of `rows` sequences if it does not exist."""
    end, numbers = path.name.split("-")[0], range(count)

    def groups() -> Iterator[list[Row]]:
        for start in range(0, count, rows):
            group = numbers[start : start + rows] if end == "source" else numbers[::-1][start : start + rows]
            yield [(f"pair {number}", sequence(end, number).half()) for number in group]

    if not path.exists():
        write(path, groups(), dtype="float16", fingerprint={"model": "random, seed 0"})
    return path


def peak() -> float:
    """Peak resident memory since the last call, in GB."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current value
    return int(match[1]) * 1024 / GB if match else float("nan")


def in_fresh_process(function: Callable[..., Any], *words: object) -> Any:
    """The result of the function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *words).result()


def pairing(source: Path, target: Path, out: Path) -> list[dict[str, object]]:
    """Memory and time of `pair`."""
    imported, begin = peak(), time.perf_counter()
    summary = pair(source, target, out, capacity=CAPACITY)
    taken = time.perf_counter() - begin
    return [
        {"stage": "import", "peak GB": imported},
        {"stage": "pair", "peak GB": peak(), "seconds": taken, "pairs": summary["pairs"]},
    ]


def calibrating(directory: Path) -> list[dict[str, object]]:
    """Memory and time of the calibration, which is stored with the pairs, as by `monge translate calibrate` or `couple`."""
    torch.set_num_threads(1)
    imported, begin = peak(), time.perf_counter()
    measured(Pairs(directory), Prices())
    taken = time.perf_counter() - begin
    return [{"stage": "import", "peak GB": imported}, {"stage": "calibrate", "peak GB": peak(), "seconds": taken}]


def training(directory: Path, steps: int, rounds: int) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Memory of each stage of a run from disk, and its step time compared with that of the same pairs in memory."""
    torch.set_num_threads(1)
    memory: list[dict[str, object]] = [{"stage": "import", "peak GB": peak()}]
    config = TrainConfig(steps=steps, threads=1, device="cpu")
    recipe = Translate(pairs=str(directory), shape=FieldShape(width=64, depth=1, mean_skip=False), train=config)

    def measure(stage: str, call: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = call()
        memory.append({"stage": stage, "peak GB": peak(), "seconds": time.perf_counter() - begin})
        return result

    torch.manual_seed(0)
    run = measure("build", recipe.build)
    measure(f"train {steps} steps", lambda: step_times(run, directory))
    with torch.no_grad():
        measure("evaluate", lambda: run.evaluate(run.model))
    arms: dict[str, list[float]] = {"disk": [], "memory": []}
    batches = {name: list(times) for name, times in arms.items()}
    held = cache(Pairs.sequence)
    for number in range(rounds):
        arms["disk"] += step_times(run, directory)
        batches["disk"] += batch_times(run, directory)
        with mock.patch.object(Pairs, "sequence", held):
            if not number:
                batch_times(run, steps=steps)
            arms["memory"] += step_times(run)
            batches["memory"] += batch_times(run)
    ms = {f"a batch from {name} ms": 1e3 * statistics.median(times) for name, times in batches.items()}
    return memory, {"batch": recipe.batch_size, "steps": len(arms["disk"]), **side.compare(arms, ours="memory"), **ms}


def step_times(run: Run[Any], cold: Path | None = None) -> list[float]:
    """Seconds of each step of a training run after the first few."""
    drop_from_page_cache(cold)
    with ranks("cpu") as where:
        state, step = prepare(run, where)
        ticks = [time.perf_counter() for _ in train(run, state, step, where)]
    return [end - begin for begin, end in pairwise(ticks)][WARM:]


def batch_times(run: Run[Any], cold: Path | None = None, *, steps: int = 8) -> list[float]:
    """Seconds to make each batch of a run."""
    drop_from_page_cache(cold)
    times: list[float] = []
    for number in range(steps):
        begin = time.perf_counter()
        run.batches(number)
        times.append(time.perf_counter() - begin)
    return times


def drop_from_page_cache(directory: Path | None) -> None:
    """Drop the vectors under a directory from the page cache."""
    for path in directory.rglob("*.bin") if directory else ():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(*, work: Path, gigabytes: float = 4, rows: int = 1024, steps: int = 30, rounds: int = 3) -> None:
    """Pair and train in `work`.

    Args:
        work: Working directory; the two parquet files stay in it for the next run.
        gigabytes: Total size of both files in GB.
        rows: Number of sequences per call of the writer, which splits them into row groups of about 32 MiB; `monge
            translate embed` passes 1024.
        steps: Number of timed training steps per run.
        rounds: Number of alternating runs from disk and from memory.
    """
    work.mkdir(parents=True, exist_ok=True)
    count = round(gigabytes * GB / (2 * WIDTH * statistics.mean(LENGTHS) * 2))
    paths = [work / f"{end}-{count}-{rows}.parquet" for end in ENDS]
    need = gigabytes * GB * (1 + (len(ENDS) - sum(path.exists() for path in paths)) / len(ENDS))
    if shutil.disk_usage(work).free < need + GB:
        raise SystemExit(f"{work}: {need / GB + 1:.1f} GB must be free; choose another --work or fewer --gigabytes")
    source, target = (ensure_file(path, count, rows) for path in paths)
    directory = work / "pairs"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        joined = in_fresh_process(pairing, source, target, directory)
        os.sync()  # only pages that are on disk can be dropped
        calibrated = in_fresh_process(calibrating, directory)
        trained, speed = in_fresh_process(training, directory, WARM + 1 + steps, rounds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    size = {"gigabytes": sum(path.stat().st_size for path in paths) / GB, "rows per write": rows}
    processes = {"pair": joined, "calibrate": calibrated, "train": trained}
    memory = [{"process": process, **row} for process, stages in processes.items() for row in stages]
    side.print_table(f"Peak resident memory, {size['gigabytes']:.3g} GB of vectors", memory)
    side.print_table("A step from disk and from memory, medians", [speed])
    side.write_result(
        "streaming", [{**row, **size, "seed": 0} for row in [*memory, speed]], ("numpy", "torch", "pyarrow")
    )


if __name__ == "__main__":
    tyro.cli(main)
