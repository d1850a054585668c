"""Growth of time and memory with the work: each command at four sizes, the largest eight times the smallest.

    python benchmarks/growth.py [--applications generate translate compress prove molecules] [--work runs/benchmark-growth]

A size is measured in a process of its own, on one thread: CPU time and wall-clock time, and the peak of the private memory
of it and its children. A line through the four CPU times gives the time of the startup and of one unit of work, and from
them an estimate for a hundred times the largest size. It needs the packages and the setup of the applications.
"""

import side_by_side as side  # sets one thread

# isort: split

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, NamedTuple

import numpy as np
import psutil
import tyro

Application = Literal["generate", "translate", "compress", "prove", "molecules"]
INTERVAL = 0.1
"""Seconds between measurements of memory."""


class Work(NamedTuple):
    """A command whose work has a size."""

    application: Application
    unit: str
    sizes: tuple[int, ...]
    command: Callable[[int, Path], list[object]]
    """Arguments of `monge` for a size and a new output path."""


def private(process: psutil.Process) -> int:
    """Resident memory of a process in bytes, without the part that it shares, such as pages of files."""
    memory: Any = process.memory_info()
    return memory.rss - memory.shared


def cpu_of_children() -> float:
    """CPU seconds of all child processes that have ended, and of their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cost_of(words: Sequence[object]) -> dict[str, float]:
    """CPU seconds, wall-clock seconds and peak memory of a command. CalledProcessError if it fails."""
    begin, before, peak = time.perf_counter(), cpu_of_children(), 0
    command = [sys.executable, "-m", "monge", *map(str, words)]
    with TemporaryFile("w+") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            total = 0
            with suppress(psutil.NoSuchProcess):
                for one in [root, *root.children(recursive=True)]:
                    with suppress(psutil.NoSuchProcess):
                        total += private(one)
            peak = max(peak, total)
            time.sleep(INTERVAL)
        if process.returncode:
            output.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, output.read())
    seconds = time.perf_counter() - begin
    return {"CPU s": cpu_of_children() - before, "seconds": seconds, "peak GB": peak / 1e9}


def run(*words: object) -> None:
    """Run a command that prepares others. CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "monge", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def generate(work: Path) -> Iterator[Work]:
    """Yields training by steps and by examples, and sampling."""
    model = work / "digits"
    if not model.exists():
        run("generate", "train", "--data", "digits", "--steps", 50, "--save-every", 50, "--out", model)
    for count in (examples := (20_000, 40_000, 80_000, 160_000)):
        file = work / f"{count}.npy"
        if not file.exists():
            np.save(file, np.random.default_rng(0).standard_normal((count, 64), dtype=np.float32))
    train = ["generate", "train", "--save-every", 100_000]
    yield Work(
        "generate",
        "training step",
        (500, 1000, 2000, 4000),
        lambda size, out: [*train, "--data", "digits", "--steps", size, "--out", out],
    )
    yield Work(
        "generate",
        "example, 200 steps",
        examples,
        lambda size, out: [*train, "--data", work / f"{size}.npy", "--steps", 200, "--out", out],
    )
    yield Work(
        "generate",
        "sample",
        (5_000, 10_000, 20_000, 40_000),
        lambda size, out: ["generate", "sample", model, "--num-samples", size, "--no-save-images", "--out", out],
    )


def translate(work: Path) -> Iterator[Work]:
    """Yields embedding and pairing by texts, and training by steps and by pairs."""
    counts = (250, 500, 1000, 2000)
    for count in counts:
        file = work / f"{count}.jsonl"
        rows = (
            {"id": str(k), "nl": f"the sum of {k} and {7 * k} is even", "formal": f"{k} + {7 * k}"}
            for k in range(count)
        )
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def embed(size: int, field: str, out: Path) -> list[object]:
        flags = ["--model", "all-MiniLM-L6-v2", "--layer", 6, "--field", field, "--out", out]
        return ["translate", "embed", work / f"{size}.jsonl", *flags]

    def pair(size: int, out: Path) -> list[object]:
        sides = [work / f"{field}-{size}.parquet" for field in ("nl", "formal")]
        return ["translate", "pair", *sides, "--capacity", 32, "--out", out]

    for size in counts:
        for field in ("nl", "formal"):
            if not (out := work / f"{field}-{size}.parquet").exists():
                run(*embed(size, field, out))
        if not (out := work / f"pairs-{size}").exists():
            run(*pair(size, out))
    yield Work("translate", "text embedded", counts, lambda size, out: embed(size, "nl", out.with_suffix(".parquet")))
    yield Work("translate", "pair", counts, pair)
    train = ["translate", "train", "--save-every", 100_000]
    yield Work(
        "translate",
        "training step",
        (25, 50, 100, 200),
        lambda size, out: [*train, "--pairs", work / "pairs-2000", "--steps", size, "--out", out],
    )
    yield Work(
        "translate",
        "pair, 25 steps",
        counts,
        lambda size, out: [*train, "--pairs", work / f"pairs-{size}", "--steps", 25, "--out", out],
    )


