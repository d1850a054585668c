"""The verbs of `monge prove` that write what there is in other forms: proofs, pairs for translation, the library."""

import json
from collections.abc import Iterator
from pathlib import Path

import tyro
from rich.console import Console

from monge.apps.prove.config import SearchConfig
from monge.apps.prove.families import DATA
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.report import done
from monge.apps.prove.rows import Flaw, json_rows
from monge.apps.prove.sources import entries_of
from monge.files import atomic_write, ensure_absent
from monge.text import file_name, printable

console = Console(soft_wrap=True)


def export_proofs(path: tyro.conf.Positional[Path], *, out: Path = Path("proofs")) -> None:
    """Write each proof of a run as a .lean file.

    Args:
        path: A folder of `monge prove search`.
        out: The folder for them, made here.
    """
    ensure_absent(out)
    proved = [result for result in done(path) if result.tactics is not None]
    if not proved:
        raise ValueError(f"{path}: no proof to write")
    out.mkdir(parents=True)
    for result in proved:
        (out / f"{result.number:05d}-{file_name(result.name)}.lean").write_text(result.source, encoding="utf-8")
    console.print(f"{len(proved)} proofs: {out}")


def export_pairs(theorems: tyro.conf.Positional[Path] = DATA, *, out: Path = Path("texts.jsonl")) -> None:
    """Write theorems and their proofs, in English and in Lean, as the texts that `monge translate` reads.

    Args:
        theorems: As of `search`. The libraries that a .jsonl file imports need not be installed.
        out: The .jsonl file, {id, group, nl, formal} a line.
    """
    ensure_absent(out)
    rows = [
        {"id": key, "group": key, "nl": " ".join(filter(None, (english, informal))), "formal": formal}
        for key, english, informal, formal in (_rows if theorems.suffix == ".jsonl" else _entries)(theorems)
        if english
    ]
    if not rows:
        raise ValueError(f"{theorems}: no theorem with its English")
    with atomic_write(out) as file:
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    console.print(f"{len(rows)} pairs: {out}")


def _entries(path: Path) -> Iterator[tuple[str, str, str, str]]:
    for entry in entries_of(path):
        yield entry.key, entry.english, entry.informal, entry.formal


def _rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Rows of a .jsonl file with their text as it is: it need not be split, so its libraries need not be here."""
    for row in json_rows(path):
        if isinstance(row, Flaw):
            console.print(printable(f"Left out: {row}"), highlight=False, markup=False)
        elif row.pieces:
            yield f"{row.source}.{row.number}", row.english, row.informal, row.pieces[-1].text.strip()


def export_library(*, out: Path = Path("library.jsonl"), lean: str = "") -> None:
    """Write the public theorems of Init and Std: name, statement, module, and what is excluded, all that comes `after` it.

    `search` reads the file, or a part of it, as it reads a .txt file of such names.

    Args:
        out: The .jsonl file, made here.
        lean: A command of a Lean of this machine; the WebAssembly build if not said.
    """
    ensure_absent(out)
    toolchain = SearchConfig(lean=lean).toolchain()
    lines: list[str] = []
    with LeanServer(toolchain, ("Init", "Std")) as server:
        for number in range(server.hello()["modules"]):
            found = server.request("library", seconds=120.0, module=number)
            for row in found["theorems"]:
                row |= {"module": found["module"], "after": row["name"]}
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic_write(out) as file:
        file.write_text("".join(lines), encoding="utf-8")
    console.print(f"{len(lines)} theorems: {out}")
