"""A Lean process that answers requests: elaborates statements, steps states, checks what is finished."""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from monge.apps.prove.lean.family import Family
from monge.apps.prove.lean.toolchain import Toolchain, confined, shell
from monge.apps.prove.state import Budget, Failure, Goal, Hypothesis, Limits, Rejection, State, Theorem


class Died(OSError):
    """The process is gone, or was killed because it broke a limit or the protocol."""


class Gone(Died):
    """The process was killed from outside."""


TRACES = ("[DEBUG", "  - /", "  mainModule?")
"""What the build of Lean says on its own account."""
KILLED = (-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
"""How a process ends that was killed from outside, itself or under bubblewrap."""


MANY = 500
"""Requests after which what a server holds is that of many states, and not of one."""


P = ParamSpec("P")
T = TypeVar("T")


def answered(method: "Callable[Concatenate[LeanServer, P], T]") -> "Callable[Concatenate[LeanServer, P], T]":
    """What an answer has not that it should have kills the process, as no answer does."""

    @wraps(method)
    def understood(server: "LeanServer", *arguments: P.args, **fields: P.kwargs) -> T:
        try:
            return method(server, *arguments, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise server._dead(f"what it answered is no answer: {error!r}") from error

    return understood


class LeanServer:
    """One process. Its states are values: any of them may be stepped from, any number of times.

    Tactics are code, and this process runs them. What it says is believed of a search, never of a proof: see judge.py. Each
    answer carries the secret that was sent for it before the first tactic ran; anything else on the stream kills the process.
    """

    def __init__(
        self, toolchain: Toolchain, imports: tuple[str, ...] = ("Init",), *, limits: Limits | None = None
    ) -> None:
        self.imports, self.limits = imports, limits or Limits()
        self._born = time.monotonic()
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
        """Of each header what it redefines, or does besides declaring."""
        self.uses = 0
        self._hello: dict[str, Any] | None = None
        self.family = Family(self._process.pid)
        self._idle = (0.0, 0.0)

    def hello(self) -> dict[str, Any]:
        """Lean's version and how many modules are loaded, when it is ready: it starts while others do something else."""
        if self._hello is None:
            self._send(self._secrets, self.limits.start)  # more than a pipe holds: it waits until Lean reads
            self._hello = self._receive(self.limits.start)
            self._idle = (time.monotonic(), self.family.processor)
        return self._hello

    @answered
    def start(self, theorem: Theorem, budget: Budget | None = None) -> State:
        """The state before the first tactic. ValueError with Lean's message where the header or the statement is wrong."""
        budget = budget or Budget()
        found = self._asked("start", theorem, budget, **theorem.walls, heartbeats=budget.heartbeats)
        return State(_goals(found), (), found["state"])

    @answered
    def step(self, state: State, tactic: str, budget: Budget | None = None) -> State | Failure:
        """The state after a tactic, or why there is none. Died if it took longer than the budget's wall clock."""
        budget = budget or Budget()
        spends = {"seconds": budget.seconds, "heartbeats": budget.heartbeats, "goals": budget.goals}
        found = self.request("step", state=state.number, tactic=tactic, **spends)
        if "failed" in found:
            return Failure(found["failed"], found["message"], found["ms"] / 1000)
        return State(_goals(found), (*state.tactics, tactic), found["state"], found["ms"] / 1000)

    @answered
    def finish(self, state: State, budget: Budget | None = None) -> Rejection | None:
        """Why a state without goals is no proof, as far as this process can tell."""
        budget = budget or Budget()
        found = self.request("finish", seconds=budget.seconds, state=state.number, heartbeats=budget.heartbeats)
        return Rejection(found["failed"], found["message"]) if "failed" in found else None

    @answered
    def statement(self, theorem: Theorem, budget: Budget | None = None) -> dict[str, Any]:
        """What a statement says, as text and as declarations."""
        return self._asked("state", theorem, budget or Budget(), **theorem.walls)

    @answered
    def compile(self, theorem: Theorem, text: str, budget: Budget | None = None) -> dict[str, Any] | Rejection:
        """What a theorem's text with its proof declares, or Lean's errors."""
        budget = budget or Budget()
        asked = {"header": self._header_of(theorem, budget), "name": theorem.name, "text": text}
        found = self.request("compile", seconds=budget.seconds, **asked, **theorem.walls)
        return Rejection("compile", _words(found)) if "failed" in found else found["export"]

    def drop(self, *states: State) -> None:
        """Forget states; those after them stay."""
        self.request("drop", states=[state.number for state in states])

    @answered
    def header(self, text: str, budget: Budget | None = None) -> int:
        """The number of a header, elaborated once. ValueError with Lean's messages, each with its place."""
        if text not in self._headers:
            found = self.request("header", seconds=6 * (budget or Budget()).seconds, text=text)
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
        """Whether it can be asked again."""
        return self._process.poll() is None

    @property
    def worn(self) -> bool:
        """Whether it is better replaced before the next theorem."""
        old = time.monotonic() - self._born > self.limits.age
        return not self.alive or old or self.spent or self.memory > self.limits.full

    @property
    def spent(self) -> bool:
        """Whether it is better replaced at once, although its states go with it: it may not be asked much more, or is full of
        many. One that is full of a few would soon be so again."""
        return self.uses > 0.9 * self.limits.uses or (self.uses > MANY and self.memory > self.limits.full)

    @property
    def restless(self) -> bool:
        """Whether it has worked since its last answer: a thread that a tactic left behind."""
        then, spent = self._idle
        return self.family.processor - spent > 3 + (time.monotonic() - then) / 10

    @property
    def memory(self) -> float:
        """GB resident."""
        return self.family.memory

    def close(self) -> None:
        """Kill the process and what it started."""
        self.family.kill()
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
        """The answer to a request. Died if there is none in time, or what comes is no answer; ValueError if it asks for what is
        not there: a state that was dropped, say."""
        if self.uses >= self.limits.uses:
            raise self._dead(f"the server has answered {self.uses} requests, as many as it may")
        self.hello()
        if self.restless:
            raise self._dead("it went on working after its answer")
        self._send({"do": do, **fields}, seconds)
        found = self._receive(seconds)
        self._idle = (time.monotonic(), self.family.processor)
        if found.get("failed") == "request":
            raise ValueError(f"Lean's server: {found['message']}")
        return found

    def _send(self, what: object, seconds: float) -> None:
        assert self._process.stdin is not None
        pipe, text, end = self._process.stdin.fileno(), json.dumps(what).encode() + b"\n", time.monotonic() + seconds
        while text:
            left = end - time.monotonic()
            if left <= 0:
                raise self._dead(f"it read nothing for {seconds:g} s")
            if not select.select([], [pipe], [], min(left, 0.25))[1]:
                self._weigh()
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
        raise self._dead(f"what it printed is no answer: {(mark + said)[:80]!r}")

    def _line(self, end: float, seconds: float) -> bytes:
        assert self._process.stdout is not None
        pipe, look = self._process.stdout.fileno(), time.monotonic() + 0.25
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise self._dead(f"no answer within {seconds:g} s")
            if select.select([pipe], [], [], min(left, 0.25))[0]:
                read = os.read(pipe, 1 << 20)
                if not read:
                    raise self._ended()
                self._buffer += read
            if time.monotonic() > look:
                look = time.monotonic() + 0.25
                self._weigh()
        line, _, self._buffer = self._buffer.partition(b"\n")
        if self._buffer:
            raise self._dead("it printed more than its answer")
        return line

    def _weigh(self) -> None:
        if self.memory > self.limits.memory:
            raise self._dead(f"the server holds more than {self.limits.memory:g} GB")

    def _ended(self) -> Died:
        """What to raise of a process that closed its streams."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        killed = self._process.returncode in KILLED
        return self._dead("the server was killed" if killed else "the server ended", Gone if killed else Died)

    def _dead(self, why: str, kind: type[Died] = Died) -> Died:
        """Kill the process; what to raise of it."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        lines = [
            line
            for line in self._errors.read().decode(errors="replace").splitlines()
            if line.strip() and not line.startswith(TRACES)
        ]
        self.close()
        return kind(why + (f" ({lines[-1]})" if lines else ""))


def _words(found: dict[str, Any]) -> str:
    return found.get("message") or "\n".join(found["errors"])


def _goals(found: dict[str, Any]) -> tuple[Goal, ...]:
    return tuple(
        Goal(goal["target"], tuple(Hypothesis(**h) for h in goal["hypotheses"]), goal["case"], goal["mark"])
        for goal in found["goals"]
    )
