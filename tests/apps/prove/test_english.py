"""Statements in controlled English, from the trees that Lean writes, and the comparison of statements by Lean."""

import json
import re
from pathlib import Path

import pytest
from waiting import PATIENT

from monge.apps.prove import exports
from monge.apps.prove.english import statement
from monge.apps.prove.exports import export_english
from monge.apps.prove.extract import signature_in
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.wordings import words_of
from monge.cli import main


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (
            ": ∀ (a b : Nat), a + b = b + a",
            {
                "For all natural numbers a and b, the sum of a and b equals the sum of b and a.",
                "Let a and b be natural numbers. Then a plus b is equal to b plus a.",
            },
        ),
        (
            "(a b : Int) (h : a ≤ b) : b ≠ 0 ∨ a < 1",
            {
                "For all integers a and b, if a is at most b, then b differs from 0 or a is less than 1.",
                "Let a and b be integers. Suppose that a is less than or equal to b. Then b is not equal to 0 or a is below 1.",
            },
        ),
        (
            "{α : Type} [DecidableEq α] (xs : List α) (p : α → Bool) : (xs.filter p).length ≤ xs.length",
            {
                "For any type α, any list xs of elements of α and any function p from elements of α to Booleans with decidable "
                "equality for α, the length of the elements of xs that satisfy p is at most the number of elements of xs.",
            },
        ),
        (
            "(n : Nat) : (∃ k, n = 2 * k) ↔ ¬ 2 ∣ n + 1",
            {
                "For each natural number n, (there is a natural number k such that n equals 2 times k) if and only if (it is "
                "not the case that 2 divides n plus 1).",
            },
        ),
        (
            "(f : Nat → Nat) (h : ∀ x y, f x = f y → x = y) : f 0 = 0 → f 1 ≠ 0",
            {
                "For every function f from natural numbers to natural numbers, if (for all natural numbers x and y, if f of x "
                "equals f of y, then x equals y) and f of 0 equals 0, then f of 1 differs from 0.",
            },
        ),
        ("(b : Bool) : (b && true) = b", {"For any Boolean b, the conjunction of b and true is equal to b."}),
        (
            "(p : Prop) [Decidable p] (xs : List Nat) : (∃ h : 0 < xs.length, xs[0] = 1) → decide p = false",
            {
                "For any proposition p and any list xs of natural numbers with an instance of Decidable for p, if 0 "
                "is less than the length of xs and the element of xs at index 0 equals 1, then the truth value of p equals "
                "false.",
            },
        ),
        (
            ": ∀ [Inhabited Nat], (if 1 < 2 then 3 else 4) + 0 = 3",
            {
                "Given an instance of Inhabited for natural numbers, the sum "
                "of (3 if 1 is less than 2, and 4 otherwise) and 0 equals 3.",
                "Assume an instance of Inhabited for natural numbers. Then the sum "
                "of (3 if 1 is below 2, and 4 otherwise) and 0 equals 3.",
            },
        ),
        (
            "(p q r : Prop) [Decidable p] [Decidable q] : decide (p ∧ q) = true ∨ r",
            {
                "For all propositions p, q and r with an instance of Decidable for p and an instance of Decidable for q, "
                "(p holds and q holds) or r holds.",
            },
        ),
        (
            "(w : Nat) (x : BitVec w) : x = x",
            {"Let w be a natural number and x be a bit vector of width w. Then x equals x."},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wordings_of_a_statement(signature: str, expected: set[str], server: LeanServer):
    header = server.header("", PATIENT)
    tree = server.request("tree", seconds=PATIENT.seconds, header=header, signature=signature)["tree"]
    sentences = {statement(tree, seed=str(seed)) for seed in range(3000)}
    assert expected <= sentences
    assert statement(tree, seed="1") == statement(tree, seed="1")


@pytest.mark.slow
def test_theorems_of_the_library_become_sentences_that_name_their_variables(server: LeanServer):
    modules = server.hello()["modules"]
    found = [
        (answer["module"], row)
        for number in range(0, modules, modules // 12)
        for answer in [server.request("library", seconds=PATIENT.seconds, module=number, trees=1)]
        for row in answer["theorems"]
    ]
    assert len(found) > 20
    for _, row in found:
        text = statement(row["tree"], seed=row["name"])
        assert text.endswith(".")
        assert text[0].upper() == text[0]
        assert not re.search(r"\bNone\b", text)
        assert "{" not in text
        tree = row["tree"]
        while tree.get("bind") == "all":
            if tree["kind"] != "instance" and not tree["prop"]:
                assert f" {tree['name'].rstrip('✝¹²³⁴⁵⁶⁷⁸⁹⁰')}" in text
            tree = tree["body"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "equal"),
    [
        ("∀ (n m : Nat), n + m = m + n", True),
        ("∀ (x y : Nat), x + y = y + x", True),
        ("theorem t (x y : Nat) : x + y = y + x := sorry", True),
        ("∀ (n m : Nat), n + m = n + m", False),
        ("∀ (n : Nat), n + n = n + n", False),
    ],
)
def test_statements_are_compared(text: str, equal: bool, server: LeanServer):
    assert compared(server, text, "Nat.add_comm") == {"equal": equal}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "name", "equal"),
    [
        ("∀ (n : Nat), n = n", "Nat.add_zero", False),  # both hold by computation
        ("∀ (n : Nat), n + 0 = n", "Nat.add_zero", True),
        ("∀ (n : Nat), n + 1 = n + 1", "Nat.add_one", False),
        ("∀ {α : Type u} (l : List α), l ++ [] = l", "List.append_nil", True),
        ("∀ {α : Type} (l : List α), l ++ [] = l", "List.append_nil", False),  # weaker
        ("∀ (l : List Nat), l ++ [] = l", "List.append_nil", False),
    ],
)
def test_weaker_and_vacuous_statements_differ(text: str, name: str, equal: bool, server: LeanServer):
    assert compared(server, text, name) == {"equal": equal}


