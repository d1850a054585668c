"""Theorems from files: .lean files, .jsonl files (miniF2F, ProofNet, Lean-Workbook), and lists of library theorems."""

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
    """The theorems of files, and the errors in the files."""

    entries: list[Entry]
    flaws: list[Flaw]

    @property
    def skipped(self) -> list[Flaw]:
        """Flaws that cause a theorem to be left out."""
        return [flaw for flaw in self.flaws if flaw.skipped]


def entries_of(path: Path, split: Split = "all", lean: Callable[[], Toolchain] | None = None) -> list[Entry]:
    """The theorems that `read` returns, without the flaws."""
    return read(path, split, lean).entries


def read(
    path: Path, split: Split = "all", lean: Callable[[], Toolchain] | None = None, *, limit: int | None = None
) -> Reading:
    """The theorems of a .lean file, a folder of them, a .jsonl file, or a .txt file of names of library theorems.

    Lean's parser splits the texts: that of the toolchain that `lean` returns (default: the WebAssembly build). Files in the
    benchmark's format need no Lean. A row or file that cannot be read gives a flaw, and reading continues; it stops after
    `limit` theorems. FileNotFoundError if `path` does not exist; ValueError for another type of file, or without a theorem.
    """
    reading, others = Reading([], []), 0
    with Splitter(lean) as splitter:
        for item in _items(path, splitter):
            if isinstance(item, Flaw):
                reading.flaws.append(item)
            elif split in ("all", item.split):
                reading.entries.append(item)
                if len(reading.entries) == limit:
                    break
            else:
                others += 1
    if reading.entries:
        return reading
    if skipped := reading.skipped:
        more = f" ({len(skipped) - 1} more cannot be read)" if len(skipped) > 1 else ""
        raise ValueError(f"{skipped[0]}{more}")
    raise ValueError(f"{path}: no theorem" + (f" in split {split}" if others else ""))


def _items(path: Path, splitter: Splitter) -> Iterator[Entry | Flaw]:
    if path.suffix == ".txt":
        try:
            names = decoded(path.read_bytes()).split()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        yield from (restated(name, path.stem) for name in names)
    elif path.suffix == ".jsonl":
        for row in json_rows(path):
            yield from [row] if isinstance(row, Flaw) else _items_of_row(row, splitter)
    elif path.is_file() and path.suffix != ".lean":
        raise ValueError(f"{path}: give a .lean file, a folder of them, a .jsonl file, or a .txt file of names")
    else:
        for file in sorted(path.glob("*.lean")) if path.is_dir() else [path]:
            yield from _items_of_file(file, splitter)


def _items_of_file(path: Path, splitter: Splitter) -> Iterator[Entry | Flaw]:
    try:
        entries = family(decoded(path.read_bytes()), path.stem)
        yield from splitter(lean_row(path)) if entries is None else entries
    except ValueError as error:
        yield Flaw(str(path), str(error))


def _items_of_row(row: Row, splitter: Splitter) -> list[Entry] | list[Entry | Flaw]:
    return [restated(row.restates, row.source)] if row.restates else splitter(row)


def restated(name: str, source: str = "library") -> Entry:
    """A theorem of Init or Std, to be proved without the theorems of its own module or modules that import that one."""
    fresh_name = "restated_" + "".join(c if c.isalnum() else "_" for c in name)
    return Entry(
        Theorem(fresh_name, f": type_of% @{name}", "", ("Init", "Std"), restates=name),
        "",
        "",
        split="test",
        source=source,
    )
