"""Rows of theorems as users write them, before Lean has split them: texts with their places, imports, English."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATEMENTS = ("formal_statement", "lean4_formalization")
HEADERS = ("header", "lean4_src_header")
ENGLISH = ("informal_stmt", "informal_prefix", "nl_statement", "natural_language_statement")
PROOFS = ("informal_proof", "nl_proof")
SPLITS = {"valid": "validation", "val": "validation"}
LIBRARY = ("Mathlib",)
"""Imports of a row that names none."""


@dataclass(frozen=True)
class Piece:
    """A part of a theorem's text, as it stands in a file or in a field of a row."""

    text: str
    where: str


@dataclass(frozen=True)
class Row:
    """A text with a theorem at least, and what a file tells of it."""

    pieces: tuple[Piece, ...]
    """Without imports: these are blank."""
    imports: tuple[str, ...]
    place: str
    """The file, and the line of a row."""
    source: str
    """The file's name without its suffix."""
    complete: bool = False
    """True for a .lean file, all of whose theorems are read; of a row one is."""
    number: int = 0
    exclude: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    english: str = ""
    informal: str = ""
    split: str = "test"
    after: str = ""
    """The theorem of the library that the row restates; it has no text then."""

    @property
    def text(self) -> str:
        return "\n".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class Flaw:
    """What is wrong at a place of a user's file."""

    place: str
    reason: str
    skipped: bool = True
    """False if no theorem is left out for it."""

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def decoded(data: bytes) -> str:
    """The text of a file as Lean reads it: UTF-8, without a byte order mark, lines that end in a line feed. ValueError if it
    is no UTF-8."""
    try:
        return _plain(data.decode())
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not UTF-8 ({error.reason}); convert the file") from None


def _plain(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def lean_row(path: Path) -> Row:
    """A .lean file as one row."""
    imports, text = without_imports(decoded(path.read_bytes()))
    return Row((Piece(text, str(path)),), imports or ("Init",), str(path), path.stem, complete=True)


def json_rows(path: Path) -> Iterator[Row | Flaw]:
    """The rows of a .jsonl file, one for each line that is not blank; a flaw for one that cannot be read."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        place = f"{path}, line {number}"
        try:
            text = _plain(line.decode()).strip()
            if text:
                yield _row(json.loads(text), place, path.stem, number)
        except UnicodeDecodeError as error:
            yield Flaw(place, f"not UTF-8 ({error.reason})")
        except RecursionError:
            yield Flaw(place, "lists or objects are nested too deeply")
        except ValueError as error:
            yield Flaw(place, str(error))


def _row(row: Any, place: str, source: str, number: int) -> Row:
    """A row of miniF2F (formal_statement, header, informal_stmt), ProofNet (lean4_formalization, lean4_src_header) or
    Lean-Workbook (formal_statement alone, which rests on Mathlib), with what is excluded (exclude, beyond: lists of names); or
    of `monge prove export-library` (after)."""
    if not isinstance(row, dict):
        raise ValueError("a row {...} was expected")
    if row.get("after"):
        return Row((), ("Init", "Std"), place, source, after=_field(row, ("after",))[1])
    name, statement = _field(row, STATEMENTS)
    if not statement.strip():
        raise ValueError(f"no {' and no '.join(STATEMENTS)}")
    field, header = _field(row, HEADERS)
    above, header = without_imports(header)
    imports, statement = without_imports(statement)
    pieces = [Piece(text, f"{place}, {key}") for key, text in ((field, header), (name, statement)) if text.strip()]
    named = tuple(dict.fromkeys(above + imports))
    split = _field(row, ("split",))[1]
    return Row(
        tuple(pieces),
        named or (("Init",) if header.strip() else LIBRARY),
        place,
        source,
        number=number,
        exclude=_names(row, "exclude"),
        beyond=_names(row, "beyond"),
        english=in_one_line(_field(row, ENGLISH)[1]),
        informal=_field(row, PROOFS)[1].strip(),
        split=SPLITS.get(split, split or "test"),
    )


def in_one_line(english: str) -> str:
    """A comment's words without its marks."""
    return " ".join(english.strip().removeprefix("/--").removesuffix("-/").split())


def _field(row: dict[str, Any], names: Sequence[str]) -> tuple[str, str]:
    """The first of these fields that is not empty: its name and its text."""
    name = next((name for name in names if row.get(name)), names[0])
    return name, _text(str(row.get(name) or ""), name)


def _text(text: str, name: str) -> str:
    """The text as Lean reads it. ValueError if a half of a character stands alone in it: Lean has no such text."""
    text = _plain(text)
    if lone := re.search(r"[\ud800-\udfff]", text):
        raise ValueError(f"{name}: \\u{ord(lone[0]):04x} is half of a character; remove it, or write both halves")
    return text


def _names(row: dict[str, Any], field: str) -> tuple[str, ...]:
    found = row.get(field) or []
    if not isinstance(found, list):
        raise ValueError(f"{field} must be a list of names")
    return tuple(_text(str(name), field) for name in found)


SPACE = re.compile(r"\s+|--[^\n]*")
IMPORT = re.compile(r"(?:(?:public|private|meta)\s+)*import\s+(?:(?:all|runtime)\s+)?((?:«[^»]*»|[^\s«])+)")


def without_imports(text: str) -> tuple[tuple[str, ...], str]:
    """The modules that a text imports at its beginning, and the text with blanks in their place. ValueError for a prelude."""
    found: list[str] = []
    place = _after_space(text, 0)
    if begun := re.compile(r"module(?=\s)").match(text, place):
        text = _blanked(text, *begun.span())
        place = _after_space(text, place)
    if re.compile(r"prelude(?!\S)").match(text, place):
        raise ValueError("a file with `prelude` cannot be read: Init is always imported; remove the line")
    while named := IMPORT.match(text, place):
        found.append(named[1])
        text = _blanked(text, *named.span())
        place = _after_space(text, place)
    return tuple(dict.fromkeys(found)), text


def _blanked(text: str, start: int, end: int) -> str:
    return text[:start] + blanks(text[start:end]) + text[end:]


def blanks(text: str) -> str:
    """As many blanks, in as many lines."""
    return re.sub(r"[^\n]", " ", text)


def _after_space(text: str, place: int) -> int:
    """The place after spaces and comments; those that document something are none."""
    while True:
        if space := SPACE.match(text, place):
            place = space.end()
        elif text.startswith("/-", place) and text[place + 2 : place + 3] not in ("-", "!"):
            place = _after_comment(text, place)
        else:
            return place


def _after_comment(text: str, place: int) -> int:
    depth = 0
    for mark in re.compile(r"/-|-/").finditer(text, place):
        depth += 1 if mark[0] == "/-" else -1
        if depth == 0:
            return mark.end()
    return len(text)
