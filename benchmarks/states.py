"""States of a teacher for ten million tokens: resident memory, and step time compared with states in memory.

    python benchmarks/states.py --work DIRECTORY [--tokens 10000000]        # 16 GB of disk for ten million tokens

Targets: under 1.5 GB beyond the model in writing and in training; a step within 10 % of one from memory. The teacher is a
random GPT-NeoX of width 128, so that reading is a visible part of a step; the text is Python's documentation (apt install
python3.11-doc), several times over. Before training from disk, the states are dropped from the page cache.
"""

import side_by_side as side  # sets one thread

# isort: split

import resource
import statistics
import time
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import tyro
from streaming import GB, WARM, batch_times, in_fresh_process, peak, step_times

from monge.apps.compress import states
from monge.apps.compress.corpus import DOCUMENTATION, corpus, documents
from monge.apps.compress.recipes import Compress
from monge.fleet import processes
from monge.lm.load import causal
from monge.lm.ragged import Ragged
from monge.pretrain import END, neox, tokenizer_of
from monge.training.config import TrainConfig

WIDTH, LENGTH, LAYERS = 128, 256, (1, 3, 4)


def ensure_teacher(work: Path) -> Path:
    """The folder of the teacher, saved if it does not exist."""
    from transformers import PreTrainedTokenizerFast

    folder = work / "teacher"
    if not folder.exists():
        tokenizer = tokenizer_of(list(documents(DOCUMENTATION)), 2048)
        torch.manual_seed(0)
        neox(tokenizer.get_vocab_size(), WIDTH, 4, 4, LENGTH, tokenizer.token_to_id(END)).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(folder)
    return folder


def ensure_text(work: Path, teacher: Path, tokens: int) -> Path:
    """A folder of documents with at least `tokens` training tokens."""
    folder = work / f"text-{tokens}"
    if not folder.exists():
        texts, tokenizer = list(documents(DOCUMENTATION)), causal(str(teacher)).tokenizer
        sample = texts[::10]
        rate = sum(len(tokenizer(text)["input_ids"]) for text in sample) / sum(map(len, sample))
        copies = int(tokens / (0.85 * rate * sum(map(len, texts)))) + 1
        folder.mkdir()
        for copy in range(copies):
            for number, text in enumerate(texts):
                (folder / f"{copy}-{number}.txt").write_text(f"Copy {copy}.\n{text}")
    return folder


def writing(teacher: Path, text: Path, out: Path, tokens: int, workers: int) -> dict[str, object]:
    """Memory and time of `states.write`."""
    states.loaded(str(teacher))
    loaded = peak()
    ids = corpus(text, states.loaded(str(teacher)).tokenizer, LENGTH).training[: tokens // LENGTH]
    begin = time.perf_counter()
    for _ in states.write(out, str(teacher), ids, LAYERS, processes(workers)):
        pass
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / GB
    row = {"stage": "write", "tokens": ids.numel(), "GB": (out / "vectors.bin").stat().st_size / GB}
    return row | {
        "with model GB": loaded,
        "peak GB": peak(),
        "worker GB": worker,
        "seconds": time.perf_counter() - begin,
    }


def training(
    teacher: Path, text: Path, out: Path, steps: int, rounds: int
) -> tuple[dict[str, object], dict[str, object]]:
    """Memory of training from disk, and its step time compared with that of states in memory."""
    states.loaded(str(teacher))
    loaded = peak()
    recipe = Compress(
        str(teacher), str(text), str(out), 1, 3, train=TrainConfig(steps=steps, ema_width=0.0, threads=1, device="cpu")
    )
    run = recipe.build()
    step_times(run, out)
    memory = {"stage": "train", "with model GB": loaded, "peak GB": peak()}
    arms: dict[str, list[float]] = {"disk": [], "memory": []}
    batches: dict[str, list[float]] = {"disk": [], "memory": []}
    held: Any = cache(Ragged.__getitem__)
    for _ in range(rounds):
        arms["disk"] += step_times(run, out)
        batches["disk"] += batch_times(run, out)
        with mock.patch.object(Ragged, "__getitem__", held):
            batch_times(run, steps=steps)
            arms["memory"] += step_times(run)
            batches["memory"] += batch_times(run)
    ms = {f"a batch from {name} ms": 1e3 * statistics.median(times) for name, times in batches.items()}
    return memory, {"batch": recipe.batch_size, "steps": len(arms["disk"]), **side.compare(arms, ours="memory"), **ms}


def main(*, work: Path, tokens: int = 10_000_000, workers: int = 2, steps: int = 60, rounds: int = 3) -> None:
    """Write states in `work`, and train from them.

    Args:
        work: Working directory; everything stays in it for the next run.
        tokens: Number of tokens.
        workers: Number of worker processes that write.
        steps: Number of timed training steps per run.
        rounds: Number of alternating runs from disk and from memory.
    """
    work.mkdir(parents=True, exist_ok=True)
    teacher = ensure_teacher(work)
    text, out = ensure_text(work, teacher, tokens), work / f"states-{tokens}"
    rows: list[dict[str, Any]] = []
    if not out.exists():
        rows.append(in_fresh_process(writing, teacher, text, out, tokens, workers))
        side.print_table("Writing", rows)
    memory, speed = in_fresh_process(training, teacher, text, out, WARM + 1 + steps, rounds)
    side.print_table("Training", [memory])
    side.print_table("A step from disk and from memory, medians", [speed])
    side.write_result("states", [{**row, "seed": 0} for row in [*rows, memory, speed]], ("torch", "transformers"))


if __name__ == "__main__":
    tyro.cli(main)
