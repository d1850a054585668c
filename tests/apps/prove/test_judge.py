"""The judge: whom it asks, what it refuses, and what the process that has the last word makes of lies."""

import pytest

from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.state import Proof, Rejection, State, Theorem

pytestmark = pytest.mark.slow


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
    assert found.text == "∀ (a : Nat), Eq (HAdd.hAdd a (4 : Nat)) (0 : Nat)"
    assert "Add Nat is instAddNat_1" in found.instances or "Add Nat is instAddNat" in found.instances
    assert [tell for tell in found.tells if "five" in tell]
    assert [tell for tell in found.tells if "instAddNat" in tell]
    assert [tell for tell in found.tells if tell.endswith("Lean's own Nat.succ")]
    assert [tell for tell in found.tells if "loud" in tell]
    assert [tell for tell in found.tells if "six" in tell]
    assert not [tell for tell in found.tells if "quiet" in tell]
    assert judge.state(Theorem("t", ": True", "def f : Nat := 1\n")).tells == ()


FOO = "class Foo (a : Type) where\n  x : a\ninstance : Foo Nat := ⟨0⟩\n"
OWN = "inductive N | z\n"


@pytest.mark.parametrize(
    ("header", "remark"),
    [
        (FOO + "instance {a : Type} [Foo a] : HAdd a a a := ⟨fun x _ => x⟩\n", "types: instHAddOfFoo"),
        ("class Foo (a : Type) extends Add a\ninstance : Foo Nat := ⟨⟨fun x _ => x⟩⟩\n", "types: Foo.toAdd"),
        (OWN + "abbrev P (_ : N) := Nat\ninstance : Add (P .z) := ⟨fun a _ => a⟩\n", "types: instAddPZ"),
        (OWN + "instance : HAdd Nat Nat N := ⟨fun _ _ => .z⟩\n", "types: instHAddNatN"),
        ("variable [Inhabited False]\n", "variable [Inhabited False]"),
        ("variable (h : False)\ninclude h\n", "include h"),
        ("namespace M\ndef Nat.succ := 1\nend M\nopen M\n", "stands before Lean's own Nat.succ"),
        ("def M.five := 1\nopen M renaming five → Nat.succ\n", "stands before Lean's own Nat.succ"),
        ("namespace M\nprivate def Nat.succ := 1\n", "stands before Lean's own Nat.succ"),
        ("set_option pp.explicit true\n", "set_option pp.explicit true"),
    ],
)
def test_whatever_gives_lean_s_own_another_meaning_is_listed(judge, header, remark):
    assert [tell for tell in judge.state(Theorem("t", ": True", header)).tells if remark in tell]


def test_what_a_header_declares_for_its_own_types_is_not_listed(judge):
    header = (
        OWN
        + "instance : Add N := ⟨fun a _ => a⟩\ninstance : HAdd Nat N N := ⟨fun _ a => a⟩\nclass Bar (a : Type) where\n  y : a\n"
    )
    found = judge.state(Theorem("t", "(a : N) : a + a = a", header + "instance : Bar Nat := ⟨0⟩\n"))
    assert (found.tells, found.instances) == ((), ())


@pytest.mark.parametrize(
    ("signature", "header", "instance"),
    [
        (
            ": (1 : Nat) + 1 = 1",
            FOO + "instance {a : Type} [Foo a] : HAdd a a a := ⟨fun x _ => x⟩\n",
            "HAdd Nat Nat Nat is instHAddOfFoo",
        ),
        (": (1 : Nat) + 1 = 2", "variable [i : HAdd Nat Nat Nat]\n", "HAdd Nat Nat Nat is i"),
        (
            "(a : Nat) : ∃ b : Nat, a < b",
            "instance (priority := 2000) mine : LT Nat := ⟨fun _ _ => False⟩\n",
            "LT Nat is mine",
        ),
        (": (5 : Nat) = 4", "instance (priority := 2000) mine : OfNat Nat 5 := ⟨4⟩\n", "OfNat Nat (nat_lit 5) is mine"),
    ],
)
def test_an_instance_that_is_not_the_library_s_is_named(judge, signature, header, instance):
    assert instance in judge.state(Theorem("t", signature, header)).instances


