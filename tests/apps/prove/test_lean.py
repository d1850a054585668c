"""Real Lean as a server: states branch, errors say where, limits hold, and what is no answer kills it."""

import os
import re
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from monge.apps.prove.canonical import canonical
from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import Died, Gone, LeanServer, Limits
from monge.apps.prove.lean.session import Session
from monge.apps.prove.lean.setup import embedded_root
from monge.apps.prove.lean.toolchain import bubblewrap, confined
from monge.apps.prove.state import Budget, Failure, Proof, Rejection, State, Theorem

pytestmark = pytest.mark.slow


def steps(server, theorem, *tactics):
    state = server.start(theorem)
    for tactic in tactics:
        state = server.step(state, tactic)
        assert isinstance(state, State), state
    return state


def test_a_proof_by_steps_is_one(server, judge, naturals):
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
def test_states_are_alike_where_they_mean_the_same(server, one, other, same):
    one, other = (server.start(Theorem("t", signature)) for signature in (one, other))
    assert "⋯" not in str(one)
    assert (canonical(one) == canonical(other)) is same


def test_hypotheses_before_the_colon_are_introduced_and_those_after_it_not(server):
    state = server.start(Theorem("t", "{p : Prop} (h : p) : ∀ q : Prop, q → p"))
    assert [(h.name, h.prop) for h in state.goals[0].hypotheses] == [("p", False), ("h", True)]
    assert state.goals[0].target == "∀ (q : Prop), q → p"
    state = server.start(Theorem("t", ": f = f", "variable (f : Nat → Nat)"))
    assert [h.name for h in state.goals[0].hypotheses] == ["f"]


def test_lemmas_of_the_library_unfold(server, judge):
    """What Lean derives on demand of an imported definition is to be had."""
    theorem = Theorem("t", "(f : Nat → Nat) (l : List Nat) : (l.map f).length = l.length")
    for tactics in (("simp",), ("grind",), ("induction l <;> simp_all [List.map]",)):
        state = steps(server, theorem, *tactics)
        assert server.finish(state) is None
        assert isinstance(judge(theorem, tactics), Proof)


def test_a_tactic_of_several_lines(server, judge, naturals):
    theorem = naturals("(a : N) : z + a = a")
    tactic = "induction a with\n| z => rfl\n| s n ih =>\n  rw [add_s]\n  rw [ih]"
    assert steps(server, theorem, tactic).done
    assert isinstance(judge(theorem, (tactic,)), Proof)


@pytest.mark.parametrize(
    ("theorem", "match"),
    [
        (Theorem("t", "(a : Missing) : a = a"), r"t: <statement>:2:5: error(?s:.*)Missing"),
        (Theorem("t", ": 1 = 1", "theorem bad : 1 = 2 := rfl\ndef x := y"), r"header: <header>:1:(?s:.*)<header>:2:9"),
        (Theorem("t", ": True := trivial\ntheorem u : False"), "signature of one theorem"),
        (Theorem("t", ": True := trivial --"), "unexpected token ':='"),
        (Theorem("t", ": (sorry : Prop)"), "sorry"),
        (Theorem("t u", ": True"), "<statement>"),
    ],
)
def test_a_statement_that_is_none_is_said_so_with_its_place(server, theorem, match):
    with pytest.raises(ValueError, match=match):
        server.start(theorem)


def test_a_failure_says_what_lean_said(server):
    state = server.start(Theorem("t", "(a : Nat) : a = 0"))
    assert server.step(state, "rfl").kind == "tactic"
    assert server.step(state, "no such tactic").kind == "parse"
    assert "leaves a sorry" in server.step(state, "sorry").message


def test_heartbeats_end_a_tactic_and_the_server_goes_on(server):
    state = server.start(Theorem("t", "(f : Nat → Nat) (h : ∀ n, f n = f (n + 1)) : f 0 = 1"))
    failure = server.step(state, "simp [h]", Budget(heartbeats=1))
    assert isinstance(failure, Failure)
    assert server.alive


def test_the_wall_clock_kills(lean):
    with LeanServer(lean) as server:
        state = server.start(Theorem("t", ": False"))
        with pytest.raises(Died, match=r"no answer within 1\.5 s"):
            server.step(state, "repeat' (have := True.intro)", Budget(heartbeats=10**9, seconds=1.5))
        assert not server.alive


def test_memory_kills(lean):
    with pytest.raises(Died, match=r"holds more than 0\.3 GB"):
        LeanServer(lean, limits=Limits(memory=0.3)).hello()


