"""Proof checker. Three processes; the one that decides never executes tactics.

1. "statement" has seen the theorem's header and no proof. It elaborates the statement to plain declarations.
2. "compile" compiles the proof as text and exports the theorem with all that it depends on outside the imports. Tactics run
   here, so it is untrusted.
3. "kernel" parses no Lean source. On top of the trusted imports, its kernel checks both exports again, declaration by
   declaration, with the theorem's type taken from the first process. It then checks the axioms and excluded names that the
   proof depends on.
"""

from dataclasses import dataclass
from typing import Any

from monge.apps.prove.lean.crashes import ServerCrashed
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.supervisor import lean_servers
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.state import Budget, Limits, Proof, Rejection, Theorem, judged_text

PATIENT = Budget(heartbeats=200_000, seconds=120.0)
"""Default budget of each of the judge's requests."""


@dataclass(frozen=True)
class Statement:
    """A statement, elaborated by a process that has seen its header and no proof."""

    text: str
    """Elaborated form: no notations, full namespaces, types of numerals, and universe levels where they matter."""
    header_notes: tuple[str, ...]
    """Everything the header redefines, or does in addition to declaring."""
    export: dict[str, Any]
    """Plain declarations of the statement, passed to the kernel process."""
    explicit: str = ""
    """The statement with every argument and universe level."""
    instances: tuple[str, ...] = ()
    """Instances in the statement that are not from the library, each as `CLASS is INSTANCE`."""


class Judge:
    """Checks proofs of theorems with the same imports. Its servers start on demand."""

    def __init__(
        self,
        toolchain: Toolchain,
        imports: tuple[str, ...] = ("Init",),
        *,
        limits: Limits | None = None,
        patience: Budget = PATIENT,
    ) -> None:
        self._patience = patience
        self.servers = lean_servers(toolchain, imports, limits=limits)
        self._stated: dict[Theorem, Statement] = {}
        """The most recent theorem and its statement."""

    def state(self, theorem: Theorem, *, retries: int = 0) -> Statement:
        """The elaborated statement.

        ValueError with Lean's message if it is invalid; ServerCrashed if it crashes the process more than `retries` times.
        """
        if theorem not in self._stated:

            def elaborate(server: LeanServer) -> Statement:
                answer = server.statement(theorem, self._patience)
                header_notes, instances = server.header_notes[theorem.header], tuple(answer["resolved"])
                return Statement(answer["spelt"], header_notes, answer["export"], answer["explicit"], instances)

            statement = self.servers.ask("statement", elaborate, header=theorem.header, retries=retries)
            self._stated = {theorem: statement}
        return self._stated[theorem]

    def spawn(self, header: str) -> None:
        """Start all processes for theorems with this header, in parallel in the background."""
        self.servers.spawn("statement", header)
        self.servers.spawn("compile", header)
        self.servers.spawn("kernel")

    def start(self, header: str) -> None:
        """Start all processes for theorems with this header and wait for them. ServerUnavailable if one does not start."""
        self.spawn(header)
        self.servers.ready("statement", header)
        self.servers.ready("compile", header)
        self.servers.ready("kernel")

    def prepare(self, theorem: Theorem) -> Statement:
        """The elaborated statement, after elaborating its header in the "compile" process too. Errors as in `state`; a crash is
        retried once."""
        self.servers.ask(
            "compile",
            lambda server: server.header(theorem.header, self._patience),
            header=theorem.header,
            retries=1,
        )
        return self.state(theorem, retries=1)

    def __call__(self, theorem: Theorem, tactics: tuple[str, ...], *, twice: bool = False) -> Proof | Rejection:
        """The proof if the kernel accepts it, otherwise the rejection. ValueError if the statement is invalid.

        With `twice`, a rejected proof is compiled again, in a process that has seen no earlier proof.
        """
        verdict = self._judge(theorem, tactics)
        if twice and isinstance(verdict, Rejection):
            self.servers.restart("compile")
            verdict = self._judge(theorem, tactics)
        return verdict

    def _judge(self, theorem: Theorem, tactics: tuple[str, ...]) -> Proof | Rejection:
        header, patience = theorem.header, self._patience
        text = judged_text(theorem, tactics)
        self.spawn(header)
        try:
            statement = self.state(theorem)
            try:
                export = self.servers.ask("compile", lambda s: s.compile(theorem, text, patience), header=header)
            except ValueError as error:  # the header fails here, although "statement" accepted it
                return Rejection("compile", str(error))
            if isinstance(export, Rejection):
                return export
            exports = {"statement": statement.export, "proof": export, **theorem.restrictions}
            answer = self.servers.ask("kernel", lambda s: s.request("replay", seconds=patience.seconds, **exports))
        except ServerCrashed as error:
            return Rejection("crash", str(error))
        if "failed" in answer:
            return Rejection(answer["failed"], answer["message"])
        return Proof(theorem, tactics, tuple(answer["axioms"]), statement.text, statement.header_notes)

    def close(self) -> None:
        """Stop its servers."""
        self.servers.close()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
