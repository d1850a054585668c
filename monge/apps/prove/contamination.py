"""Theorems of different splits that state the same or nearly the same."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from monge.apps.prove.families import Entry
from monge.apps.prove.state import Theorem

TOKEN = re.compile(r"[^\W\d][\w'.!?]*|\d+|[^\w\s]")
BINDER = re.compile(
    r"[({\[⦃]\s*((?:[^\W\d][\w']*\s+)+):"
    r"|(?:∀|∃!?|fun|λ|∑|∏)\s+((?:[^\W\d][\w']*\s+)*[^\W\d][\w']*)\s*[,:=(∈∉⊆<>≤≥≠↦]"
)
NEAR = 0.9
"""Similarity from which two statements count as nearly the same."""


def normalised(theorem: Theorem) -> tuple[str, ...]:
    """The tokens of a statement, with its variables numbered in the order in which they occur.

    >>> normalised(Theorem("t", "(a b : N) : a + b = b")) == normalised(Theorem("u", "(x y : N) : x + y = y"))
    True
    """
    text = re.sub(r"--[^\n]*|/-.*?-/", " ", theorem.signature, flags=re.DOTALL)
    variables = {name for found in BINDER.finditer(text) for part in found.groups() if part for name in part.split()}
    numbers: dict[str, str] = {}
    return tuple(
        numbers.setdefault(token, f"#{len(numbers)}") if token in variables else token for token in TOKEN.findall(text)
    )


def similarity(first: Sequence[str], second: Sequence[str]) -> float:
    """The Jaccard similarity of two statements' sets of token trigrams.

    >>> similarity("abcd", "abcd"), similarity("abcd", "xyz")
    (1.0, 0.0)
    """
    one, other = ({tuple(tokens[k : k + 3]) for k in range(max(1, len(tokens) - 2))} for tokens in (first, second))
    return len(one & other) / len(one | other)


class Overlap(NamedTuple):
    """Two theorems of different splits that are alike."""

    train: str
    test: str
    similarity: float
    """1 for the same statement up to names of variables."""


def overlaps(train: Sequence[Entry], test: Sequence[Entry], *, least: float = NEAR) -> Iterator[Overlap]:
    """Pairs of a training and a test theorem whose similarity is at least `least`."""
    known = [(other, normalised(other.theorem)) for other in train]
    for entry in test:
        tokens = normalised(entry.theorem)
        for other, seen in known:
            value = similarity(seen, tokens)
            if value >= least:
                yield Overlap(other.key, entry.key, value)
