"""The cache of the results of tactics."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from toy import Countdown, all_ways
from waiting import PATIENT

from monge.apps.prove.lean.session import Session
from monge.apps.prove.lean.supervisor import Supervisor
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.policy import Names, Template
from monge.apps.prove.search import search
from monge.apps.prove.state import Budget, Failure, Goal, Hypothesis, State, Theorem
from monge.apps.prove.steps import Cached, StepCache, Steps
from monge.apps.prove.tree import Search

LEAN, BUDGET = Toolchain("Lean 4", ("lean",), "/server"), Budget()
THEOREM = Theorem("t", "(n : N) : n = n", header="inductive N")
HYPOTHESIS = Hypothesis("n✝", "N", False, value="⟨1⟩", mark="h")
STEPS: Steps = {
    ("intro n",): State((Goal("n = n", (HYPOTHESIS,), "z", "m"), Goal("True")), ("intro n",), seconds=0.5),
    ("intro n", "rfl"): State((), ("intro n", "rfl")),
    ("intro n", "simp"): Failure("tactic", "no\nprogress", 0.25),
}


def test_results_are_read_as_they_were_stored(tmp_path: Path):
    path = tmp_path / "new" / "steps.sqlite"
    StepCache(path, LEAN, BUDGET).add(THEOREM, STEPS)
    assert StepCache(path, LEAN, BUDGET).of(THEOREM) == STEPS
    found = StepCache(path, LEAN, BUDGET).of(THEOREM)
    assert {key: one.seconds for key, one in found.items()} == {key: one.seconds for key, one in STEPS.items()}
    for other in (replace(THEOREM, header=""), replace(THEOREM, exclude=("f",)), replace(THEOREM, signature=": 1 = 1")):
        assert not StepCache(path, LEAN, BUDGET).of(other)
    assert not StepCache(path, LEAN, replace(BUDGET, heartbeats=5)).of(THEOREM)
    assert not StepCache(path, replace(LEAN, name="Lean 5"), BUDGET).of(THEOREM)


def test_a_file_that_is_no_cache_or_damaged_is_named(tmp_path: Path):
    path = tmp_path / "steps.sqlite"
    cache = StepCache(path, LEAN, BUDGET)
    cache.add(THEOREM, STEPS)
    path.write_bytes(path.read_bytes().replace(b'{"goals"', b'{"goalz"'))
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


@pytest.mark.slow
def test_a_search_with_a_cache_finds_the_same_and_its_proofs_are_judged(server, judge, naturals, lean, tmp_path: Path):
    theorem, cache = naturals("(a : N) : z + a = a"), StepCache(tmp_path / "steps.sqlite", lean, PATIENT)
    assert judge.prepare(theorem)
    found, steps = [], Counter()
    for name in ("none", "first", "second"):
        session = Session(theorem, Supervisor(lambda: server), judge, PATIENT)
        prover = Cached(session, {} if name == "none" else cache.of(theorem))
        found.append(search(prover, Template(Names.of(theorem.header)), Search(batch_size=1, max_states=8)))
        session.forget()
        steps[name] = len(prover.new)
        if name == "first":
            cache.add(theorem, prover.new)
    assert steps == {"none": steps["first"], "first": len(cache.of(theorem)), "second": 0}
    texts = [[(a.suggestion, a.outcome, a.error, a.child and a.child.text) for a in one.attempts] for one in found]
    assert texts[0] == texts[1] == texts[2]
    assert all(one.proof is not None and one.proof == found[0].proof for one in found)
