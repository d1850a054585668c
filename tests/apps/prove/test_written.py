"""Written proofs become steps whose states are those of the proof."""

import pyarrow.parquet as pq
import pytest
from conftest import NATURALS
from toy import Countdown
from waiting import PATIENT

from monge.apps.prove.families import DATA
from monge.apps.prove.state import Goal, Proof
from monge.apps.prove.trajectories import attempts, results
from monge.apps.prove.written import Step, replay, steps_of
from monge.cli import main

PROOFS = {
    "induction": (
        "(a : N) : z + a = a",
        "induction a with\n| z => rfl\n| s n ih =>\n  rw [add_s]\n  rw [ih]",
        ["induction a with\n| z => ?_\n| s n ih => ?_", "rfl", "rw [add_s]", "rw [ih]"],
    ),
    "nested": (
        "(a b : N) : a = a ∧ b = b",
        "constructor\n· cases a with\n  | z => rfl\n  | s n => cases n with\n    | z => rfl\n    | s m => rfl\n· (rfl)",
        ["constructor", "cases a with\n| z => ?_\n| s n => ?_", "rfl", "cases n with\n| z => ?_\n| s m => ?_", *["rfl"] * 3],
    ),
    "have": (
        "(a b : N) : a = b → b = a",
        "intro h\nhave k : ∀ c : N, c = c := by\n  intro c\n  rfl\nrw [h]",
        ["intro h", "have k : ∀ c : N, c = c := ?_", "rw [h]", "intro c", "rfl"],
    ),
    "a have of one tactic": (
        "(a b : N) : a = b → b = a",
        "intro h; have k : b = b := by rfl\nexact h ▸ k",
        ["intro h", "have k : b = b := by rfl", "exact h ▸ k"],
    ),
    "a have before other goals": (
        "(a : N) : a = a ∧ True",
        "constructor\nhave k : True := by\n  skip\n  trivial\nrfl\ntrivial",
        ["constructor", "have k : True := by\n  skip\n  trivial", "rfl", "trivial"],
    ),
    "selected goals": (
        "(a : N) : a = a ∧ (a = z → True)",
        "refine ⟨?left, ?right⟩\ncase right =>\n  intro h\n  trivial\nnext => rfl",
        ["refine ⟨?left, ?right⟩", "case' right => skip", "intro h", "trivial", "case' _ => skip", "rfl"],
    ),
    "match and if": (
        "(a : N) : a = z ∨ True",
        "match a with\n| z => left; rfl\n| s n =>\n  right\n  if h : True then\n    exact h\n  else\n    trivial",
        [
            *("match a with\n| z => ?_\n| s n => ?_", "left", "rfl", "right", "if h : True then ?_\n  else ?_"),
            *("exact h", "trivial"),
        ],
    ),
    "branches that share a proof": (
        "(a : N) : a = a",
        "cases a with\n| z | s => rfl",
        ["cases a with\n| z | s => rfl"],
    ),
    "patterns and tags that share a proof": (
        "(a : N) (h : a = z ∨ a = z) : a = z ∨ True",
        "match a with\n| z | s _ => right; trivial",
        ["match a with\n| z | s _ => right; trivial"],
    ),
    "comments": (
        "(a : N) : z + a = a",
        "induction a with\n| z => -- the base\n  rfl\n| s n ih =>\n  -- the step\n  /- twice -/\n  rw [add_s, ih]",
        ["induction a with\n| z => ?_\n| s n ih => ?_", "rfl", "rw [add_s, ih]"],
    ),
    "names": ("(p q : Prop) (h : p) (f : p → q) : q", "rename p => k\nexact f k", ["rename p => k", "exact f k"]),
    "combinators": ("(a b : N) : a = a ∧ b = b", "constructor <;> rfl", ["constructor <;> rfl"]),
}  # fmt: skip


class OnServer:
    """A prover of one theorem on a server, with the server's own verdict."""

    def __init__(self, server, theorem):
        self.server, self.theorem = server, theorem

    def start(self):
        return self.server.start(self.theorem)

    def step(self, state, tactic):
        return self.server.step(state, tactic)

    def finish(self, state):
        return self.server.finish(state) or Proof(self.theorem, state.tactics)


