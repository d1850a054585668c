"""A theorem on servers that fail in turn: who is blamed for it. The servers here are counters that end when told."""

from types import SimpleNamespace

import pytest

from monge.apps.prove.lean.server import Died, Gone, LeanServer
from monge.apps.prove.lean.session import VANISHED, Session, Unserved
from monge.apps.prove.state import Budget, Failure, Goal, Limits, Rejection, State, Theorem
from monge.apps.prove.tree import Quarantined


class Counter:
    """Counts tactics; dies of "die"; on every server but the first fails on "once" and dies of "slow"."""

    started = killed = 0

    def __init__(self):
        Counter.started += 1
        self.first, self.spent, self.closed = Counter.started == 1, False, False

    def hello(self): ...

    def close(self):
        self.closed = True

    def start(self, theorem, budget):
        return State((Goal("0"),))

    def step(self, state, tactic, budget):
        if tactic == "vanish" and Counter.started <= Counter.killed:
            raise Gone("it was killed")
        if tactic == "die" or (tactic == "slow" and not self.first):
            raise Died("it hung")
        if tactic == "once" and not self.first:
            return Failure("tactic", "too slow now")
        return State((Goal(str(len(state.tactics) + 1)),), (*state.tactics, tactic))

    def finish(self, state, budget): ...


def unasked(theorem, tactics, twice):
    """A judge to whom nothing comes here."""
    raise AssertionError(tactics)


@pytest.fixture
def session():
    Counter.started = Counter.killed = 0
    return Session(Theorem("t", ": True"), Counter, unasked, Budget(), Counter())


def test_what_cannot_be_repeated_is_lost_and_kills_nobody(session):
    way = session.step(session.start(), "once")
    session.server.spent = True
    for tactic in ("a", "b", "c"):
        found = session.step(way, tactic)
        assert found == Failure("lost", "'once' worked once and now does not: too slow now")
    assert session.finish(way) == Rejection("lost", found.message)
    assert Counter.started == 2
    assert not session.server.closed
    assert isinstance(session.step(session.start(), "a"), State)


def test_what_kills_a_server_when_it_is_repeated_is_blamed_for_it_once(session):
    way = session.step(session.start(), "slow")
    session.server.spent = True
    for tactic in ("a", "b", "c"):
        assert session.step(way, tactic) == Failure("lost", "'slow' worked once and now does not: it hung")
    assert (Counter.started, session.left) == (3, 9)
    assert isinstance(session.step(session.start(), "a"), State)


@pytest.mark.parametrize("killed", [VANISHED, VANISHED + 1])
def test_servers_that_vanish_under_a_tactic_are_replaced_some_times(session, killed):
    Counter.killed = killed
    found = session.step(session.start(), "vanish")
    if killed > VANISHED:
        assert (found, session.left) == (Failure("died", "it was killed"), 9)
    else:
        assert (found.tactics, session.left, Counter.started) == (("vanish",), 10, VANISHED + 1)


@pytest.mark.parametrize("killed", [VANISHED, VANISHED + 1])
def test_servers_that_vanish_while_they_start_are_replaced_some_times(session, killed, monkeypatch):
    def hello(self):
        if Counter.started <= 1 + killed:
            raise Gone("it was killed")

    monkeypatch.setattr(Counter, "hello", hello)
    session.server.spent = True
    if killed > VANISHED:
        with pytest.raises(Unserved, match="it was killed"):
            session.step(session.start(), "a")
    else:
        assert isinstance(session.step(session.start(), "a"), State)


def test_a_theorem_whose_tactics_kill_ten_servers_is_given_up(session):
    state = session.start()
    for _ in range(9):
        assert session.step(state, "die") == Failure("died", "it hung")
        assert isinstance(session.step(state, "a"), State)
    with pytest.raises(Quarantined, match="it hung"):
        session.step(state, "die")


@pytest.mark.parametrize(
    ("uses", "full", "spent"), [(91, False, True), (10, True, False), (60, True, True), (60, False, False)]
)
def test_a_server_that_is_full_of_many_states_is_replaced_within_a_search(monkeypatch, uses, full, spent):
    monkeypatch.setattr("monge.apps.prove.lean.server.MANY", 50)
    server = SimpleNamespace(uses=uses, memory=0.9 if full else 0.1, limits=Limits(uses=100, memory=1.0))
    assert LeanServer.spent.fget(server) == spent
