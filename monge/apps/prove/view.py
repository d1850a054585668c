"""One self-contained HTML page of a run: its theorems, and the tree of each search."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from monge.apps.prove.report import done, settings, share
from monge.apps.prove.state import proof_text
from monge.apps.prove.trajectories import Result

PAGE = Path(__file__).parent / "view.html"
ERROR = 600
"""Characters of an error that the page keeps."""


def page(path: Path) -> str:
    """The page of a run. FileNotFoundError or ValueError if there is no run, or nothing done in it."""
    found = done(path)
    proved = sum(result.proved for result in found)
    head = {
        "run": path.resolve().name,
        "proved": share(proved, len(found)),
        "settings": {k: v for k, v in settings(path).items() if k not in ("theorems", "tactics")},
        "theorems": [_head(result) for result in found],
    }
    trees = {result.number: "" for result in found}
    for part in sorted({result.part for result in found}):
        mine = [result for result in found if result.part == part]
        by_theorem: dict[str, list[dict[str, Any]]] = {}
        for row in pq.read_table(path / part).to_pylist():
            by_theorem.setdefault(row["parent_id"].split("-")[1], []).append(row)
        for result in mine:
            trees[result.number] = _packed(_tree(by_theorem.get(str(result.number), [])))
    text = PAGE.read_text(encoding="utf-8")
    text = text.replace("/*TREES*/null", _json(trees))  # base64: no text of a theorem stands for the other place
    return text.replace("/*HEAD*/null", _json(head))


def _json(found: object) -> str:
    """JSON that may stand in a script: no text in it ends the script."""
    return json.dumps(found, ensure_ascii=False).replace("<", "\\u003c")


def _head(result: Result) -> dict[str, Any]:
    return {
        "number": result.number,
        "name": result.name,
        "signature": result.signature,
        "statement": result.statement,
        "explicit": result.explicit,
        "remarks": result.remarks,
        "file": result.theorem.file,
        "ended": result.ended,
        "error": result.error,
        "tactics": result.tactics,
        "axioms": result.axioms,
        "states": result.expanded,
        "attempts": result.attempts,
        "seconds": round(result.seconds, 1),
        "proof": proof_text(result.theorem, result.tactics) if result.tactics is not None else "",
        "source": result.source,
    }


def _tree(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Attempts as [state, parent, tactic, outcome, log p, energy, label, ms, error, number of the state's text]."""
    texts: dict[str, int] = {}

    def text(state: str | None) -> int | None:
        return None if state is None else texts.setdefault(state, len(texts))

    found = [
        [
            None if row["state_id"] is None else int(row["state_id"].split("-")[2]),
            int(row["parent_id"].split("-")[2]),
            row["tactic"],
            row["outcome"],
            round(row["log_probability"], 3),
            None if row["energy"] is None else round(row["energy"], 3),
            row["label"],
            round(1000 * row["wall_seconds"]),
            (row["error"] or "")[:ERROR],
            text(row["state_after"]),
        ]
        for row in rows
    ]
    root = text(rows[0]["state_before"]) if rows else None
    return {"root": root, "attempts": found, "texts": list(texts)}


def _packed(found: object) -> str:
    return base64.b64encode(gzip.compress(json.dumps(found, ensure_ascii=False).encode(), 9, mtime=0)).decode()