def test_a_session_outlives_its_servers(lean, judge, naturals):
    """What a lost server knew is stepped again on the next; a tactic that kills is a failure."""
    theorem, budget = naturals("(a : N) : z + a = a"), Budget(heartbeats=10**9, seconds=6.0)
    session = Session(theorem, lambda: LeanServer(lean), judge, budget, LeanServer(lean))
    try:
        state = session.step(session.start(), "induction a")
        assert isinstance(state, State)
        first = session.server
        below = list(first._tree)
        first._process.kill()
        first._process.wait()
        psutil.wait_procs(below, timeout=10)
        assert isinstance(session.step(state, "rfl"), State)
        second = session.server
        assert second is not first
        died = session.step(state, "repeat' (have := True.intro)")
        assert isinstance(died, Failure)
        assert (died.kind, session.server is second) == ("died", False)
        for tactic in ("rfl", "rw [add_s]", "simp [*]"):
            state = session.step(state, tactic)
            assert isinstance(state, State)
        assert isinstance(session.finish(state), Proof)
        session.forget()
        with pytest.raises(ValueError, match="no such state"):
            session.server.step(state, "rfl")
    finally:
        session.server.close()


def test_it_ends_with_its_parent(lean):
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
    child.wait(timeout=10)


def test_the_judge_takes_the_statement_from_elsewhere(judge, naturals):
    """A proof of something else, a proof of nothing, and a proof that uses what it may not."""
    assert isinstance(judge(naturals("(a : N) : a + z = a"), ("rfl",)), Proof)
    assert isinstance(judge(naturals("(a : N) : z + a = a"), ("rfl",)), Rejection)
    excluded = Theorem("t", "(a b : Nat) : a + b = b + a", exclude=("Nat.add_comm",))
    assert judge(excluded, ("exact Nat.add_comm a b",)).kind == "excluded"
    assert isinstance(judge(Theorem("t", "(a b : Nat) : a + b = b + a"), ("exact Nat.add_comm a b",)), Proof)


def test_axioms_of_lean_are_allowed_and_named(judge):
    proof = judge(Theorem("t", "(p q : Prop) (h : p ↔ q) : p = q"), ("exact propext h",))
    assert isinstance(proof, Proof)
    assert proof.axioms == ("propext",)


def test_a_statement_is_said_as_elaborated_and_what_its_header_redefines(judge):
    header = """instance : Add Nat := ⟨fun _ _ => 0⟩
local notation "five" => 4
namespace M
def Nat.succ (n : Nat) : Nat := n
@[simp] theorem quiet (n : Nat) (h : n = 1) : id n = 1 := h
@[macro_inline] def loud : Nat := 1
notation "six" => 6 in def hidden := 1
"""
    found = judge.state(Theorem("t", "(a : Nat) : a + five = 0", header))
    assert found.text == "∀ (a : Nat), Eq (HAdd.hAdd a 4) 0"
    assert [tell for tell in found.tells if "five" in tell]
    assert [tell for tell in found.tells if "instAddNat" in tell]
    assert [tell for tell in found.tells if tell.endswith("Lean's own Nat.succ")]
    assert [tell for tell in found.tells if "loud" in tell]
    assert [tell for tell in found.tells if "six" in tell]
    assert not [tell for tell in found.tells if "quiet" in tell]
    assert judge.state(Theorem("t", ": True", "def f : Nat := 1\n")).tells == ()


@pytest.mark.parametrize(
    "theorem",
    [
        Theorem("t", ": True", "import Init\naxiom hidden : False"),
        Theorem("t", ": True", "def f := 1\n#exit\naxiom hidden : False"),
        Theorem("t", ": True", exclude=("Nat.no_such_lemma",)),
        Theorem("t", ": True", exclude=("not a name",)),
        Theorem("t", ": True", beyond=("Init.Nothing",)),
    ],
)
def test_what_would_be_passed_over_is_refused(judge, theorem):
    with pytest.raises(ValueError, match=r"here|there is no"):
        judge.state(theorem)


