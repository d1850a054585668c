"""One theorem on a server that may die: what is lost is stepped again on another."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import Died, Gone, LeanServer
from monge.apps.prove.state import Budget, Failure, Proof, Rejection, State, Theorem
from monge.apps.prove.tree import Quarantined

T = TypeVar("T")
VANISHED = 3
"""Servers in a row that may be killed from outside under the same request before it is blamed for it."""


class Unserved(ConnectionError):
    """No server can be had."""


class Unrepeated(RuntimeError):
    """A tactic that worked on one server and does not on the next."""


def patient(ask: Callable[[], T], between: Callable[[], object] = lambda: None) -> T:
    """The answer; asked for again, some times, if a server vanishes."""
    for _ in range(VANISHED):
        try:
            return ask()
        except Gone:
            between()
    return ask()


class Session:
    """The prover of a theorem. A tactic that kills its server is a failure like another; a server that vanished is replaced.

    Unserved if it cannot be replaced. Quarantined if tactics have killed as many servers as it may spend.
    """

    def __init__(
        self,
        theorem: Theorem,
        serve: Callable[[], LeanServer],
        judge: Judge,
        budget: Budget,
        server: LeanServer,
        *,
        servers: int = 10,
    ) -> None:
        self.theorem, self.server, self.left = theorem, server, servers
        self._serve, self._judge, self._budget = serve, judge, budget
        self._patient = replace(budget, seconds=2 * budget.seconds)
        self._known: dict[tuple[str, ...], State] = {}
        self._unrepeated: dict[tuple[str, ...], str] = {}

    def start(self) -> State:
        """The state before the first tactic. Died if no server takes the theorem, which the judge does."""
        try:
            return self._asked(lambda: self._at(()))
        except ValueError:
            self._again()  # what tactics of another theorem left there may be in the way
        try:
            return self._asked(lambda: self._at(()))
        except ValueError as error:
            raise Died(f"the judge takes the theorem, a new server does not: {error}") from error

    def step(self, state: State, tactic: str) -> State | Failure:
        """The state after a tactic."""
        if self.server.spent:
            self._again()
        try:
            found = self._asked(lambda: self.server.step(self._at(state.tactics), tactic, self._budget))
        except Died as died:
            return Failure("died", str(died))
        except Unrepeated as lost:
            return Failure("lost", str(lost))
        if isinstance(found, State):
            self._known[found.tactics] = found
        return found

    def finish(self, state: State) -> Proof | Rejection:
        """The judge's word; he is asked about what the server lets pass."""
        try:
            rejection = self._asked(lambda: self.server.finish(self._at(state.tactics), self._budget))
        except Died as died:
            return Rejection("died", str(died))
        except Unrepeated as lost:
            return Rejection("lost", str(lost))
        return rejection or self._judge(self.theorem, state.tactics, twice=True)

    def forget(self) -> None:
        """Have the server forget all its states of this theorem."""
        with contextlib.suppress(Died):  # whoever wants it next sees that it is gone
            self.server.drop(*self._known.values())
        self._known.clear()

    def _asked(self, ask: Callable[[], T]) -> T:
        """The answer; on a new server if the one asked has vanished. Died, on a new server too, if it cannot be had."""
        try:
            return patient(ask, self._again)
        except Died as died:
            self._killed(died)
            raise

    def _killed(self, died: Died) -> None:
        self._again()
        self.left -= 1
        if self.left <= 0:
            raise Quarantined(f"its tactics kill servers; the last: {died}") from died

    def _again(self) -> None:
        try:
            patient(self._new)
        except Died as died:
            raise Unserved(f"no new server starts: {died}") from died

    def _new(self) -> None:
        self.server.close()
        self._known.clear()
        self.server = self._serve()
        self.server.hello()

    def _at(self, tactics: tuple[str, ...]) -> State:
        """The state after these tactics, as this server knows it. Unrepeated if it cannot be had any more."""
        if tactics in self._unrepeated:
            raise Unrepeated(self._unrepeated[tactics])
        if tactics not in self._known:
            if not tactics:
                self._known[()] = self.server.start(self.theorem, self._budget)
            else:
                self._known[tactics] = self._repeated(tactics)
        return self._known[tactics]

    def _repeated(self, tactics: tuple[str, ...]) -> State:
        """The state after these, the last of which worked before. What kills a server now is blamed for it, and not what was to
        be tried after it."""
        before = self._at(tactics[:-1])
        try:
            found = self.server.step(before, tactics[-1], self._patient)
        except Gone:
            raise
        except Died as died:
            self._killed(died)
            found = Failure("died", str(died))
        if isinstance(found, State):
            return found
        self._unrepeated[tactics] = f"{tactics[-1]!r} worked once and now does not: {found.message}"
        raise Unrepeated(self._unrepeated[tactics])
