"""The search on a toy problem without Lean: counting numbers down to zero."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import Countdown, all_ways, down

from monge.apps.prove.canonical import canonical
from monge.apps.prove.policy import Names, Probes, Template
from monge.apps.prove.search import search
from monge.apps.prove.state import Goal, Hypothesis, State
from monge.apps.prove.tree import Quarantined, Search, Suggestion


def energy(states):
    return [float(s.goals[0].target) if s.goals else 0.0 for s in states]


@pytest.mark.parametrize("order", ["best", "breadth", "random", "puct"])
@pytest.mark.parametrize("batch", [1, 8])
def test_a_proof_is_found_and_replays(order, batch):
    outcome = search(Countdown(13), down, Search(order=order, batch_size=batch), energy)
    assert outcome.ended == "proved"
    toy = Countdown(13)
    state = toy.start()
    for tactic in outcome.proof.tactics:
        state = toy.step(state, tactic)
    assert state.done


def test_breadth_first_finds_a_shortest_proof():
    outcome = search(Countdown(10), all_ways, Search(order="breadth", batch_size=1))
    assert len(outcome.proof.tactics) == 4


def test_the_energy_guides_the_search():
    blind = search(Countdown(40), all_ways, Search(order="breadth", batch_size=1, max_states=5000))
    guided = search(Countdown(40), all_ways, Search(batch_size=1, beta=1.0, alpha=0.01, max_states=5000), energy)
    assert guided.proof
    assert guided.expanded < blind.expanded / 2


def test_budgets_end_a_search():
    assert search(Countdown(1000), all_ways, Search(max_states=20)).ended == "out of nodes"
    assert search(Countdown(1000), all_ways, Search(max_states=20)).expanded == 20
    assert search(Countdown(1000), all_ways, Search(max_seconds=1e-9)).ended == "out of time"
    nothing = search(Countdown(7), lambda states, limit: [[Suggestion("9", -1.0)]] * len(states), Search())
    assert nothing.ended == "nothing left to try"
    assert [a.outcome for a in nothing.attempts] == ["tactic"]
    last = search(Countdown(7), lambda states, limit: [[Suggestion("9", -1.0)]] * len(states), Search(max_states=1))
    assert last.ended == "nothing left to try"
    deep = search(Countdown(6), lambda states, limit: [[Suggestion("1", -1.0)]] * len(states), Search(max_depth=3))
    assert deep.proof is None


def test_the_time_limit_excludes_the_first_state(monkeypatch):
    now = [0.0]

    class Slow(Countdown):
        def start(self):
            now[0] += 0.5
            return super().start()

    monkeypatch.setattr("monge.apps.prove.search.time.monotonic", lambda: now[0])
    outcome = search(Slow(13), down, Search(max_seconds=0.4))
    assert outcome.proof
    assert outcome.seconds < 0.4


def test_harvesting_respects_the_time_limit_and_is_not_counted(monkeypatch):
    now = [0.0]

    class Slow(Countdown):
        def step(self, state, tactic):
            now[0] += 1.0
            return super().step(state, tactic)

    monkeypatch.setattr("monge.apps.prove.search.time.monotonic", lambda: now[0])
    plain = search(Slow(9), down, Search(batch_size=1))
    budget = plain.seconds + 1.5
    now[0] = 0.0
    harvested = search(Slow(9), down, Search(batch_size=1, harvest=9, max_seconds=budget))
    assert harvested.seconds == plain.seconds
    assert len(harvested.attempts) == len(plain.attempts) + 2


def test_the_search_continues_after_a_rejected_proof():
    outcome = search(Countdown(3, accept=False), all_ways, Search(max_states=30))
    assert outcome.proof is None
    assert [a.outcome for a in outcome.attempts].count("rejected") >= 2


def test_each_state_is_visited_once():
    outcome = search(Countdown(9), all_ways, Search(order="breadth", max_states=200))
    reached = [a.child.state for a in outcome.attempts if a.outcome == "state"]
    assert len({canonical(s) for s in reached}) == len(reached)
    assert any(a.outcome == "duplicate" for a in outcome.attempts)


def test_path_scores_are_as_configured():
    """By the sum, a long path of likely tactics scores lower than a short path with a less likely one; by the mean, higher."""
    suggestions = {"8": [Suggestion("1", -0.1), Suggestion("3", -0.15)]}

    def policy(states, limit):
        return [suggestions.get(s.goals[0].target, [Suggestion("1", -0.1)]) for s in states]

    expanded = {}
    for path in ("sum", "mean", "last"):
        outcome = search(Countdown(8), policy, Search(path_logprob=path, batch_size=1, max_states=3))
        expanded[path] = [a.parent.state.goals[0].target for a in outcome.attempts]
    assert expanded["sum"] == ["8", "8", "7", "5"]
    assert expanded["mean"] == expanded["last"] == ["8", "8", "7", "6"]


def test_puct_explores_and_closes_exhausted_states():
    """PUCT leaves a likely tactic that leads nowhere for another one, and it exhausts a finite tree."""

    def policy(states, limit):
        trap = {"30": [Suggestion("1", -0.01), Suggestion("3", -2.0)], "27": [Suggestion("3", -0.1)]}
        suggestions = {**trap, **{str(k): [Suggestion("3", -0.1)] for k in range(3, 27, 3)}}
        return [suggestions.get(s.goals[0].target, [Suggestion("1", -0.5), Suggestion("double", -0.5)]) for s in states]

    outcome = search(Countdown(30), policy, Search(order="puct", batch_size=2, max_states=400, max_depth=12))
    assert outcome.ended == "proved"
    assert len(outcome.proof.tactics) == 10
    exhausted = search(Countdown(9, accept=False), down, Search(order="puct", batch_size=3))
    assert exhausted.ended == "nothing left to try"
    reached = {a.child.state.goals[0].target for a in exhausted.attempts if a.outcome == "state"}
    assert reached == {"1", "2", "3", "4", "5", "6", "7", "8"}


def test_the_fallback_is_tried_if_no_suggestion_worked():
    settings = Search(fallback_tactics=("1", "3"), num_tactics=2)
    outcome = search(Countdown(3), lambda states, limit: [[Suggestion("9", -1.0)]] * len(states), settings)
    assert outcome.ended == "proved"
    assert [a.suggestion.tactic for a in outcome.attempts][:3] == ["9", "1", "3"]
    silent = search(Countdown(3), lambda states, limit: [[] for _ in states], settings)
    assert silent.attempts[0].suggestion == ("1", pytest.approx(-math.log(2)))
    worked = search(Countdown(3), lambda states, limit: [[Suggestion("1", -1.0)]] * len(states), settings)
    assert {a.suggestion.tactic for a in worked.attempts} == {"1"}


def test_harvesting_expands_the_siblings_of_the_proof():
    plain = search(Countdown(9), down, Search(batch_size=1))
    path = {node.text for node in plain.proofs[0].path()}
    harvested = search(Countdown(9), down, Search(batch_size=1, harvest=2))
    more = harvested.attempts[len(plain.attempts) :]
    parents = {a.parent for a in more}
    assert len(parents) == 2
    assert all(p.parent.text in path and p.text not in path for p in parents)
    assert harvested.proof == plain.proof
    assert harvested.expanded == plain.expanded


def test_loops_and_no_progress_are_distinguished():
    class Ring(Countdown):
        def step(self, state, tactic):
            n = int(state.goals[0].target)
            return self.state({"stay": n, "on": n % 3 + 1, "aside": 7}[tactic], (*state.tactics, tactic))

    def policy(states, limit):
        return [[Suggestion(t, -1.0) for t in ("stay", "on", "aside")] for _ in states]

    kinds = [a.outcome for a in search(Ring(1), policy, Search(order="breadth", batch_size=1, max_states=4)).attempts]
    assert kinds[:6] == ["no progress", "state", "state", "no progress", "state", "duplicate"]
    assert "loop" in kinds


names = st.permutations(["a", "b", "c", "h", "n_ih"])


@given(names, st.permutations(range(4)))
def test_canonical_text_ignores_names_and_order(names, order):
    def goal(x, y, p, q):
        return [
            Hypothesis(x, "Nat", False),
            Hypothesis(y, "Nat", False),
            Hypothesis(p, f"{x} ≤ {y}", True),
            Hypothesis(q, f"f {y}.succ = {x}", True),
        ]

    plain = State((Goal("x = y'", tuple(goal("x", "y'", "p", "q"))),))
    x, y, p, q, _ = names
    hypotheses = goal(x, y, p, q)
    shuffled = State((Goal(f"{x} = {y}", tuple(hypotheses[k] for k in order), case="other"),))
    assert canonical(plain) == canonical(shuffled)
    swapped = State((Goal(f"{y} = {x}", tuple(hypotheses)),))
    assert canonical(plain) != canonical(swapped)


def test_naming_an_inaccessible_hypothesis_is_progress():
    hidden, named = (
        State((Goal(f"f {name} = 0", (Hypothesis(name, "N", False), Hypothesis("h", "True", True))),))
        for name in ("n✝", "x0")
    )
    assert canonical(hidden) != canonical(named)


def test_policies_respect_the_maximum_and_their_probabilities_sum_to_one():
    goal = Goal("a + b = b + a", (Hypothesis("a", "N", False), Hypothesis("h", "a = b", True)))
    for policy in (Probes(), Template(Names(("add_z", "add_s")))):
        for limit in (1, 5, 100):
            (suggestions,) = policy([State((goal,))], limit)
            assert 0 < len(suggestions) <= limit
            assert sum(2.718281828459045**s.logp for s in suggestions) == pytest.approx(1)
            assert [s.logp for s in suggestions] == sorted((s.logp for s in suggestions), reverse=True)
    tactics = [s.tactic for s in Template(Names(("add_z",)))([State((goal,))], 100)[0]]
    assert {"induction a", "rw [h]", "rw [← add_z]", "cases h"} <= set(tactics)
    hidden = Goal("n✝ = a", (Hypothesis("a", "N", False), Hypothesis("n✝", "N", False), Hypothesis("x0", "N", False)))
    tactics = [s.tactic for s in Template()([State((hidden,))], 100)[0]]
    assert tactics[0] == "rename_i x1"
    assert not any("✝" in tactic for tactic in tactics)


def test_names_are_read_from_a_header():
    names = Names.of(
        """inductive N | z | s (n : N)
