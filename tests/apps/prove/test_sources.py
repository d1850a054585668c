"""Theorems from files: the families that come with the project, and other people's jsonl."""

import json
import random
from collections import Counter

import pytest

from monge.apps.prove.exports import export_pairs
from monge.apps.prove.families import DATA, family
from monge.apps.prove.sources import entries_of, restated
from monge.apps.prove.state import Proof
from monge.apps.translate.data import read_texts


def test_the_benchmark_is_large_and_split_by_theorem():
    entries = entries_of(DATA)
    assert len(entries) >= 400
    assert len({e.source for e in entries}) >= 10
    assert len({e.key for e in entries}) == len(entries)
    assert len({(e.theorem.signature, e.theorem.header) for e in entries}) == len(entries)
    splits = Counter(e.split for e in entries)
    assert set(splits) == {"train", "validation", "test"}
    assert splits["test"] >= 80
    assert splits["validation"] >= 30
    assert sum(len(entries_of(DATA, split)) for split in splits) == len(entries)
    assert all(len(e.english) > 15 and e.english.rstrip().endswith(".") and e.proof for e in entries)


def test_nothing_in_it_is_given_away():
    for path in DATA.glob("*.lean"):
        text = path.read_text()
        assert not [word for word in ("sorry", "native_decide", "\naxiom", "\nimport") if word in text], path


@pytest.mark.slow
def test_proofs_of_the_benchmark_are_proofs(judge):
    """Of a family drawn anew each time; `pytest -m long` judges them all."""
    path = random.choice(sorted(DATA.glob("*.lean")))
    entries = family(path)
    for entry in random.sample(entries, 12):
        assert isinstance(judge(entry.theorem, (entry.proof,)), Proof), entry.key


@pytest.mark.long
def test_all_proofs_of_the_benchmark_are_proofs(judge):
    for entry in entries_of(DATA):
        assert isinstance(judge(entry.theorem, (entry.proof,)), Proof), entry.key


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("theorem t : True := trivial\n", "no line '-- theorems'"),
        ("-- theorems\n", "no theorem"),
        (
            "-- theorems\n\n/-- A. -/\ntheorem a : True := by\n  trivial\n\n/-- B.\n-/\ntheorem b : True := by\n  trivial\n",
            "2 the",
        ),
    ],
)
def test_a_file_that_is_no_family_is_said_so(tmp_path, text, match):
    path = tmp_path / "x.lean"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        family(path)


MINIF2F = {
    "id": "mathd_algebra_10",
    "split": "valid",
    "header": "import Mathlib\nimport Aesop\nset_option maxHeartbeats 400000\nopen Nat Real\n",
    "formal_statement": "theorem mathd_algebra_10 :\n  abs ((120 : ℝ) / 100 * 30) = 10 := by\nsorry",
    "informal_stmt": "What is the difference?",
    "informal_proof": "Compute.",
}
PROOFNET = {
    "id": "Rudin|exercise_1_1a",
    "lean4_src_header": "import Mathlib\n\nopen Filter\n",
    "lean4_formalization": "/-- A set. -/\ndef S : Set Nat := {0}\n\ntheorem exercise_1_1a\n  (x : ℝ) (y : ℚ) :\n  "
    "Irrational x -> Irrational (x + y) :=\nsorry",
    "nl_statement": "If $r$ is rational ...",
}
WORKBOOK = {
    "natural_language_statement": "Prove it.",
    "formal_statement": "theorem lean_workbook_0 (x : ℝ) (h : 0 < x) : x ≠ 0  :=  by sorry",
}


def test_public_sets_are_read_as_they_are(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in (MINIF2F, PROOFNET, WORKBOOK)) + "\n")
    first, second, third = entries_of(path)
    assert first.theorem.signature == ":\n  abs ((120 : ℝ) / 100 * 30) = 10"
    assert first.theorem.imports == ("Mathlib", "Aesop")
    assert first.theorem.header == "set_option maxHeartbeats 400000\nopen Nat Real\n"
    assert (first.split, first.english, first.informal) == ("validation", "What is the difference?", "Compute.")
    assert second.theorem.signature == "(x : ℝ) (y : ℚ) :\n  Irrational x -> Irrational (x + y)"
    assert second.theorem.header == "open Filter\n/-- A set. -/\ndef S : Set Nat := {0}\n"
    assert (third.theorem.name, third.theorem.imports, third.split) == ("lean_workbook_0", ("Mathlib",), "test")
    assert third.theorem.signature == "(x : ℝ) (h : 0 < x) : x ≠ 0"
    assert [e.theorem.name for e in entries_of(path, "validation")] == ["mathd_algebra_10"]


WALLED = {**WORKBOOK, "exclude": ["Nat.add_comm"], "beyond": ["Init.Omega"]}


def test_rows_say_what_is_excluded(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, (WALLED, {"after": "Nat.add_comm", "statement": "a"}))))
    walled, library = (entry.theorem for entry in entries_of(path))
    assert (walled.exclude, walled.beyond) == (("Nat.add_comm",), ("Init.Omega",))
    assert library == restated("Nat.add_comm").theorem
    assert library.after == "Nat.add_comm"


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (b'{"x": 1}', "line 2: no formal_statement"),
        (b"[1]", "line 2: no row"),
        (b"{", "line 2: Expecting"),
        (json.dumps({**WALLED, "exclude": "Nat.add_comm"}).encode(), "line 2: exclude must be a list"),
        ("{é".encode("latin-1"), "no text in UTF-8"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, row, match):
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'{"formal_statement": "theorem a : True := sorry"}\n' + row)
    with pytest.raises(ValueError, match=rf"set\.jsonl.*{match}"):
        entries_of(path)


def test_an_empty_file_is_said_so(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="no theorem"):
        entries_of(path)


def test_translate_reads_them_as_pairs(tmp_path):
    export_pairs(out=tmp_path / "texts.jsonl")
    assert len(read_texts(tmp_path / "texts.jsonl")) == len(entries_of(DATA))