@pytest.mark.parametrize(
    ("signature", "header", "text"),
    [
        (": (2 : Fin 2) = 0", "", "Eq (2 : Fin (2 : Nat)) (0 : Fin (2 : Nat))"),
        (
            ": (2 : Fin 2) = 0",
            "set_option pp.numericTypes false\nset_option pp.maxSteps 1\n",
            "Eq (2 : Fin (2 : Nat)) (0 : Fin (2 : Nat))",
        ),
        ("(n : Nat) : (n : Int) = n", "", "∀ (n : Nat), Eq (↑n : Int) (↑n : Int)"),
        (": Nonempty PUnit.{2}", "", "Nonempty.{2} PUnit.{2}"),
        (".{u} : Nonempty (PUnit.{u + 1})", "", "Nonempty.{u + 1} PUnit.{u + 1}"),
        ("(l : List Nat) : l.length = 0", "", "∀ (l : List Nat), Eq (List.length l) (0 : Nat)"),
    ],
)
def test_a_statement_hides_no_numeral_s_type_and_no_level_that_matters(judge, signature, header, text):
    assert judge.state(Theorem("t", signature, header)).text == text


def test_a_statement_is_had_with_every_argument(judge):
    found = judge.state(Theorem("t", ": (default : Fin 2) = default"))
    assert found.text == "Eq Inhabited.default Inhabited.default"
    assert found.explicit.startswith("@Eq.{1} (Fin (@OfNat.ofNat.{0} Nat (nat_lit 2)")


def test_names_of_all_forms_are_judged(judge):
    for name in ("«it's ∀ good»", "A.b.«c d»", "_root_.A.t"):
        theorem = Theorem(name, ".{u} (α : Type u) (a : α) : a = a", "namespace B\n")
        assert isinstance(judge(theorem, ("rfl",)), Proof), name


def test_what_is_stepped_is_what_is_judged_to_the_letter(judge, server):
    theorem = Theorem("t", ': ∃ s : String, s.length = 3 ∧ s = "a\nb"')
    tactics = ('refine ⟨"a\nb", ?_, ?_⟩', "  rfl", "-- so\nexact rfl -- done")
    state = server.start(theorem)
    for tactic in tactics:
        state = server.step(state, tactic)
        assert isinstance(state, State), state
    proof = judge(theorem, tactics)
    assert isinstance(proof, Proof)
    assert tactics[0] in proof.text
    server.header(proof.source)


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
        carried = Theorem(
            "again", ": type_of% @List.Sublist.trans", imports=("Init", "Std"), after="List.Sublist.trans"
        )
        assert judge(carried, ("exact fun h g => Trans.trans h g",)).kind == "excluded"
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


def test_a_whole_proof_may_take_what_all_its_tactics_may(judge):
    theorem = Theorem("t", ": True", "set_option maxHeartbeats 20\n")
    assert isinstance(judge(theorem, (*["iterate 50 (have := Nat.add_comm 1 2)"] * 6, "trivial")), Proof)


def export(*declarations: tuple) -> dict:
    """What a process that compiles hands over: of declarations (kind, name, expressions), each a constant's name or one applied
    to another; that of a constant with one level, which is 0, ends in a dot."""
    names, exprs = [None], []

    def put(table: list, row: list) -> int:
        if row not in table:
            table.append(row)
        return table.index(row)

    def name(text: str) -> int:
        before, _, last = text.rpartition(".")
        return put(names, [name(before), last]) if text else 0

    def expr(said: str | tuple) -> int:
        if isinstance(said, tuple):
            return put(exprs, ["app", expr(said[0]), expr(said[1])])
        return put(exprs, ["const", name(said.removesuffix(".")), *([0] if said.endswith(".") else [])])

    rows = [[kind, name(called), [], [expr(said) for said in more]] for kind, called, *more in declarations]
    return {"names": names, "levels": [None], "exprs": exprs, "declarations": rows}


def lie(name: str) -> dict:
    """A sorry's theorem of that name, and the target by it."""
    return export(
        ("theorem", name, "False", (("sorryAx.", "False"), "Bool.true")), ("theorem", "target", "False", name)
    )


@pytest.fixture(scope="module")
def kernel(lean):
    with LeanServer(lean) as server:
        yield server


@pytest.mark.parametrize(
    ("proof", "kind"),
    [
        (lie("w"), "axiom"),
        (lie("instMonadExceptOfUnitOption._lam_0"), "axiom"),  # a name of the library's that no constant bears
        (lie("Nat"), "kernel"),
        (export(("axiom", "w", "False"), ("theorem", "target", "False", "w")), "axiom"),
        (export(("theorem", "target", "True", "True.intro")), "kernel"),
        (export(("theorem", "target", "False", "target")), "kernel"),
        (export(("theorem", "other", "True", "True.intro")), "statement"),
        ({"names": 3}, "statement"),
    ],
)
def test_what_is_handed_over_is_not_believed(kernel, proof, kind):
    statement = export(("axiom", "target", "False"))
    found = kernel.request("replay", statement=statement, proof=proof, exclude=[], beyond=[], after="")
    assert found["failed"] == kind, found
