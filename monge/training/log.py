"""Training logs: a progress bar or plain lines, a JSON line per record, and TensorBoard if requested."""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from monge.files import writing


class JSONL:
    """metrics.jsonl: one line per record, flushed as it is written. Reopening drops the records after `step`.

    ValueError if the record of `step` is missing, unless `step` is 0.
    """

    def __init__(self, path: Path, *, step: int = 0) -> None:
        self.path = path
        records = [record for record in read_records(path) if record["step"] <= step]
        if step and (not records or records[-1]["step"] != step):
            raise ValueError(
                f"{path}: the record of step {step}, from which the run resumes, is missing; restore the file"
            )
        temporary = path.with_suffix(".tmp")
        with writing(path):
            with temporary.open("w", encoding="utf-8") as file:
                file.write("".join(json.dumps(record) + "\n" for record in records))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        self.file: TextIO = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record. It is on disk when this returns, so every later checkpoint has its record."""
        with writing(self.path):
            self.file.write(json.dumps(dict(record)) + "\n")
            self.file.flush()
            os.fsync(self.file.fileno())

    def close(self) -> None:
        with suppress(OSError):  # `write` has already reported a failed write
            self.file.close()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without a last line that a crash has truncated. Empty if there is no such file.

    ValueError if another line is not a record of a step.
    """
    records: list[dict[str, Any]] = []
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                if number == len(lines):
                    break
                raise ValueError(f"{path}: line {number} is not JSON; restore the file") from error
            if not isinstance(record, dict) or "step" not in record:
                raise ValueError(f"{path}: {line[:40]!r} is not a record of a step; restore the file")
            records.append(record)
    return records


EVERY = 30.0
"""Minimum number of seconds between plain progress lines."""


class Log:
    """Progress on the terminal, metrics.jsonl and, if requested, TensorBoard's event files. Only rank zero creates one.

    If the output is a file or a pipe, progress is a plain line for the first record, for the last, and for others at least 30 s
    after the line before.
    """

    def __init__(self, directory: Path, *, step: int, steps: int, title: str, tensorboard: bool = False) -> None:
        self.jsonl = JSONL(directory / "metrics.jsonl", step=step)
        self.board = None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError("tensorboard is not installed; pip install 'monge[tensorboard]'") from error

            self.board = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)
        self.title, self.steps, self.first = title, steps, step
        self.progress, self.task = _progress(title, step, steps)
        self.started, self.printed = time.monotonic(), -EVERY

    def __enter__(self) -> "Log":
        if self.progress:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()
        self.jsonl.close()
        if self.board:
            self.board.close()

    def advance(self, step: int) -> None:
        """Move the progress bar to `step`."""
        if self.progress:
            self.progress.update(self.task, completed=step)

    def write(self, step: int, metrics: Mapping[str, float], *, examples: int = 0, memory: float | None = None) -> None:
        """Record the metrics of a step, and report progress.

        `examples` is the number processed since the run started or resumed, and `memory` the peak on a GPU in GB. Both are
        shown, but not recorded, since they differ between a resumed run and an uninterrupted one.
        """
        self.jsonl.write({"step": step, **metrics})
        elapsed = time.monotonic() - self.started
        notes = [f"{name} {value:.4g}" for name, value in metrics.items() if name.endswith("loss")]
        notes += [f"{_short(examples / max(elapsed, 1e-9))} examples/s"] if examples else []
        notes += [] if memory is None else [f"{memory:.1f} GB"]
        if self.progress:
            self.progress.update(self.task, completed=step, note="  ".join(notes))
        elif step == self.steps or elapsed - self.printed >= EVERY:
            self.printed = elapsed
            left = timedelta(seconds=round(elapsed * (self.steps - step) / max(step - self.first, 1)))
            print("  ".join([self.title, f"step {step}/{self.steps}", *notes, f"{left} left"]), flush=True)
        if self.board:
            for name, value in metrics.items():
                self.board.add_scalar(name, value, step)


def _short(rate: float) -> str:
    """A positive number with at most three digits and a unit prefix: 12.3k."""
    for factor, prefix in ((1e6, "M"), (1e3, "k")):
        if rate >= factor:
            return f"{rate / factor:.3g}{prefix}"
    return f"{rate:.3g}"


def _progress(title: str, step: int, steps: int) -> tuple[Any, Any]:
    """A progress bar and its task; (None, None) if the output is not a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console()
    if not console.is_terminal:
        return None, None
    narrow = console.width < 70  # name and loss come first
    columns = [TextColumn("{task.description}", style="bold", markup=False), MofNCompleteColumn()]
    columns[1:1] = [] if narrow else [BarColumn()]
    columns += [] if narrow else [TimeRemainingColumn()]
    progress = Progress(*columns, TextColumn("{task.fields[note]}", markup=False), console=console)
    return progress, progress.add_task(title, total=steps, completed=step, note="")
