"""Many theorems: by workers that keep their servers, recorded as they are done, to be resumed."""

import json
import multiprocessing
import os
import secrets
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa

from monge import fleet
from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import Died, LeanServer, Limits
from monge.apps.prove.lean.session import Session
from monge.apps.prove.lean.setup import embedded_lean, native_lean
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.policy import PROBES, Names, Probes, Template
from monge.apps.prove.search import Policy, search
from monge.apps.prove.state import Budget, Failure, Theorem
from monge.apps.prove.trajectories import SCHEMA, Recorder, Result, results, table
from monge.apps.prove.tree import Search
from monge.train.checkpoint import locked, write_json

STARTED = "started.txt"
"""Numbers of theorems, each written when a worker takes it up: what was in hand when one died."""
FATAL = 2
"""Workers that a theorem may take down with it."""


@dataclass(frozen=True)
class Campaign:
    """All that decides what a run finds."""

    search: Search = field(default_factory=Search)
    budget: Budget = field(default_factory=Budget)
    policy: Literal["template", "probes"] = "template"
    tactics: tuple[str, ...] = PROBES
    """Of the probes: those that Lean knows."""
    lean: str = ""
    """A command of a Lean of this machine; the WebAssembly build if empty."""
    limits: Limits = field(default_factory=Limits)
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    """What its states are called by, unlike those of other runs."""

    def toolchain(self) -> Toolchain:
        """The Lean that it runs on. FileNotFoundError if there is none."""
        return native_lean(tuple(shlex.split(self.lean))) if self.lean else embedded_lean()

    def suggest(self, theorem: Theorem) -> Policy:
        """The policy on a theorem."""
        return Template(Names.of(theorem.header)) if self.policy == "template" else Probes(self.tactics)


@dataclass(frozen=True)
class Task:
    """A theorem, at its place in a run."""

    number: int
    theorem: Theorem


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

    A worker that dies is replaced with its fleet; a theorem in hand at two such deaths is quarantined.
    """
    with locked(directory):
        campaign = _begun(campaign, theorems, directory, resume=resume)
        left = {number: Task(number, theorem) for number, theorem in enumerate(theorems)}
        for result in results(directory):
            left.pop(result.number, None)
        deaths: Counter[int] = Counter()
        with Recorder(directory) as recorder:
            while left:
                (directory / STARTED).write_text("")
                try:
                    for _, (result, rows) in fleets()(_Work(campaign, directory), list(left.values())):
                        recorder.add(result, rows)
                        del left[result.number]
                        told(result)
                except ChildProcessError:
                    in_hand = {int(line) for line in (directory / STARTED).read_text().split()} & set(left)
                    deaths.update(in_hand)
                    if not in_hand:
                        raise
                    for number in [n for n in in_hand if deaths[n] >= FATAL]:
                        result = _ended(left.pop(number), "quarantined", f"it was in hand when {FATAL} workers died")
                        recorder.add(result, SCHEMA.empty_table())
                        told(result)
                finally:
                    for child in multiprocessing.active_children():
                        child.terminate()
        (directory / STARTED).unlink()
        return results(directory)


def _begun(campaign: Campaign, theorems: Sequence[Theorem], directory: Path, *, resume: bool) -> Campaign:
    """The campaign as it was begun here, or begun now."""
    path = directory / "settings.json"
    asked = {"theorems": [theorem.name for theorem in theorems], **json.loads(json.dumps(asdict(campaign)))}
    if not path.exists():
        if results(directory):
            raise ValueError(f"{directory}: theorems.jsonl without settings.json; name another directory")
        write_json(path, asked)
        return campaign
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
        return _bench(self.campaign).tried(task)


class Bench:
    """A worker's servers."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign, self.toolchain = campaign, campaign.toolchain()
        self._server: LeanServer | None = None
        self._judge: Judge | None = None
        self._imports: tuple[str, ...] = ()

    def tried(self, task: Task) -> tuple[Result, pa.Table]:
        """Search for one proof."""
        theorem, campaign = task.theorem, self.campaign
        server, judge = self._ready(theorem.imports)
        judge.prepare(theorem.header)
        server.hello()
        try:
            stated = judge.state(theorem)
        except (ValueError, Died) as error:
            return _ended(task, "refused", str(error)), SCHEMA.empty_table()
        session = Session(theorem, lambda: self._serve(theorem.imports), judge, campaign.budget, server)
        try:
            outcome = search(session, campaign.suggest(theorem), campaign.search)
        finally:
            self._server = session.server
        rows = table(
            outcome,
            run=campaign.run,
            number=task.number,
            theorem=theorem.name,
            worker=f"{os.uname().nodename}-{os.getpid()}",
            seed=campaign.search.seed,
        )
        proof = outcome.proof
        return (
            Result(
                number=task.number,
                name=theorem.name,
                signature=theorem.signature,
                header=theorem.header,
                imports=theorem.imports,
                statement=stated.text,
                tells=stated.tells,
                ended=outcome.ended,
                error=outcome.error,
                tactics=proof.tactics if proof else None,
                axioms=proof.axioms if proof else (),
                expanded=outcome.expanded,
                attempts=len(outcome.attempts),
                seconds=outcome.seconds,
            ),
            rows,
        )

    def _ready(self, imports: tuple[str, ...]) -> tuple[LeanServer, Judge]:
        if imports != self._imports:
            self.close()
        if self._server is None or self._server.worn:
            if self._server is not None:
                self._server.close()
            self._server = self._serve(imports)
        if self._judge is None:
            self._judge = Judge(self.toolchain, imports, limits=self.campaign.limits)
        self._imports = imports
        return self._server, self._judge

    def _serve(self, imports: tuple[str, ...]) -> LeanServer:
        return LeanServer(self.toolchain, imports, limits=self.campaign.limits)

    def close(self) -> None:
        """End its servers."""
        if self._server is not None:
            self._server.close()
        if self._judge is not None:
            self._judge.close()
        self._server = self._judge = None


_benches: dict[Campaign, Bench] = {}


def _bench(campaign: Campaign) -> Bench:
    """This process's servers for a campaign."""
    if campaign not in _benches:
        closed()
        _benches[campaign] = Bench(campaign)
    return _benches[campaign]


def closed() -> None:
    """End the servers that this process keeps."""
    for bench in _benches.values():
        bench.close()
    _benches.clear()


def undisturbed() -> None:
    """A worker's start: Ctrl-C is for the process that it works for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ended(task: Task, ended: str, error: str) -> Result:
    """Of a theorem that was not searched."""
    theorem = task.theorem
    return Result(
        task.number, theorem.name, theorem.signature, theorem.header, theorem.imports, ended=ended, error=error
    )


def known(server: LeanServer, tactics: Sequence[str]) -> Iterator[str]:
    """Those of the tactics that this Lean can parse."""
    state = server.start(Theorem("known", ": True", imports=server.imports))
    for tactic in tactics:
        found = server.step(state, tactic)
        if not (isinstance(found, Failure) and found.kind == "parse"):
            yield tactic
