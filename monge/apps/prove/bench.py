"""What decides a run, and a worker's servers, which stay between theorems."""

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import torch

from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import Died, Gone, LeanServer, Limits
from monge.apps.prove.lean.session import VANISHED, Session, Unserved
from monge.apps.prove.lean.setup import command_of, embedded_lean, native_lean
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.lm.causal import Causal, Sampling
from monge.apps.prove.lm.completions import Completions
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.policy import PROBES, Names, Probes, Template
from monge.apps.prove.search import Policy, search
from monge.apps.prove.state import Budget, Failure, Theorem
from monge.apps.prove.trajectories import SCHEMA, Result, table
from monge.apps.prove.tree import Search
from monge.lm.load import LanguageModel, causal
from monge.lm.store import DTYPES
from monge.train.distributed import device_called


@dataclass(frozen=True)
class Local:
    """A Hugging Face model on this machine, loaded by each worker."""

    name: str = ""
    """A directory, or a name on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "cpu"
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class Campaign:
    """All that decides what a run finds."""

    search: Search = field(default_factory=Search)
    budget: Budget = field(default_factory=Budget)
    policy: Literal["template", "probes", "server", "local"] = "template"
    tactics: tuple[str, ...] = PROBES
    """Of the probes: those that Lean knows."""
    server: Endpoint = field(default_factory=Endpoint)
    local: Local = field(default_factory=Local)
    lean: str = ""
    """A command of a Lean of this machine; the WebAssembly build if empty."""
    limits: Limits = field(default_factory=Limits)
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    """What its states are called by, unlike those of other runs."""

    def toolchain(self) -> Toolchain:
        """The Lean that it runs on. FileNotFoundError if there is none."""
        return native_lean(command_of(self.lean)) if self.lean else embedded_lean()


@dataclass(frozen=True)
class Task:
    """A theorem, at its place in a run."""

    number: int
    theorem: Theorem


class Bench:
    """A worker's servers."""

    def __init__(self, campaign: Campaign) -> None:
        self.campaign, self.toolchain, self._model = campaign, campaign.toolchain(), _model(campaign)
        self._server: LeanServer | None = None
        self._judge: Judge | None = None
        self._imports: tuple[str, ...] = ()

    def tried(self, task: Task) -> tuple[Result, pa.Table]:
        """Search for one proof. A Lean that dies outside of a tactic is tried once more, with new ones; some times more if it
        was killed from outside, which is no fault of the theorem."""
        vanished = failed = 0
        while True:
            try:
                return self._tried(task)
            except (Died, Unserved) as error:
                gone = isinstance(error, Gone)
                vanished, failed = vanished + gone, failed + (not gone)
                started = self._server is not None
                self.close()
                if vanished > VANISHED or failed > 1:
                    if isinstance(error, Unserved) or not started:  # not even a new one starts
                        raise
                    return unsearched(task, "quarantined", str(error)), SCHEMA.empty_table()

    def _tried(self, task: Task) -> tuple[Result, pa.Table]:
        theorem, campaign = task.theorem, self.campaign
        server, judge = self._ready(theorem.imports)
        try:
            judge.start(theorem.header)
            server.hello()
        except Died:
            self.close()
            raise
        try:
            stated = judge.prepare(theorem)
        except ValueError as error:
            return unsearched(task, "refused", theorem.located(str(error))), SCHEMA.empty_table()
        session = Session(theorem, lambda: self._serve(theorem.imports), judge, campaign.budget, server)
        before = len(self._missed())
        try:
            outcome = search(session, self._policy(task), campaign.search)
        finally:
            self._server = session.server
        session.forget()
        if missed := self._missed()[before:]:
            told = f"{len(missed)} requests to the server came to nothing, the last with: {missed[-1]}"
            outcome.error = "; ".join(filter(None, (told, outcome.error)))
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
            result_of(
                task,
                statement=stated.text,
                tells=stated.tells,
                explicit=stated.explicit,
                instances=stated.instances,
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

    def _policy(self, task: Task) -> Policy:
        """The policy on a theorem; what it draws does not depend on who searches, or when."""
        match self._model:
            case LanguageModel() as model:
                generator = torch.Generator().manual_seed(self.campaign.search.seed << 32 | task.number)
                return Causal(model, generator=generator, sampling=self.campaign.local.sampling)
            case None:
                return Template(Names.of(task.theorem.header))
            case policy:
                return policy

    def _missed(self) -> list[str]:
        return self._model.missed if isinstance(self._model, Completions) else []

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


def _model(campaign: Campaign) -> LanguageModel | Completions | Probes | None:
    """What a worker loads once."""
    match campaign.policy:
        case "local":
            where = device_called(campaign.local.device)
            return causal(campaign.local.name, dtype=DTYPES[campaign.local.dtype], device=where)
        case "server":
            return Completions(campaign.server, campaign.search.seed)
        case "probes":
            return Probes(campaign.tactics)
        case "template":
            return None


_benches: dict[Campaign, Bench] = {}


def bench_of(campaign: Campaign) -> Bench:
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


def unsearched(task: Task, ended: str, error: str) -> Result:
    """Of a theorem that was not searched."""
    return result_of(task, ended=ended, error=error)


def result_of(task: Task, **fields: Any) -> Result:
    """What came of a theorem, beside what it is."""
    return Result(task.number, **asdict(task.theorem), **fields)


def known(server: LeanServer, tactics: Sequence[str]) -> Iterator[str]:
    """Those of the tactics that this Lean can parse."""
    state = server.start(Theorem("known", ": True", imports=server.imports))
    for tactic in tactics:
        found = server.step(state, tactic)
        if not (isinstance(found, Failure) and found.kind == "parse"):
            yield tactic
