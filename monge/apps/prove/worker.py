"""A worker of a search run, which keeps its Lean servers, judge and policy between theorems."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from monge.apps.prove.config import SearchConfig
from monge.apps.prove.copying import Copying
from monge.apps.prove.energy import Scorer
from monge.apps.prove.lean.crashes import ServerCrashed
from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.session import SEARCH, Session
from monge.apps.prove.lean.supervisor import Supervisor, lean_servers
from monge.apps.prove.lm.causal import Causal
from monge.apps.prove.lm.completions import Completions
from monge.apps.prove.lm.prompt import Style
from monge.apps.prove.pairs import digest, pairs_of, read_examples
from monge.apps.prove.policy import Combined, Names, Policy, Probes, Template
from monge.apps.prove.search import search
from monge.apps.prove.state import Failure, Theorem
from monge.apps.prove.steps import Cached, StepCache
from monge.apps.prove.trajectories import SCHEMA, Result, table
from monge.apps.prove.tree import Outcome
from monge.apps.prove.written import replay, steps_of
from monge.lm.load import LanguageModel, causal
from monge.lm.store import DTYPES
from monge.math.random import seeded
from monge.training.distributed import device_named

T = TypeVar("T")


@dataclass(frozen=True)
class Task:
    """A theorem with its position in a run."""

    number: int
    """Position of the theorem in the run, from 0."""
    theorem: Theorem
    """Theorem to prove."""
    proof: str = ""
    """Its written proof, which starts with `:= by`, if that is to be replayed."""


class Worker:
    """Searches for proofs of one theorem at a time."""

    def __init__(self, config: SearchConfig) -> None:
        self.config, self.toolchain = config, config.toolchain()
        self._models = [_model(name, config) for name in config.policies]
        self._energy = Scorer(Path(config.energy), config.energy_measure, config.embeddings) if config.energy else None
        self._cache: StepCache | None = None
        self._servers: Supervisor | None = None
        self._judge: Judge | None = None
        self._imports: tuple[str, ...] = ()

    def search(self, task: Task) -> tuple[Result, pa.Table]:
        """Search for a proof of one theorem; returns its result and its attempts as rows of SCHEMA.

        A theorem that crashes a server outside a tactic, in each of two attempts, is quarantined. ServerUnavailable if a Lean
        server does not start.
        """
        theorem, config = task.theorem, self.config
        servers, judge = self._start(theorem.imports, theorem.header)
        self._missed().clear()
        try:
            stated = judge.prepare(theorem)
        except ValueError as error:
            return unsearched(task, "refused", theorem.locate_message(str(error))), SCHEMA.empty_table()
        except ServerCrashed as error:
            return unsearched(task, "quarantined", str(error)), SCHEMA.empty_table()
        session = Session(theorem, servers, judge, config.budget)
        try:
            if config.policy == "written":
                try:
                    steps = servers.ask(
                        SEARCH, lambda server: steps_of(server, theorem, task.proof, config.budget), retries=1
                    )
                except ValueError as error:
                    return unsearched(task, "not replayed", str(error)), SCHEMA.empty_table()
                outcome = replay(session, steps)
            else:
                outcome = self._searched(session, task)
        except ServerCrashed as error:
            return unsearched(task, "quarantined", str(error)), SCHEMA.empty_table()
        session.forget()
        if missed := self._missed():
            note = (
                f"{len(missed)} requests to the model server or suggestions from it were lost; the last: {missed[-1]}"
            )
            outcome.error = "; ".join(filter(None, (note, outcome.error)))
        rows = table(
            outcome,
            run=config.run,
            number=task.number,
            theorem=theorem.name,
            worker=f"{os.uname().nodename}-{os.getpid()}",
            seed=config.search.seed,
            policy=config.policy,
        )
        proof = outcome.proof
        return (
            result_of(
                task,
                statement=stated.text,
                header_notes=stated.header_notes,
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

    def _searched(self, session: Session, task: Task) -> Outcome:
        """The outcome of a search, with the cache of tactics if there is one."""
        energy = None if self._energy is None else self._energy.towards(session.start())
        prover = Cached(session, self._cached(lambda cache: cache.of(task.theorem)) or {})
        try:
            return search(prover, self._policy(task), self.config.search, energy)
        finally:
            self._cached(lambda cache: cache.add(task.theorem, prover.new))

    def _cached(self, use: Callable[[StepCache], T]) -> T | None:
        """The result of a function of the cache; None without a cache, or with a warning if it cannot be used."""
        if not self.config.cache:
            return None
        try:
            self._cache = self._cache or StepCache(Path(self.config.cache), self.toolchain, self.config.budget)
            return use(self._cache)
        except (OSError, ValueError) as error:
            print(f"The searches go on without a cache of tactics: {error}", file=sys.stderr)
            self.config = replace(self.config, cache="")
            return None

    def _policy(self, task: Task) -> Policy:
        """The policy for a theorem. Its random draws depend on the seed and the theorem's position in the run alone."""
        policies = [self._policy_of(model, task) for model in self._models]
        return policies[0] if len(policies) == 1 else Combined(policies)

    def _policy_of(self, model: "Model", task: Task) -> Policy:
        theorem = digest(task.theorem.header, task.theorem.signature)
        match model:
            case LocalModel():
                generator = seeded(self.config.search.seed, task.number)
                similar = None if model.examples is None else model.examples.without(theorem)
                sampling = self.config.local.sampling
                return Causal(model.language_model, generator=generator, sampling=sampling, similar=similar)
            case None:
                return Template(Names.of(task.theorem.header))
            case Copying():
                return model.without(theorem)
            case policy:
                return policy

    def _missed(self) -> list[str]:
        """Messages about lost requests to the model server and lost suggestions from it, since the last `clear()`."""
        return next((model.missed for model in self._models if isinstance(model, Completions)), [])

    def _start(self, imports: tuple[str, ...], header: str) -> tuple[Supervisor, Judge]:
        """The servers and the judge, whose processes are started concurrently."""
        if self._servers is None or self._judge is None or imports != self._imports:
            self.close()
            self._servers = lean_servers(self.toolchain, imports, limits=self.config.limits)
            self._judge = Judge(self.toolchain, imports, limits=self.config.limits)
            self._imports = imports
        self._servers.spawn(SEARCH)
        self._judge.start(header)
        self._servers.ready(SEARCH)
        return self._servers, self._judge

    def close(self) -> None:
        """Stop all servers of the worker."""
        if self._servers is not None:
            self._servers.close()
        if self._judge is not None:
            self._judge.close()
        self._servers = self._judge = None