def written(tactics: str) -> str:
    return ":= by\n" + "".join(f"  {line}\n" for line in tactics.split("\n"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROOFS)
def test_a_written_proof_becomes_steps_that_follow_it(server, naturals, name):
    signature, tactics, expected = PROOFS[name]
    theorem = naturals(signature)
    steps = steps_of(server, theorem, written(tactics), PATIENT)
    assert [step.tactic for step in steps] == expected
    assert all(step.before for step in steps)
    outcome = replay(OnServer(server, theorem), steps)
    assert outcome.ended == "proved", outcome.error
    assert [attempt.outcome for attempt in outcome.attempts] == ["state"] * (len(outcome.attempts) - 1) + ["proof"]
    for before, after in zip(outcome.attempts, outcome.attempts[1:], strict=False):
        assert before.child is after.parent


@pytest.mark.slow
def test_a_proof_that_does_not_compile_gives_leans_error(server, naturals):
    with pytest.raises(ValueError, match="unsolved goals"):
        steps_of(server, naturals("(a : N) : z + a = a"), written("skip"), PATIENT)
    with pytest.raises(ValueError, match="no written proof"):
        steps_of(server, naturals("(a : N) : z + a = a"), "", PATIENT)


def step(tactic: str, goal: int | None = None) -> Step:
    return Step(tactic, None if goal is None else (Goal(str(goal), case="named"),))


def test_a_replay_records_each_step_up_to_the_proof():
    outcome = replay(Countdown(5), (step("1", 5), step("3"), step("1", 1)))
    assert (outcome.ended, outcome.proof is not None) == ("proved", True)
    assert [attempt.suggestion.tactic for attempt in outcome.attempts] == ["1", "3", "1"]
    assert [attempt.parent.depth for attempt in outcome.attempts] == [0, 1, 2]


@pytest.mark.parametrize(
    ("steps", "kind", "reason"),
    [
        ((step("3", 5), step("1", 4)), "mismatch", "step 2, '1': the goals before it are not those of the written proof"),
        ((step("3"), step("3")), "tactic", "step 2, '3': below zero"),
        ((step("1"),), "state", "the last step leaves goals"),
    ],
)  # fmt: skip
def test_a_replay_ends_where_it_leaves_the_written_proof(steps, kind, reason):
    outcome = replay(Countdown(5), steps)
    assert (outcome.ended, outcome.error) == ("not replayed", reason)
    assert outcome.attempts[-1].outcome == kind
    assert not outcome.proofs


def test_a_replay_that_the_judge_rejects_is_no_proof():
    outcome = replay(Countdown(1, accept=False), (step("1"),))
    assert (outcome.ended, outcome.error, outcome.attempts[-1].outcome) == ("not replayed", "axiom: no", "rejected")


@pytest.mark.long
def test_replay_records_written_proofs_as_positive_rows(tmp_path, capsys):
    file = tmp_path / "mine.lean"
    good = written(PROOFS["induction"][1])
    file.write_text(f"{NATURALS}theorem good (a : N) : z + a = a {good}\ntheorem open_ (a : N) : a = a := by sorry\n")
    assert main(["prove", "replay", str(file), "--out", str(tmp_path / "run"), "--split", "all"]) == 0
    by_name = {result.name: result for result in results(tmp_path / "run")}
    assert by_name["good"].proved
    assert (by_name["open_"].ended, "no written proof" in by_name["open_"].error) == ("not replayed", True)
    rows = [row for row in attempts(tmp_path / "run").to_pylist() if row["theorem"] == "good"]
    assert [row["tactic"] for row in rows] == PROOFS["induction"][2]
    assert {(row["label"], row["policy"]) for row in rows} == {("positive", "written")}
    assert [row["remaining_depth"] for row in rows] == [4, 3, 2, 1]
    assert all(first["state_after"] == second["state_before"] for first, second in zip(rows, rows[1:], strict=False))
    assert rows[-1]["state_after"] == "no goals"
    assert "good" in capsys.readouterr().out


@pytest.mark.long
def test_the_written_proofs_of_the_training_split_replay(tmp_path):
    assert main(["prove", "replay", str(DATA), "--out", str(tmp_path / "run"), "--workers", "2"]) == 0
    finished = results(tmp_path / "run")
    assert len(finished) == 371
    assert [result.name for result in finished if not result.proved] == []
    tables = [pq.read_table(part) for part in (tmp_path / "run").glob("part-*.parquet")]
    assert sum(table.num_rows for table in tables) == 2896
