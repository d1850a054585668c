"""Rows and files as users write them: encodings, imports, invalid rows among valid ones."""

import json
import re

import pytest

from monge.apps.prove.rows import Flaw, Row, decoded, json_rows, lean_row, without_imports

GOOD = {"formal_statement": "theorem a : True := sorry"}


@pytest.mark.parametrize(
    ("text", "imports", "rest"),
    [
        ("import Mathlib\nopen Nat", ("Mathlib",), "open Nat"),
        ("import A import B.C\n\ndef f := 1", ("A", "B.C"), "def f := 1"),
        ("-- import No\n/- import No /- nested -/ -/\nimport «A b».C\n", ("«A b».C",), ""),
        ("module\n\npublic import A\npublic meta import B\nimport all C\n/-! Doc -/", ("A", "B", "C"), "/-! Doc -/"),
        (
            "/-- Doc. -/ theorem t : True := by\n  import_like\n",
            (),
            "/-- Doc. -/ theorem t : True := by\n  import_like",
        ),
        ("important", (), "important"),
        ("import Init\nimport Init", ("Init",), ""),
        ("", (), ""),
    ],
)
def test_imports_are_read_as_lean_reads_them_and_positions_do_not_change(text, imports, rest):
    modules, blanked = without_imports(text)
    assert modules == imports
    assert [len(line) for line in blanked.split("\n")] == [len(line) for line in text.split("\n")]
    assert blanked.strip().endswith(rest)
    assert without_imports(blanked) == ((), blanked)


def test_a_prelude_is_rejected():
    with pytest.raises(ValueError, match="prelude"):
        without_imports("prelude\nimport Init.Core")


def test_bytes_are_read_as_lean_reads_them(tmp_path):
    assert decoded("\ufeffa\r\nb\rc\x0bd\n".encode()) == "a\nb\rc\x0bd\n"
    with pytest.raises(ValueError, match="line 2 is not UTF-8"):
        decoded("a\né".encode("latin-1"))
    path = tmp_path / "a.lean"
    path.write_bytes(b"\xef\xbb\xbfimport Init\r\n\r\ntheorem a : True := by\r\n  trivial\r\n")
    row = lean_row(path)
    assert (row.imports, row.text) == (("Init",), "           \n\ntheorem a : True := by\n  trivial\n")


def read(path, *rows):
    path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
    return list(json_rows(path))


def test_line_endings_and_byte_order_marks_in_fields_are_normalised(tmp_path):
    row = {"header": "import Init\r\nopen Nat\r\n", "formal_statement": "\ufefftheorem a :\r\n  True := sorry"}
    (parsed,) = read(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r")
    assert parsed.imports == ("Init",)
    assert [piece.text for piece in parsed.pieces] == ["           \nopen Nat\n", "theorem a :\n  True := sorry"]
    assert [piece.where.rpartition(", ")[2] for piece in parsed.pieces] == ["header", "formal_statement"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'{"x": 1}', "no formal_statement"),
        (b"[1]", r"expected a JSON object \{\.\.\.\}"),
        (b"{", "Expecting"),
        ({**GOOD, "exclude": "Nat.add_comm"}, "exclude must be a list"),
        ("{é".encode("latin-1"), "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (
            b'{"formal_statement": "theorem a : \\ud800 = 1 := sorry"}',
            r"formal_statement: \\ud800 is a lone surrogate",
        ),
        (b'{"formal_statement": "theorem a : True", "informal_stmt": "\\udfff"}', r"\\udfff is a lone surrogate"),
        (b'{"formal_statement": "theorem a : True", "exclude": ["\\udfff"]}', "exclude: "),
        ({"formal_statement": "prelude\ntheorem a : True := sorry"}, "prelude"),
    ],
)
def test_an_invalid_row_does_not_affect_the_others(tmp_path, row, reason):
    first, bad, last = read(tmp_path / "set.jsonl", GOOD, row, {"formal_statement": "theorem b : True := sorry"})
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert isinstance(bad, Flaw)
    assert bad.place == f"{tmp_path}/set.jsonl, line 2"
    assert re.search(reason, bad.reason)


def test_imports_of_header_and_statement_are_combined(tmp_path):
    both, none, bare = read(
        tmp_path / "a.jsonl",
        {"header": "import A\nopen X", "formal_statement": "import B\ntheorem a : True := sorry"},
        {"header": "open X", **GOOD},
        {"header": "", **GOOD},
    )
    assert [row.imports for row in (both, none, bare)] == [("A", "B"), ("Init",), ("Mathlib",)]
