"""User files, split by Lean's parser into theorems: header, name, signature and proof."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from textwrap import dedent
from types import TracebackType
from typing import Any

from monge.apps.prove.families import MARK, Entry, split_by
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import embedded_lean
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.rows import Flaw, Row, blanks, in_one_line
from monge.apps.prove.state import Place, Theorem

EMBEDDED = ("Init", "Std", "Lean")
"""Libraries that come with Lean itself."""
ENDINGS = ("\n  sorry", "\n:= by sorry")
"""Endings to try on an unfinished text: for a proof missing after `:= by` or `:=`, and for a proof missing entirely."""
HARMLESS = re.compile(
    r"(?:namespace|section|end|open|universe|set_option)\b[\w.«»'\s]*"
    r"|variable\b(?!.*(?:by|run|[%!$#`]))[^\n]*|\s*"
)
"""Lines whose elaboration runs no user code."""
COMMENT = re.compile(r"--[^\n]*|/-.*?-/", re.DOTALL)
TIMEOUT_SECONDS = {True: 600.0, False: 60.0}
"""Time limits in seconds for a complete file (True) and for a row (False)."""


class Splitter:
    """Splits rows with Lean's parser, in a process that has loaded their imports.

    Code in a header runs in that process, so it is replaced after any row whose header may have run code.
    """

    def __init__(self, lean: Callable[[], Toolchain] | None = None) -> None:
        self._lean, self._embedded = lean or embedded_lean, lean is None
        self._server: LeanServer | None = None
        self._failed: dict[tuple[str, ...], str] = {}

    def __call__(self, row: Row) -> list[Entry | Flaw]:
        """The theorems of a row and its flaws."""
        if self._embedded and (absent := [name for name in row.imports if name.split(".")[0] not in EMBEDDED]):
            missing = f"{absent[0]} is not included in Lean for WebAssembly; use an installed Lean that has it"
            return [Flaw(row.place, f"{missing} (--lean 'lake env lean', or lean in the settings file)")]
        if row.imports in self._failed:
            return [Flaw(row.place, self._failed[row.imports])]
        toolchain = self._lean()
        try:
            self._start_server(toolchain, row.imports)
        except OSError as error:
            self.close()
            self._failed[row.imports] = f"Lean fails to start with import {' '.join(row.imports)}: {error}"
            return [Flaw(row.place, self._failed[row.imports])]
        try:
            return list(self._split(row))
        except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
            self.close()
            return [Flaw(row.place, f"Lean crashed or sent an invalid answer while reading this: {error}")]

    def _split(self, row: Row) -> Iterator[Entry | Flaw]:
        text, answer = row.text, self._request(row.text, row.complete)
        for ending in ENDINGS:
            if _unfinished(answer, text):
                other = self._request(row.text + ending, row.complete)
                if _unfinished(other, row.text + ending) < _unfinished(answer, text):
                    text, answer = row.text + ending, other
        split = _Split(row, text, answer)
        if row.complete or not all(HARMLESS.fullmatch(line) for line in COMMENT.sub("", split.elaborated).split("\n")):
            self.close()
        yield from split.entries() if row.complete else split.entry()

    def _request(self, text: str, complete: bool) -> dict[str, Any]:
        assert self._server is not None
        return self._server.request("split", seconds=TIMEOUT_SECONDS[complete], text=text, complete=complete)

    def _start_server(self, toolchain: Toolchain, imports: tuple[str, ...]) -> None:
        if self._server is None or self._server.imports != imports or self._server.needs_restart:
            self.close()
            self._server = LeanServer(toolchain, imports)
            self._server.hello()

    def close(self) -> None:
        """Stop the Lean process."""
        if self._server is not None:
            self._server.close()
        self._server = None

    def __enter__(self) -> "Splitter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _unfinished(answer: dict[str, Any], text: str) -> int:
    """The number of commands that do not parse if the text ends with one; otherwise 0."""
    flaws = [flaw["range"] for flaw in answer["wrong"] if flaw["kind"] == "syntax"]
    return len(flaws) if flaws and flaws[-1][1] == len(text.encode()) else 0


class _Split:
    """A row with Lean's answer. All offsets are in characters."""

    def __init__(self, row: Row, text: str, answer: dict[str, Any]) -> None:
        self.row, self.text = row, text
        offsets = _character_offsets(text, answer)
        self.theorems: list[dict[str, Any]] = [
            {key: _converted(value, offsets) for key, value in parts.items()} for parts in answer["theorems"]
        ]
        self.flaws: list[dict[str, Any]] = [
            {**flaw, "range": _converted(flaw["range"], offsets)} for flaw in answer["wrong"]
        ]
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self._first = list(accumulate((piece.text.count("\n") + 1 for piece in row.pieces), initial=0))

    @property
    def elaborated(self) -> str:
        """The text of a row that Lean elaborates: all but its theorems and the commands that do not parse."""
        unread = [flaw["range"] for flaw in self.flaws if flaw["kind"] in ("syntax", "end")]
        return self._without([parts["range"] for parts in self.theorems] + unread)

    def entry(self) -> Iterator[Entry | Flaw]:
        """The theorem of a row: the last one without a proof, or the last one if all have proofs."""
        for flaw in self.flaws:
            if flaw["kind"] == "syntax":
                yield self._flaw(flaw, skipped=True)
                return
        if not self.theorems:
            reasons = [self._flaw(flaw, skipped=True) for flaw in self.flaws]
            yield reasons[0] if reasons else Flaw(self.row.place, "no theorem, lemma or example found")
            return
        for flaw in self.flaws:
            yield self._flaw(flaw, skipped=False)
        last = [parts for parts in self.theorems if parts["sorry"]] or self.theorems
        yield self._entry(last[-1], [], self.row.split, self.row.english)

    def entries(self) -> Iterator[Entry | Flaw]:
        """The theorems of a file. Commands that Lean rejects are left out of the headers of later theorems."""
        for flaw in self.flaws:
            yield self._flaw(flaw, skipped=flaw["kind"] in ("syntax", "passed over"))
        mark = self.text.find(MARK)
        omitted = [flaw["range"] for flaw in self.flaws if flaw["kind"] in ("syntax", "elaboration")]
        if mark >= 0:  # each theorem of a family depends on the definitions alone
            omitted += [parts["range"] for parts in self.theorems if parts["range"][0] > mark]
        for parts in self.theorems:
            english = in_one_line(self.text[slice(*parts["doc"])]) if "doc" in parts else ""
            yield self._entry(parts, omitted, "", english)

    def _entry(self, parts: dict[str, Any], omitted: list[list[int]], split: str, english: str) -> Entry | Flaw:
        """A theorem as an entry. The spans in `omitted` are left out of its header."""
        row, text = self.row, self.text
        start = parts["declaration"][0]
        if not parts.get("signature"):
            return Flaw(self._place(start), "the example has no type; add one")
        above = self._without([*parts["in"], *(span for span in omitted if span[0] < start)])[:start]
        header, skipped = _trimmed(above)
        line = self._position(start)[1]
        name = text[slice(*parts["name"])] if "name" in parts else f"example_{row.number or line}"
        begin = parts["name"][1] if "name" in parts else parts["signature"][0]
        begin += len(text[begin:]) - len(text[begin:].lstrip())
        theorem = Theorem(
            name,
            text[begin : parts["signature"][1]],
            header,
            row.imports,
            row.exclude,
            row.exclude_importers,
            places=(*self._header_places(skipped), *self._statement_places(start, len(name), begin)),
        )
        written = "" if parts["sorry"] else text[slice(*parts["proof"])]
        return Entry(
            theorem,
            english or row.english,
            "" if parts["sorry"] else self._tactic(parts),
            row.informal,
            split or split_by(f"{row.source}.{name}"),
            row.source,
            written,
            row.number,
        )

    def _tactic(self, parts: dict[str, Any]) -> str:
        """A complete proof as a tactic; empty if it cannot be written as one."""
        if span := parts.get("tactics"):
            column = span[0] - self._lines[bisect_right(self._lines, span[0]) - 1]
            tactics = " " * column + self.text[slice(*span)]
            return tactics if '"' in tactics else dedent(tactics)
        return f"exact ({self.text[slice(*parts['term'])]})" if parts.get("term") else ""

    def _without(self, spans: list[list[int]]) -> str:
        """The text with the spans replaced by spaces."""
        text = self.text
        for start, end in spans:
            text = text[:start] + blanks(text[start:end]) + text[end:]
        return text

    def _position(self, offset: int) -> tuple[str, int, int]:
        """The position of a character: file or field, line and column."""
        line = bisect_right(self._lines, offset) - 1
        piece = min(bisect_right(self._first, line) - 1, len(self.row.pieces) - 1)
        return self.row.pieces[piece].where, line - self._first[piece] + 1, offset - self._lines[line]

    def _place(self, offset: int) -> str:
        return "{}:{}:{}".format(*self._position(offset))

    def _header_places(self, skipped: int) -> Iterator[Place]:
        """Places of the header's pieces, without the first `skipped` lines."""
        for piece, first in zip(self.row.pieces, self._first, strict=False):
            yield Place("header", first + 1 - skipped, 0, piece.where, 1, 0)

    def _statement_places(self, start: int, name_length: int, begin: int) -> Iterator[Place]:
        """Places of a declaration and of its signature, which start at offsets `start` and `begin` of the text."""
        yield Place("statement", 1, 0, *self._position(start))
        yield Place("statement", 1, len("theorem ") + name_length + 1, *self._position(begin))

    def _flaw(self, flaw: dict[str, Any], *, skipped: bool) -> Flaw:
        line, column, message = flaw["messages"][0]
        offset = self._lines[line - 1] + column if line else flaw["range"][0]
        if flaw["kind"] == "elaboration":
            message += "\nThis command is left out of the headers of later theorems."
        return Flaw(self._place(min(offset, len(self.text))), message, skipped)


def _trimmed(text: str) -> tuple[str, int]:
    """A header without blank lines at either end, and the number of lines removed from its start."""
    header = text.rstrip()
    skipped = re.match(r"(?:[^\S\n]*\n)*", header)
    cut = skipped.end() if skipped else 0
    return (header[cut:] + "\n" if header[cut:] else ""), header[:cut].count("\n")


def _character_offsets(text: str, answer: dict[str, Any]) -> dict[int, int]:
    """The character offset of each byte offset in an answer."""
    data, offsets, before = text.encode(), {0: 0}, 0
    for offset in sorted(set(_numbers([answer["theorems"], [flaw["range"] for flaw in answer["wrong"]]]))):
        offsets[offset] = offsets[before] + len(data[before:offset].decode())
        before = offset
    return offsets


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def _converted(value: Any, offsets: dict[int, int]) -> Any:
    if isinstance(value, list):
        return [_converted(part, offsets) for part in value]
    return offsets[value] if isinstance(value, int) and not isinstance(value, bool) else value
