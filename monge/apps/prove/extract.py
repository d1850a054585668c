"""The proof and the statement in the text of a theorem, without Lean's parser."""

import re
from textwrap import dedent

KEYWORD = re.compile(
    r"(?:--[^\n]*\s*|/-.*?-/\s*|@\[[^\]]*\]\s*)*(?:(?:public|private|protected|noncomputable|nonrec)\s+)*"
    r"(?:example\b|(?:theorem|lemma)\s+(?:«[^»]*»|[^\s({\[:.«]+|\.(?!\{))+(?:\.\{[^}]*\})?)",
    re.DOTALL,
)
"""The beginning of a theorem, up to its name and universes."""
SKIPPED = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])'|--[^\n]*|/-.*?-/", re.DOTALL)
"""Strings, characters and comments."""
LOCAL = re.compile(r"(?<![\w.])(?:let|have)\b")
OPENING, CLOSING = "([{⟨", ")]}⟩"


def proof_in(text: str) -> str:
    r"""The tactics that a text holds: those after `:= by`, `exact` with the term after `:=`, or, if the text is not a theorem,
    the text. Empty if there is none; proofs by equations, without `:=`, are not read.

    >>> proof_in("theorem t (n : Nat := 2) : n = n := by\n  intro\n  rfl")
    'intro\nrfl'
    >>> proof_in("theorem t : 1 = 1 := by intro\n                        rfl")
    'intro\nrfl'
    >>> proof_in("theorem t : 1 = 1 := rfl"), proof_in("rfl"), proof_in("theorem t : 1 = 1")
    ('exact rfl', 'rfl', '')
    """
    text = text.strip()
    if not (keyword := KEYWORD.match(text)):
        return text
    place = _assignment(text, keyword.end())
    rest = text[place + len(":=") :]
    if not (by := re.match(r"\s*by\b *", rest)):
        return f"exact {rest.strip()}" if rest.strip() else ""
    start = place + len(":=") + by.end()
    if text.startswith("\n", start):
        return dedent(text[start:]).strip()
    column = start - text.rfind("\n", 0, start) - 1  # that of the first tactic, with which the others align
    return dedent(" " * column + text[start:]).rstrip()


def signature_in(text: str) -> str:
    """The binders and the statement that a text holds, with a colon before the statement. A text that is not a theorem is the
    statement.

    >>> signature_in("theorem t (n : Nat) : n = n := by rfl"), signature_in("∀ n : Nat, n = n")
    ('(n : Nat) : n = n', ': ∀ n : Nat, n = n')
    """
    text = text.strip()
    if not (keyword := KEYWORD.match(text)):
        return f": {text}"
    return text[keyword.end() : _assignment(text, keyword.end())].strip()


def _assignment(text: str, start: int) -> int:
    """The position of the `:=` before the proof, or the length of the text: the first one from `start` on that is outside of
    brackets, strings and comments and does not belong to a `let` or `have`."""
    depth, local = 0, 0
    text = SKIPPED.sub(lambda found: " " * len(found[0]), text)
    for place in range(start, len(text)):
        depth += (text[place] in OPENING) - (text[place] in CLOSING)
        local += not depth and LOCAL.match(text, place) is not None
        if not depth and text.startswith(":=", place):
            if not local:
                return place
            local -= 1
    return len(text)
