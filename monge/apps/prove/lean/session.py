"""The search for a proof of one theorem on a server that may crash: lost states are rebuilt on the next server."""

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
"""Role of the server that executes the tactics of searches."""


class ReplayFailed(RuntimeError):
    """A tactic that worked on an earlier server does not work on the current one."""


class Checker(Protocol):
    """Decides about a proof: a Judge."""

    def __call__(self, theorem: Theorem, tactics: tuple[str, ...], *, twice: bool) -> Proof | Rejection: ...


class Session:
    """The prover of one theorem. A tactic that crashes the server fails like any other.

    Quarantined when tactics have crashed `crashes` servers; ServerUnavailable if no new server starts.
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
        """The state before the first tactic. ServerCrashed if no server takes the theorem although the judge does."""
        try:
            return self._ask((), lambda _, state: state, retries=1)
        except ValueError:
            self._servers.restart(SEARCH)  # tactics of an earlier theorem may have changed the server
        try:
            return self._ask((), lambda _, state: state, retries=1)
        except ValueError as error:
            raise ServerCrashed(f"the judge takes the theorem, a new server does not: {error}") from error

    def step(self, state: State, tactic: str) -> State | Failure:
        """The state after a tactic."""
        try:
            found = self._ask(state.tactics, lambda server, before: server.step(before, tactic, self._budget))
        except ServerCrashed as error:
            return Failure("died", str(error))
        except ReplayFailed as error:
            return Failure("lost", str(error))
        if isinstance(found, State):
            self._known[found.tactics] = found
        return found

    def finish(self, state: State) -> Proof | Rejection:
        """The judge's decision, once the server has no objection."""
        try:
            rejection = self._ask(state.tactics, lambda server, last: server.finish(last, self._budget))
        except ServerCrashed as error:
            return Rejection("died", str(error))
        except ReplayFailed as error:
            return Rejection("lost", str(error))
        return rejection or self._judge(self.theorem, state.tactics, twice=True)

    def forget(self) -> None:
        """Have the server forget all states of this theorem."""
        server = self._servers.current(SEARCH)
        if server is not None and server is self._server:
            with contextlib.suppress(ServerCrashed):  # the next request finds that it crashed
                server.drop(*self._known.values())
        self._known.clear()

    def _ask(self, tactics: tuple[str, ...], request: Callable[[LeanServer, State], T], *, retries: int = 0) -> T:
        """The result of a request about the state after these tactics, which is rebuilt on a new server."""
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
            raise Quarantined(f"its tactics kill servers; the last: {error}") from error

    def _state(self, server: LeanServer, tactics: tuple[str, ...]) -> State:
        """The state after these tactics as this server knows it. ReplayFailed if it cannot be rebuilt."""
        if server is not self._server:
            self._server, self._known = server, {}
        if tactics not in self._known:
            if tactics:
                self._known[tactics] = self._replay(server, tactics)
            else:
                self._known[()] = server.start(self.theorem, self._budget)
        return self._known[tactics]

    def _replay(self, server: LeanServer, tactics: tuple[str, ...]) -> State:
        """The state after tactics of which the last worked on an earlier server."""
        before = self._state(server, tactics[:-1])
        try:
            found = server.step(before, tactics[-1], self._replay_budget)
        except ServerKilled:
            raise
        except ServerCrashed as error:
            self._lose(tactics, str(error))
            raise
        if isinstance(found, Failure):
            self._lose(tactics, found.message)
            self._check_replay(tactics)
        assert isinstance(found, State)
        return found

    def _lose(self, tactics: tuple[str, ...], reason: str) -> None:
        self._lost[tactics] = f"{tactics[-1]!r} worked once and now does not: {reason}"

    def _check_replay(self, tactics: tuple[str, ...]) -> None:
        """ReplayFailed if the path, or a beginning of it, could not be replayed."""
        for end in range(1, len(tactics) + 1):
            if tactics[:end] in self._lost:
                raise ReplayFailed(self._lost[tactics[:end]])
