"""Lean as a server: states branch, errors give positions, and the judge accepts proofs found step by step."""

import re
import subprocess

import pytest
from needs import needs_bubblewrap
from waiting import PATIENT, SLOW

from monge.apps.prove.canonical import canonical
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import embedded_root
from monge.apps.prove.lean.toolchain import confined, node
from monge.apps.prove.policy import PROBES
from monge.apps.prove.state import Budget, Failure, Proof, State, Theorem
from monge.apps.prove.worker import known

pytestmark = pytest.mark.slow


def steps(server, theorem, *tactics):
    state = server.start(theorem)
    for tactic in tactics:
        state = server.step(state, tactic)
        assert isinstance(state, State), state
    return state


def test_a_proof_by_steps_is_accepted(server, judge, naturals):
    theorem = naturals("(a : N) : z + a = a")
    state = server.start(theorem)
    assert [str(h) for h in state.goals[0].hypotheses] == ["a : N"]
    assert state.goals[0].target == "z + a = a"
    state = steps(server, theorem, "induction a", "rfl", "rw [add_s]", "simp [*]")
    assert state.done
    assert server.finish(state) is None
    proof = judge(theorem, state.tactics)
    assert isinstance(proof, Proof)
    assert proof.source.endswith(
        "theorem target (a : N) : z + a = a := by\n  induction a\n  rfl\n  rw [add_s]\n  simp [*]\n"
    )


def test_a_tactic_of_several_lines(server, judge, naturals):
    theorem = naturals("(a : N) : z + a = a")
    tactic = "induction a with\n| z => rfl\n| s n ih =>\n  rw [add_s]\n  rw [ih]"
    assert steps(server, theorem, tactic).done
    assert isinstance(judge(theorem, (tactic,)), Proof)


@pytest.mark.parametrize("header", ["", "\n", "-- theorems of mine\n", "/- of\nmine -/\n\n-- and more"])
def test_a_header_may_be_empty(server, header):
    assert isinstance(server.start(Theorem("t", ": True", header)), State)


def test_an_error_has_its_position_in_the_statement(server):
    with pytest.raises(ValueError, match=r"t: <statement>:2:7: error(?s:.*)Missing"):
        server.start(Theorem("t", ":\n  1 = (Missing : Nat)"))


def test_probes_unknown_to_this_lean_are_left_out(server):
    assert set(PROBES) - set(known(server, PROBES)) == {"ring", "norm_num", "tauto", "linarith", "push_neg"}


def test_a_state_is_a_value(server, naturals):
    state = steps(server, naturals("(a : N) : z + a = a"), "induction a")
    one = server.step(state, "rfl")
    two = server.step(state, "rfl")
    other = server.step(state, "simp")
    assert isinstance(one, State)
    assert isinstance(two, State)
    assert one.goals == two.goals
    assert one.number != two.number
    assert isinstance(other, Failure | State)
    assert server.step(state, "rfl").goals == one.goals


def nested(inner):
    return f"(x y : Nat) : {'(Nat.pred ' * 60}{inner}{')' * 60} = 0"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (": (0 : Nat) = 0", ": (0 : Int) = 0", False),
        ('(x : Nat) : "x" = "y"', '(y : Nat) : "y" = "y"', False),
        (nested("x"), nested("(x + y)"), False),
        (nested("x"), nested("y"), True),
        ("(a b : Nat) (h : a < b) : a ≠ b", "(y : Nat) (x : Nat) (k : x < y) : x ≠ y", True),
        ("{α : Type _} (a b : α) : a = b", "{β : Type _} (c d : β) : c = d", True),
        ("(α β : Type) (h : Nonempty β) : ∃ x : α, True", "(α β : Type) (h : Nonempty β) : ∃ x : β, True", False),
        ("(α β : Type) (h : Nonempty β) : ∃ x : β, True", "(a b : Type) (h : Nonempty b) : ∃ x : b, True", True),
        (": Nonempty PUnit.{1}", ": Nonempty PUnit.{2}", False),
    ],
)
def test_states_are_equal_exactly_if_they_mean_the_same(server, one, other, same):
    one, other = (server.start(Theorem("t", signature)) for signature in (one, other))
    assert "⋯" not in str(one)
    assert (canonical(one) == canonical(other)) is same


def test_only_hypotheses_before_the_colon_are_introduced(server):
    state = server.start(Theorem("t", "{p : Prop} (h : p) : ∀ q : Prop, q → p"))
    assert [(h.name, h.prop) for h in state.goals[0].hypotheses] == [("p", False), ("h", True)]
    assert state.goals[0].target == "∀ (q : Prop), q → p"
    state = server.start(Theorem("t", ": f = f", "variable (f : Nat → Nat)"))
    assert [h.name for h in state.goals[0].hypotheses] == ["f"]


