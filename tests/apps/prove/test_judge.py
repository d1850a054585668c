"""The judge: its processes, what it rejects, and how the deciding process treats forged exports.

Tests with the same header follow one another, since each new header starts processes."""

import pytest
from waiting import PATIENT, SLOW

from monge.apps.prove.exports import export_proofs
from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.state import Proof, Rejection, Theorem
from monge.apps.prove.trajectories import SCHEMA, Recorder
from monge.apps.prove.worker import Task, result_of

pytestmark = pytest.mark.slow


def test_an_excluded_lemma_may_not_be_used(judge):
    excluded = Theorem("t", "(a b : Nat) : a + b = b + a", exclude=("Nat.add_comm",))
    assert judge(excluded, ("exact Nat.add_comm a b",)).kind == "excluded"
    assert isinstance(judge(Theorem("t", "(a b : Nat) : a + b = b + a"), ("exact Nat.add_comm a b",)), Proof)


def test_axioms_of_lean_are_allowed_and_named(judge):
    proof = judge(Theorem("t", "(p q : Prop) (h : p ↔ q) : p = q"), ("exact propext h",))
    assert isinstance(proof, Proof)
    assert proof.axioms == ("propext",)


def test_a_proof_is_one_theorem(judge):
    assert isinstance(judge(Theorem("t", ": True"), ("trivial",)), Proof)
    for more in ("axiom a : True", "def f := 1", "@[simp] theorem u : True := trivial", "#eval 1"):
        verdict = judge(Theorem("t", ": True"), ("trivial\n\n" + more,))
        assert isinstance(verdict, Rejection)
        assert verdict.kind == "compile"


def test_an_excluded_lemma_is_removed_from_simp_when_the_proof_is_compiled(judge):
    theorem = Theorem("t", "(l : List Nat) : (l ++ []).length = l.length", exclude=("List.append_nil",))
    verdict = judge(theorem, ("simp only [List.append_nil]",))
    assert verdict.kind == "excluded"
    assert isinstance(judge(theorem, ("simp",)), Proof)


def export(*declarations: tuple) -> dict:
    """The export of declarations (kind, name, expressions).

    An expression is a constant's name or a pair (function, argument); a final dot gives a constant the universe level 0.
    """
    names, exprs = [None], []

    def put(table: list, row: list) -> int:
        if row not in table:
            table.append(row)
        return table.index(row)

    def name(text: str) -> int:
        before, _, last = text.rpartition(".")
        return put(names, [name(before), last]) if text else 0

    def expr(expression: str | tuple) -> int:
        if isinstance(expression, tuple):
            return put(exprs, ["app", expr(expression[0]), expr(expression[1])])
        return put(exprs, ["const", name(expression.removesuffix(".")), *([0] if expression.endswith(".") else [])])

    rows = [
        [kind, name(constant), [], [expr(expression) for expression in more]] for kind, constant, *more in declarations
    ]
    return {"names": names, "levels": [None], "exprs": exprs, "declarations": rows}


def lie(name: str) -> dict:
    """A theorem of this name proved by sorry, and the target proved by that theorem."""
    return export(
        ("theorem", name, "False", (("sorryAx.", "False"), "Bool.true")), ("theorem", "target", "False", name)
    )


@pytest.mark.parametrize(
    ("proof", "kind"),
    [
        (lie("w"), "axiom"),
        (lie("instMonadExceptOfUnitOption._lam_0"), "axiom"),  # a library name that belongs to no constant
        (lie("Nat"), "kernel"),
        (export(("axiom", "w", "False"), ("theorem", "target", "False", "w")), "axiom"),
        (export(("theorem", "target", "True", "True.intro")), "kernel"),
        (export(("theorem", "target", "False", "target")), "kernel"),
        (export(("theorem", "other", "True", "True.intro")), "statement"),
        ({"names": 3}, "statement"),
    ],
)
def test_exports_are_not_trusted(judge, proof, kind):
    kernel, statement = judge.servers.ready("kernel"), export(("axiom", "target", "False"))
    answer = kernel.request("replay", statement=statement, proof=proof, exclude=[], exclude_importers=[], restates="")
    assert answer["failed"] == kind, answer


@pytest.mark.parametrize(
    "theorem",
    [
        Theorem("t", ": True", "import Init\naxiom hidden : False"),
        Theorem("t", ": True", "def f := 1\n#exit\naxiom hidden : False"),
        Theorem("t", ": True", exclude=("Nat.no_such_lemma",)),
        Theorem("t", ": True", exclude=("not a name",)),
        Theorem("t", ": True", exclude_importers=("Init.Nothing",)),
    ],
)
def test_input_that_would_be_ignored_is_rejected(server, theorem):
    with pytest.raises(ValueError, match=r"here|there is no"):
        server.statement(theorem)


