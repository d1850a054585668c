"""The cache of the results of tactics."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from toy import Countdown, all_ways
from waiting import PATIENT

from monge.apps.prove.config import SearchConfig
from monge.apps.prove.lean.session import Session
from monge.apps.prove.lean.supervisor import Supervisor
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.search import search
from monge.apps.prove.state import Budget, Failure, Goal, Hypothesis, State, Theorem
from monge.apps.prove.steps import Cached, StepCache, Steps
from monge.apps.prove.tree import Search
from monge.apps.prove.worker import Task, Worker

LEAN, BUDGET = Toolchain("Lean 4", ("lean",), "/server"), Budget()
THEOREM = Theorem("t", "(n : N) : n = n", header="inductive N")
HYPOTHESIS = Hypothesis("n✝", "N", False, value="⟨1⟩", mark="h")
STEPS: Steps = {
    ("intro n",): State((Goal("n = n", (HYPOTHESIS,), "z", "m"), Goal("True")), ("intro n",), seconds=0.5),
    ("intro n", "rfl"): State((), ("intro n", "rfl")),
    ("intro n", "simp"): Failure("tactic", "no\nprogress", 0.25),
}


def test_results_are_read_as_they_were_stored(tmp_path: Path):
    path = tmp_path / "steps.sqlite"
    StepCache(path, LEAN, BUDGET).add(THEOREM, STEPS)
    assert StepCache(path, LEAN, BUDGET).of(THEOREM) == STEPS
    assert all(one.seconds == 0 for one in StepCache(path, LEAN, BUDGET).of(THEOREM).values())
    for other in (replace(THEOREM, header=""), replace(THEOREM, exclude=("f",)), replace(THEOREM, signature=": 1 = 1")):
        assert not StepCache(path, LEAN, BUDGET).of(other)
    assert not StepCache(path, LEAN, replace(BUDGET, heartbeats=5)).of(THEOREM)
    assert not StepCache(path, replace(LEAN, name="Lean 5"), BUDGET).of(THEOREM)


def test_a_file_that_is_no_cache_or_damaged_is_named(tmp_path: Path):
    path = tmp_path / "steps.sqlite"
    cache = StepCache(path, LEAN, BUDGET)
    cache.add(THEOREM, STEPS)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE steps SET result = ?", (b"not compressed",))
    with pytest.raises(ValueError, match=r"steps\.sqlite: the cache of tactics is damaged"):
        cache.of(THEOREM)
    path.write_text("no database, but long enough to have a header" * 10)
    with pytest.raises(ValueError, match=r"steps\.sqlite: not a cache of tactics"):
        StepCache(path, LEAN, BUDGET)
    with pytest.raises(OSError, match="cannot access the cache of tactics"):
        StepCache(tmp_path, LEAN, BUDGET)


def test_a_repeated_search_tries_nothing_again():
    first, second = Countdown(9), Countdown(9)
    once = Cached(first, {})
    outcome = search(once, all_ways, Search(batch_size=1))
    assert first.stepped == len(once.new)
    again = Cached(second, once.new)
    repeated = search(again, all_ways, Search(batch_size=1))
    assert (second.stepped, again.new) == (0, {})
    assert [(a.suggestion, a.outcome, a.error) for a in repeated.attempts] == [
        (a.suggestion, a.outcome, a.error) for a in outcome.attempts
    ]
    assert repeated.proof == outcome.proof


@pytest.mark.parametrize(("kind", "kept"), [("tactic", True), ("parse", True), ("crash", False), ("replay", False)])
def test_crashes_are_not_kept(kind: str, kept: bool):
    class Failing(Countdown):
        def step(self, state: State, tactic: str) -> State | Failure:
            return Failure(kind, "")

    prover = Cached(Failing(3), {})
    assert prover.step(prover.start(), "1") == Failure(kind, "")
    assert bool(prover.new) == kept


class Counting(Session):
    """A session that counts the tactics it executes."""

    executed = 0

    def step(self, state: State, tactic: str) -> State | Failure:
        self.executed += 1
        return super().step(state, tactic)


@pytest.mark.slow
def test_a_search_with_a_cache_finds_the_same_and_its_proofs_are_judged(
    server, judge, naturals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    theorem, path = naturals("(a : N) : z + a = a"), tmp_path / "steps.sqlite"
    assert judge.prepare(theorem)
    found, executed = [], []
    for cache in ("", str(path), str(path), str(tmp_path)):
        worker = Worker(SearchConfig(Search(batch_size=1, max_states=8), budget=PATIENT, cache=cache))
        session = Counting(theorem, Supervisor(lambda: server), judge, PATIENT)
        found.append(worker._searched(session, Task(0, theorem)))
        session.forget()
        executed.append(session.executed)
    assert executed[0] == executed[1] == executed[3] > executed[2] == 0
    assert capsys.readouterr().err.count("go on without a cache of tactics") == 1
    texts = [[(a.suggestion, a.outcome, a.error, a.child and a.child.text) for a in one.attempts] for one in found]
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert all(one.proof is not None and one.proof == found[0].proof for one in found)
