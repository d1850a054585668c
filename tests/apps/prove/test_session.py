"""Sessions on servers that crash, and the request that each crash is attributed to."""

from types import SimpleNamespace

import pytest

from monge.apps.prove.lean.crashes import ServerCrashed, ServerKilled
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.session import SEARCH, Session
from monge.apps.prove.lean.supervisor import MAX_KILLS, ServerUnavailable, Supervisor
from monge.apps.prove.state import Budget, Failure, Goal, Limits, Rejection, State, Theorem
from monge.apps.prove.tree import Quarantined


class Counter:
    """A server that counts tactics. It crashes on "die"; all but the first fail on "once" and crash on "slow". On "vanish", the
    first `killed` servers are killed."""

    started = killed = 0

    def __init__(self):
        Counter.started += 1
        self.first, self.exhausted, self.closed = Counter.started == 1, False, False

    def hello(self): ...

    def close(self):
        self.closed = True

    def start(self, theorem, budget):
        return State((Goal("0"),))

    def step(self, state, tactic, budget):
        if tactic == "vanish" and Counter.started <= Counter.killed:
            raise ServerKilled("it was killed")
        if tactic == "die" or (tactic == "slow" and not self.first):
            raise ServerCrashed("it hung")
        if tactic == "once" and not self.first:
            return Failure("tactic", "too slow now")
        return State((Goal(str(len(state.tactics) + 1)),), (*state.tactics, tactic))

    def finish(self, state, budget): ...


def unused_judge(theorem, tactics, twice):
    """A judge that must not be called."""
    raise AssertionError(tactics)


@pytest.fixture
def servers():
    Counter.started = Counter.killed = 0
    return Supervisor(Counter)


@pytest.fixture
def session(servers):
    return Session(Theorem("t", ": True"), servers, unused_judge, Budget())


def test_a_path_that_cannot_be_replayed_is_lost_without_a_restart(session, servers):
    state = session.step(session.start(), "once")
    servers.current(SEARCH).exhausted = True
    for tactic in ("a", "b", "c"):
        result = session.step(state, tactic)
        assert result == Failure("replay", "'once' worked earlier but fails on replay: too slow now")
    assert session.finish(state) == Rejection("replay", result.message)
    assert Counter.started == 2
    assert not servers.current(SEARCH).closed
    assert isinstance(session.step(session.start(), "a"), State)


def test_a_crash_during_replay_is_attributed_to_the_replayed_tactic_once(session, servers):
    state = session.step(session.start(), "slow")
    servers.current(SEARCH).exhausted = True
    for tactic in ("a", "b", "c"):
        assert session.step(state, tactic) == Failure("replay", "'slow' worked earlier but fails on replay: it hung")
    assert (Counter.started, session.crashes_left) == (3, 9)
    assert isinstance(session.step(session.start(), "a"), State)


@pytest.mark.parametrize("killed", [MAX_KILLS, MAX_KILLS + 1])
def test_a_request_survives_some_external_kills(session, servers, killed):
    Counter.killed = killed
    result = session.step(session.start(), "vanish")
    if killed > MAX_KILLS:
        assert (result, session.crashes_left) == (Failure("crash", "it was killed"), 9)
    else:
        assert (result.tactics, session.crashes_left, Counter.started) == (("vanish",), 10, MAX_KILLS + 1)


@pytest.mark.parametrize("killed", [MAX_KILLS, MAX_KILLS + 1])
def test_a_start_survives_some_external_kills(session, servers, killed, monkeypatch):
    def hello(self):
        if Counter.started <= 1 + killed:
            raise ServerKilled("it was killed")

    servers.ready(SEARCH)
    monkeypatch.setattr(Counter, "hello", hello)
    servers.current(SEARCH).exhausted = True
    if killed > MAX_KILLS:
        with pytest.raises(ServerUnavailable, match="it was killed"):
            session.step(session.start(), "a")
    else:
        assert isinstance(session.step(session.start(), "a"), State)


def test_a_theorem_whose_tactics_crash_ten_servers_is_quarantined(session, servers):
    state = session.start()
    for _ in range(9):
        assert session.step(state, "die") == Failure("crash", "it hung")
        assert isinstance(session.step(state, "a"), State)
    with pytest.raises(Quarantined, match="it hung"):
        session.step(state, "die")


@pytest.mark.parametrize(
    ("uses", "full", "exhausted"), [(91, False, True), (10, True, False), (60, True, True), (60, False, False)]
)
def test_a_server_whose_memory_many_states_fill_is_exhausted(monkeypatch, uses, full, exhausted):
    monkeypatch.setattr("monge.apps.prove.lean.server.MANY_REQUESTS", 50)
    server = SimpleNamespace(uses=uses, memory=0.9 if full else 0.1, limits=Limits(requests=100, memory_gb=1.0))
    assert LeanServer.exhausted.fget(server) == exhausted
