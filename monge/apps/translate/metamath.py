"""Theorems of a Metamath database with their English comments. Megill & Wheeler, Metamath, 2nd ed., sec. 4.2."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

AND, IMPLIES = "&", "=>"
"""Symbols between hypotheses, and before the assertion, in the statements of theorems."""
INSTALLED = Path("/usr/share/metamath/databases/set.mm")
"""Path of set.mm (CC0) in Debian's package metamath-databases."""


@dataclass(frozen=True)
class Theorem:
    """A theorem: label, comment as plain text, and hypotheses and assertion as symbols."""

    label: str
    comment: str
    content: str
    """The sentences of the comment that cite neither literature nor other theorems; may be empty."""
    statement: tuple[str, ...]
    """Symbols: hypotheses joined by AND, then IMPLIES and the assertion; the assertion alone without hypotheses."""
    pattern: tuple[str, ...]
    """The statement with variables numbered by first occurrence: equal for theorems that differ only in variable names."""


# a comment; the start and end of a block; variables; a labelled hypothesis, axiom or theorem
_PIECE = re.compile(r"\$\((.*?)\$\)|(\$\{)|(\$\})|\$v\s(.*?)\$\.|(\S+)\s+\$([eap])\s+(.*?)\s\$\.", re.DOTALL)
_CREDIT = re.compile(
    r"\((?:Contributed|Revised|Proof|New usage|Shortened|Moved|Unnecessary|Removed|Generalized|Based on|Obsolete)\b[^()]*"
    r"(?:\([^()]*\)[^()]*)*\)"
)


_FORMULA = re.compile(r"`(?:``|[^`])*`")
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\"\0_])|(?<=[.!?][)\"])\s+(?=[A-Z(\"\0_])")
_ABBREVIATIONS = (" p.", " pp.", "e.g.", "i.e.", "cf.", "Eq.", "Th.", "Def.", "Prop.", "Lem.", "vs.")
_CITATION = re.compile(r"(?<!\S)~\s*\S|\[[A-Z][^\]\s]*\],? pp?\.")


def theorems(path: Path) -> Iterator[Theorem]:
    """The provable statements ($p) of type |- directly after a comment. ValueError if `path` has none or cannot be read."""
    text = database(path)
    any_theorem, scopes, variables = False, [[]], set[str]()
    comment, end = "", 0
    for piece in _PIECE.finditer(text):
        new_comment, opened, closed, names, label, kind, body = piece.groups()
        if opened:
            scopes.append([])
        elif closed:
            scopes.pop()
        elif names:
            variables |= set(names.split())
        elif kind == "e":
            scopes[-1].append(_symbols(body))
        elif kind == "p" and comment and not text[end : piece.start()].strip():
            symbols = _symbols(body.split("$=")[0])
            if symbols[0] == "|-" and (words := plain(comment)):
                hypotheses = [symbol for scope in scopes for h in scope for symbol in (*h[1:], AND)][:-1]
                statement = (*hypotheses, IMPLIES, *symbols[1:]) if hypotheses else tuple(symbols[1:])
                any_theorem = True
                yield Theorem(
                    label, words, plain(without_citations(comment)), statement, _pattern(statement, variables)
                )
        comment, end = new_comment or "", piece.end()
    if not any_theorem:
        raise ValueError(f"{path}: no theorem with a comment; check that it is a Metamath database such as set.mm")


def database(path: Path, *, option: str = "--input") -> str:
    """The text of a database. ValueError, which names the command's option for the path, if it cannot be read."""
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a Metamath database ({error})") from error
    except OSError as error:
        raise ValueError(
            f"{path}: cannot read the database ({error.strerror}); install it with `sudo apt install metamath-databases`, "
            f"or pass another set.mm with {option}"
        ) from error


def without_citations(comment: str) -> str:
    """The sentences of a raw comment without a [Reference] to a page and without the ~ label of a theorem.

    >>> without_citations("The union of sets. Exercise 15 of [Stoll] p. 18. See ~ uniex for more.")
    'The union of sets.'
    """
    text = " ".join(_CREDIT.sub(" ", " ".join(comment.split())).split())
    formulas = _FORMULA.findall(text)  # they contain "~" and full stops
    sentences: list[str] = []
    for part in _SENTENCE.split(_FORMULA.sub("\0", text)):
        if sentences and sentences[-1].endswith(_ABBREVIATIONS):
            sentences[-1] += " " + part
        else:
            sentences.append(part)
    kept: list[str] = []
    for sentence in sentences:
        first, *others = sentence.split("\0")
        if not _CITATION.search(sentence):
            kept.append(first + "".join(map(str.__add__, formulas, others)))
        formulas = formulas[len(others) :]
    return " ".join(kept)


def plain(comment: str) -> str:
    """A comment without credits and without the marks of ` formula `, ~ label and _emphasis_; [Reference] is not removed."""
    words = _CREDIT.sub(" ", " ".join(comment.split()))
    words = re.sub(r"(?<!\S)(?:`|~)(?!\S)", " ", words.replace("``", "`"))
    words = re.sub(r"(?<![^\s(\"])_([^\s_][^_]*)_(?=[\s.,;:)\"]|$)", r"\1", words)
    return " ".join(words.split())


def _symbols(body: str) -> list[str]:
    return re.sub(r"\$\(.*?\$\)", " ", body, flags=re.DOTALL).split()


def _pattern(statement: tuple[str, ...], variables: set[str]) -> tuple[str, ...]:
    numbers: dict[str, str] = {}
    return tuple(numbers.setdefault(s, f"${len(numbers)}") if s in variables else s for s in statement)