class LocalModel(NamedTuple):
    """A language model, and the examples whose tactics its prompts show or which it reranks, if there are any."""

    language_model: LanguageModel
    examples: Copying | None


Model = LocalModel | Completions | Copying | Probes | None


def _model(policy: str, config: SearchConfig) -> Model:
    """The model or policy that a worker loads once; None for a policy that each theorem gets anew."""
    match policy:
        case "local":
            device = device_named(config.local.device)
            model = causal(config.local.name, dtype=DTYPES[config.local.dtype], device=device)
            similar = Style.of(model.model).retrieved or config.local.sampling.reranked
            return LocalModel(model, Copying(read_examples(Path(config.local.name))) if similar else None)
        case "server":
            return Completions(config.server, config.search.seed, style=config.prompt)
        case "probes":
            return Probes(config.tactics)
        case "copy":
            pairs, _ = pairs_of([Path(run) for run in config.examples])
            return Copying(pairs)
        case _:
            return None


def unsearched(task: Task, ended: str, error: str) -> Result:
    """The result of a theorem that was not searched."""
    return result_of(task, ended=ended, error=error)


def result_of(task: Task, **fields: Any) -> Result:
    """The result of a task with the given fields, in addition to those of its theorem."""
    return Result(task.number, **asdict(task.theorem), **fields)


def known(server: LeanServer, tactics: Sequence[str]) -> Iterator[str]:
    """The tactics that this Lean can parse."""
    state = server.start(Theorem("known", ": True", imports=server.imports))
    for tactic in tactics:
        result = server.step(state, tactic)
        if not (isinstance(result, Failure) and result.kind == "parse"):
            yield tactic
