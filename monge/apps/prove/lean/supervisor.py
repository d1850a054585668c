"""Supervisor of Lean servers: starts and restarts them, and attributes each crash to the request that was running."""

from collections.abc import Callable
from typing import TypeVar

from monge.apps.prove.lean.crashes import ServerCrashed, ServerKilled
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.state import Limits

T = TypeVar("T")
MAX_KILLS = 3
"""Maximum number of repetitions of a request after external kills. The next kill is attributed to the request, which fails."""


class ServerUnavailable(ConnectionError):
    """No Lean server can be started."""


class Supervisor:
    """The Lean servers of one owner, by role. No other code starts or restarts them.

    If a process is killed externally (OOM killer, SIGKILL) or exceeds its limit of CPU time, it is restarted and the request is
    repeated, up to MAX_KILLS times, since the request is not the cause. If it crashes on its own, exceeds another limit or
    breaks the protocol, it is restarted too, but the crash is attributed to the request, which fails unless it has retries
    left. A crash during startup is attributed to no request; after a second one, ServerUnavailable is raised.
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
        """The result of `request`, called with the server of this role. After a restart it is called again.

        ServerCrashed if the request crashes its server more than `retries` times, or if external kills interrupt it more than
        MAX_KILLS times. `on_killed` is called before each repetition that follows an external kill, `on_crash` for each crash
        attributed to the request. `header` and `keep_states` are passed to `spawn`.
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
        """The server of this role, once it has answered. ServerUnavailable if none starts."""
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
        """The server of this role, which may still be starting.

        A server that was spawned for another `header` is replaced, since headers run code too; one without a header may load
        many. A server near a limit is replaced as well; with `keep_states`, only if it is `exhausted`, since replacing it loses
        its states.
        """
        loaded, server = self._servers.get(role, ("", None))
        if server is not None and (loaded != header or (server.exhausted if keep_states else server.needs_restart)):
            self.stop(role)
            server = None
        if server is None:
            server = self._start()
            self._servers[role] = (header, server)
        return server

    def current(self, role: str) -> LeanServer | None:
        """The server of this role if there is one; it may have exited."""
        return self._servers.get(role, ("", None))[1]

    def restart(self, role: str) -> None:
        """Replace the server of this role. The new one starts in the background."""
        header, _ = self._servers.get(role, ("", None))
        self.stop(role)
        self.spawn(role, header)

    def stop(self, role: str) -> None:
        """Stop the server of this role if there is one; the next request starts another."""
        if role in self._servers:
            self._servers.pop(role)[1].close()

    def close(self) -> None:
        """Stop all servers."""
        for role in list(self._servers):
            self.stop(role)

    def __enter__(self) -> "Supervisor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Failures:
    """The number of kills and crashes that one request may still cause."""

    def __init__(self, retries: int) -> None:
        self._kills, self._crashes = MAX_KILLS, retries

    def tolerate(self, error: ServerCrashed) -> bool:
        """Count a failure. True if the request may be repeated."""
        if isinstance(error, ServerKilled):
            self._kills -= 1
            return self._kills >= 0
        self._crashes -= 1
        return self._crashes >= 0


def lean_servers(
    toolchain: Toolchain, imports: tuple[str, ...] = ("Init",), *, limits: Limits | None = None
) -> Supervisor:
    """A supervisor of servers with these imports."""
    return Supervisor(lambda: LeanServer(toolchain, imports, limits=limits))
