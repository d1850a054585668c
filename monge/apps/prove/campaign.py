"""Search runs over many theorems: workers that keep their servers, results recorded as they come, resumable."""

import hashlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from monge import fleet
from monge.apps.prove.config import SearchConfig, Source
from monge.apps.prove.lean.toolchain import digest, sources
from monge.apps.prove.state import Theorem
from monge.apps.prove.trajectories import SCHEMA, Recorder, Result, results
from monge.apps.prove.worker import Task, Worker, unsearched
from monge.files import locked, read_json, write_json
from monge.runs import check_same, rebuild

SETTINGS = "settings.json"
STARTED = "started.txt"
"""Numbers of theorems, each written when a worker takes it up: those in progress when a worker crashes."""
FATAL = 2
"""Workers that a theorem may crash while it is the only one in progress."""


def run(
    config: SearchConfig,
    theorems: Sequence[Theorem],
    directory: Path,
    *,
    fleets: Callable[[], fleet.Fleet],
    source: Source | None = None,
    resume: bool = False,
    told: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Search for proofs of all theorems; finished ones are on disk. ValueError if `directory` holds another run.

    When a worker process crashes, its fleet is replaced, and the theorems in progress are searched one at a time; a theorem
    that crashes two fleets by itself is quarantined. WorkerCrashed if one theorem after another does so, or if none was in
    progress. Crashes of Lean servers do not come so far: see lean/supervisor.py.
    """
    with locked(directory):
        config = _open(config, theorems, directory, source or Source(), resume=resume)
        left = {number: Task(number, theorem) for number, theorem in enumerate(theorems)}
        for result in results(directory):
            left.pop(result.number, None)
        crashes: Counter[int] = Counter()
        suspects: set[int] = set()
        together, given_up = 1, 0
        with _Work(config, directory.resolve()) as work, Recorder(directory) as recorder:
            while left:
                (directory / STARTED).write_text("")
                tasks = [left[min(suspects)]] if suspects else list(left.values())
                try:
                    for _, (result, rows) in fleets()(work, tasks):
                        recorder.add(result, rows)
                        del left[result.number]
                        suspects.discard(result.number)
                        given_up = 0
                        told(result)
                except fleet.WorkerCrashed as crash:
                    begun = {int(line) for line in (directory / STARTED).read_text().split()}
                    in_progress = (begun if crash.shard is None else {tasks[crash.shard].number}) & set(left)
                    if not in_progress:
                        raise
                    print(f"{crash}; its theorems in progress are searched again, one at a time", file=sys.stderr)
                    suspects |= in_progress
                    together = max(together, len(in_progress))
                    if len(tasks) > 1:
                        continue
                    crashes.update(in_progress)
                    for number in [n for n in in_progress if crashes[n] >= FATAL]:
                        if given_up == together:  # no theorem finishes any more, so the theorems are not the cause
                            raise
                        given_up += 1
                        suspects.discard(number)
                        result = unsearched(left.pop(number), "quarantined", f"{FATAL} workers crashed on it")
                        recorder.add(result, SCHEMA.empty_table())
                        told(result)
        (directory / STARTED).unlink(missing_ok=True)
        return results(directory)


def program() -> str:
    """A digest of the program's files."""
    return digest(*sources(), *sorted(Path(__file__).parent.rglob("*.py")))


def _settings(config: SearchConfig, theorems: Sequence[Theorem], source: Source) -> dict[str, Any]:
    """Contents of settings.json: the fields of SearchConfig, the theorems with their source, and the program's digest."""
    named = {f"{number:05d} {theorem.name}": _digest(theorem) for number, theorem in enumerate(theorems)}
    found = {"theorems": {**asdict(source), "texts": named}, "program": program(), **asdict(config)}
    return json.loads(json.dumps(found, default=str))


def _digest(theorem: Theorem) -> str:
    return hashlib.blake2b(repr(theorem).encode(), digest_size=6).hexdigest()


def _open(
    config: SearchConfig, theorems: Sequence[Theorem], directory: Path, source: Source, *, resume: bool
) -> SearchConfig:
    """The settings under the id of the run in `directory`, which starts here or is resumed."""
    path, wanted = directory / SETTINGS, _settings(config, theorems, source)
    if not results(directory):  # no run, or one that ended before its first theorem
        write_json(path, wanted)
        return config
    if not path.exists():
        raise ValueError(f"{directory}: a run without {SETTINGS}; restore the file, or choose another directory")
    if not resume:
        raise ValueError(f"{directory} already holds a run; resume it with --resume, or choose another directory")
    before = read_json(path, "run")
    check_same(path, before, {**wanted, "run": before["run"]})
    return replace(config, run=before["run"])


def stored(directory: Path) -> tuple[SearchConfig, Source]:
    """The settings of the run in `directory` and the source of its theorems. ValueError if they cannot be read."""
    path = directory / SETTINGS
    if not path.exists():
        raise ValueError(f"{directory}: no run of `monge prove search` here to resume")
    found = read_json(path, "theorems", "program", "run")
    try:
        source = rebuild(Source, {name: value for name, value in found["theorems"].items() if name != "texts"})
        fields = {name: value for name, value in found.items() if name not in ("theorems", "program")}
        return rebuild(SearchConfig, fields), source
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: damaged, or written by another version of monge ({error})") from error


class _Work:
    """The search for one task. Each process of a fleet receives it once; its worker, with all servers, stays there."""

    def __init__(self, config: SearchConfig, directory: Path) -> None:
        self.config, self.directory = config, directory
        self._worker: Worker | None = None

    def __call__(self, task: Task) -> tuple[Result, pa.Table]:
        if self.directory.is_dir():  # on another machine it may not be
            with (self.directory / STARTED).open("a") as file:
                file.write(f"{task.number}\n")
        if self._worker is None:
            self._worker = Worker(self.config)
        return self._worker.search(task)

    def __reduce__(self) -> tuple[Any, ...]:
        """The settings alone: servers belong to the process that started them."""
        return _Work, (self.config, self.directory)

    def __enter__(self) -> "_Work":
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.close()


def undisturbed() -> None:
    """Start of a worker process: it ignores Ctrl-C, which its parent handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