@pytest.mark.parametrize(
    ("theorem", "match"),
    [
        (Theorem("t", "(a : Missing) : a = a"), r"t: <statement>:1:15: error(?s:.*)Missing"),
        (Theorem("t", ": 1 = 1", "theorem bad : 1 = 2 := rfl\ndef x := y"), r"header: <header>:1:(?s:.*)<header>:2:9"),
        (Theorem("t", ": True := trivial\ntheorem u : False"), "signature of one theorem"),
        (Theorem("t", ": True := trivial --"), "unexpected token ':='"),
        (Theorem("t", ": (sorry : Prop)"), "sorry"),
        (Theorem("t u", ": True"), "<statement>"),
    ],
)
def test_an_invalid_statement_is_rejected_with_its_position(server, theorem, match):
    with pytest.raises(ValueError, match=match):
        server.start(theorem)


def test_a_failure_has_its_kind(server):
    state = server.start(Theorem("t", "(a : Nat) : a = 0"))
    assert server.step(state, "rfl").kind == "tactic"
    assert server.step(state, "no such tactic").kind == "parse"
    assert server.step(state, "sorry").kind == "axiom"


def test_a_step_may_not_use_forbidden_constants_in_any_goal(server):
    """Otherwise a state reached that way would block the same state reached by valid steps."""
    theorem = Theorem("t", "(a b : Nat) : a + b = b + a ∧ 0 < 1", "axiom bad : 0 < 1", exclude=("Nat.add_comm",))
    state = steps(server, theorem, "constructor")
    for tactic, kind in (
        ("exact Nat.add_comm a b", "excluded"),
        ("case right => sorry", "axiom"),
        ("case right => exact bad", "axiom"),
        ("all_goals first | exact Nat.add_comm a b | decide", "excluded"),
    ):
        assert server.step(state, tactic).kind == kind, tactic
    assert isinstance(server.step(state, "case right => decide"), State)
    hidden = Theorem("t", "(c : Nat) : ∀ a b : Nat, a + b + c = b + a + c + 0", exclude=("Nat.add_comm",))
    for tactic in ("intro a b; rw [Nat.add_comm a]", "intro a; refine (fun _ => ?_) (sorry : 1 = 2)"):
        assert server.step(server.start(hidden), tactic).kind in ("excluded", "axiom"), tactic


def test_init_is_always_imported(lean):
    with LeanServer(lean, ("Init.Prelude",), limits=SLOW, budget=PATIENT) as server:
        theorem = Theorem("t", "(l : List Nat) : (l ++ []).length = l.length", imports=("Init.Prelude",))
        assert steps(server, theorem, "simp").done


def test_heartbeats_end_a_tactic_and_the_server_continues(server):
    state = server.start(Theorem("t", "(f : Nat → Nat) (h : ∀ n, f n = f (n + 1)) : f 0 = 1"))
    failure = server.step(state, "simp [h]", Budget(heartbeats=1))
    assert isinstance(failure, Failure)
    assert server.alive


def test_the_number_of_goals_after_a_tactic_is_limited(server):
    state = server.start(Theorem("t", "(a b c : Bool) : (a && b && c) = (c && b && a)"))
    split = "cases a <;> cases b <;> cases c"
    assert len(server.step(state, split, Budget(goals=8)).goals) == 8
    assert server.step(state, split, Budget(goals=7)) == Failure("tactic", "it leaves 8 goals, more than 7")


def test_a_server_sees_no_other_file_and_no_network(tmp_path):
    """Confinement of an installed Lean by bubblewrap."""
    needs_bubblewrap()
    (tmp_path / "seen").mkdir()
    (tmp_path / "hidden").mkdir()
    write = f"touch {tmp_path}/seen/x || touch /usr/x || echo read-only"
    script = f"ls {tmp_path}; cat /proc/net/dev | wc -l; {write}; ls -A ~ /run | grep -c '^[^/]'"
    result = subprocess.run(confined(["sh", "-c", script], (f"{tmp_path}/seen",)), capture_output=True, text=True)
    assert result.stdout.split() == ["seen", "3", "read-only", "0"]


def test_no_function_that_leaves_the_sandbox_has_a_name(lean):
    root = embedded_root()
    ask = "const s = require(process.argv[1]); console.log(process.argv.slice(2).map((name) => s(name) > 0).join(' '))"
    names = ["lean_nat_big_add", "emscripten_run_script", "system", "dlopen", "__syscall_socket", "uv_process_kill"]
    result = subprocess.run([node(), "-e", ask, str(root / "symbols.cjs"), *names], capture_output=True, text=True)
    assert result.stdout.split() == ["true", *["false"] * 5]
    script = (root / "lean.js").read_text()
    assert not re.search(r"(?<![\w$])eval\(", script)


def test_lemmas_of_the_library_unfold(server, judge):
    """Equations that Lean derives on demand from imported definitions are available."""
    theorem = Theorem("t", "(f : Nat → Nat) (l : List Nat) : (l.map f).length = l.length")
    for tactics in (("simp",), ("grind",), ("induction l <;> simp_all [List.map]",)):
        state = steps(server, theorem, *tactics)
        assert server.finish(state) is None
        assert isinstance(judge(theorem, tactics), Proof)
