"""Theorems from files: families, and the jsonl of miniF2F, ProofNet and Lean-Workbook."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from monge.apps.prove.families import DECLARED, Entry, family
from monge.apps.prove.state import Theorem

Split = Literal["all", "train", "validation", "test"]
STATEMENTS = ("formal_statement", "lean4_formalization")
HEADERS = ("header", "lean4_src_header")
ENGLISH = ("informal_stmt", "informal_prefix", "nl_statement", "natural_language_statement")
PROOFS = ("informal_proof", "nl_proof")
SPLITS = {"valid": "validation", "val": "validation"}


def entries_of(path: Path, split: Split = "all") -> list[Entry]:
    """The theorems of a family's .lean file, of a folder of them, of a .jsonl file, or of a .txt file of names of the library.

    ValueError if there are none, or a file cannot be read.
    """
    try:
        found = _found(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no text in UTF-8: {error}") from error
    kept = [entry for entry in found if split in ("all", entry.split)]
    if not kept:
        raise ValueError(f"{path}: no theorem" + (f" in split {split}" if found else ""))
    return kept


def _found(path: Path) -> list[Entry]:
    if path.suffix == ".txt":
        return [restated(name, path.stem) for name in path.read_text().split()]
    if path.is_dir():
        return [entry for file in sorted(path.glob("*.lean")) for entry in family(file)]
    return _jsonl(path) if path.suffix == ".jsonl" else family(path)


def restated(name: str, source: str = "library") -> Entry:
    """A theorem of Init or Std, to be proved from what its module stands on."""
    own = "restated_" + "".join(c if c.isalnum() else "_" for c in name)
    return Entry(
        Theorem(own, f": type_of% @{name}", "", ("Init", "Std"), after=name), "", "", split="test", source=source
    )


def _jsonl(path: Path) -> list[Entry]:
    found: list[Entry] = []
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if line.strip():
            try:
                found.append(_entry(json.loads(line), path.stem))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return found


def _entry(row: dict[str, Any], source: str) -> Entry:
    """A row of miniF2F (formal_statement, header, informal_stmt), ProofNet (lean4_formalization, lean4_src_header) or
    Lean-Workbook (formal_statement alone, which stands on Mathlib), with what is excluded (exclude, beyond: lists of names); or
    of `monge prove export-library` (after)."""
    if not isinstance(row, dict):
        raise ValueError("no row: {...} is expected")
    if row.get("after"):
        return restated(str(row["after"]), source)
    exclude, beyond = _names(row, "exclude"), _names(row, "beyond")
    text = _field(row, STATEMENTS)
    if not text:
        raise ValueError(f"no {' and no '.join(STATEMENTS)}")
    imports, before = _header(_field(row, HEADERS) or "import Mathlib")
    found = list(re.finditer(DECLARED + r"\s+([^\s:({\[]+)", text, re.MULTILINE))
    if not found:
        raise ValueError(f"no theorem in {text[:60]!r}")
    last = found[-1]
    header = "\n".join(filter(None, [before, text[: last.start()].strip()]))
    signature = re.sub(r"\s*:=\s*(by)?\s*(sorry)?\s*$", "", text[last.end() :].strip())
    return Entry(
        Theorem(last[1], signature, header + "\n" if header else "", imports, exclude, beyond),
        " ".join(_field(row, ENGLISH).strip().removeprefix("/--").removesuffix("-/").split()),
        "",
        _field(row, PROOFS).strip(),
        SPLITS.get(str(row.get("split", "")), str(row.get("split") or "test")),
        source,
    )


def _field(row: dict[str, Any], names: Sequence[str]) -> str:
    return next((str(row[name]) for name in names if row.get(name)), "")


def _names(row: dict[str, Any], field: str) -> tuple[str, ...]:
    found = row.get(field) or []
    if not isinstance(found, list):
        raise ValueError(f"{field} must be a list of names")
    return tuple(map(str, found))


def _header(text: str) -> tuple[tuple[str, ...], str]:
    """Its imports, and the rest."""
    lines = text.strip().splitlines()
    imports = tuple(line.split()[1] for line in lines if line.startswith("import ") and len(line.split()) > 1)
    return imports or ("Init",), "\n".join(line for line in lines if not line.startswith("import ")).strip()
