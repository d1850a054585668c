"""Self-contained HTML page of a run: its theorems, and the tree of each search."""

import base64
import gzip
import json
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from monge.apps.prove.report import done, settings, share
from monge.apps.prove.state import proof_text
from monge.apps.prove.trajectories import Result

PAGE = Path(__file__).parent / "view.html"
ERROR = 600
"""Maximum number of characters of an attempt's error on the page."""


def page(path: Path) -> str:
    """The HTML page of a run. FileNotFoundError if there is no run, ValueError if no theorem of it is finished."""
    finished = done(path)
    proved = sum(result.proved for result in finished)
    head = {
        "run": path.resolve().name,
        "proved": share(proved, len(finished)),
        "settings": {k: v for k, v in settings(path).items() if k not in ("theorems", "tactics")},
        "theorems": [_head(result) for result in finished],
    }
    trees = {result.number: "" for result in finished}
    for part in sorted({result.part for result in finished}):
        by_theorem: dict[str, list[dict[str, Any]]] = {}
        for row in pq.read_table(path / part).to_pylist():
            by_theorem.setdefault(row["parent_id"].split("-")[-2], []).append(row)
        for result in finished:
            if result.part == part:
                trees[result.number] = _compressed(_tree(by_theorem.get(str(result.number), [])))
    text = PAGE.read_text(encoding="utf-8")
    text = text.replace("/*TREES*/null", _json(trees))  # base64, which cannot contain the other marker
    return text.replace("/*HEAD*/null", _json(head))


def _json(value: object) -> str:
    """JSON for a script element, escaped so that no text in it ends the script."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")


def _head(result: Result) -> dict[str, Any]:
    """Entry of a theorem in the table of the page."""
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
    """Attempts as [state, parent, tactic, outcome, log p, energy, label, ms, error, index of the state's text]."""
    texts: dict[str, int] = {}

    def text(state: str | None) -> int | None:
        return None if state is None else texts.setdefault(state, len(texts))

    attempts = [
        [
            None if row["state_id"] is None else int(row["state_id"].split("-")[-1]),
            int(row["parent_id"].split("-")[-1]),
            row["tactic"],
            row["outcome"],
            round(row["log_probability"], 3),
            None if row["energy"] is None or not isfinite(row["energy"]) else round(row["energy"], 3),
            row["label"],
            round(1000 * row["wall_seconds"]),
            (row["error"] or "")[:ERROR],
            text(row["state_after"]),
        ]
        for row in rows
    ]
    root = text(rows[0]["state_before"]) if rows else None
    return {"root": root, "attempts": attempts, "texts": list(texts)}


def _compressed(value: object) -> str:
    """JSON, compressed with gzip and encoded in base64."""
    return base64.b64encode(gzip.compress(json.dumps(value, ensure_ascii=False).encode(), 9, mtime=0)).decode()
