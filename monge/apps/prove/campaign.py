"""Resumable search runs over many theorems. Workers keep their servers; results are recorded as they arrive."""

import hashlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from monge import fleet
from monge.apps.prove.config import SET_BY_RUN, SearchConfig, Source
from monge.apps.prove.energy import StateEnergy
from monge.apps.prove.lean.toolchain import digest, sources
from monge.apps.prove.state import Theorem
from monge.apps.prove.trajectories import SCHEMA, Recorder, Result, results
from monge.apps.prove.worker import Task, Worker, unsearched
from monge.files import content_hash, locked, read_json, write_json
from monge.lm.load import resolve
from monge.runs import check_same, rebuild, reopen

SETTINGS = "settings.json"
STARTED = "started.txt"
"""File to which workers append the number of each theorem they start; after a crash, it identifies the theorems in progress."""
MAX_WORKER_CRASHES = 2
"""Number of workers that a theorem, as the only one in progress, may crash before it is quarantined."""


def run(
    config: SearchConfig,
    theorems: Sequence[Theorem],
    directory: Path,
    *,
    fleets: Callable[[], fleet.Fleet],
    source: Source | None = None,
    proofs: Sequence[str] = (),
    resume: bool = False,
    on_result: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Search for proofs of all theorems that are not yet finished on disk, and return all results of the run.

    `proofs` are the written proofs of the theorems, for the policy that replays them. `on_result` is called with each new
    result. After a worker process crashes, a new fleet starts and the theorems in progress are searched one at a time; a
    theorem that crashes two fleets by itself is quarantined. Crashes of Lean servers are handled in lean/supervisor.py.
    ValueError if `directory` holds results of another run, or any results without `resume`. WorkerCrashed if no theorem was
    in progress, or if theorems are quarantined one after another and none finishes.
    """
    texts = proofs or [""] * len(theorems)
    if config.cache:
        Path(config.cache).parent.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        config = _open(config, theorems, texts, directory, source or Source(), resume=resume)
        pending = {number: Task(number, *given) for number, given in enumerate(zip(theorems, texts, strict=True))}
        for result in results(directory):
            pending.pop(result.number, None)
        crashes: Counter[int] = Counter()
        suspects: set[int] = set()
        most_in_progress, quarantined = 1, 0
        with _Work(config, directory.resolve()) as work, Recorder(directory) as recorder:
            while pending:
                (directory / STARTED).write_text("")
                tasks = [pending[min(suspects)]] if suspects else list(pending.values())
                try:
                    for _, (result, rows) in fleets()(work, tasks):
                        recorder.add(result, rows)
                        del pending[result.number]
                        suspects.discard(result.number)
                        quarantined = 0
                        on_result(result)
                except fleet.WorkerCrashed as crash:
                    started = {int(line) for line in (directory / STARTED).read_text().split()}
                    in_progress = (started if crash.shard is None else {tasks[crash.shard].number}) & set(pending)
                    if not in_progress:
                        raise
                    print(
                        f"{crash}; theorems in progress are searched again, one at a time; one that crashes two workers "
                        "by itself is quarantined",
                        file=sys.stderr,
                    )
                    suspects |= in_progress
                    most_in_progress = max(most_in_progress, len(in_progress))
                    if len(tasks) > 1:
                        continue
                    crashes.update(in_progress)
                    for number in [n for n in in_progress if crashes[n] >= MAX_WORKER_CRASHES]:
                        if quarantined == most_in_progress:  # no theorem finishes, so the theorems are not the cause
                            raise
                        quarantined += 1
                        suspects.discard(number)
                        result = unsearched(
                            pending.pop(number), "quarantined", f"{MAX_WORKER_CRASHES} workers crashed on it"
                        )
                        recorder.add(result, SCHEMA.empty_table())
                        on_result(result)
        (directory / STARTED).unlink(missing_ok=True)
        return results(directory)


def program() -> str:
    """Digest of the program's source files."""
    return digest(*sources(), *sorted(Path(__file__).parent.rglob("*.py")))


def _settings(
    config: SearchConfig, theorems: Sequence[Theorem], proofs: Sequence[str], source: Source
) -> dict[str, Any]:
    """Contents of settings.json: the fields of SearchConfig, the theorems and their source, and hashes of the program and of
    the files that the search reads: the local model, the energy and the examples."""
    digests = {
        f"{number:05d} {theorem.name}": _digest(repr(theorem) + proof)
        for number, (theorem, proof) in enumerate(zip(theorems, proofs, strict=True))
    }
    contents = {"theorems": {**asdict(source), "texts": digests}, "program": program()}
    contents |= {"contents": {name: content_hash(path)[:16] for name, path in _inputs(config)}, **asdict(config)}
    return json.loads(json.dumps(contents, default=str))


def _inputs(config: SearchConfig) -> Iterator[tuple[str, Path]]:
    """Yields the model, the energy and the examples of a search, with their files; a model on the hub has none."""
    if "local" in config.policies and (path := Path(resolve(config.local.name))).exists():
        yield config.local.name, path
    if config.energy:
        yield config.energy, reopen(Path(config.energy), app=StateEnergy.app).checkpoint("best")
    if "copy" in config.policies:
        yield from ((name, Path(name)) for name in config.examples)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _open(
    config: SearchConfig,
    theorems: Sequence[Theorem],
    proofs: Sequence[str],
    directory: Path,
    source: Source,
    *,
    resume: bool,
) -> SearchConfig:
    """`config` with the id of the run in `directory`, which is started or resumed. ValueError if it cannot be resumed."""
    path, wanted = directory / SETTINGS, _settings(config, theorems, proofs, source)
    if not results(directory):  # no run, or one that ended before its first theorem
        write_json(path, wanted)
        return config
    if not path.exists():
        raise ValueError(f"{directory} holds results but no {SETTINGS}; restore the file or choose another directory")
    if not resume:
        raise ValueError(f"{directory} already holds a run; resume it with --resume or choose another directory")
    before = read_json(path, "run")
    stored = before.pop("contents", {})
    for name, content in wanted.pop("contents").items():
        if stored.get(name, content) != content:
            raise ValueError(f"{path}: {name} has changed since the run began; restore it or choose another directory")
    check_same(path, before, {**wanted, "run": before["run"]}, free=("cache",))
    return replace(config, run=before["run"])


def stored_settings(directory: Path) -> tuple[SearchConfig, Source]:
    """The settings of the run in `directory` and the source of its theorems. ValueError if they cannot be read."""
    path = directory / SETTINGS
    if not path.exists():
        raise ValueError(f"{directory} holds no run to resume; choose another directory or omit --resume")
    settings = read_json(path, "theorems", "program", "run")
    try:
        source = rebuild(Source, {name: value for name, value in settings["theorems"].items() if name != "texts"})
        fields = {name: value for name, value in settings.items() if name not in SET_BY_RUN - {"run"}}
        return rebuild(SearchConfig, fields), source
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged, or from another version of monge ({error}); start a new run") from error


class _Work:
    """Callable that runs the search of one task. Each process of a fleet receives it once and keeps its worker and servers."""

    def __init__(self, config: SearchConfig, directory: Path) -> None:
        self.config, self.directory = config, directory
        self._worker: Worker | None = None

    def __call__(self, task: Task) -> tuple[Result, pa.Table]:
        if self.directory.is_dir():  # it may be missing on another machine
            with (self.directory / STARTED).open("a") as file:
                file.write(f"{task.number}\n")
        if self._worker is None:
            self._worker = Worker(self.config)
        return self._worker.search(task)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the settings only, since servers belong to the process that started them."""
        return _Work, (self.config, self.directory)

    def __enter__(self) -> "_Work":
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.close()


def ignore_interrupts() -> None:
    """Initialise a worker process to ignore Ctrl-C, which its parent handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