def test_a_theorem_of_the_library_is_not_proved_by_itself_or_what_follows(lean):
    restated = Theorem("again", ": type_of% @List.map_map", imports=("Init", "Std"), after="List.map_map")
    with Judge(lean, ("Init", "Std")) as judge:
        assert judge.state(restated).text.endswith("Eq (List.map g (List.map f l)) (List.map (Function.comp g f) l)")
        for tactic in ("exact List.map_map", "intros; simp", "intros; grind"):
            assert isinstance(judge(restated, (tactic,)), Rejection), tactic
        honest = "intro β γ α g f l; induction l with\n| nil => rfl\n| cons a l ih => show _ :: _ = _; rw [ih]; rfl"
        assert isinstance(judge(restated, (honest,)), Proof)
        with pytest.raises(ValueError, match=r"after: there is no List\.nothing"):
            judge.state(Theorem("t", ": True", imports=("Init", "Std"), after="List.nothing"))


def test_a_header_has_a_process_of_its_own(judge):
    judge.state(Theorem("t", ": True", "def a := 1"))
    first = judge._servers["statement"][1]
    judge.state(Theorem("t", ": True", "def b := 1"))
    assert judge._servers["statement"][1] is not first
    assert not first.alive


def test_a_proof_is_one_theorem(judge):
    assert isinstance(judge(Theorem("t", ": True"), ("trivial",)), Proof)
    for more in ("axiom a : True", "def f := 1", "@[simp] theorem u : True := trivial", "#eval 1"):
        found = judge(Theorem("t", ": True"), ("trivial\n\n" + more,))
        assert isinstance(found, Rejection)
        assert found.kind == "compile"


def test_what_is_excluded_has_left_simp_when_the_proof_is_compiled(judge):
    theorem = Theorem("t", "(l : List Nat) : (l ++ []).length = l.length", exclude=("List.append_nil",))
    found = judge(theorem, ("simp only [List.append_nil]",))
    assert found.kind == "excluded"
    assert isinstance(judge(theorem, ("simp",)), Proof)


CODE = """def grown (s : String) : Nat → String | 0 => s | n + 1 => grown (s ++ s) n
partial def spin (n : Nat) : BaseIO Unit := spin (n + 1)
"""


@pytest.mark.parametrize(
    ("tactic", "match"),
    [
        ('IO.print (grown "[" 18 ++ "\\n")', "no answer"),
        ("IO.Process.exit 0", "ended"),
        ("do let _ ← (spin 0).asTask .dedicated", "went on working"),
    ],
)
def test_what_a_tactic_may_do_to_its_server_is_bounded(lean, tactic, match):
    with LeanServer(lean, ("Lean",)) as server:
        state = server.start(Theorem("t", ": True", CODE, ("Lean",)))

        def step_twice():
            server.step(state, f"run_tac ({tactic} : IO Unit)")
            end = time.monotonic() + 120  # others may want the processor too
            while not server.restless and time.monotonic() < end:
                time.sleep(0.5)
            server.step(state, "trivial")

        with pytest.raises(Died, match=match) as died:
            step_twice()
        assert not isinstance(died.value, Gone)


def test_what_goes_to_standard_error_is_bounded(lean):
    with LeanServer(lean, ("Lean",)) as server:
        state = server.start(Theorem("t", ": True", CODE, ("Lean",)))
        assert isinstance(server.step(state, 'run_tac (IO.eprintln (grown "x" 22) : IO Unit)'), Failure)
        assert os.fstat(server._errors.fileno()).st_size <= 1 << 20
        assert server.step(state, "trivial").done


def test_a_server_sees_no_other_file_and_no_network(tmp_path):
    """The wall around a Lean of the machine, where there is bubblewrap."""
    if not bubblewrap():
        pytest.skip("no bubblewrap here")
    (tmp_path / "seen").mkdir()
    (tmp_path / "hidden").mkdir()
    write = f"touch {tmp_path}/seen/x || touch /usr/x || echo read-only"
    script = f"ls {tmp_path}; cat /proc/net/dev | wc -l; {write}; ls -A ~ | wc -l"
    found = subprocess.run(confined(["sh", "-c", script], (f"{tmp_path}/seen",)), capture_output=True, text=True)
    assert found.stdout.split() == ["seen", "3", "read-only", "0"]


def test_no_way_out_of_the_build_has_a_name(lean):
    root = embedded_root()
    ask = "const s = require(process.argv[1]); console.log(process.argv.slice(2).map((name) => s(name) > 0).join(' '))"
    names = ["lean_nat_big_add", "emscripten_run_script", "system", "dlopen", "__syscall_socket", "uv_process_kill"]
    found = subprocess.run(["node", "-e", ask, str(root / "symbols.cjs"), *names], capture_output=True, text=True)
    assert found.stdout.split() == ["true", *["false"] * 5]
    script = (root / "lean.js").read_text()
    assert not re.search(r"(?<![\w$])eval\(", script)
