"""One Lean process that answers requests: elaborate a statement, step a state, check a finished state."""

import contextlib
import json
import math
import os
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from monge.apps.prove.lean.crashes import KILLED, ServerCrashed, ServerKilled, last_line
from monge.apps.prove.lean.process_tree import ProcessTree
from monge.apps.prove.lean.toolchain import Toolchain, confined, shell
from monge.apps.prove.state import Budget, Failure, Goal, Hypothesis, Limits, Rejection, State, Theorem

MANY = 500
"""Requests after which a server's memory is due to many states rather than to a large one."""
BACKGROUND = 15.0
"""Maximum CPU time in seconds between an answer and the next request. V8 compiles hot functions in the meantime."""
P = ParamSpec("P")
T = TypeVar("T")


def answered(method: "Callable[Concatenate[LeanServer, P], T]") -> "Callable[Concatenate[LeanServer, P], T]":
    """A malformed response is treated like a missing one: the process is killed."""

    @wraps(method)
    def understood(server: "LeanServer", *arguments: P.args, **fields: P.kwargs) -> T:
        try:
            return method(server, *arguments, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise server._kill(f"it sent a malformed answer: {error!r}") from error

    return understood


class LeanServer:
    """One process. Its states are values: each may be stepped from any number of times.

    Tactics are code, and this process executes them. Its answers guide a search and never decide about a proof: see judge.py.
    Each answer starts with a secret that was sent before the first tactic ran; any other output kills the process.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        imports: tuple[str, ...] = ("Init",),
        *,
        limits: Limits | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.imports, self.limits, self.budget = imports, limits or Limits(), budget or Budget()
        self._started = time.monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it
        self._process = subprocess.Popen(
            shell(confined(toolchain.serving(imports), toolchain.reads), processor_seconds=self.limits.processor),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=toolchain.variables(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._secrets = [secrets.token_hex(16) for _ in range(self.limits.uses + 1)]
        self._buffer = b""
        self._headers: dict[str, int] = {}
        self.tells: dict[str, tuple[str, ...]] = {}
        """By header: what it redefines, or does in addition to declaring."""
        self.uses = 0
        self._hello: dict[str, Any] | None = None
        self.processes = ProcessTree(self._process.pid)
        self._idle = (0.0, 0.0)

    def hello(self) -> dict[str, Any]:
        """Lean's version and its number of loaded modules. Waits until the process, started in the background, is ready."""
        if self._hello is None:
            self._send(self._secrets, self.limits.start)  # more than a pipe holds, so this waits until Lean reads
            self._hello = self._receive(self.limits.start)
            self._idle = (time.monotonic(), self.processes.processor)
        return self._hello

    @answered
    def start(self, theorem: Theorem, budget: Budget | None = None) -> State:
        """The state before the first tactic. ValueError with Lean's message if the header or the statement is invalid."""
        budget = budget or self.budget
        found = self._asked("start", theorem, budget, **theorem.walls, heartbeats=budget.heartbeats)
        return State(_goals(found), (), found["state"])

    @answered
    def step(self, state: State, tactic: str, budget: Budget | None = None) -> State | Failure:
        """The state after a tactic, or the reason there is none. ServerCrashed if it exceeds the budget's wall-clock limit."""
        budget = budget or self.budget
        spends = {"seconds": budget.seconds, "heartbeats": budget.heartbeats, "goals": budget.goals}
        found = self.request("step", state=state.number, tactic=tactic, **spends)
        if "failed" in found:
            return Failure(found["failed"], found["message"], found["ms"] / 1000)
        return State(_goals(found), (*state.tactics, tactic), found["state"], found["ms"] / 1000)

    @answered
    def finish(self, state: State, budget: Budget | None = None) -> Rejection | None:
        """The reason that a state without goals is no proof, as far as this process can tell."""
        budget = budget or self.budget
        found = self.request("finish", seconds=budget.seconds, state=state.number, heartbeats=budget.heartbeats)
        return Rejection(found["failed"], found["message"]) if "failed" in found else None

    @answered
    def statement(self, theorem: Theorem, budget: Budget | None = None) -> dict[str, Any]:
        """A statement as elaborated: its text and its declarations."""
        return self._asked("state", theorem, budget or self.budget, **theorem.walls)

    @answered
    def compile(self, theorem: Theorem, text: str, budget: Budget | None = None) -> dict[str, Any] | Rejection:
        """The declarations of a theorem's text with its proof, or Lean's errors."""
        budget = budget or self.budget
        asked = {"header": self._header_of(theorem, budget), "name": theorem.name, "text": text}
        found = self.request("compile", seconds=budget.seconds, **asked, **theorem.walls)
        return Rejection("compile", _words(found)) if "failed" in found else found["export"]

    def drop(self, *states: State) -> None:
        """Forget states; states derived from them stay."""
        self.request("drop", states=[state.number for state in states])

    @answered
    def header(self, text: str, budget: Budget | None = None) -> int:
        """The number of a header, elaborated once. ValueError with Lean's messages and their positions."""
        if text not in self._headers:
            found = self.request("header", seconds=6 * (budget or self.budget).seconds, text=text)
            if "failed" in found:
                raise ValueError(f"header: {_words(found)}")
            self._headers[text] = found["header"]
            self.tells[text] = tuple(found["tells"])
        return self._headers[text]

    def _asked(self, do: str, theorem: Theorem, budget: Budget, **fields: Any) -> dict[str, Any]:
        header = self._header_of(theorem, budget)
        found = self.request(
            do, seconds=budget.seconds, header=header, name=theorem.name, signature=theorem.signature, **fields
        )
        if "failed" in found:
            raise ValueError(f"{theorem.name}: {_words(found)}")
        return found

    def _header_of(self, theorem: Theorem, budget: Budget) -> int:
        if theorem.imports != self.imports:
            raise ValueError(f"{theorem.name} stands on {theorem.imports}, this server on {self.imports}")
        return self.header(theorem.header, budget)

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    @property
    def needs_restart(self) -> bool:
        """True if it should be replaced before the next theorem: it ended, or is near a limit."""
        old = time.monotonic() - self._started > self.limits.age
        return not self.alive or old or self.exhausted or self.memory > self.limits.full

    @property
    def exhausted(self) -> bool:
        """True if it should be replaced even in the middle of a search, which loses its states: it is near its limit of
        requests, or many states fill its memory. If a few states fill it, a new process would soon be full again."""
        return self.uses > 0.9 * self.limits.uses or (self.uses > MANY and self.memory > self.limits.full)

    @property
    def busy_while_idle(self) -> bool:
        """True if it has used CPU since its last answer: a tactic left a thread running."""
        then, used = self._idle
        return self.processes.processor - used > 3 + (time.monotonic() - then) / 10

    @property
    def memory(self) -> float:
        """Resident memory in GB, child processes included."""
        return self.processes.memory

    def close(self) -> None:
        """Kill the process and its children."""
        self.processes.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __enter__(self) -> "LeanServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, do: str, *, seconds: float = 60.0, **fields: Any) -> dict[str, Any]:
        """The answer to a request. ServerCrashed if none comes in time or it is malformed; ValueError if the request names
        something that does not exist, such as a dropped state."""
        if self.uses >= self.limits.uses:
            raise self._kill(f"the server reached its limit of {self.uses} requests")
        self.hello()
        if self.busy_while_idle:
            self._wait_until_idle()
        self._send({"do": do, **fields}, seconds)
        found = self._receive(seconds)
        self._idle = (time.monotonic(), self.processes.processor)
        if found.get("failed") == "request":
            raise ValueError(f"Lean's server: {found['message']}")
        return found

    def _wait_until_idle(self) -> None:
        """Wait for V8's compiler, until the process uses no more CPU. ServerCrashed above BACKGROUND seconds of it."""
        before = -math.inf
        while (now := self.processes.processor) - before > 0.05:
            if now - self._idle[1] > BACKGROUND:
                raise self._kill("it used CPU after its answer")
            before = now
            time.sleep(0.5)
        self._idle = (time.monotonic(), now)

    def _send(self, what: object, seconds: float) -> None:
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise ServerCrashed("the server was closed after an earlier failure; start another one")
        pipe, text, end = self._process.stdin.fileno(), json.dumps(what).encode() + b"\n", time.monotonic() + seconds
        while text:
            left = end - time.monotonic()
            if left <= 0:
                raise self._kill(f"it read nothing for {seconds:g} s")
            if not select.select([], [pipe], [], min(left, 0.25))[1]:
                self._check_memory()
            else:
                try:
                    text = text[os.write(pipe, text) :]
                except OSError:
                    raise self._ended() from None

    def _receive(self, seconds: float) -> dict[str, Any]:
        secret = self._secrets[self.uses].encode()
        self.uses += 1
        mark, _, said = self._line(time.monotonic() + seconds, seconds).partition(b" ")
        if secrets.compare_digest(mark, secret):
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(answer := json.loads(said), dict):
                    return answer
        raise self._kill(f"its output is no answer: {(mark + said)[:80]!r}")

    def _line(self, end: float, seconds: float) -> bytes:
        assert self._process.stdout is not None
        pipe, look = self._process.stdout.fileno(), time.monotonic() + 0.25
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise self._kill(f"no answer within {seconds:g} s")
            if select.select([pipe], [], [], min(left, 0.25))[0]:
                read = os.read(pipe, 1 << 20)
                if not read:
                    raise self._ended()
                self._buffer += read
            if time.monotonic() > look:
                look = time.monotonic() + 0.25
                self._check_memory()
        line, _, self._buffer = self._buffer.partition(b"\n")
        if self._buffer:
            raise self._kill("it printed more than its answer")
        return line

    def _check_memory(self) -> None:
        if self.memory > self.limits.memory:
            raise self._kill(f"the server holds more than {self.limits.memory:g} GB")

    def _ended(self) -> ServerCrashed:
        """The error to raise for a process that closed its streams."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        killed = self._process.returncode in KILLED
        return self._kill(
            "the server was killed" if killed else "the server ended", ServerKilled if killed else ServerCrashed
        )

    def _kill(self, reason: str, kind: type[ServerCrashed] = ServerCrashed) -> ServerCrashed:
        """Kill the process and return the error to raise, with the last line of its standard error."""
        line = last_line(self._errors)
        self.close()
        return kind(reason + (f" ({line})" if line else ""))


def _words(found: dict[str, Any]) -> str:
    return found.get("message") or "\n".join(found["errors"])


def _goals(found: dict[str, Any]) -> tuple[Goal, ...]:
    return tuple(
        Goal(goal["target"], tuple(Hypothesis(**h) for h in goal["hypotheses"]), goal["case"], goal["mark"])
        for goal in found["goals"]
    )
