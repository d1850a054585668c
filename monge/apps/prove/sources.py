"""Theorems from files: .lean files, the .jsonl of miniF2F, ProofNet and Lean-Workbook, and names of the library."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from monge.apps.prove.families import Entry, family
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.rows import Flaw, Row, decoded, json_rows, lean_row
from monge.apps.prove.split import Splitter
from monge.apps.prove.state import Theorem

Split = Literal["all", "train", "validation", "test"]


@dataclass(frozen=True)
class Reading:
    """The theorems of files, and what in the files is wrong."""

    entries: list[Entry]
    flaws: list[Flaw]

    @property
    def skipped(self) -> list[Flaw]:
        """Flaws for which a theorem is left out."""
        return [flaw for flaw in self.flaws if flaw.skipped]


def entries_of(path: Path, split: Split = "all", lean: Callable[[], Toolchain] | None = None) -> list[Entry]:
    """The theorems of `read` alone."""
    return read(path, split, lean).entries


def read(
    path: Path, split: Split = "all", lean: Callable[[], Toolchain] | None = None, *, most: int | None = None
) -> Reading:
    """The theorems of a .lean file, of a folder of them, of a .jsonl file, or of a .txt file of names of the library.

    Lean's parser splits the texts, that of WebAssembly or of the toolchain that `lean` gives; files of the benchmark's form
    need none. A row or a file that cannot be read is a flaw among the others; after `most` theorems nothing more is read.
    ValueError if there is no theorem.
    """
    reading, others = Reading([], []), 0
    with Splitter(lean) as splitter:
        for one in _found(path, splitter):
            if isinstance(one, Flaw):
                reading.flaws.append(one)
            elif split in ("all", one.split):
                reading.entries.append(one)
                if len(reading.entries) == most:
                    break
            else:
                others += 1
    if reading.entries:
        return reading
    if skipped := reading.skipped:
        more = f" ({len(skipped) - 1} more cannot be read)" if len(skipped) > 1 else ""
        raise ValueError(f"{skipped[0]}{more}")
    raise ValueError(f"{path}: no theorem" + (f" in split {split}" if others else ""))


def _found(path: Path, splitter: Splitter) -> Iterator[Entry | Flaw]:
    if path.suffix == ".txt":
        try:
            names = decoded(path.read_bytes()).split()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        yield from (restated(name, path.stem) for name in names)
    elif path.suffix == ".jsonl":
        for row in json_rows(path):
            yield from [row] if isinstance(row, Flaw) else _entries(row, splitter)
    elif path.is_file() and path.suffix != ".lean":
        raise ValueError(f"{path}: give a .lean file, a folder of them, a .jsonl file, or a .txt file of names")
    else:
        for file in sorted(path.glob("*.lean")) if path.is_dir() else [path]:
            yield from _of_file(file, splitter)


def _of_file(path: Path, splitter: Splitter) -> Iterator[Entry | Flaw]:
    try:
        entries = family(decoded(path.read_bytes()), path.stem)
        yield from splitter(lean_row(path)) if entries is None else entries
    except ValueError as error:
        yield Flaw(str(path), str(error))


def _entries(row: Row, splitter: Splitter) -> list[Entry] | list[Entry | Flaw]:
    return [restated(row.after, row.source)] if row.after else splitter(row)


def restated(name: str, source: str = "library") -> Entry:
    """A theorem of Init or Std, to be proved from what its module rests on."""
    own = "restated_" + "".join(c if c.isalnum() else "_" for c in name)
    return Entry(
        Theorem(own, f": type_of% @{name}", "", ("Init", "Std"), after=name), "", "", split="test", source=source
    )
