"""A Lean process that answers requests: elaborate a statement, step a state, check a finished state."""

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
from monge.apps.prove.lean.process_tree import Deadline, ProcessTree
from monge.apps.prove.lean.toolchain import Toolchain, confined, shell
from monge.apps.prove.state import Budget, Failure, Goal, Limits, Rejection, State, Theorem

MANY_REQUESTS = 500
"""Number of requests after which high memory use is attributed to many states rather than to a few large ones."""
BACKGROUND = 15.0
"""Maximum CPU time in seconds between an answer and the next request; V8 compiles hot functions in that time."""
P = ParamSpec("P")
T = TypeVar("T")


def answered(method: "Callable[Concatenate[LeanServer, P], T]") -> "Callable[Concatenate[LeanServer, P], T]":
    """A malformed response is treated like a missing one: the process is killed."""

    @wraps(method)
    def wrapper(server: "LeanServer", *arguments: P.args, **fields: P.kwargs) -> T:
        try:
            return method(server, *arguments, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise server._kill(f"the server sent a malformed answer: {error!r}") from error

    return wrapper


class LeanServer:
    """One Lean process. States are values: each can be stepped any number of times.

    Tactics are code, and this process executes them. Its answers guide a search but never settle a proof; see judge.py.
    Each answer starts with a secret that was sent before the first tactic ran; on any other output the process is killed.
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
            shell(confined(toolchain.serving(imports), toolchain.reads), processor_seconds=self.limits.cpu_seconds),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=toolchain.variables(),
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._secrets = [secrets.token_hex(16) for _ in range(self.limits.requests + 1)]
        self._buffer = b""
        self._headers: dict[str, int] = {}
        self.header_notes: dict[str, tuple[str, ...]] = {}
        """Everything that each header redefines, or does in addition to declaring."""
        self.uses = 0
        self._hello: dict[str, Any] | None = None
        self.processes = ProcessTree(self._process.pid)
        self._idle = (0.0, 0.0)

    def hello(self) -> dict[str, Any]:
        """Lean's version and the number of loaded modules, once the process is ready. ServerCrashed if it does not start."""
        if self._hello is None:
            self._send(
                self._secrets, self.limits.start_seconds
            )  # more than a pipe holds, so this blocks until Lean reads
            self._hello = self._receive(self.limits.start_seconds)
            self._idle = (time.monotonic(), self.processes.processor)
        return self._hello

    @answered
    def start(self, theorem: Theorem, budget: Budget | None = None) -> State:
        """The state before the first tactic. ValueError with Lean's message if the header or the statement is invalid."""
        budget = budget or self.budget
        answer = self._elaborate("start", theorem, budget, **theorem.restrictions, heartbeats=budget.heartbeats)
        return State(tuple(map(Goal.read, answer["goals"])), (), answer["state"])

    @answered
    def step(self, state: State, tactic: str, budget: Budget | None = None) -> State | Failure:
        """The state after a tactic, or its failure. ServerCrashed if it exceeds the budget's time limit."""
        budget = budget or self.budget
        limits = {"seconds": budget.seconds, "heartbeats": budget.heartbeats, "goals": budget.goals}
        answer = self.request("step", state=state.number, tactic=tactic, **limits)
        if "failed" in answer:
            return Failure(answer["failed"], answer["message"], answer["ms"] / 1000)
        return State(
            tuple(map(Goal.read, answer["goals"])), (*state.tactics, tactic), answer["state"], answer["ms"] / 1000
        )

    @answered
    def finish(self, state: State, budget: Budget | None = None) -> Rejection | None:
        """The reason that a state without goals is not a proof, as far as this process can tell; None if there is none."""
        budget = budget or self.budget
        answer = self.request("finish", seconds=budget.seconds, state=state.number, heartbeats=budget.heartbeats)
        return Rejection(answer["failed"], answer["message"]) if "failed" in answer else None

    @answered
    def statement(self, theorem: Theorem, budget: Budget | None = None) -> dict[str, Any]:
        """The elaborated statement: text and declarations. ValueError with Lean's message if it or its header is invalid."""
        return self._elaborate("state", theorem, budget or self.budget, **theorem.restrictions)

    @answered
    def compile(self, theorem: Theorem, text: str, budget: Budget | None = None) -> dict[str, Any] | Rejection:
        """The declarations of a theorem compiled with its proof, or Lean's errors. ValueError if the header is invalid."""
        budget = budget or self.budget
        fields = {"header": self._header_of(theorem, budget), "name": theorem.name, "text": text}
        answer = self.request("compile", seconds=budget.seconds, **fields, **theorem.restrictions)
        return Rejection("compile", _error(answer)) if "failed" in answer else answer["export"]

    def drop(self, *states: State) -> None:
        """Delete states; states derived from them stay."""
        self.request("drop", states=[state.number for state in states])

    @answered
    def header(self, text: str, budget: Budget | None = None) -> int:
        """The number of a header, which is elaborated once. ValueError with Lean's messages and their positions."""
        if text not in self._headers:
            answer = self.request("header", seconds=6 * (budget or self.budget).seconds, text=text)
            if "failed" in answer:
                raise ValueError(f"header: {_error(answer)}")
            self._headers[text] = answer["header"]
            self.header_notes[text] = tuple(answer["notes"])
        return self._headers[text]

    def _elaborate(self, do: str, theorem: Theorem, budget: Budget, **fields: Any) -> dict[str, Any]:
        header = self._header_of(theorem, budget)
        answer = self.request(
            do, seconds=budget.seconds, header=header, name=theorem.name, signature=theorem.signature, **fields
        )
        if "failed" in answer:
            raise ValueError(f"{theorem.name}: {_error(answer)}")
        return answer

    def _header_of(self, theorem: Theorem, budget: Budget) -> int:
        if theorem.imports != self.imports:
            raise ValueError(f"{theorem.name} imports {theorem.imports}, but this server has loaded {self.imports}")
        return self.header(theorem.header, budget)

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    @property
    def needs_restart(self) -> bool:
        """True if it should be replaced before the next theorem: it has exited or is near a limit."""
        old = time.monotonic() - self._started > self.limits.age_seconds
        return not self.alive or old or self.exhausted or self.memory > self.limits.full

    @property
    def exhausted(self) -> bool:
        """True if it should be replaced even during a search, although that loses its states: it is near its limit of requests,
        or many states fill its memory. If a few states filled it, a new process would soon be full again."""
        return self.uses > 0.9 * self.limits.requests or (self.uses > MANY_REQUESTS and self.memory > self.limits.full)

    @property
    def busy_while_idle(self) -> bool:
        """True if it has used a lot of CPU since its last answer, for example because a tactic left a thread running."""
        since, used = self._idle
        return self.processes.processor - used > 3 + (time.monotonic() - since) / 10

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
        """The answer to a request. ServerCrashed if none arrives in time or it is malformed; ValueError if the request names
        something that does not exist, such as a dropped state."""
        if self.uses >= self.limits.requests:
            raise self._kill(f"the server reached its limit of {self.uses} requests")
        self.hello()
        if self.busy_while_idle:
            self._wait_until_idle()
        self._send({"do": do, **fields}, seconds)
        answer = self._receive(seconds)
        self._idle = (time.monotonic(), self.processes.processor)
        if answer.get("failed") == "request":
            raise ValueError(f"Lean server: {answer['message']}")
        return answer

    def _wait_until_idle(self) -> None:
        """Wait until background work, such as V8's compiler, stops. ServerCrashed after BACKGROUND seconds of CPU time."""
        before = -math.inf
        while (now := self.processes.processor) - before > 0.05:
            if now - self._idle[1] > BACKGROUND:
                raise self._kill("the server used CPU after its answer")
            before = now
            time.sleep(0.5)
        self._idle = (time.monotonic(), now)

    def _send(self, message: object, seconds: float) -> None:
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            raise ServerCrashed("the server was closed after an earlier failure; start another one")
        pipe, deadline = self._process.stdin.fileno(), Deadline(self.processes, seconds)
        text = json.dumps(message).encode() + b"\n"
        while text:
            if deadline.passed:
                raise self._kill(f"the server read no input for {seconds:g} s")
            if not select.select([], [pipe], [], deadline.pause)[1]:
                self._check_memory()
            else:
                try:
                    text = text[os.write(pipe, text) :]
                except OSError:
                    raise self._ended() from None

    def _receive(self, seconds: float) -> dict[str, Any]:
        secret = self._secrets[self.uses].encode()
        self.uses += 1
        token, _, payload = self._line(seconds).partition(b" ")
        if secrets.compare_digest(token, secret):
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(answer := json.loads(payload), dict):
                    return answer
        raise self._kill(f"the server's output is not an answer: {(token + payload)[:80]!r}")

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        pipe, next_check, deadline = (
            self._process.stdout.fileno(),
            time.monotonic() + 0.25,
            Deadline(self.processes, seconds),
        )
        while b"\n" not in self._buffer:
            if deadline.passed:
                raise self._kill(f"no answer within {seconds:g} s")
            if select.select([pipe], [], [], deadline.pause)[0]:
                chunk = os.read(pipe, 1 << 20)
                if not chunk:
                    raise self._ended()
                self._buffer += chunk
            if time.monotonic() > next_check:
                next_check = time.monotonic() + 0.25
                self._check_memory()
        line, _, self._buffer = self._buffer.partition(b"\n")
        if self._buffer:
            raise self._kill("the server printed more than its answer")
        return line

    def _check_memory(self) -> None:
        if self.memory > self.limits.memory_gb:
            raise self._kill(f"the server uses more than {self.limits.memory_gb:g} GB of memory")

    def _ended(self) -> ServerCrashed:
        """The error to raise for a process that closed its streams."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        killed = self._process.returncode in KILLED
        return self._kill(
            "the server was killed" if killed else "the server exited", ServerKilled if killed else ServerCrashed
        )

    def _kill(self, reason: str, kind: type[ServerCrashed] = ServerCrashed) -> ServerCrashed:
        """Kill the process and return the error to raise, with the last line of its standard error."""
        line = last_line(self._errors)
        self.close()
        return kind(reason + (f" ({line})" if line else ""))


def _error(answer: dict[str, Any]) -> str:
    return answer.get("message") or "\n".join(answer["errors"])
