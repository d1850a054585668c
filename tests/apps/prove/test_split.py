"""User files, split by Lean's parser: every form of a theorem, removal of proofs, positions, complete files."""

import json
from contextlib import nullcontext

import pytest

from monge.apps.prove import sources
from monge.apps.prove.rows import Flaw, Piece, Row
from monge.apps.prove.sources import read
from monge.apps.prove.split import Splitter
from monge.apps.prove.state import Proof

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def splitter(lean):
    with Splitter(lambda: lean) as splitter:
        yield splitter


@pytest.fixture
def one_lean(splitter, monkeypatch):
    """Make `read` use the splitter that these tests share."""
    monkeypatch.setattr(sources, "Splitter", lambda lean: nullcontext(splitter))


def row(*texts, **fields):
    pieces = tuple(
        Piece(text, f"set.jsonl, line 4, {name}")
        for text, name in zip(texts[::-1], ("statement", "header"), strict=False)
    )
    return Row(pieces[::-1], ("Init",), "set.jsonl, line 4", "set", number=4, **fields)


def entry(splitter, *texts):
    parsed = splitter(row(*texts))
    entries = [one for one in parsed if not isinstance(one, Flaw)]
    assert len(entries) == 1, parsed
    return entries[0]


T = "(n : Nat) : n = n"


@pytest.mark.parametrize(
    ("text", "name", "signature", "header"),
    [
        (f"theorem t {T} := by sorry", "t", T, ""),
        (f"/-- Doc. -/ @[simp] theorem t {T} := by sorry", "t", T, ""),
        (f"@[simp]\nprotected nonrec theorem t {T} := sorry", "t", T, ""),
        (f"public theorem t {T} := sorry", "t", T, ""),
        (f"private theorem t {T} := sorry", "t", T, ""),
        (
            f"set_option maxHeartbeats 400000 in\nopen Nat in theorem t {T} := sorry",
            "t",
            T,
            "set_option maxHeartbeats 400000\nopen Nat\n",
        ),
        (f"variable (k : Nat) in\n/-- Doc. -/\ntheorem t {T} := sorry", "t", T, "variable (k : Nat)\n"),
        (f"namespace A\ntheorem t {T} := sorry\nend A", "t", T, "namespace A\n"),
        (f"section\nvariable (k : Nat)\n\ntheorem t {T} := sorry\nend", "t", T, "section\nvariable (k : Nat)\n"),
        (f"theorem t.{{u, v}} (α : Type u) {T} := sorry", "t", f".{{u, v}} (α : Type u) {T}", ""),
        (f"theorem «it's ∀ good» {T} := sorry", "«it's ∀ good»", T, ""),
        (f"theorem A.b.«c d» {T} := sorry", "A.b.«c d»", T, ""),
        (f"theorem _root_.t {T} := sorry", "_root_.t", T, ""),
        (f"example {T} := by sorry", "example_4", T, ""),
        (f"theorem t /- why -/ {T} -- so\n  := by sorry", "t", f"/- why -/ {T}", ""),
        ('theorem t : ∃ s : String, s = ":= by sorry" := sorry', "t", ': ∃ s : String, s = ":= by sorry"', ""),
        (
            "theorem t (n : Nat := by exact 1) : let m := n; m = n := sorry",
            "t",
            "(n : Nat := by exact 1) : let m := n; m = n",
            "",
        ),
        (f"theorem helper : 1 = 1 := rfl\n\ntheorem t {T} := by sorry", "t", T, "theorem helper : 1 = 1 := rfl\n"),
        (f"theorem t {T} := by sorry\n\ntheorem after : 1 = 1 := rfl", "t", T, ""),
        (f"theorem t {T} := by", "t", T, ""),
        (f"theorem t {T} := by -- here", "t", T, ""),
        (f"theorem t {T} :=\n", "t", T, ""),
        (f"theorem t {T}", "t", T, ""),
        (f"theorem t {T} := by\nsorry -- to do", "t", T, ""),
        (f"lemma_ {T}", None, "", ""),
        (
            'notation "⟪" a "⟫" => Nat.succ a\ntheorem t : ⟪0⟫ = 1 := sorry',
            "t",
            ": ⟪0⟫ = 1",
            'notation "⟪" a "⟫" => Nat.succ a\n',
        ),
    ],
)
def test_every_form_of_a_theorem_is_read(splitter, text, name, signature, header):
    if name is None:
        (flaw,) = splitter(row(text))
        assert "statement:1:0: unexpected identifier" in str(flaw)
        return
    parsed = entry(splitter, text)
    assert (parsed.theorem.name, parsed.theorem.signature) == (name, signature)
    assert "\n".join(line.rstrip() for line in parsed.theorem.header.split("\n")) == header
    assert parsed.written == parsed.proof == ""


