"""Many theorems: by workers that keep their servers, recorded as they are done, to be resumed."""

import hashlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from monge import fleet
from monge.apps.prove.bench import Campaign, Task, bench_of, unsearched
from monge.apps.prove.lean.toolchain import digest, sources
from monge.apps.prove.state import Theorem
from monge.apps.prove.trajectories import SCHEMA, Recorder, Result, results
from monge.files import locked, write_json

STARTED = "started.txt"
"""Numbers of theorems, each written when a worker takes it up: what was in hand when one died."""
FATAL = 2
"""Workers that a theorem may take down with it, alone in hand."""


def run(
    campaign: Campaign,
    theorems: Sequence[Theorem],
    directory: Path,
    *,
    fleets: Callable[[], fleet.Fleet],
    resume: bool = False,
    told: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Search for proofs of them all; what is done is on disk. ValueError if `directory` holds another run.

    A worker that dies is replaced with its fleet. What was in hand then is searched alone; a theorem that takes two fleets down
    by itself is quarantined. WorkerDied if that is so of one after another, or if nothing was in hand.
    """
    with locked(directory):
        campaign = _begun(campaign, theorems, directory, resume=resume)
        left = {number: Task(number, theorem) for number, theorem in enumerate(theorems)}
        for result in results(directory):
            left.pop(result.number, None)
        deaths: Counter[int] = Counter()
        suspects: set[int] = set()
        together, given_up = 1, 0
        with Recorder(directory) as recorder:
            while left:
                (directory / STARTED).write_text("")
                tasks = [left[min(suspects)]] if suspects else list(left.values())
                try:
                    for _, (result, rows) in fleets()(_Work(campaign, directory.resolve()), tasks):
                        recorder.add(result, rows)
                        del left[result.number]
                        suspects.discard(result.number)
                        given_up = 0
                        told(result)
                except fleet.WorkerDied as died:
                    begun = {int(line) for line in (directory / STARTED).read_text().split()}
                    in_hand = (begun if died.shard is None else {tasks[died.shard].number}) & set(left)
                    if not in_hand:
                        raise
                    print(f"{died}; what it had in hand is searched again by itself", file=sys.stderr)
                    suspects |= in_hand
                    together = max(together, len(in_hand))
                    if len(tasks) > 1:
                        continue
                    deaths.update(in_hand)
                    for number in [n for n in in_hand if deaths[n] >= FATAL]:
                        if given_up == together:  # nothing is finished any more: it is not theorems that workers die of
                            raise
                        given_up += 1
                        suspects.discard(number)
                        result = unsearched(left.pop(number), "quarantined", f"{FATAL} workers died of it")
                        recorder.add(result, SCHEMA.empty_table())
                        told(result)
        (directory / STARTED).unlink(missing_ok=True)
        return results(directory)


def program() -> str:
    """What changes when the program does."""
    return digest(*sources(), *sorted(Path(__file__).parent.rglob("*.py")))


def _digest(theorem: Theorem) -> str:
    """What changes when a theorem does."""
    return hashlib.blake2b(repr(theorem).encode(), digest_size=6).hexdigest()


def _begun(campaign: Campaign, theorems: Sequence[Theorem], directory: Path, *, resume: bool) -> Campaign:
    """The campaign as it was begun here, or begun now."""
    path = directory / "settings.json"
    asked = {
        "theorems": [[theorem.name, _digest(theorem)] for theorem in theorems],
        "program": program(),
        **json.loads(json.dumps(asdict(campaign), default=str)),
    }
    if not results(directory):  # nothing, or a run that ended before its first theorem did
        write_json(path, asked)
        return campaign
    if not path.exists():
        raise ValueError(f"{directory}: a run without settings.json; name another directory")
    if not resume:
        raise ValueError(f"{directory}: a run is here already; --resume goes on with it")
    before = json.loads(path.read_text())
    for key in asked:
        if key != "run" and before.get(key) != asked[key]:
            raise ValueError(
                f"{directory}: this run was begun with another {key}; --resume goes on with what was begun"
            )
    return Campaign(**{**campaign.__dict__, "run": before["run"]})


@dataclass(frozen=True)
class _Work:
    """What a worker does with a task; the worker's servers stay between tasks."""

    campaign: Campaign
    directory: Path

    def __call__(self, task: Task) -> tuple[Result, pa.Table]:
        if self.directory.is_dir():  # on another machine it may not be
            with (self.directory / STARTED).open("a") as file:
                file.write(f"{task.number}\n")
        return bench_of(self.campaign).tried(task)


def undisturbed() -> None:
    """A worker's start: Ctrl-C is for the process that it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
