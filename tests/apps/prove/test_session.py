"""A theorem on servers that fail in turn: who is blamed for it. The servers here are counters that end when told."""

import pytest

from monge.apps.prove.lean.server import Died
from monge.apps.prove.lean.session import Session
from monge.apps.prove.state import Budget, Failure, Goal, Rejection, State, Theorem
from monge.apps.prove.tree import Quarantined


class Counter:
    """Counts tactics; dies of "die", and of "once" fails on every server but the first."""

    started = 0

    def __init__(self):
        Counter.started += 1
        self.first, self.used_up, self.closed = Counter.started == 1, False, False

    def hello(self): ...

    def close(self):
        self.closed = True

    def start(self, theorem, budget):
        return State((Goal("0"),))

    def step(self, state, tactic, budget):
        if tactic == "die":
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
    Counter.started = 0
    return Session(Theorem("t", ": True"), Counter, unasked, Budget(), Counter())


def test_what_cannot_be_repeated_is_lost_and_kills_nobody(session):
    way = session.step(session.start(), "once")
    session.server.used_up = True
    for tactic in ("a", "b", "c"):
        found = session.step(way, tactic)
        assert found == Failure("lost", "'once' worked once and now does not: too slow now")
    assert session.finish(way) == Rejection("lost", found.message)
    assert Counter.started == 2
    assert not session.server.closed
    assert isinstance(session.step(session.start(), "a"), State)


def test_a_theorem_whose_tactics_kill_ten_servers_is_given_up(session):
    state = session.start()
    for _ in range(9):
        assert session.step(state, "die") == Failure("died", "it hung")
        assert isinstance(session.step(state, "a"), State)
    with pytest.raises(Quarantined, match="it hung"):
        session.step(state, "die")
