"""`monge prove check`: proofs written by other programs are judged for the true statements."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import NATURALS

from monge.apps.prove.check import check, verdicts_in
from monge.apps.prove.exports import export_pairs
from monge.apps.prove.extract import proof_in, signature_in
from monge.cli import main

FAMILY = f"""{NATURALS}
-- theorems

/-- Adding zero on the left changes nothing. -/
theorem z_add (a : N) : z + a = a := by
  induction a with
  | z => rfl
  | s n ih => rw [add_s, ih]

/-- Zero is zero. -/
theorem same : z = z := rfl

end N
"""
PROOF = "theorem z_add (a : N) : z + a = a := by\n  induction a with\n  | z => rfl\n  | s n ih => rw [add_s, ih]"


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("text", "proof"),
    [
        (PROOF, "induction a with\n| z => rfl\n| s n ih => rw [add_s, ih]"),
        ("theorem t (h : 1 = 1 := by rfl) : 1 = 1 := by exact h", "exact h"),
        ("theorem t : 1 = 1 :=\n  by\n    rfl", "rfl"),
        ("theorem t : 1 = 1 := by\n  have h : 1 = 1 := by rfl\n  exact h", "have h : 1 = 1 := by rfl\nexact h"),
        ("lemma t : 1 = 1 := byte", "exact byte"),
        ("theorem t : let x := 1; x = 1 := by rfl", "rfl"),
        ("theorem «a := b» : 1 = 1 := rfl", "exact rfl"),
        ("-- first\n@[simp] @[ext] public theorem t : 1 = 1 := rfl", "exact rfl"),
        (
            "theorem t : 1 = 1 := by intro x\n  rfl",
            " " * 22 + "intro x\nrfl",
        ),  # which Lean rejects, as it rejects the text
        ('/-- := -/ @[simp] private theorem «a b» (s : String := "(") : s = s := rfl', "exact rfl"),
        ("theorem t.{u} (α : Type u) (c : Char := '(') -- := (\n  : α = α := by rfl", "rfl"),
        ("example : 1 = 1 := by", ""),
        ("theorem t : 1 = 1 :=", ""),
        ("theorem t : 1 = 1", ""),
        ("  simp\n", "simp"),
        ("", ""),
    ],
)
def test_the_proof_in_a_text(text: str, proof: str):
    assert proof_in(text) == proof


@pytest.mark.parametrize(
    ("text", "signature"),
    [
        ("∀ n : Nat, n = n", ": ∀ n : Nat, n = n"),
        ("theorem t.{u} (α : Type u) : α = α := rfl", "(α : Type u) : α = α"),
        ("@[simp] theorem Nat.foo : 1 = 1", ": 1 = 1"),
        ("theorem t : let x := 1; x = 1 := by rfl", ": let x := 1; x = 1"),
        ("example (n : Nat) : n = n := by rfl", "(n : Nat) : n = n"),
    ],
)
def test_the_statement_in_a_text(text: str, signature: str):
    assert signature_in(text) == signature


@pytest.mark.slow
def test_proofs_are_judged_for_the_true_statement(lean, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "naturals.lean").write_text(FAMILY)
    cheat = "theorem z_add (a : N) : a = a := by\n  rfl"
    candidates = [cheat, {"text": PROOF}, {"text": "theorem z_add (a : N) : z + a"}, "sorry", PROOF]
    rows = [
        {"id": "naturals.z_add", "candidates": candidates},
        {"id": "naturals.same", "text": "theorem wrong : z = s z := rfl"},
        {"id": "naturals.unknown", "text": "rfl"},
    ]
    texts = written(tmp_path / "texts.jsonl", rows)
    command = ["prove", "check", str(texts), "--theorems", str(tmp_path / "naturals.lean")]
    assert main([*command, "--out", str(tmp_path / "out.jsonl")]) == 0
    output = capsys.readouterr().out
    result = {row["id"]: row["verdicts"] for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    kinds = [one["kind"] for one in result["naturals.z_add"]]
    assert kinds[1:3] == ["proved", "no proof"]
    assert kinds[4] == "proved"
    assert "proved" not in (kinds[0], kinds[3])
    assert result["naturals.z_add"][0]["message"]
    assert [one["kind"] for one in result["naturals.same"]] == ["proved"]
    assert "naturals.lean: 1, the first: naturals.unknown" in output
    assert "First candidate is right: 1 of 2" in output

    rows = [
        {"id": f"naturals.{name}", "text": f"theorem {name} : z = z"} for name in ("z_add", "same")
    ]  # no proof to judge
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "texts.parquet")
    command[2] = str(tmp_path / "texts.parquet")
    compared = ["--workers", "2", "--compare-with", str(tmp_path / "out.jsonl")]
    assert main([*command, *compared, "--out", str(tmp_path / "other.jsonl")]) == 0
    assert "2 theorems in common: 0 right only here, 1 only there, p 1" in capsys.readouterr().out


def test_exported_rows_have_ids_that_are_checked(tmp_path: Path):
    """Also of theorems with equal names, and of the theorem without a proof in a row with several."""
    statements = [
        "theorem one.{u} (α : Sort u) (a : α) : a = a := rfl",
        "theorem one : 1 = 1 := rfl",
        "theorem two : 2 = 2 := by sorry\ntheorem three : 3 = 3 := rfl",
    ]
    rows = [{"formal_statement": one, "header": "import Init", "nl_statement": "Equal."} for one in statements]
    theorems = written(tmp_path / "set.jsonl", rows)
    export_pairs(theorems, out=tmp_path / "pairs.jsonl")
    ids = [json.loads(line)["id"] for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    texts = written(tmp_path / "texts.jsonl", [{"id": key, "text": "rfl"} for key in ids])
    check(texts, theorems=theorems, out=tmp_path / "out.jsonl")
    found = {
        row["id"]: row["verdicts"][0] for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    }
    assert {key: verdict["kind"] for key, verdict in found.items()} == dict.fromkeys(ids, "proved")
    statements = written(tmp_path / "statements.jsonl", [{"id": ids[2], "text": "theorem two : 2 = 2"}])
    check(statements, theorems=theorems, out=tmp_path / "equal.jsonl", statements=True)
    assert json.loads((tmp_path / "equal.jsonl").read_text())["verdicts"][0]["kind"] == "equal"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"text": "rfl"}], "row 1: no id"),
        ([{"id": "a"}], "the row with id 'a' has a candidate without text"),
        ([{"id": "a", "candidates": [3]}], "the row with id 'a' has a candidate without text"),
        ([{"id": "a", "candidates": "rfl"}], "the row with id 'a' has a candidate without text"),
        ([{"id": "a", "candidates": {"text": "rfl"}}], "the row with id 'a' has a candidate without text"),
        ([{"id": "a", "candidates": 3}], "the row with id 'a' has a candidate without text"),
        ([{"id": "a", "text": "rfl"}, {"id": "a", "text": "simp"}], "id 'a' occurs twice"),
        ([{"id": "a", "text": "rfl"}], "no row has the id of a theorem in"),
    ],
)
def test_unusable_rows_are_one_sentence(rows: list[dict[str, object]], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        check(written(tmp_path / "texts.jsonl", rows), out=tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_unusable_files_are_one_sentence(tmp_path: Path):
    texts = written(tmp_path / "texts.jsonl", [{"id": "a", "text": "rfl"}])
    (tmp_path / "texts.csv").write_text("id,text\n")
    (tmp_path / "damaged.jsonl").write_text("{")
    statements = written(
        tmp_path / "other.jsonl", [{"id": "a", "checked": "statements", "verdicts": [{"kind": "equal"}]}]
    )
    damaged = written(tmp_path / "kinds.jsonl", [{"id": "a", "verdicts": ["proved"]}])
    for path, other, message in (
        (texts, statements, "holds verdicts on statements, not on proofs"),
        (texts, damaged, "not written by monge prove check"),
        (tmp_path / "texts.csv", None, "give a .jsonl or .parquet file"),
        (tmp_path / "damaged.jsonl", None, "damaged.jsonl: Expecting"),
        (texts, texts, "not written by monge prove check"),
    ):
        with pytest.raises(ValueError, match=message):
            check(path, out=tmp_path / "out.jsonl", compare_with=other)


def test_crashes_count_as_wrong_and_theorems_that_do_not_elaborate_do_not_count(tmp_path: Path):
    rows = [
        {"id": "a", "checked": "proofs", "verdicts": [{"kind": "crash"}, {"kind": "proved"}]},
        {"id": "b", "checked": "proofs", "verdicts": [{"kind": "truth"}]},
    ]
    (tmp_path / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert verdicts_in(tmp_path / "verdicts.jsonl", "proofs") == {"a": [False, True]}
