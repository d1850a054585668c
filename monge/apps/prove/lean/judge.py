"""Who has the last word on a proof: three processes, of which the one that decides has run no tactic.

1. One that has seen this header, and of proofs nothing, says what the statement means, as plain declarations.
2. One compiles the proof as text and hands over all that it declares. Tactics run there: it is not believed.
3. One that parses nothing as Lean takes both to the kernel, on the trusted imports: each declaration again, the theorem with
   the type that the first process gave. Then it looks at what the proof rests on: axioms, and what is excluded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from monge.apps.prove.lean.server import Died, LeanServer, Limits
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.state import Budget, Proof, Rejection, Theorem, judged_text

PATIENT = Budget(heartbeats=200_000, seconds=120.0)


@dataclass(frozen=True)
class Statement:
    """What a theorem says, by a process that has seen its header and nothing else."""

    text: str
    """As elaborated: without notations, with all namespaces and the types of numerals, and with universe levels where they
    matter."""
    tells: tuple[str, ...]
    """What the header redefines, or does besides declaring."""
    export: dict[str, Any]
    explicit: str = ""
    """With every argument and universe level."""
    instances: tuple[str, ...] = ()
    """Each instance in it that is not the library's: its class, and the instance."""


class Judge:
    """Judges proofs of theorems on the same imports. Its servers are started when they are needed."""

    def __init__(
        self,
        toolchain: Toolchain,
        imports: tuple[str, ...] = ("Init",),
        *,
        limits: Limits | None = None,
        patience: Budget = PATIENT,
    ) -> None:
        self._patience = patience
        self._servers: dict[str, tuple[str, LeanServer]] = {}
        self._start: Callable[[], LeanServer] = lambda: LeanServer(toolchain, imports, limits=limits)
        self._stated: dict[Theorem, Statement] = {}
        """Of the last theorem alone."""

    def state(self, theorem: Theorem) -> Statement:
        """What the theorem says. ValueError with Lean's message if it says nothing, Died if it kills the process."""
        if theorem not in self._stated:
            server = self._server("statement", theorem.header)
            found = server.statement(theorem, self._patience)
            tells = server.tells[theorem.header]
            self._stated = {
                theorem: Statement(found["spelt"], tells, found["export"], found["explicit"], tuple(found["resolved"]))
            }
        return self._stated[theorem]

    def start(self, header: str) -> None:
        """Start all processes that judging theorems of a header needs, at once. Died if one does not start."""
        for server in self._servers_of(header):
            server.hello()

    def prepare(self, theorem: Theorem) -> Statement:
        """What the theorem says; its header is then known where its proofs are compiled. Errors as of `state`."""
        self._server("compile", theorem.header).header(theorem.header, self._patience)
        return self.state(theorem)

    def __call__(self, theorem: Theorem, tactics: tuple[str, ...], *, twice: bool = False) -> Proof | Rejection:
        """The proof if it is one. ValueError if the statement is none.

        `twice` asks once more on a rejection, with a process to compile that no earlier proof has been in.
        """
        found = self._judged(theorem, tactics)
        if twice and isinstance(found, Rejection) and "compile" in self._servers:
            self._servers.pop("compile")[1].close()
            found = self._judged(theorem, tactics)
        return found

    def _judged(self, theorem: Theorem, tactics: tuple[str, ...]) -> Proof | Rejection:
        try:
            _, compiler, kernel = self._servers_of(theorem.header)
            statement = self.state(theorem)
            try:
                export = compiler.compile(theorem, judged_text(theorem, tactics), self._patience)
            except ValueError as error:  # the header, which the statement's process took
                return Rejection("compile", str(error))
            if isinstance(export, Rejection):
                return export
            found = kernel.request(
                "replay",
                seconds=self._patience.seconds,
                statement=statement.export,
                proof=export,
                **theorem.walls,
            )
        except Died as died:
            return Rejection("died", str(died))
        if "failed" in found:
            return Rejection(found["failed"], found["message"])
        return Proof(theorem, tactics, tuple(found["axioms"]), statement.text, statement.tells)

    def _servers_of(self, header: str) -> tuple[LeanServer, LeanServer, LeanServer]:
        """All three, which then start side by side."""
        return self._server("statement", header), self._server("compile", header), self._server("kernel")

    def _server(self, role: str, header: str = "") -> LeanServer:
        """The process of that role; a new one for another header, for headers run code too."""
        known, server = self._servers.get(role, ("", None))
        if server is None or server.worn or known != header:
            if server is not None:
                server.close()
            server = self._start()
            self._servers[role] = (header, server)
        return server

    def close(self) -> None:
        """End its servers."""
        for _, server in self._servers.values():
            server.close()
        self._servers.clear()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