def compress(work: Path) -> Iterator[Work]:
    """Yields storing a teacher's states by sequences, and training by steps."""
    states = work / "states"
    if not states.exists():
        run("compress", "states", "--limit", 32, "--out", states)
    yield Work(
        "compress",
        "sequence of 256 tokens stored",
        (8, 16, 32, 64),
        lambda size, out: ["compress", "states", "--limit", size, "--out", out],
    )
    train = [
        "compress",
        "train",
        "--states",
        states,
        "--map-sequences",
        8,
        "--eval-sequences",
        4,
        "--save-every",
        10_000,
    ]
    yield Work(
        "compress",
        "training step of 1,024 tokens",
        (2, 4, 8, 16),
        lambda size, out: [*train, "--steps", size, "--threads", 1, "--out", out],
    )


def prove(work: Path) -> Iterator[Work]:
    """Yields searching by theorems and by states, and fine-tuning by steps."""
    written = work / "written"
    if not written.exists():
        run("prove", "replay", "--limit", 40, "--out", written)
    search = ["prove", "search", "--split", "test", "--workers", 1, "--num-tactics", 16, "--batch-size", 1]
    yield Work(
        "prove",
        "theorem of at most 8 states",
        (4, 8, 16, 32),
        lambda size, out: [*search, "--limit", size, "--max-states", 8, "--out", out],
    )
    yield Work(
        "prove",
        "state per theorem, 8 theorems",
        (4, 8, 16, 32),
        lambda size, out: [*search, "--limit", 8, "--max-states", size, "--max-seconds", 3600, "--out", out],
    )
    yield Work(
        "prove",
        "training step of 4,096 tokens",
        (5, 10, 20, 40),
        lambda size, out: [
            "prove",
            "finetune",
            written,
            "--steps",
            size,
            "--threads",
            1,
            "--save-every",
            10_000,
            "--out",
            out,
        ],
    )


def molecules(work: Path) -> Iterator[Work]:
    """Yields preparing molecules, training by steps and by atoms, and sampling."""
    data, model = work / "data", work / "model"
    if not data.exists():
        run("molecules", "prepare", "nci", "--out", data)
    if not model.exists():
        run("molecules", "train", "--data", data, "--steps", 5, "--save-every", 5, "--out", model)
    train = ["molecules", "train", "--save-every", 100_000, "--threads", 1, "--eval-samples", 16]
    for atoms in (counts := (6, 12, 24, 48)):
        if not (work / f"atoms-{atoms}").exists():
            file = work / f"{atoms}.smi"
            chains = ("".join(letters) for letters in product("CNOS", repeat=3))
            file.write_text("".join(f"C{chain}{'C' * (atoms - 4)}\n" for chain in chains))
            run("molecules", "prepare", file, "--max-atoms", atoms, "--out", work / f"atoms-{atoms}")
    yield Work(
        "molecules",
        "molecule prepared",
        (250, 500, 1000, 2000),
        lambda size, out: ["molecules", "prepare", "small", "--limit", size, "--out", out],
    )
    yield Work(
        "molecules",
        "training step",
        (40, 80, 160, 320),
        lambda size, out: [*train, "--data", data, "--steps", size, "--out", out],
    )
    yield Work(
        "molecules",
        "atom per molecule, 10 steps",
        counts,
        lambda size, out: [*train, "--data", work / f"atoms-{size}", "--max-atoms", size, "--steps", 10, "--out", out],
    )
    yield Work(
        "molecules",
        "sample",
        (32, 64, 128, 256),
        lambda size, out: ["molecules", "sample", model, "--num-samples", size, "--out", out],
    )


CASES: dict[Application, Callable[[Path], Iterator[Work]]] = {
    "generate": generate,
    "translate": translate,
    "compress": compress,
    "prove": prove,
    "molecules": molecules,
}


def measured(work: Work, directory: Path) -> list[dict[str, Any]]:
    """A row for each size, and one for the line through them."""
    rows: list[dict[str, Any]] = []
    for size in work.sizes:
        out = directory / "out"
        for path in directory.glob("out*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        rows.append({"work": work.unit, "size": size, **(cost := cost_of(work.command(size, out)))})
        print(f"{work.application}, {work.unit}: {size}", *(f"{name} {x:.2f}" for name, x in cost.items()), flush=True)
    sizes, times = np.array(work.sizes), np.array([row["CPU s"] for row in rows])
    unit, startup = np.polyfit(sizes, times, 1, w=1 / times)  # relative errors count alike
    hours = (startup + unit * 100 * sizes[-1]) / 3600
    line = {"startup CPU s": startup, "CPU ms per unit": 1e3 * unit, "CPU hours for 100 times the largest": hours}
    return [{"application": work.application, **row} for row in (*rows, {"work": work.unit, "size": "line", **line})]


def main(*, applications: tuple[Application, ...] = tuple(CASES), work: Path = Path("runs/benchmark-growth")) -> None:
    """Measure the commands of these applications.

    Args:
        applications: Applications to measure.
        work: Directory of data and models, which are read back, and of outputs.
    """
    rows = side.read_result("growth")
    for application in applications:
        directory = work / application
        directory.mkdir(parents=True, exist_ok=True)
        new = [row for one in CASES[application](directory) for row in measured(one, directory)]
        rows = [row for row in rows if row["application"] != application] + new
        side.write_result("growth", rows, packages=("torch", "transformers"))
    side.print_table("Growth of time and memory", rows)


if __name__ == "__main__":
    tyro.cli(main)
