"""Export verbs of `monge prove`: proofs as .lean files, pairs for translation, and the theorems of the library."""

import json
from collections.abc import Iterator
from pathlib import Path

import tyro
from rich.console import Console

from monge.apps.prove.config import SearchConfig
from monge.apps.prove.families import DATA
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import installed
from monge.apps.prove.report import done
from monge.apps.prove.rows import Flaw, json_rows
from monge.apps.prove.sources import entries_of
from monge.files import atomic_write, ensure_absent
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

    Args:
        theorems: File or directory of theorems, as in `search`. Libraries that a .jsonl file imports need not be installed.
        out: Path of the .jsonl file, with one {id, group, nl, formal} object per line; it must not exist.
        lean: Command of an installed Lean, such as "lake env lean", that reads .lean files; the WebAssembly build by default.
    """
    ensure_absent(out)
    rows = [
        {"id": key, "group": key, "nl": " ".join(filter(None, (english, informal))), "formal": formal}
        for key, english, informal, formal in (
            _rows(theorems) if theorems.suffix == ".jsonl" else _entries(theorems, lean)
        )
        if english
    ]
    if not rows:
        place = "a field nl_statement" if theorems.suffix == ".jsonl" else "docstrings"
        raise ValueError(f"{theorems}: no theorem has an English description; add {place} or choose another file")
    with atomic_write(out) as file:
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    console.print(f"Wrote {len(rows)} pairs to {out}.")


def _entries(path: Path, lean: str) -> Iterator[tuple[str, str, str, str]]:
    for entry in entries_of(path, lean=installed(lean)):
        yield entry.key, entry.english, entry.informal, entry.formal


def _rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Rows of a .jsonl file with their text unchanged. Lean does not split them, so their libraries need not be installed."""
    for row in json_rows(path):
        if isinstance(row, Flaw):
            console.print(printable(f"Skipped: {row}"), highlight=False, markup=False)
        elif row.pieces:
            yield f"{row.source}.{row.number}", row.english, row.informal, row.pieces[-1].text.strip()


def export_library(*, out: Path = Path("library.jsonl"), lean: str = "") -> None:
    """Write the public theorems of Init and Std as JSON lines: name, statement, module, and `restates`.

    `restates` repeats the name. `search` reads the file, or a selection of its lines, like a .txt file of names: a proof may
    use neither the theorems of the theorem's own module nor anything that imports that module.

    Args:
        out: Path of the .jsonl file; it must not exist.
        lean: Command of an installed Lean (default: the WebAssembly build).
    """
    ensure_absent(out)
    toolchain = SearchConfig(lean=lean).toolchain()
    lines: list[str] = []
    with LeanServer(toolchain, ("Init", "Std")) as server:
        for number in range(server.hello()["modules"]):
            response = server.request("library", seconds=120.0, module=number)
            for row in response["theorems"]:
                row |= {"module": response["module"], "restates": row["name"]}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic_write(out) as file:
        file.write_text("".join(lines), encoding="utf-8")
    console.print(f"Wrote {len(lines)} theorems to {out}.")
