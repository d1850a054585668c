"""Families of theorems in plain Lean files: definitions, a line `-- theorems`, then theorems described in English."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Literal

from monge.apps.prove.state import Theorem
from monge.math.random import split_of

DATA = Path(__file__).parent / "data"
MARK = "-- theorems\n"
FORM = re.compile(
    r"/-- ((?:(?!-/).)+?) -/\ntheorem (\S+) ((?:(?!\n\n|/--).)+?) := by\n((?:(?!\n\n).)+)(?=\n\n|\Z)", re.DOTALL
)
SHARES: dict[Literal["train", "validation", "test"], float] = {"train": 0.7, "validation": 0.1, "test": 0.2}


@dataclass(frozen=True)
class Entry:
    """A theorem with its English description. A theorem of a family depends only on the family's definitions."""

    theorem: Theorem
    english: str
    """Statement in English, and the reason why it holds."""
    proof: str
    """Tactics that prove the theorem; empty if the file has no proof, or one that cannot be written as a tactic."""
    informal: str = ""
    """Proof in English, if it is separate from the statement."""
    split: str = "train"
    """Split that the theorem belongs to: train, validation or test."""
    source: str = ""
    """Name of the file that the theorem comes from, without directory and suffix."""
    written: str = ""
    """Verbatim proof, starting with `:=`, `|` or `where`; empty if the file has no complete one."""
    number: int = 0
    """Line number in a .jsonl file; 0 for a theorem of another file."""

    @property
    def key(self) -> str:
        """Name that is unique among the theorems of many files."""
        return f"{self.source}.{self.theorem.name}"

    @property
    def tactics(self) -> str:
        """The proof as `:= by` and its tactics; empty if it cannot be written as tactics."""
        if not self.proof:
            return ""
        return ":= by\n" + (self.proof if '"' in self.proof else indent(self.proof, "  "))

    @property
    def formal(self) -> str:
        """The theorem with its proof as text, or with `sorry` if there is no proof."""
        proof = self.written or ":= by\n  sorry"
        return f"theorem {self.theorem.name} {self.theorem.signature} {proof}"


def split_by(key: str) -> Literal["train", "validation", "test"]:
    """The split of a theorem by a hash of its key: 70 % for training, 10 % for validation, 20 % for testing."""
    return split_of(key, SHARES, uniform=_tenth)


def _tenth(key: str) -> float:
    return hashlib.blake2b(key.encode(), digest_size=4).digest()[0] % 10 / 10


def family(text: str, source: str) -> list[Entry] | None:
    """The theorems of a file in the benchmark's format; None if any part of the file deviates from it.

    Each theorem follows its description `/-- in English -/`, has a proof `:= by` with tactics on the lines below, and is
    separated from the next theorem by an empty line.
    """
    header, mark, rest = text.partition(MARK)
    if not mark or FORM.sub("", rest).strip():
        return None
    matches = FORM.findall(rest)
    if not matches or any(
        _unbalanced(signature) or re.search(r"\bsorry\b", proof) for _, _, signature, proof in matches
    ):
        return None
    return [
        Entry(
            Theorem(name, signature.strip(), header.rstrip() + "\n"),
            " ".join(english.split()),
            dedent(proof).rstrip(),
            split=split_by(f"{source}.{name}"),
            source=source,
            written=":= by\n" + proof.rstrip(),
        )
        for english, name, signature, proof in matches
    ]


def _unbalanced(text: str) -> bool:
    """True if the text has unbalanced brackets, so that the signature continues after it."""
    return any(text.count(a) != text.count(b) for a, b in ("()", "{}", "[]", "⟨⟩"))
