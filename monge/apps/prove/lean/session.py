"""A proof search for one theorem on servers that may crash: lost states are rebuilt on the next server."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from monge.apps.prove.lean.crashes import ServerCrashed, ServerKilled
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.supervisor import Supervisor
from monge.apps.prove.state import Budget, Failure, Proof, Rejection, State, Theorem
from monge.apps.prove.tree import Quarantined

T = TypeVar("T")
SEARCH = "search"
"""Role of the server that executes search tactics."""


class ReplayFailed(RuntimeError):
    """A tactic that worked on an earlier server fails on the current one."""


class Checker(Protocol):
    """Accepts or rejects a proof; implemented by Judge."""

    def __call__(self, theorem: Theorem, tactics: tuple[str, ...], *, twice: bool) -> Proof | Rejection: ...


class Session:
    """The prover of one theorem. A tactic that crashes the server counts as a failed tactic.

    Quarantined once tactics have crashed `crashes` servers; ServerUnavailable if no new server starts.
    """

    def __init__(
        self, theorem: Theorem, servers: Supervisor, judge: Checker, budget: Budget, *, crashes: int = 10
    ) -> None:
        self.theorem, self.crashes_left = theorem, crashes
        self._servers, self._judge, self._budget = servers, judge, budget
        self._replay_budget = replace(budget, seconds=2 * budget.seconds)
        self._server: LeanServer | None = None
        """The server that holds the known states."""
        self._known: dict[tuple[str, ...], State] = {}
        self._lost: dict[tuple[str, ...], str] = {}
        """Paths that cannot be replayed, with the reason."""

    def start(self) -> State:
        """The state before the first tactic. ServerCrashed if the judge accepts the theorem but a new server does not."""
        try:
            return self._ask((), lambda _, state: state, retries=1)
        except ValueError:
            self._servers.restart(SEARCH)  # tactics of an earlier theorem may have changed the server
        try:
            return self._ask((), lambda _, state: state, retries=1)
        except ValueError as error:
            raise ServerCrashed(f"the judge accepts the theorem, but a new server does not: {error}") from error

    def step(self, state: State, tactic: str) -> State | Failure:
        """The state after a tactic."""
        try:
            result = self._ask(state.tactics, lambda server, before: server.step(before, tactic, self._budget))
        except ServerCrashed as error:
            return Failure("crash", str(error))
        except ReplayFailed as error:
            return Failure("replay", str(error))
        if isinstance(result, State):
            self._known[result.tactics] = result
        return result

    def finish(self, state: State) -> Proof | Rejection:
        """The server's rejection if there is one, otherwise the judge's decision."""
        try:
            rejection = self._ask(state.tactics, lambda server, last: server.finish(last, self._budget))
        except ServerCrashed as error:
            return Rejection("crash", str(error))
        except ReplayFailed as error:
            return Rejection("replay", str(error))
        return rejection or self._judge(self.theorem, state.tactics, twice=True)

    def forget(self) -> None:
        """Delete all states of this theorem from the server."""
        server = self._servers.current(SEARCH)
        if server is not None and server is self._server:
            with contextlib.suppress(ServerCrashed):  # the next request detects the crash
                server.drop(*self._known.values())
        self._known.clear()

    def _ask(self, tactics: tuple[str, ...], request: Callable[[LeanServer, State], T], *, retries: int = 0) -> T:
        """The result of a request about the state after these tactics. On a new server, the state is rebuilt first."""
        self._check_replay(tactics)
        try:
            return self._servers.ask(
                SEARCH,
                lambda server: request(server, self._state(server, tactics)),
                retries=retries,
                keep_states=True,
                on_crash=self._count_crash,
            )
        except ServerCrashed:
            self._check_replay(tactics)  # a crash during the replay is attributed to the replayed tactic
            raise

    def _count_crash(self, error: ServerCrashed) -> None:
        self.crashes_left -= 1
        if self.crashes_left <= 0:
            raise Quarantined(f"its tactics crashed too many servers; last error: {error}") from error

    def _state(self, server: LeanServer, tactics: tuple[str, ...]) -> State:
        """The state after these tactics on this server. ReplayFailed if it cannot be rebuilt."""
        if server is not self._server:
            self._server, self._known = server, {}
        if tactics not in self._known:
            if tactics:
                self._known[tactics] = self._replay(server, tactics)
            else:
                self._known[()] = server.start(self.theorem, self._budget)
        return self._known[tactics]

    def _replay(self, server: LeanServer, tactics: tuple[str, ...]) -> State:
        """The state after tactics that worked on an earlier server: runs the last one on its parent state."""
        before = self._state(server, tactics[:-1])
        try:
            result = server.step(before, tactics[-1], self._replay_budget)
        except ServerKilled:
            raise
        except ServerCrashed as error:
            self._mark_lost(tactics, str(error))
            raise
        if isinstance(result, Failure):
            self._mark_lost(tactics, result.message)
            self._check_replay(tactics)
        assert isinstance(result, State)
        return result

    def _mark_lost(self, tactics: tuple[str, ...], reason: str) -> None:
        self._lost[tactics] = f"{tactics[-1]!r} worked earlier but fails on replay: {reason}"

    def _check_replay(self, tactics: tuple[str, ...]) -> None:
        """ReplayFailed if the path or a prefix of it could not be replayed."""
        for end in range(1, len(tactics) + 1):
            if tactics[:end] in self._lost:
                raise ReplayFailed(self._lost[tactics[:end]])
