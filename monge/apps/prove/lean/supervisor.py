"""Supervisor of Lean servers: starts and restarts them, and attributes each crash to the request that was running."""

from collections.abc import Callable
from typing import TypeVar

from monge.apps.prove.lean.crashes import ServerCrashed, ServerKilled
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.state import Limits

T = TypeVar("T")
KILLS = 3
"""Kills from outside that one request survives. The next one ends the request like a crash of its own."""


class ServerUnavailable(ConnectionError):
    """No Lean server starts."""


class Supervisor:
    """The Lean servers of one owner, by role. No other code starts or restarts one.

    A process that is killed from outside (OOM killer, SIGKILL) is restarted and the request repeated, up to KILLS times: the
    request is not at fault. A process that crashes by itself, exceeds a limit or breaks the protocol is restarted as well, but
    the crash is attributed to the request, which fails unless it may be repeated. A process that crashes while it starts is
    attributed to no request: if a second one does so, ServerUnavailable is raised.
    """

    def __init__(self, start: Callable[[], LeanServer]) -> None:
        self._start = start
        self._servers: dict[str, tuple[str, LeanServer]] = {}

    def ask(
        self,
        role: str,
        request: Callable[[LeanServer], T],
        *,
        header: str = "",
        retries: int = 0,
        keep_states: bool = False,
        on_killed: Callable[[], object] = lambda: None,
        on_crash: Callable[[ServerCrashed], object] = lambda _: None,
    ) -> T:
        """The result of `request`, which is called with the server of that role, again after each restart.

        ServerCrashed if the request crashes its server more than `retries` times. `on_killed` is called before the request is
        repeated after a kill from outside, `on_crash` for each crash attributed to the request. `header` and `keep_states` are
        those of `spawn`.
        """
        failures = _Failures(retries)
        while True:
            server = self.ready(role, header, keep_states=keep_states)
            try:
                return request(server)
            except ServerCrashed as error:
                tolerated = failures.tolerate(error)
                self.restart(role)
                if tolerated and isinstance(error, ServerKilled):
                    on_killed()
                    continue
                on_crash(error)
                if not tolerated:
                    raise

    def ready(self, role: str, header: str = "", *, keep_states: bool = False) -> LeanServer:
        """The server of that role as soon as it answers. ServerUnavailable if none starts."""
        failures = _Failures(retries=1)
        while True:
            server = self.spawn(role, header, keep_states=keep_states)
            try:
                server.hello()
                return server
            except ServerCrashed as error:
                self.stop(role)
                if not failures.tolerate(error):
                    raise ServerUnavailable(f"no Lean server starts: {error}") from error

    def spawn(self, role: str, header: str = "", *, keep_states: bool = False) -> LeanServer:
        """The server of that role, which may still be starting. It is replaced if it serves another header, for headers run
        code too, and if it is near a limit; with `keep_states` only if it is too near to complete a search."""
        known, server = self._servers.get(role, ("", None))
        if server is not None and (known != header or (server.exhausted if keep_states else server.needs_restart)):
            self.stop(role)
            server = None
        if server is None:
            server = self._start()
            self._servers[role] = (header, server)
        return server

    def current(self, role: str) -> LeanServer | None:
        """The server of that role if there is one; it may have ended."""
        return self._servers.get(role, ("", None))[1]

    def restart(self, role: str) -> None:
        """Replace the server of that role. The new one starts in the background."""
        header, _ = self._servers.get(role, ("", None))
        self.stop(role)
        self.spawn(role, header)

    def stop(self, role: str) -> None:
        """End the server of that role if there is one; the next request starts another."""
        if role in self._servers:
            self._servers.pop(role)[1].close()

    def close(self) -> None:
        """End all servers."""
        for role in list(self._servers):
            self.stop(role)

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Failures:
    """Failures that one request may still survive."""

    def __init__(self, retries: int) -> None:
        self._kills, self._crashes = KILLS, retries

    def tolerate(self, error: ServerCrashed) -> bool:
        """Count a failure. False if it was one too many."""
        if isinstance(error, ServerKilled):
            self._kills -= 1
            return self._kills >= 0
        self._crashes -= 1
        return self._crashes >= 0


def lean_servers(
    toolchain: Toolchain, imports: tuple[str, ...] = ("Init",), *, limits: Limits | None = None
) -> Supervisor:
    """A supervisor of servers on these modules."""
    return Supervisor(lambda: LeanServer(toolchain, imports, limits=limits))