inductive Le : N → N → Prop
  | refl (a : N) : Le a a
  | step {a b : N} : Le a b → Le a (s b)
inductive Odd : N → Prop where
  | one : Odd (s z)
def add : N → N → N
@[simp] theorem add_z (a : N) : a + z = a := rfl
theorem add_s : P := rfl
"""
    )
    assert names == Names(("add_z", "add_s"), ("add",), ("Le.refl", "Le.step", "Odd.one"))


def test_the_search_imports_neither_lean_nor_torch():
    code = (
        "import sys, monge.apps.prove.search; assert not {m for m in sys.modules if m == 'torch' or '.prove.lean' in m}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("where", ["step", "finish"])
def test_an_attempt_that_quarantines_the_theorem_is_recorded(where):
    class Deadly(Countdown):
        def step(self, state, tactic):
            if where == "step" and tactic == "3":
                raise Quarantined("the last of ten")
            return super().step(state, tactic)

        def finish(self, state):
            raise Quarantined("the last of ten")

    outcome = search(Deadly(3), all_ways, Search())
    last = outcome.attempts[-1]
    assert (outcome.ended, outcome.error) == ("quarantined", "the last of ten")
    assert (last.suggestion.tactic, last.outcome, last.error) == ("3", "crash", "the last of ten")


@pytest.mark.parametrize("order", ["best", "breadth", "puct"])
def test_a_state_at_the_depth_limit_does_not_block_a_shorter_path_to_it(order):
    """The path 9 - 1 - 1 - 1 reaches 6 first, at the limit of three tactics; 9 + 3 - 6 reaches it in two."""
    suggestions = {
        "9": [("1", -0.1), ("-3", -5.0)],
        "8": [("1", -0.1)],
        "7": [("1", -0.1)],
        "12": [("6", -0.1)],
        "6": [("6", -0.1)],
    }

    def policy(states, limit):
        return [[Suggestion(*one) for one in suggestions[s.goals[0].target]] for s in states]

    outcome = search(Countdown(9), policy, Search(max_depth=3, batch_size=1, order=order))
    assert outcome.proof.tactics == ("-3", "6", "6")
