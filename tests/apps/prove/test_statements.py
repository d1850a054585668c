"""Elaborated statements: everything that a header or the printer could hide is shown."""

import pytest
from waiting import PATIENT

from monge.apps.prove.lean.judge import Statement
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.state import Proof, State, Theorem

pytestmark = pytest.mark.slow


def stated(server: LeanServer, theorem: Theorem) -> Statement:
    """The statement as elaborated by the server that all tests share; a judge would start two processes for each header."""
    answer = server.statement(theorem, PATIENT)
    header_notes = server.header_notes[theorem.header]
    return Statement(answer["spelt"], header_notes, answer["export"], answer["explicit"], tuple(answer["resolved"]))


FOO = "class Foo (a : Type) where\n  x : a\ninstance : Foo Nat := ⟨0⟩\n"
OWN = "inductive N | z\n"


@pytest.mark.parametrize(
    ("header", "remark"),
    [
        (FOO + "instance {a : Type} [Foo a] : HAdd a a a := ⟨fun x _ => x⟩\n", "library: instHAddOfFoo"),
        ("class Foo (a : Type) extends Add a\ninstance : Foo Nat := { add := fun x _ => x }\n", "library: Foo.toAdd"),
        (OWN + "abbrev P (_ : N) := Nat\ninstance : Add (P .z) := ⟨fun a _ => a⟩\n", "library: instAddPZ"),
        (OWN + "instance : HAdd Nat Nat N := ⟨fun _ _ => .z⟩\n", "library: instHAddNatN"),
        ("variable [Inhabited False]\n", "variable [Inhabited False]"),
        ("variable (h : False)\ninclude h\n", "include h"),
        ("namespace M\ndef Nat.succ := 1\nend M\nopen M\n", "shadows the library's own Nat.succ"),
        ("def M.five := 1\nopen M renaming five → Nat.succ\n", "shadows the library's own Nat.succ"),
        ("namespace M\nprivate def Nat.succ := 1\n", "shadows the library's own Nat.succ"),
        ("set_option pp.explicit true\n", "set_option pp.explicit true"),
    ],
)
def test_redefinitions_of_the_library_in_a_header_are_listed(server, header, remark):
    assert [note for note in stated(server, Theorem("t", ": True", header)).header_notes if remark in note]


def test_instances_for_a_header_s_own_types_are_not_listed(server):
    header = (
        OWN
        + "instance : Add N := ⟨fun a _ => a⟩\ninstance : HAdd Nat N N := ⟨fun _ a => a⟩\nclass Bar (a : Type) where\n  y : a\n"
    )
    statement = stated(server, Theorem("t", "(a : N) : a + a = a", header + "instance : Bar Nat := ⟨0⟩\n"))
    assert (statement.header_notes, statement.instances) == ((), ())


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
def test_an_instance_from_outside_the_library_is_listed(server, signature, header, instance):
    assert instance in stated(server, Theorem("t", signature, header)).instances


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
def test_a_statement_shows_types_of_numerals_and_levels_that_matter(server, signature, header, text):
    assert stated(server, Theorem("t", signature, header)).text == text


def test_a_statement_is_also_printed_with_every_argument(server):
    statement = stated(server, Theorem("t", ": (default : Fin 2) = default"))
    assert statement.text == "Eq Inhabited.default Inhabited.default"
    assert statement.explicit.startswith("@Eq.{1} (Fin (@OfNat.ofNat.{0} Nat (nat_lit 2)")


def test_names_of_all_forms_are_judged(judge):
    for name in ("«it's ∀ good»", "A.b.«c d»", "_root_.A.t"):
        theorem = Theorem(name, ".{u} (α : Type u) (a : α) : a = a", "namespace B\n")
        assert isinstance(judge(theorem, ("rfl",)), Proof), name


def test_the_judge_compiles_exactly_the_tactics_of_the_search(judge, server):
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
