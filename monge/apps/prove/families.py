"""Theorems with their proofs in plain Lean files: definitions, a line `-- theorems`, theorems with their English."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from monge.apps.prove.state import Theorem

DATA = Path(__file__).parent / "data"
DECLARED = r"^(?:@\[.*\]\s*)?(?:private |protected )?(?:theorem|lemma)\b"
MARK = "-- theorems\n"


@dataclass(frozen=True)
class Entry:
    """A theorem with what is said of it. One of a family stands on the family's definitions alone."""

    theorem: Theorem
    english: str
    """What it says, and why it holds."""
    proof: str
    """Tactics that prove it, in lines; empty if none are known."""
    informal: str = ""
    """A proof in English, where it stands apart."""
    split: str = "train"
    """train, validation or test."""
    source: str = ""
    """The file that it comes from."""

    @property
    def key(self) -> str:
        """A name of its own among the theorems of many files."""
        return f"{self.source}.{self.theorem.name}"


def split_of(name: str) -> str:
    """Of ten theorems seven are for training, one for validation, two for testing; by name, so that it stays."""
    tenth = hashlib.blake2b(name.encode(), digest_size=4).digest()[0] % 10
    return "train" if tenth < 7 else "validation" if tenth == 7 else "test"


def family(path: Path) -> list[Entry]:
    """The theorems of a file. ValueError if it is not such a file."""
    header, mark, rest = path.read_text().partition(MARK)
    if not mark:
        raise ValueError(f"{path}: no line {MARK.strip()!r} between its definitions and its theorems")
    found = re.findall(r"/-- (.*?) -/\ntheorem (\S+) (.*?) := by\n(.*?)(?=\n\n|\Z)", rest, re.DOTALL)
    if not found:
        raise ValueError(f"{path}: no theorem `/-- in English -/ theorem NAME ... := by` after {MARK.strip()!r}")
    if len(found) != (count := len(re.findall(DECLARED, rest, re.MULTILINE))):
        raise ValueError(
            f"{path}: {count} theorems, {len(found)} of them as `/-- in English -/`, statement, proof without gaps"
        )
    return [
        Entry(
            Theorem(name, signature.strip(), header.rstrip() + "\n"),
            " ".join(english.split()),
            dedent(proof).rstrip(),
            split=split_of(f"{path.stem}.{name}"),
            source=path.stem,
        )
        for english, name, signature, proof in found
    ]
