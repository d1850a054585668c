"""A Lean process that answers requests: elaborates statements, steps states, checks what is finished."""

import contextlib
import json
import os
import secrets
import select
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import psutil

from monge.apps.prove.lean.toolchain import Toolchain, shell
from monge.apps.prove.state import Budget, Failure, Goal, Hypothesis, Rejection, State, Theorem


class Died(OSError):
    """The process is gone, or was killed because it broke a limit or the protocol."""


class Gone(Died):
    """The process ended and does not say why: it may have been killed from outside."""


@dataclass(frozen=True)
class Limits:
    """What a server may spend before it is replaced."""

    memory: float = 3.0
    """GB resident; whoever has more is killed."""
    uses: int = 5000
    """Requests."""
    age: float = 3600.0
    """Seconds."""
    processor: int = 7200
    """Seconds of processor time, of all threads together."""
    start: float = 120.0
    """Seconds until the first answer."""


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
            shell(toolchain.serving(imports), processor_seconds=self.limits.processor),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=toolchain.variables(),
            start_new_session=True,
        )
        self._secrets = [secrets.token_hex(16) for _ in range(self.limits.uses + 1)]
        self._buffer = b""
        self._headers: dict[str, int] = {}
        self.uses = 0
        self._send(self._secrets)
        hello = self._receive(self.limits.start)
        self.version, self.modules = str(hello["version"]), int(hello["modules"])

    def start(self, theorem: Theorem, budget: Budget | None = None) -> State:
        """The state before the first tactic. ValueError with Lean's message where the header or the statement is wrong."""
        budget = budget or Budget()
        found = self._asked(
            "start",
            theorem,
            budget,
            exclude=list(theorem.exclude),
            beyond=list(theorem.beyond),
            heartbeats=budget.heartbeats,
        )
        return State(_goals(found), (), found["state"])

    def step(self, state: State, tactic: str, budget: Budget | None = None) -> State | Failure:
        """The state after a tactic, or why there is none. Died if it took longer than the budget's wall clock."""
        budget = budget or Budget()
        found = self.request(
            "step", seconds=budget.seconds, state=state.number, tactic=tactic, heartbeats=budget.heartbeats
        )
        if "failed" in found:
            return Failure(found["failed"], found["message"])
        return State(_goals(found), (*state.tactics, tactic), found["state"])

    def finish(self, state: State, budget: Budget | None = None) -> Rejection | None:
        """Why a state without goals is no proof, as far as this process can tell."""
        budget = budget or Budget()
        found = self.request("finish", seconds=budget.seconds, state=state.number, heartbeats=budget.heartbeats)
        return Rejection(found["failed"], found["message"]) if "failed" in found else None

    def statement(self, theorem: Theorem, budget: Budget | None = None) -> dict[str, Any]:
        """What a statement says, as declarations."""
        return self._asked("state", theorem, budget or Budget())

    def compile(self, theorem: Theorem, text: str, budget: Budget | None = None) -> dict[str, Any] | Rejection:
        """What a theorem's text with its proof declares, or Lean's errors."""
        budget = budget or Budget()
        header = self.header(theorem.header, budget)
        found = self.request("compile", seconds=budget.seconds, header=header, name=theorem.name, text=text)
        return Rejection("compile", _words(found)) if "failed" in found else found["export"]

    def drop(self, state: State) -> None:
        """Forget a state; those after it stay."""
        self.request("drop", state=state.number)

    def header(self, text: str, budget: Budget | None = None) -> int:
        """The number of a header, elaborated once. ValueError with Lean's messages, each with its place."""
        if text not in self._headers:
            found = self.request("header", seconds=6 * (budget or Budget()).seconds, text=text)
            if "failed" in found:
                raise ValueError(f"header: {_words(found)}")
            self._headers[text] = found["header"]
        return self._headers[text]

    def _asked(self, do: str, theorem: Theorem, budget: Budget, **fields: Any) -> dict[str, Any]:
        if theorem.imports != self.imports:
            raise ValueError(f"{theorem.name} stands on {theorem.imports}, this server on {self.imports}")
        header = self.header(theorem.header, budget)
        found = self.request(
            do, seconds=budget.seconds, header=header, name=theorem.name, signature=theorem.signature, **fields
        )
        if "failed" in found:
            raise ValueError(f"{theorem.name}: {_words(found)}")
        return found

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.poll() is None

    @property
    def worn(self) -> bool:
        """Whether it is better replaced before the next theorem."""
        old = time.monotonic() - self._born > self.limits.age
        return not self.alive or old or self.uses > 0.9 * self.limits.uses or self.memory > 0.8 * self.limits.memory

    @property
    def memory(self) -> float:
        """GB resident."""
        try:
            return psutil.Process(self._process.pid).memory_info().rss / 1e9
        except psutil.NoSuchProcess:
            return 0.0

    def close(self) -> None:
        """Kill the process."""
        if self.alive:
            self._process.kill()
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
        """The answer to a request. Died if there is none in time, or what comes is no answer."""
        if self.uses >= self.limits.uses:
            raise self._dead(f"the server has answered {self.uses} requests, as many as it may")
        self._send({"do": do, **fields})
        return self._receive(seconds)

    def _send(self, what: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._dead("the server is gone", Gone) from None

    def _receive(self, seconds: float) -> dict[str, Any]:
        secret = self._secrets[self.uses]
        self.uses += 1
        line = self._line(time.monotonic() + seconds, seconds)
        try:
            found = json.loads(line)
            if found.pop("secret") == secret:
                return found
        except (ValueError, AttributeError, KeyError, TypeError):
            pass
        raise self._dead(f"what it printed is no answer: {line[:80]!r}")

    def _line(self, end: float, seconds: float) -> bytes:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise self._dead(f"no answer within {seconds:g} s")
            if select.select([pipe], [], [], min(left, 0.25))[0]:
                read = os.read(pipe, 1 << 20)
                if not read:
                    raise self._dead("the server ended", Gone)
                self._buffer += read
            elif self.memory > self.limits.memory:
                raise self._dead(f"the server holds more than {self.limits.memory:g} GB")
        line, _, self._buffer = self._buffer.partition(b"\n")
        if self._buffer:
            raise self._dead("it printed more than its answer")
        return line

    def _dead(self, why: str, kind: type[Died] = Died) -> Died:
        """Kill the process; what to raise of it."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 2000))
        lines = [line for line in self._errors.read().decode(errors="replace").splitlines() if not _trace(line)]
        self.close()
        return kind(why + (f" ({lines[-1]})" if lines else ""))


def _trace(line: str) -> bool:
    """Whether the build of Lean says this on its own account."""
    return not line.strip() or line.startswith(("[DEBUG", "  - /", "  mainModule?"))


def _words(found: dict[str, Any]) -> str:
    return found.get("message") or "\n".join(found["errors"])


def _goals(found: dict[str, Any]) -> tuple[Goal, ...]:
    return tuple(
        Goal(goal["target"], tuple(Hypothesis(**h) for h in goal["hypotheses"]), goal["case"])
        for goal in found["goals"]
    )