def test_lemma_of_other_libraries_is_read(splitter):
    syntax = (
        "open Lean.Parser.Command in\n"
        'syntax (name := lemma) declModifiers group("lemma " declId ppIndent(declSig) declVal) : command\n'
    )
    parsed = entry(splitter, syntax, f"/-- Doc. -/ lemma t.{{u}} {T} := by sorry")
    assert (parsed.theorem.name, parsed.theorem.signature) == ("t", ".{u} " + T)


@pytest.mark.parametrize(
    ("proof", "tactic"),
    [
        (":= by rfl", "rfl"),
        (":= by\n  skip\n\n  -- a blank line\n  rfl", "skip\n\n-- a blank line\nrfl"),
        (":= rfl", "exact (rfl)"),
        (":= Eq.refl\n  n", "exact (Eq.refl\n  n)"),
        (":= id (by rfl)", "exact (id (by rfl))"),
        (':= by\n  have : "a\nb" = "a\nb" := rfl\n  rfl', '  have : "a\nb" = "a\nb" := rfl\n  rfl'),
        ("| 0 => rfl\n  | n + 1 => rfl", ""),
        ("where\n  helper := 1", ""),
        (":= by\n  exact g\nwhere g : n = n := rfl", ""),
        (":= rfl\ntermination_by n", ""),
    ],
)
def test_a_proof_is_cut_off_and_saved_as_written(splitter, proof, tactic):
    signature = ": ∀ n : Nat, n = n" if proof.startswith("|") else T
    parsed = entry(splitter, f"theorem t {signature}\n  {proof} -- done")
    assert (parsed.theorem.signature, parsed.written, parsed.proof) == (signature, proof, tactic)


def test_equations_with_a_sorry_are_not_a_proof(splitter):
    parsed = entry(splitter, "theorem t : ∀ n : Nat, n = n\n  | 0 => sorry\n  | n + 1 => rfl")
    assert (parsed.theorem.signature, parsed.written) == (": ∀ n : Nat, n = n", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("open Nat", "set.jsonl, line 4: no theorem"),
        ("theorem t (n : Nat : n = n := by sorry", "set.jsonl, line 4, statement:1:18: unexpected token ':'"),
        ("open Nat\n\ntheorem t : 1 = := sorry", "set.jsonl, line 4, statement:3:15: unexpected token ':='"),
        ("theorem t : 1 = 1 := /- open", "set.jsonl, line 4, statement:1:"),
        ("example := 1", "has no type"),
        ("import Std\ntheorem t : True := trivial", "what follows #exit or an import is not read"),
        ("theorem t : \x00 = 1 := sorry", "set.jsonl, line 4, statement:1:12: "),
        ("theorem t : a\rb = 1 := sorry", "isolated carriage return"),
        ("mutual\ntheorem a : True := trivial\nend", "set.jsonl, line 4, statement:1:0: theorems inside another"),
    ],
)
def test_invalid_text_is_reported_with_its_position(splitter, text, reason):
    parsed = splitter(row(text))
    assert [flaw for flaw in parsed if isinstance(flaw, Flaw) and flaw.skipped and reason in str(flaw)], parsed


def test_text_that_is_not_read_after_a_theorem_is_reported(splitter):
    first, second = splitter(row("theorem t : True := sorry\n#exit\ntheorem u : True := sorry"))
    assert isinstance(first, Flaw)
    assert (first.place, first.skipped) == ("set.jsonl, line 4, statement:2:0", False)
    assert second.theorem.name == "t"


def test_positions_from_lean_are_mapped_to_the_row(splitter, server):
    parsed = entry(
        splitter, "-- mine\n\ndef f := 1\ndef g := missing", "open Nat\n  theorem t\n    (n : Nat) : n = n := sorry"
    )
    assert parsed.theorem.locate_message("<header>:4:9: x <header>:5:2") == (
        "set.jsonl, line 4, header:4:9: x set.jsonl, line 4, statement:1:2"
    )
    assert parsed.theorem.file == "set.jsonl, line 4, statement"
    with pytest.raises(ValueError, match="<header>:4:9") as error:
        server.start(parsed.theorem)
    assert "set.jsonl, line 4, header:4:9: error" in parsed.theorem.locate_message(str(error.value))
    parsed = entry(splitter, "\n\n/-- Doc. -/\ntheorem a.b (n : Nat)\n  (m : Missing) : n = Other := sorry")
    with pytest.raises(ValueError, match="Missing") as error:
        server.start(parsed.theorem)
    located = parsed.theorem.locate_message(str(error.value))
    assert "set.jsonl, line 4, statement:5:7: error" in located
    assert "<statement>" not in located


