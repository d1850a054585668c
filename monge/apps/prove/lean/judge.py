"""Proof checker. Three processes; the one that decides never executes tactics.

1. "statement" has seen this header and no proof. It elaborates the statement to plain declarations.
2. "compile" compiles the proof as text and exports all that it declares. Tactics run there, so it is untrusted.
3. "kernel" parses nothing as Lean. It sends both to the kernel on the trusted imports: each declaration again, the theorem with
   the type from the first process. Then it checks what the proof depends on: axioms, and excluded names.
"""

from dataclasses import dataclass
from typing import Any

from monge.apps.prove.lean.crashes import ServerCrashed
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.supervisor import lean_servers
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.state import Budget, Limits, Proof, Rejection, Theorem, judged_text

PATIENT = Budget(heartbeats=200_000, seconds=120.0)


@dataclass(frozen=True)
class Statement:
    """A statement as elaborated by a process that has seen its header and nothing else."""

    text: str
    """As elaborated: without notations, with all namespaces and the types of numerals, and with universe levels where they
    matter."""
    tells: tuple[str, ...]
    """What the header redefines, or does in addition to declaring."""
    export: dict[str, Any]
    explicit: str = ""
    """With every argument and universe level."""
    instances: tuple[str, ...] = ()
    """Each instance in it that is not the library's: its class, and the instance."""


class Judge:
    """Checks proofs of theorems on the same imports. Its servers start when they are needed."""

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
        """The statement of the last theorem."""

    def state(self, theorem: Theorem, *, retries: int = 0) -> Statement:
        """The statement as elaborated. ValueError with Lean's message if it is invalid, ServerCrashed if it crashes the
        process, after so many retries."""
        if theorem not in self._stated:

            def elaborate(server: LeanServer) -> Statement:
                found = server.statement(theorem, self._patience)
                tells, resolved = server.tells[theorem.header], tuple(found["resolved"])
                return Statement(found["spelt"], tells, found["export"], found["explicit"], resolved)

            statement = self.servers.ask("statement", elaborate, header=theorem.header, retries=retries)
            self._stated = {theorem: statement}
        return self._stated[theorem]

    def spawn(self, header: str) -> None:
        """Start all processes for theorems of a header, side by side in the background."""
        self.servers.spawn("statement", header)
        self.servers.spawn("compile", header)
        self.servers.spawn("kernel")

    def start(self, header: str) -> None:
        """Start all processes for theorems of a header. ServerUnavailable if one does not start."""
        self.spawn(header)
        self.servers.ready("statement", header)
        self.servers.ready("compile", header)
        self.servers.ready("kernel")

    def prepare(self, theorem: Theorem) -> Statement:
        """The statement as elaborated, with its header elaborated for proofs as well. Errors as of `state`; a crash is retried
        once."""
        self.servers.ask(
            "compile",
            lambda server: server.header(theorem.header, self._patience),
            header=theorem.header,
            retries=1,
        )
        return self.state(theorem, retries=1)

    def __call__(self, theorem: Theorem, tactics: tuple[str, ...], *, twice: bool = False) -> Proof | Rejection:
        """The proof if the kernel accepts it. ValueError if the statement is invalid.

        With `twice`, a rejected proof is compiled once more, in a process that has not seen an earlier proof.
        """
        found = self._judge(theorem, tactics)
        if twice and isinstance(found, Rejection):
            self.servers.restart("compile")
            found = self._judge(theorem, tactics)
        return found

    def _judge(self, theorem: Theorem, tactics: tuple[str, ...]) -> Proof | Rejection:
        header, patience = theorem.header, self._patience
        text = judged_text(theorem, tactics)
        self.spawn(header)
        try:
            statement = self.state(theorem)
            try:
                export = self.servers.ask("compile", lambda s: s.compile(theorem, text, patience), header=header)
            except ValueError as error:  # the header, although the statement's process accepted it
                return Rejection("compile", str(error))
            if isinstance(export, Rejection):
                return export
            declared = {"statement": statement.export, "proof": export, **theorem.walls}
            found = self.servers.ask("kernel", lambda s: s.request("replay", seconds=patience.seconds, **declared))
        except ServerCrashed as error:
            return Rejection("died", str(error))
        if "failed" in found:
            return Rejection(found["failed"], found["message"])
        return Proof(theorem, tactics, tuple(found["axioms"]), statement.text, statement.tells)

    def close(self) -> None:
        """End its servers."""
        self.servers.close()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
