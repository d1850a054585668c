"""Crashes of Lean processes: limits hold, malformed output kills the process, and a session survives it."""

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import psutil
import pytest
from waiting import PATIENT, SLOW, until

from monge.apps.prove.lean.crashes import ServerCrashed, ServerKilled
from monge.apps.prove.lean.process_tree import ProcessTree
from monge.apps.prove.lean.server import LeanServer, Limits
from monge.apps.prove.lean.session import SEARCH, Session
from monge.apps.prove.lean.supervisor import Supervisor
from monge.apps.prove.state import Failure, Proof, State, Theorem

pytestmark = pytest.mark.slow


def test_a_server_above_its_memory_limit_is_killed(lean):
    with pytest.raises(ServerCrashed, match=r"uses more than 0\.3 GB"):
        LeanServer(lean, limits=Limits(memory_gb=0.3)).hello()


ENDLESS = "repeat' (have := True.intro)"


class Halved(ProcessTree):
    """The processes of a server, as if others left it half of a core."""

    def __init__(self, server):
        super().__init__(server._process.pid)
        self.start, self.age = time.monotonic(), 0.0
        server._idle = (self.start, 0.0)

    @property
    def processor(self):
        return (time.monotonic() - self.start) / 2

    def kill(self):
        self.age = self.age or time.monotonic() - self.start
        super().kill()


def test_a_session_outlives_its_servers(lean, judge):
    """States of a lost server are rebuilt on the next; a tactic that exceeds its time limit fails, and its server is killed."""
    theorem = Theorem("t", "(p q : Prop) (h : p ∧ q) : q ∧ p")
    with Supervisor(lambda: LeanServer(lean, limits=SLOW)) as servers:
        session = Session(theorem, servers, judge, replace(PATIENT, heartbeats=10**9))
        state = session.step(session.start(), "constructor")
        assert isinstance(state, State)
        first = servers.current(SEARCH)
        below = list(first.processes.members())
        first._process.kill()
        first._process.wait()
        psutil.wait_procs(below, timeout=300)
        assert isinstance(session.step(state, "exact h.2"), State)
        second = servers.current(SEARCH)
        assert second is not first
        session._budget = replace(session._budget, seconds=1.5)
        second.processes = Halved(second)
        failure = session.step(state, ENDLESS)
        assert second.processes.age > 3  # seconds, in which it had 1.5 s of CPU time
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.message[:21]) == ("crash", "no answer within 1.5 ")
        assert not second.alive
        session._budget = PATIENT
        for tactic in ("exact h.2", "exact h.1"):
            state = session.step(state, tactic)
            assert isinstance(state, State)
        assert isinstance(session.finish(state), Proof)
        session.forget()
        with pytest.raises(ValueError, match="no such state"):
            servers.current(SEARCH).step(state, "trivial")


def test_a_server_ends_with_its_parent(lean):
    code = """
    import sys
    from monge.apps.prove.lean.server import LeanServer
    from monge.apps.prove.lean.setup import embedded_lean
    server = LeanServer(embedded_lean())
    print(server._process.pid, flush=True)
    sys.stdin.read()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(timeout=300)


CODE = """def grown (s : String) : Nat → String | 0 => s | n + 1 => grown (s ++ s) n
partial def spin (n : Nat) : BaseIO Unit := spin (n + 1)
partial def spinUntil (ms : Nat) : BaseIO Unit := do if (← IO.monoMsNow) < ms then spinUntil ms
"""


def run_tac(code):
    return f"run_tac ({code} : IO Unit)"


@pytest.fixture(scope="module")
def hostile(lean):
    """Servers that tactics may crash."""
    with Supervisor(lambda: LeanServer(lean, ("Lean",), limits=SLOW, budget=PATIENT)) as servers:
        yield servers


@pytest.mark.long
def test_standard_error_is_bounded(hostile):
    server = hostile.ready(SEARCH)
    state = server.start(Theorem("t", ": True", CODE, ("Lean",)))
    assert isinstance(server.step(state, run_tac('IO.eprintln (grown "x" 21)')), Failure)
    assert os.fstat(server._errors.fileno()).st_size <= 1 << 20
    assert server.step(state, "trivial").done


@pytest.mark.long
def test_a_session_survives_what_a_tactic_of_another_theorem_left_in_the_server(hostile):
    """A linter stays active for all theorems, so the session restarts the server."""
    linter = run_tac("Lean.Elab.Command.addLinter { run := fun _ _ _ => throw (.internal ⟨0⟩ {}) }")
    server = hostile.ready(SEARCH)
    state = server.start(Theorem("t", ": True", imports=("Lean",)))
    assert isinstance(server.step(state, linter), State)
    theorem = Theorem("u", ": True", "def f := 1\n", ("Lean",))
    with pytest.raises(ValueError, match="internal exception"):
        server.start(theorem)
    session = Session(theorem, hostile, None, PATIENT)
    assert session.step(session.start(), "trivial").done
    assert not server.alive


@pytest.mark.long
@pytest.mark.parametrize(
    ("tactic", "match"),
    [
        ('IO.print (grown "[" 18 ++ "\\n")', r"is not an answer|more than its answer"),
        ("IO.Process.exit 0", "exited"),
        ("do let _ ← (spin 0).asTask .dedicated", "used CPU after its answer"),
    ],
)
def test_an_attack_by_a_tactic_counts_as_a_crash(hostile, tactic, match):
    """The crash does not count as an external kill."""
    server = hostile.ready(SEARCH)
    state = server.start(Theorem("t", ": True", CODE, ("Lean",)))

    def step_twice():
        server.step(state, run_tac(tactic))
        until(lambda: server.busy_while_idle)
        server.step(state, "trivial")

    with pytest.raises(ServerCrashed, match=match) as crash:
        step_twice()
    assert not isinstance(crash.value, ServerKilled)
    assert not server.alive
    with pytest.raises(ServerCrashed, match="closed after an earlier failure"):
        server.step(state, "trivial")


@pytest.mark.long
def test_the_server_waits_for_background_work_that_ends(hostile):
    """V8 compiles hot functions for seconds after an answer, and for longer on a busy machine."""
    server = hostile.ready(SEARCH)
    state = server.start(Theorem("t", ": True", CODE, ("Lean",)))
    server.step(state, run_tac("do let _ ← (spinUntil ((← IO.monoMsNow) + 6000)).asTask .dedicated"))
    until(lambda: server.busy_while_idle)
    assert server.step(state, "trivial").done
