"""Export verbs of `monge prove`: proofs as .lean files, pairs for translation, and the theorems of the library."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from monge.apps.prove.config import SearchConfig
from monge.apps.prove.contamination import NEAR, normalised
from monge.apps.prove.english import statement
from monge.apps.prove.families import DATA, SHARES
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import installed
from monge.apps.prove.report import done
from monge.apps.prove.rows import Flaw, json_rows
from monge.apps.prove.sources import entries_of
from monge.apps.prove.state import Theorem
from monge.files import atomic_write, ensure_absent
from monge.flags import at_least_one
from monge.near_duplicates import near_duplicates
from monge.text import file_name, printable

console = Console(soft_wrap=True)


def export_proofs(path: tyro.conf.Positional[Path], *, out: Path = Path("proofs")) -> None:
    """Write each proof of a run as a .lean file.

    Args:
        path: Directory of a run of `monge prove search`.
        out: Directory for the .lean files; it must not exist.
    """
    ensure_absent(out)
    proved = [result for result in done(path) if result.tactics is not None]
    if not proved:
        raise ValueError(f"{path}: the run has no proofs; choose another run")
    out.mkdir(parents=True)
    for result in proved:
        (out / f"{result.number:05d}-{file_name(result.name)}.lean").write_text(result.source, encoding="utf-8")
    console.print(f"Wrote {len(proved)} proofs to {out}.")


def export_pairs(
    theorems: tyro.conf.Positional[Path] = DATA, *, out: Path = Path("texts.jsonl"), lean: str = ""
) -> None:
    """Write theorems and their proofs, in English and in Lean, as pairs of texts for `monge translate`.

    The pairs keep the splits of the theorems, unless none of them is for training.

    Args:
        theorems: File or directory of theorems, as in `search`. Libraries that a .jsonl file imports need not be installed.
        out: Path of the .jsonl file, with one {id, group, nl, formal, split} object per line; it must not exist.
        lean: Command of an installed Lean, such as "lake env lean", that reads .lean files; the WebAssembly build by default.
    """
    ensure_absent(out)
    rows = [
        {"id": key, "group": key, "nl": " ".join(filter(None, (english, informal))), "formal": formal, "split": split}
        for key, english, informal, formal, split in (
            _rows(theorems) if theorems.suffix == ".jsonl" else _entries(theorems, lean)
        )
        if english
    ]
    if not rows:
        place = "a field nl_statement" if theorems.suffix == ".jsonl" else "docstrings"
        raise ValueError(f"{theorems}: no theorem has an English description; add {place} or choose another file")
    keep = any(row["split"] == "train" for row in rows)
    rows = [
        {name: value for name, value in row.items() if name != "split" or (keep and value in SHARES)} for row in rows
    ]
    _write_rows(out, rows)
    console.print(f"Wrote {len(rows)} pairs to {out}.")


def _entries(path: Path, lean: str) -> Iterator[tuple[str, str, str, str, str]]:
    for entry in entries_of(path, lean=installed(lean)):
        yield entry.key, entry.english, entry.informal, entry.formal, entry.split


def _rows(path: Path) -> Iterator[tuple[str, str, str, str, str]]:
    """Rows of a .jsonl file with their text unchanged. Lean does not split them, so their libraries need not be installed."""
    for row in json_rows(path):
        if isinstance(row, Flaw):
            console.print(printable(f"Skipped: {row}"), highlight=False, markup=False)
        elif row.pieces:
            yield f"{row.source}.{row.number}", row.english, row.informal, row.pieces[-1].text.strip(), row.split


def export_library(*, out: Path = Path("library.jsonl"), lean: str = "") -> None:
    """Write the public theorems of Init and Std as JSON lines: name, statement, module, and `restates`.

    `restates` repeats the name. `search` reads the file, or a selection of its lines, like a .txt file of names: a proof may
    use neither the theorems of the theorem's own module nor anything that imports that module.

    Args:
        out: Path of the .jsonl file; it must not exist.
        lean: Command of an installed Lean (default: the WebAssembly build).
    """
    ensure_absent(out)
    rows = [
        {"name": row["name"], "statement": row["statement"], "module": row["module"], "restates": row["name"]}
        for row in _library(lean, trees=False)
    ]
    _write_rows(out, rows)
    console.print(f"Wrote {len(rows)} theorems to {out}.")


def export_english(
    *,
    out: Path = Path("english.jsonl"),
    seed: int = 0,
    max_words: int = 64,
    limit: int | None = None,
    lean: str = "",
) -> None:
    """Write the public theorems of Init and Std in controlled English and in Lean, as pairs of texts for `monge translate`.

    The English is synthetic: templates put each statement into words, with several wordings for each construct. A group is a
    module, except that theorems that are nearly the same are all in the group of the first one's module.

    Args:
        out: Path of the .jsonl file, with one {id, group, nl, formal, restates} object per line; it must not exist.
        seed: Random seed of the wordings.
        max_words: Maximum number of words of a statement in Lean, separated by spaces.
        limit: Maximum number of theorems, which are chosen by a hash of their names.
        lean: Command of an installed Lean (default: the WebAssembly build).
    """
    ensure_absent(out)
    at_least_one(max_words=max_words, **({} if limit is None else {"limit": limit}))
    found = [row for row in _library(lean, trees=True) if len(row["statement"].split()) <= max_words]
    if limit is not None:
        found = sorted(found, key=lambda row: hashlib.sha256(row["name"].encode()).digest())[:limit]
    forms = [normalised(Theorem("t", f": {row['statement']}")) for row in found]
    rows = [
        {
            "id": row["name"],
            "group": found[group]["module"],
            "nl": statement(row["tree"], seed=f"{seed} {row['name']}"),
            "formal": " ".join(row["statement"].split()),
            "restates": row["name"],
        }
        for row, group in zip(found, near_duplicates(forms, threshold=NEAR, width=3), strict=True)
    ]
    _write_rows(out, rows)
    console.print(f"Wrote {len(rows)} pairs to {out}.")


def _library(lean: str, *, trees: bool) -> Iterator[dict[str, Any]]:
    """Yields the public theorems of Init and Std: name, statement, module and, with `trees`, the statement's tree."""
    with LeanServer(SearchConfig(lean=lean).toolchain(), ("Init", "Std")) as server:
        for number in range(server.hello()["modules"]):
            response = server.request("library", seconds=600.0, module=number, trees=int(trees))
            yield from ({**row, "module": response["module"]} for row in response["theorems"])


def _write_rows(out: Path, rows: list[dict[str, str]]) -> None:
    with atomic_write(out) as file:
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
