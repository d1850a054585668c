"""The supervisor of Lean servers: restarts, retries, and the request that a crash is attributed to. No Lean starts here."""

import pytest

from monge.apps.prove.lean.crashes import ServerCrashed, ServerKilled
from monge.apps.prove.lean.supervisor import MAX_KILLS, ServerUnavailable, Supervisor


class Server:
    """A server that raises the errors queued in `starting` when it starts."""

    starting: list[Exception]

    def __init__(self):
        self.closed = self.exhausted = self.needs_restart = False
        made.append(self)

    def hello(self):
        if Server.starting:
            raise Server.starting.pop(0)

    def close(self):
        self.closed = True


made: list[Server] = []


@pytest.fixture
def servers():
    made.clear()
    Server.starting = []
    with Supervisor(Server) as servers:
        yield servers
    assert all(server.closed for server in made)


def failing(*errors):
    """A request that raises these errors, one at a time, then returns its server."""
    remaining = list(errors)

    def request(server):
        if remaining:
            raise remaining.pop(0)
        return server

    return request


KILLED, CRASHED = ServerKilled("killed"), ServerCrashed("crashed")


def test_a_server_serves_many_requests(servers):
    assert servers.ask("a", failing()) is servers.ask("a", failing()) is made[0]
    assert servers.ask("b", failing()) is made[1]


def test_a_request_is_repeated_after_external_kills_up_to_a_limit(servers):
    killed, crashed = [], []
    hooks = {"on_killed": lambda: killed.append(1), "on_crash": crashed.append}
    assert servers.ask("a", failing(*[KILLED] * MAX_KILLS), **hooks) is made[MAX_KILLS]
    assert (len(killed), crashed) == (MAX_KILLS, [])
    with pytest.raises(ServerKilled):
        servers.ask("a", failing(*[KILLED] * (MAX_KILLS + 1)), **hooks)
    assert (len(killed), crashed) == (2 * MAX_KILLS, [KILLED])


@pytest.mark.parametrize("retries", [0, 1])
def test_a_crash_is_attributed_to_the_request_that_was_running(servers, retries):
    crashed = []
    other = servers.ask("other", failing())
    with pytest.raises(ServerCrashed, match="crashed"):
        servers.ask("a", failing(*[CRASHED] * (retries + 1)), retries=retries, on_crash=crashed.append)
    assert len(crashed) == retries + 1
    assert servers.ask("a", failing(*[CRASHED] * retries), retries=retries) is servers.current("a")
    assert servers.current("other") is other
    assert not other.closed


def test_kills_and_crashes_are_counted_separately(servers):
    assert servers.ask("a", failing(*[KILLED, CRASHED] * 1, *[KILLED] * (MAX_KILLS - 1)), retries=1)


def test_other_errors_of_a_request_cause_no_restart(servers):
    with pytest.raises(ValueError, match="no such state"):
        servers.ask("a", failing(ValueError("no such state")))
    assert len(made) == 1
    assert not made[0].closed


def test_a_crash_at_the_start_is_attributed_to_no_request(servers):
    crashed = []
    Server.starting = [CRASHED]
    assert servers.ask("a", failing(), on_crash=crashed.append) is made[1]
    Server.starting = [CRASHED, CRASHED]
    with pytest.raises(ServerUnavailable, match="no Lean server starts: crashed"):
        servers.ask("b", failing(), on_crash=crashed.append)
    Server.starting = [KILLED] * (MAX_KILLS + 1)
    with pytest.raises(ServerUnavailable, match="no Lean server starts: killed"):
        servers.ask("b", failing(), on_crash=crashed.append)
    assert crashed == []
    assert servers.ask("b", failing())


def test_a_server_near_a_limit_is_replaced_but_during_a_search_only_if_exhausted(servers):
    first = servers.ready("a")
    first.needs_restart = True
    assert servers.ready("a", keep_states=True) is first
    second = servers.ready("a")
    assert second is not first
    second.exhausted = True
    assert servers.ready("a", keep_states=True) is made[2]


def test_each_header_has_its_own_process(servers):
    first = servers.ready("a", "def f := 1")
    assert servers.ready("a", "def f := 1") is first
    assert servers.ready("a", "def g := 1") is not first
    assert first.closed
    servers.restart("a")
    assert servers.ready("a", "def g := 1") is made[2]  # a restarted server keeps its header
