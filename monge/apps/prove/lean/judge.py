"""Who has the last word on a proof: three processes, of which the one that decides has run no tactic.

1. One that has only ever seen headers and statements says what the statement means, as plain declarations.
2. Any server compiles the proof as text and hands over all that it declares. Tactics run there: it is not believed.
3. One that parses nothing as Lean takes both to the kernel, on the trusted imports: each declaration again, the theorem with
   the type that the first process gave. Then it looks at what the proof rests on: axioms, and what is excluded.
"""

from collections.abc import Callable
from typing import Any

from monge.apps.prove.lean.server import Died, LeanServer, Limits
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.state import Budget, Proof, Rejection, Theorem, proof_text

PATIENT = Budget(heartbeats=200_000, seconds=120.0)


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
        self._servers: dict[str, LeanServer] = {}
        self._start: Callable[[], LeanServer] = lambda: LeanServer(toolchain, imports, limits=limits)
        self._statements: dict[Theorem, dict[str, Any]] = {}

    def state(self, theorem: Theorem) -> dict[str, Any]:
        """What the statement says. ValueError with Lean's message if it says nothing."""
        if theorem not in self._statements:
            self._statements[theorem] = self._ask("statement", lambda server: server.statement(theorem, self._patience))
        return self._statements[theorem]

    def __call__(
        self, theorem: Theorem, tactics: tuple[str, ...], compiler: LeanServer | None = None
    ) -> Proof | Rejection:
        """The proof if it is one. ValueError if the statement is none.

        `compiler`, or a server of its own, compiles it.
        """
        statement = self.state(theorem)["export"]
        try:
            text = proof_text(theorem, tactics)
            if compiler is None:
                export = self._ask("compile", lambda server: server.compile(theorem, text, self._patience))
            else:
                export = compiler.compile(theorem, text, self._patience)
            if isinstance(export, Rejection):
                return export
            found = self._ask(
                "kernel",
                lambda server: server.request(
                    "replay",
                    seconds=self._patience.seconds,
                    statement=statement,
                    proof=export,
                    exclude=list(theorem.exclude),
                    beyond=list(theorem.beyond),
                ),
            )
        except Died as died:
            return Rejection("died", str(died))
        if "failed" in found:
            return Rejection(found["failed"], found["message"])
        return Proof(theorem, tactics, tuple(found["axioms"]))

    def _ask(self, role: str, ask: Callable[[LeanServer], Any]) -> Any:
        server = self._servers.get(role)
        if server is None or server.worn:
            if server is not None:
                server.close()
            server = self._servers[role] = self._start()
        return ask(server)

    def close(self) -> None:
        """End its servers."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
