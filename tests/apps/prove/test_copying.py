"""Policies that adapt known tactics, and policies that are combined."""

from types import SimpleNamespace

import pytest
from test_finetune import run_of
from toy import Countdown

from monge.apps.prove import worker
from monge.apps.prove.config import SearchConfig
from monge.apps.prove.copying import Copying, parsed, substituted
from monge.apps.prove.pairs import TacticPair
from monge.apps.prove.policy import Combined, Probes
from monge.apps.prove.state import Goal, Hypothesis, State, Theorem
from monge.apps.prove.tree import Suggestion
from monge.apps.prove.worker import Task, Worker, _model
from monge.cli import main

PAIRS = [
    TacticPair(*pair, str(number), "run")
    for number, pair in enumerate(
        [
            ("a b : N\nh : a = b\n⊢ b = a", "exact h.symm"),
            ("n : N\nih : z + n = n\n⊢ z + s n = s n", "rw [add_s, ih]"),
            ("p : Prop\nhp : p\n⊢ p ∨ q", "exact Or.inl hp"),
        ]
    )
]


def goal(target: str, **types: str) -> Goal:
    return Goal(target, tuple(Hypothesis(name, kind, prop=False) for name, kind in types.items()))


def test_the_tactic_of_the_most_similar_state_comes_first_with_its_names_replaced():
    state = State((goal("y = x", x="N", y="N", k="x = y"), goal("z + s m = s m")))
    (suggestions,) = Copying(PAIRS)([state], 3)
    assert suggestions[0].tactic == "exact k.symm"
    assert len({one.tactic for one in suggestions}) == 3
    assert sum(2.718281828**one.logp for one in suggestions) == pytest.approx(1, abs=1e-6)
    assert [one.logp for one in suggestions] == sorted((one.logp for one in suggestions), reverse=True)
    assert len(Copying(PAIRS)([state, state], 1)[1]) == 1


def test_equal_tactics_add_up_and_the_theorem_s_own_pairs_are_left_out():
    state = State((goal("p"),))
    pairs = [TacticPair("⊢ p", tactic, theorem, "run") for tactic, theorem in (("g", "1"), ("g", "2"), ("k", "1"))]
    (suggestions,) = Copying(pairs)([state], 2)
    assert [(one.tactic, round(2.718281828**one.logp, 3)) for one in suggestions] == [("g", 0.667), ("k", 0.333)]
    assert Copying(pairs).without("1")([state], 2) == [[Suggestion("g", pytest.approx(0, abs=1e-6))]]
    assert Copying(pairs[:1]).without("1")([state], 2) == [[]]


def test_a_state_without_known_tokens_gets_suggestions_too():
    (suggestions,) = Copying(PAIRS)([State((goal("Ω"),))], 2)
    assert len(suggestions) == 2


def test_names_without_a_counterpart_are_kept():
    source = parsed("n : N\nih : P n\n⊢ Q n")
    assert substituted("exact f ih n", source, parsed("⊢ Q z")) == "exact f ih n"
    assert substituted("exact f ih n", source, parsed("m : N\n⊢ Q m")) == "exact f ih m"
    assert substituted("exact n.x", source, parsed("m : N\n⊢ Q m")) == "exact m.x"
    assert substituted("exact f n", source, parsed("m✝ : N\n⊢ Q m✝")) == "exact f n"
    assert substituted("exact f.n", source, parsed("m : N\n⊢ Q m")) == "exact f.n"


def test_a_state_is_read_with_hypotheses_of_several_lines():
    text = str(State((goal("p", f="N →\n  N", x="N"), goal("q"))))
    assert parsed(f"case a\n{text}") == ({"f": "N →\n  N", "x": "N"}, "p")


def test_combined_policies_alternate_by_rank_and_share_the_limit():
    first, second = Probes(("a", "b", "c", "d")), Probes(("x", "b", "y", "z"))
    (suggestions,) = Combined((first, second))([State((goal("p"),))], 4)
    assert [one.tactic for one in suggestions] == ["a", "x", "b", "c"]  # both suggest b, so the first one fills up
    nothing = Combined((first, lambda states, limit: [[] for _ in states]))
    (suggestions,) = nothing([State((goal("p"),))], 4)
    assert suggestions == first([State((goal("p"),))], 4)[0]
    two, one = Combined((lambda states, limit: first(states, limit) if len(states) == 2 else [[]], second)), goal("p")
    assert [[s.tactic for s in part] for part in two([State((one,))] * 2, 2)] == [["a", "x"]] * 2
    assert all(isinstance(one, Suggestion) for one in suggestions)


def test_a_worker_reads_the_examples_of_a_run(tmp_path):
    run = run_of(tmp_path / "run", range(4, 8))
    copying = _model("copy", SearchConfig(policy="template+copy", examples=(str(run),)))
    assert isinstance(copying, Copying)
    assert copying([State((goal("4"),))], 1)[0][0].tactic == "1"


def test_an_error_of_a_policy_ends_the_run_instead_of_the_theorem(monkeypatch):
    worker_of = Worker.__new__(Worker)
    worker_of.config, worker_of._energy = SearchConfig(), None
    worker_of._models = [lambda states, limit: int("no number")]
    stated = SimpleNamespace(text="", header_notes=(), explicit="", instances=())
    monkeypatch.setattr(worker_of, "_start", lambda *_: (None, SimpleNamespace(prepare=lambda _: stated)))
    monkeypatch.setattr(worker, "Session", lambda *_: Countdown(5))
    with pytest.raises(ValueError, match="no number"):
        worker_of.search(Task(0, Theorem("t", ": True")))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--policy", "copy"), "--policy copy needs --examples"),
        (("--policy", "template+local"), "--policy template+local needs --model"),
        (
            ("--policy", "templte"),
            "--policy templte: unknown; use one of template, probes, copy, server, local, written",
        ),
        (("--policy", "template+probes", "--num-tactics", "1"), "needs --num-tactics 2 or more"),
        (("--policy", "template+written"), "written proofs cannot be joined with other policies"),
    ],
)
def test_an_invalid_policy_is_one_sentence(tmp_path, capsys, flags, message):
    assert main(["prove", "search", "--out", str(tmp_path / "run"), *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
