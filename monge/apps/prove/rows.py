"""Theorems as users write them, before Lean splits them: texts with their positions, imports and English."""

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
"""Imports of a row with neither imports nor a header."""


@dataclass(frozen=True)
class Piece:
    """A part of a theorem's text, as it appears in a file or in a field of a row."""

    text: str
    where: str
    """The file, and for a row its line and field."""


@dataclass(frozen=True)
class Row:
    """A text to search for theorems, or the name of a library theorem, with its metadata."""

    pieces: tuple[Piece, ...]
    """Parts of the text, with imports replaced by spaces."""
    imports: tuple[str, ...]
    place: str
    """The file, and for a row its line."""
    source: str
    """The file's name without its suffix."""
    complete: bool = False
    """True for a .lean file, whose theorems are all read; from a row of a .jsonl file, only one theorem is read."""
    number: int = 0
    """Line number of a row, from 1; 0 for a .lean file or the name of a library theorem."""
    exclude: tuple[str, ...] = ()
    exclude_importers: tuple[str, ...] = ()
    english: str = ""
    informal: str = ""
    split: str = "test"
    restates: str = ""
    """Library theorem that the row restates; such a row has no text."""

    @property
    def text(self) -> str:
        return "\n".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class Flaw:
    """An error at a position in a user's file."""

    place: str
    reason: str
    skipped: bool = True
    """True if a theorem is left out because of it."""

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def decoded(data: bytes) -> str:
    """The text of a file as Lean reads it: UTF-8, without a byte order mark, with LF line endings. ValueError if it is not
    UTF-8."""
    try:
        return _plain(data.decode())
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not UTF-8 ({error.reason}); convert the file") from None


def _plain(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def lean_row(path: Path) -> Row:
    """A .lean file as one row. ValueError if it is not UTF-8 or has a `prelude`."""
    imports, text = without_imports(decoded(path.read_bytes()))
    return Row((Piece(text, str(path)),), imports or ("Init",), str(path), path.stem, complete=True)


def json_rows(path: Path) -> Iterator[Row | Flaw]:
    """The rows of a .jsonl file, one for each line that is not blank; a Flaw for a line that cannot be read."""
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
    """A row of miniF2F (formal_statement, header, informal_stmt), ProofNet (lean4_formalization, lean4_src_header),
    Lean-Workbook (formal_statement only; imports Mathlib) or `monge prove export-library` (restates). A proof may use
    neither the constants in `exclude` nor anything from modules that import those in `exclude_importers`."""
    if not isinstance(row, dict):
        raise ValueError("expected a JSON object {...}")
    if row.get("restates"):
        return Row((), ("Init", "Std"), place, source, restates=_field(row, ("restates",))[1])
    name, statement = _field(row, STATEMENTS)
    if not statement.strip():
        raise ValueError(f"no {' and no '.join(STATEMENTS)}")
    field, header = _field(row, HEADERS)
    header_imports, header = without_imports(header)
    imports, statement = without_imports(statement)
    pieces = [Piece(text, f"{place}, {key}") for key, text in ((field, header), (name, statement)) if text.strip()]
    imports = tuple(dict.fromkeys(header_imports + imports))
    split = _field(row, ("split",))[1]
    return Row(
        tuple(pieces),
        imports or (("Init",) if header.strip() else LIBRARY),
        place,
        source,
        number=number,
        exclude=_names(row, "exclude"),
        exclude_importers=_names(row, "exclude_importers"),
        english=in_one_line(_field(row, ENGLISH)[1]),
        informal=_field(row, PROOFS)[1].strip(),
        split=SPLITS.get(split, split or "test"),
    )


def in_one_line(english: str) -> str:
    """The text of a comment in one line, without its delimiters."""
    return " ".join(english.strip().removeprefix("/--").removesuffix("-/").split())


def _field(row: dict[str, Any], names: Sequence[str]) -> tuple[str, str]:
    """Name and text of the first of these fields that is not empty."""
    name = next((name for name in names if row.get(name)), names[0])
    return name, _text(str(row.get(name) or ""), name)


def _text(text: str, name: str) -> str:
    """The text as Lean reads it. ValueError if it contains a lone surrogate, which Lean cannot represent."""
    text = _plain(text)
    if lone := re.search(r"[\ud800-\udfff]", text):
        raise ValueError(f"{name}: \\u{ord(lone[0]):04x} is a lone surrogate; remove it, or write the complete pair")
    return text


def _names(row: dict[str, Any], field: str) -> tuple[str, ...]:
    names = row.get(field) or []
    if not isinstance(names, list):
        raise ValueError(f"{field} must be a list of names")
    return tuple(_text(str(name), field) for name in names)


SPACE = re.compile(r"\s+|--[^\n]*")
IMPORT = re.compile(r"(?:(?:public|private|meta)\s+)*import\s+(?:(?:all|runtime)\s+)?((?:«[^»]*»|[^\s«])+)")


def without_imports(text: str) -> tuple[tuple[str, ...], str]:
    """The modules imported at the start of a text, and the text with these imports blanked out. ValueError for a prelude."""
    modules: list[str] = []
    position = _after_space(text, 0)
    if keyword := re.compile(r"module(?=\s)").match(text, position):
        text = _blanked(text, *keyword.span())
        position = _after_space(text, position)
    if re.compile(r"prelude(?!\S)").match(text, position):
        raise ValueError("a file with `prelude` cannot be read: Init is always imported; remove the line")
    while match := IMPORT.match(text, position):
        modules.append(match[1])
        text = _blanked(text, *match.span())
        position = _after_space(text, position)
    return tuple(dict.fromkeys(modules)), text


def _blanked(text: str, start: int, end: int) -> str:
    return text[:start] + blanks(text[start:end]) + text[end:]


def blanks(text: str) -> str:
    """The text with each character replaced by a space, except line feeds."""
    return re.sub(r"[^\n]", " ", text)


def _after_space(text: str, position: int) -> int:
    """The position after white space and comments, but before a doc comment."""
    while True:
        if space := SPACE.match(text, position):
            position = space.end()
        elif text.startswith("/-", position) and text[position + 2 : position + 3] not in ("-", "!"):
            position = _after_comment(text, position)
        else:
            return position


def _after_comment(text: str, position: int) -> int:
    depth = 0
    for delimiter in re.compile(r"/-|-/").finditer(text, position):
        depth += 1 if delimiter[0] == "/-" else -1
        if depth == 0:
            return delimiter.end()
    return len(text)