def compared(server: LeanServer, text: str, name: str) -> dict[str, object]:
    """Lean's comparison of a text with a theorem of the library."""
    header = server.header("universe u v\n", PATIENT)
    fields = {"header": header, "first": signature_in(text), "second": f": type_of% @{name}"}
    return server.request("equal", seconds=PATIENT.seconds, **fields)


@pytest.mark.slow
def test_a_true_statement_that_does_not_elaborate_is_no_fault_of_the_text(server: LeanServer):
    assert compared(server, "1 = 1", "no.such.theorem")["failed"] == "truth"


@pytest.mark.slow
def test_statements_are_checked_by_the_command(lean, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    candidates = ["∀ {α : Type u_1} (l : List α), l ++ [] = l", "∀ (l : List Nat), l ++ [] = l", "∀ l, foo l"]
    rows = [
        {"id": "Nat.add_comm", "text": "∀ (n m : Nat), n + m = m + n"},
        {"id": "List.append_nil", "candidates": candidates},
    ]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "names.txt").write_text("Nat.add_comm\nList.append_nil\n")
    words = ["prove", "check", str(tmp_path / "texts.jsonl"), "--theorems", str(tmp_path / "names.txt"), "--statements"]
    assert main([*words, "--out", str(tmp_path / "out.jsonl")]) == 0
    verdicts = [row["verdicts"] for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())]
    assert [[one["kind"] for one in row] for row in verdicts] == [["equal"], ["equal", "different", "invalid"]]
    assert "foo" in verdicts[1][2]["message"]
    output = capsys.readouterr().out
    assert "First candidate elaborates: 2 of 2" in output
    assert "First candidate is right: 2 of 2" in output


@pytest.mark.long
def test_the_library_is_exported_in_english(lean, tmp_path: Path):
    out = tmp_path / "english.jsonl"
    assert main(["prove", "export-english", "--limit", "200", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == 200
    assert len({row["group"] for row in rows}) > 50
    assert all(row["nl"] and row["formal"] and row["restates"] == row["id"] for row in rows)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("USize.ofNat", "of nat"),
        ("BEq", "beq"),
        ("List.getLast!", "panicking get last"),
        ("Std.DHashMap", "D hash map"),
    ],
)
def test_words_of_names(name: str, words: str):
    assert words_of(name) == words


def test_near_duplicates_of_the_library_share_a_group_and_long_statements_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def row(name: str, module: str, statement: str) -> dict[str, object]:
        tree = {"const": "Eq", "args": [{"var": name[-1]}, {"number": "2", "of": {"const": "Nat", "args": []}}]}
        return {"name": name, "module": module, "statement": statement, "tree": tree}

    library = [
        row("A.a", "A", "∀ (n m k : Nat), n + m + k = k + m + n"),
        row("B.b", "B", "∀ (x y z : Nat), x + y + z = z + y + x"),
        row("B.c", "B", "∀ (p : Prop), p → p ∨ p"),
        row("C.d", "C", " ".join(["∀ n, n ="] + ["n + "] * 70)),
    ]
    monkeypatch.setattr(exports, "_library", lambda lean, trees: iter(library))
    export_english(out=tmp_path / "english.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "english.jsonl").read_text().splitlines()]
    assert [(row["id"], row["group"]) for row in rows] == [("A.a", "A"), ("B.b", "A"), ("B.c", "B")]
    wordings = set()
    for seed in range(8):
        export_english(out=tmp_path / f"{seed}.jsonl", seed=seed)
        wordings.add((tmp_path / f"{seed}.jsonl").read_text())
    assert len(wordings) > 1
    with pytest.raises(ValueError, match="--max-words 0: give at least 1"):
        export_english(out=tmp_path / "other.jsonl", max_words=0)