@pytest.mark.long
def test_a_library_theorem_is_not_proved_by_itself_or_later_theorems(lean):
    restated = Theorem("again", ": type_of% @List.map_map", imports=("Init", "Std"), restates="List.map_map")
    with Judge(lean, ("Init", "Std"), limits=SLOW, patience=PATIENT) as judge:
        assert judge.state(restated).text.endswith("Eq (List.map g (List.map f l)) (List.map (Function.comp g f) l)")
        for tactic in ("exact List.map_map", "intros; simp", "intros; grind"):
            assert isinstance(judge(restated, (tactic,)), Rejection), tactic
        carried = Theorem(
            "again", ": type_of% @List.Sublist.trans", imports=("Init", "Std"), restates="List.Sublist.trans"
        )
        assert judge(carried, ("exact fun h g => Trans.trans h g",)).kind == "excluded"
        honest = "intro β γ α g f l; induction l with\n| nil => rfl\n| cons a l ih => show _ :: _ = _; rw [ih]; rfl"
        assert isinstance(judge(restated, (honest,)), Proof)
        with pytest.raises(ValueError, match=r"restates: there is no List\.nothing"):
            judge.state(Theorem("t", ": True", imports=("Init", "Std"), restates="List.nothing"))


@pytest.mark.long
def test_a_proof_may_use_the_budgets_of_all_its_tactics_together(judge):
    theorem = Theorem("t", ": True", "set_option maxHeartbeats 20\n")
    assert isinstance(judge(theorem, (*["iterate 50 (have := Nat.add_comm 1 2)"] * 6, "trivial")), Proof)


def test_the_elaborated_statement_and_redefinitions_in_its_header_are_reported(judge):
    header = """instance : Add Nat := ⟨fun _ _ => 0⟩
local notation "five" => 4
namespace M
def Nat.succ (n : Nat) : Nat := n
@[simp] theorem quiet (n : Nat) (h : n = 1) : id n = 1 := h
@[macro_inline] def loud : Nat := 1
notation "six" => 6 in def hidden := 1
"""
    first = judge.servers.ready("statement", header)
    statement = judge.state(Theorem("t", "(a : Nat) : a + five = 0", header))
    assert statement.text == "∀ (a : Nat), Eq (HAdd.hAdd a (4 : Nat)) (0 : Nat)"
    assert [instance for instance in statement.instances if instance.startswith("Add Nat is instAddNat")]
    assert [note for note in statement.header_notes if "five" in note]
    assert [note for note in statement.header_notes if "instAddNat" in note]
    assert [note for note in statement.header_notes if note.endswith("the library's own Nat.succ")]
    assert [note for note in statement.header_notes if "loud" in note]
    assert [note for note in statement.header_notes if "six" in note]
    assert not [note for note in statement.header_notes if "quiet" in note]
    assert judge.state(Theorem("t", ": True", "def f : Nat := 1\n")).header_notes == ()
    assert judge.servers.current("statement") is not first  # another header gets its own process
    assert not first.alive


def test_the_statement_comes_from_another_process_than_the_proof(judge, naturals):
    """A proof of one statement is not accepted for another."""
    assert isinstance(judge(naturals("(a : N) : a + z = a"), ("rfl",)), Proof)
    assert isinstance(judge(naturals("(a : N) : z + a = a"), ("rfl",)), Rejection)


def test_an_exported_proof_compiles_and_states_what_it_proves(server, judge, naturals, tmp_path):
    theorem = naturals("(a : N) : z + a = a")
    proof = judge(theorem, ("induction a", "rfl", "rw [add_s]", "simp [*]"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")
    done = {"ended": "proved", "statement": proof.statement, "tactics": proof.tactics, "header_notes": ("a note",)}
    with Recorder(tmp_path / "run") as recorder:
        recorder.add(result_of(Task(0, theorem), **done), SCHEMA.empty_table())
    export_proofs(tmp_path / "run", out=tmp_path / "proofs")
    (file,) = (tmp_path / "proofs").iterdir()
    text = file.read_text()
    first, second, *_ = text.splitlines()
    assert first == "-- target, as elaborated: ∀ (a : N), Eq (HAdd.hAdd N.z a) a"
    assert second == "-- Header: a note"
    server.header(text)
    with pytest.raises(ValueError, match="unsolved goals"):
        server.header(text.replace("simp [*]", "skip"))
