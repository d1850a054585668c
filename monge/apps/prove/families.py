"""Theorems with their proofs in plain Lean files: definitions, a line `-- theorems`, theorems with their English."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
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
    """A theorem with its English. One of a family rests on the family's definitions alone."""

    theorem: Theorem
    english: str
    """The statement in English, and why it holds."""
    proof: str
    """Tactics that prove it, in lines; empty if none are known."""
    informal: str = ""
    """A proof in English, where it stands apart."""
    split: str = "train"
    """train, validation or test."""
    source: str = ""
    """The file that it comes from, without its folder and suffix."""
    written: str = ""
    """The proof to the letter, from `:=`, `|` or `where` on, if the file has a complete one."""

    @property
    def key(self) -> str:
        """A name of its own among the theorems of many files."""
        return f"{self.source}.{self.theorem.name}"

    @property
    def formal(self) -> str:
        """The theorem with its proof as text, or with a `sorry`."""
        proof = self.written or ":= by\n  sorry"
        return f"theorem {self.theorem.name} {self.theorem.signature} {proof}"


def split_by(key: str) -> Literal["train", "validation", "test"]:
    """The split of a theorem, by a hash of its name: seven of ten for training, one for validation, two for testing."""
    return split_of(key, SHARES, uniform=_tenth)


def _tenth(key: str) -> float:
    return hashlib.blake2b(key.encode(), digest_size=4).digest()[0] % 10 / 10


def family(text: str, source: str) -> list[Entry] | None:
    """The theorems of a file in the form of the benchmark's; None if any part of it has another form.

    Each theorem stands after `/-- in English -/`, has a proof `:= by` with its tactics in the lines below it, and is separated
    from the next by an empty line.
    """
    header, mark, rest = text.partition(MARK)
    if not mark or FORM.sub("", rest).strip():
        return None
    found = FORM.findall(rest)
    if not found or any(_open(signature) or re.search(r"\bsorry\b", proof) for _, _, signature, proof in found):
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
        for english, name, signature, proof in found
    ]


def _open(text: str) -> bool:
    """True if a bracket is open at the end: the signature goes on."""
    return any(text.count(a) != text.count(b) for a, b in ("()", "{}", "[]", "⟨⟩"))
