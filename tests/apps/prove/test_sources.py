"""Theorems from files: the benchmark of this project, and .jsonl files of other projects."""

import json
import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from monge.apps.prove.exports import export_pairs
from monge.apps.prove.families import DATA, family, split_by
from monge.apps.prove.sources import entries_of, read, restated
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


def test_the_benchmark_has_no_axioms_imports_or_placeholders():
    for path in DATA.glob("*.lean"):
        text = path.read_text()
        assert not [word for word in ("sorry", "native_decide", "\naxiom", "\nimport") if word in text], path


@pytest.mark.slow
def test_proofs_of_the_benchmark_are_accepted(judge):
    """Three proofs of a random family; `pytest -m long` checks all proofs."""
    path = random.choice(sorted(DATA.glob("*.lean")))
    entries = entries_of(path)
    for entry in random.sample(entries, 3):
        assert isinstance(judge(entry.theorem, (entry.proof,)), Proof), entry.key


@pytest.mark.long
def test_all_proofs_of_the_benchmark_are_accepted(judge):
    for entry in entries_of(DATA):
        assert isinstance(judge(entry.theorem, (entry.proof,)), Proof), entry.key


def test_the_split_of_a_theorem_does_not_change():
    """Runs and reports of earlier versions rely on it."""
    assert Counter(e.split for e in entries_of(DATA)) == {"train": 371, "validation": 58, "test": 91}
    names = [f"naturals.{name}" for name in ("add_comm", "add_assoc", "zero_add", "mul_comm", "x3", "x12")]
    assert [split_by(name) for name in names] == ["train", "validation", "validation", "test", "train", "train"]


FAMILY = """inductive N | z
-- theorems

/-- A. -/
theorem a : True := by
  trivial

/-- B
of two lines. -/
theorem b (n : N) : n = n := by
  skip
  rfl
"""


def test_a_file_in_the_benchmark_s_format_needs_no_lean():
    first, second = family(FAMILY, "mine")
    assert (first.theorem.name, first.theorem.signature, first.proof) == ("a", ": True", "trivial")
    assert (second.english, second.proof) == ("B of two lines.", "skip\nrfl")
    assert second.formal == "theorem b (n : N) : n = n := by\n  skip\n  rfl"
    assert first.theorem.header == "inductive N | z\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-- theorems\n", ""),
        ("  skip\n", "  skip\n\n"),
        ("/-- A. -/\n", ""),
        ("theorem a : True := by\n  trivial", "theorem a : True := trivial"),
        ("theorem a : True", "@[simp] theorem a : True"),
        ("  trivial\n", "  sorry\n"),
        ("\n/-- B\n", "\ndef f := 1\n\n/-- B\n"),
        ("theorem b (n : N) :", "theorem b (n : N := by\n  exact .z) :"),
        ("theorem a : True := by\n  trivial\n", ""),
    ],
)
def test_a_file_in_another_format_is_left_to_lean(old, new):
    assert old in FAMILY
    assert family(FAMILY.replace(old, new, 1), "mine") is None


WORKBOOK = {
    "natural_language_statement": "Prove it.",
    "formal_statement": "theorem lean_workbook_0 (x : ℝ) (h : 0 < x) : x ≠ 0  :=  by sorry",
}
LIBRARY = {"restates": "Nat.add_comm", "statement": "a"}


def test_rows_of_the_library_need_no_lean(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, (LIBRARY, {"x": 1}))))
    reading = read(path)
    assert reading.entries == [restated("Nat.add_comm", "set")]
    assert reading.entries[0].theorem.restates == "Nat.add_comm"
    assert [flaw.place for flaw in reading.skipped] == [f"{path}, line 2"]
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfNat.add_comm\r\nNat.mul_comm\r\n")
    assert [e.theorem.restates for e in read(tmp_path / "names.txt").entries] == ["Nat.add_comm", "Nat.mul_comm"]


def test_a_missing_library_is_a_flaw_of_its_rows(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, (WORKBOOK, LIBRARY))))
    (flaw,) = read(path).skipped
    assert "line 1: Mathlib is not included in Lean for WebAssembly; use an installed Lean that has it" in str(flaw)


def test_a_file_without_valid_rows_reports_the_first(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text('{"x": 1}\n[1]\n')
    with pytest.raises(ValueError, match=r"set\.jsonl, line 1: no formal_statement.* \(1 more cannot be read\)"):
        entries_of(path)


def test_an_unreadable_file_of_a_folder_is_named(tmp_path):
    (tmp_path / "a.lean").write_text(FAMILY)
    (tmp_path / "b.lean").write_bytes(FAMILY.encode() + "é".encode("latin-1"))
    reading = read(tmp_path)
    assert len(reading.entries) == 2
    assert [flaw.place for flaw in reading.skipped] == [f"{tmp_path}/b.lean"]


@pytest.mark.slow
def test_rows_specify_exclusions(tmp_path, lean):
    row = {"header": "import Init", "formal_statement": "theorem a : 1 = 1 := sorry", "exclude": ["Nat.add_comm"]}
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({**row, "exclude_importers": ["Init.Omega"]}))
    (entry,) = entries_of(path, lean=lambda: lean)
    assert (entry.theorem.exclude, entry.theorem.exclude_importers) == (("Nat.add_comm",), ("Init.Omega",))


def test_an_empty_file_is_an_error(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_text("")
    with pytest.raises(ValueError, match="no theorem"):
        entries_of(path)


def test_a_file_of_another_type_is_rejected(tmp_path):
    path = tmp_path / "theorems.csv"
    path.write_text("name,statement\nt,True\n")
    with pytest.raises(ValueError, match=r"theorems.csv: give a .lean file, a folder of them"):
        read(path)


@pytest.mark.slow
def test_files_are_in_utf_8_whatever_the_locale(tmp_path):
    locale = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "monge", "prove", "export-pairs", "--out", str(tmp_path / "texts.jsonl")]
    result = subprocess.run(command, env={**os.environ, **locale}, capture_output=True, text=True)
    assert (result.stderr, result.returncode) == ("", 0)
    assert "∀" in (tmp_path / "texts.jsonl").read_text(encoding="utf-8")


def test_translate_reads_the_exported_pairs(tmp_path):
    export_pairs(out=tmp_path / "texts.jsonl")
    splits = {entry.key: entry.split for entry in entries_of(DATA)}
    assert {text.id: text.split for text in read_texts(tmp_path / "texts.jsonl")} == splits


def test_rows_that_are_all_for_testing_are_exported_without_a_split(tmp_path):
    rows = [{"id": k, "formal_statement": "theorem t : 1 = 1", "nl_statement": f"Fact {k}."} for k in range(2)]
    for name, split in {"test": {}, "mixed": {"split": "train"}}.items():
        lines = [json.dumps(rows[0] | split), json.dumps(rows[1])]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        export_pairs(tmp_path / f"{name}.jsonl", out=tmp_path / f"{name}-texts.jsonl")
    written = {
        name: [json.loads(line).get("split") for line in (tmp_path / f"{name}-texts.jsonl").open()]
        for name in ("test", "mixed")
    }
    assert written == {"test": [None, None], "mixed": ["train", "test"]}