def test_a_row_cannot_change_how_the_next_is_split(splitter):
    splitter(row("open Nat\ntheorem t : True := sorry"))
    first = splitter._server
    splitter(row("set_option maxHeartbeats 10 in\ntheorem t : True := by sorry"))
    splitter(row("theorem t : True := by sorry\ndef f := := 1"))
    assert splitter._server is first
    splitter(row('macro "theorem" : command => `(def x := 1)\ntheorem t : True := sorry'))
    assert splitter._server is not first
    assert entry(splitter, "theorem t : True := sorry").theorem.name == "t"


FILE = """import Init
/-! A file of mine. -/

inductive N | z | s (n : N)
namespace N

/-- Easy. -/
theorem first (a : N) : a = a := by
  skip

  rfl

theorem broken (a : N) : a = := by rfl
def bad := missing
theorem false_ (a : N) : a = z := by rfl
mutual
theorem inside : True := trivial
end
@[simp] theorem last : z = z := sorry
example : s z = s z := rfl
#exit
theorem unread : True := trivial
"""


def test_every_theorem_of_a_file_is_read_and_nothing_is_dropped_silently(tmp_path, one_lean, judge):
    (tmp_path / "mine.lean").write_text(FILE)
    reading = read(tmp_path / "mine.lean")
    entries = {e.theorem.name: e for e in reading.entries}
    assert list(entries) == ["first", "false_", "last", "example_20"]
    assert entries["first"].written == ":= by\n  skip\n\n  rfl"
    assert entries["first"].english == "Easy."
    assert entries["last"].written == ""
    places = [(flaw.place.rpartition("mine.lean:")[2], flaw.skipped) for flaw in reading.flaws]
    assert places == [("13:28", True), ("14:11", False), ("15:37", False), ("16:0", True), ("21:0", False)]
    header = entries["last"].theorem.header
    assert "theorem first" in header
    assert "inside" in header
    assert not [word for word in ("broken", "bad", "false_", "import") if word in header]
    last = entries["example_20"]
    assert isinstance(judge(last.theorem, (last.proof,)), Proof), last.theorem


def test_a_family_in_another_format_depends_on_its_definitions_alone(tmp_path, one_lean):
    head = "\ufeffinductive N where\n  | z\n\n-- theorems\n\n"
    texts = [
        "/-- A. -/\n@[simp] theorem a (n : N) : n = n := by rfl\n",
        "theorem b (n : N) : n = n := rfl",
        "example : N.z = N.z := rfl",
    ]
    (tmp_path / "mine.lean").write_text(head + "\n\n".join(texts))
    entries = read(tmp_path / "mine.lean").entries
    assert [e.theorem.name for e in entries] == ["a", "b", "example_12"]
    assert {e.theorem.header.rstrip("-\n theorms") for e in entries} == {"inductive N where\n  | z"}


MINIF2F = {
    "id": "mathd_algebra_10",
    "split": "valid",
    "header": "import Init\nset_option maxHeartbeats 400000\nopen Nat\n",
    "formal_statement": "theorem mathd_algebra_10 :\n  ((120 : Nat) / 100 * 30) = 10 := by\nsorry",
    "informal_stmt": "What is the difference?",
    "informal_proof": "Compute.",
}
PROOFNET = {
    "id": "Rudin|exercise_1_1a",
    "lean4_src_header": "import Init\n\nopen Nat\n",
    "lean4_formalization": "/-- A number. -/\ndef S : Nat := 0\n\ntheorem exercise_1_1a\n  (x : Nat) (y : Int) :\n  "
    "x = S -> y = x :=\nsorry",
    "nl_statement": "If $r$ is rational ...",
}
WORKBOOK = {
    "natural_language_statement": "Prove it.",
    "formal_statement": "import Init\n theorem lean_workbook_0 (x : Nat) (h : 0 < x) : x ≠ 0  :=  by sorry",
}


def test_public_data_sets_are_read_without_changes(tmp_path, one_lean):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (WORKBOOK, PROOFNET, {"x": 1}, MINIF2F)) + "\n")
    reading = read(path)
    third, second, first = reading.entries
    assert [str(flaw) for flaw in reading.skipped] == [
        f"{path}, line 3: no formal_statement and no lean4_formalization"
    ]
    assert first.theorem.signature == ":\n  ((120 : Nat) / 100 * 30) = 10"
    assert first.theorem.imports == ("Init",)
    assert first.theorem.header == "set_option maxHeartbeats 400000\nopen Nat\n"
    assert (first.split, first.english, first.informal) == ("validation", "What is the difference?", "Compute.")
    assert second.theorem.signature == "(x : Nat) (y : Int) :\n  x = S -> y = x"
    assert second.theorem.header == "open Nat\n\n/-- A number. -/\ndef S : Nat := 0\n"
    assert (third.theorem.name, third.theorem.imports, third.split) == ("lean_workbook_0", ("Init",), "test")
    assert third.theorem.signature == "(x : Nat) (h : 0 < x) : x ≠ 0"
