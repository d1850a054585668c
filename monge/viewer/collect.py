"""Run directories as data: their settings, progress, curves, tables and pictures, read without rebuilding the run."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from monge.files import read_json
from monge.training import checkpoint
from monge.training.log import read_records

POINTS = 600
"""Maximum number of points of a curve; longer curves are thinned evenly."""
Curve = list[tuple[float, float | None]]


@dataclass(frozen=True)
class Table:
    """A table whose cells are text."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class RunInfo:
    """A run directory at the time it was read."""

    path: Path
    app: str = ""
    step: int = 0
    """Training step, or number of searched theorems."""
    steps: int | None = None
    """Total number of steps or theorems; None if unknown."""
    updated: float = 0.0
    """Unix time of the last change."""
    best: str = ""
    """Best value of the metric that selects checkpoints, or the share of proved theorems."""
    settings: dict[str, str] = field(default_factory=dict[str, str])
    """Settings by dotted name."""
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])
    """Metrics by name, as (step, value)."""
    tables: list[Table] = field(default_factory=list[Table])
    pictures: list[Path] = field(default_factory=list[Path])
    pages: list[Path] = field(default_factory=list[Path])
    """HTML pages in the directory, such as that of `monge prove view`."""
    error: str = ""
    """Reason why the directory could not be read; empty if it could."""


def runs_in(directory: Path) -> list[RunInfo]:
    """All runs in a directory and the directories below it, the latest first. ValueError if there is none."""
    if not directory.is_dir():
        raise ValueError(f"{directory}: no such directory; give one that holds runs")
    runs = [describe(path) for path in _run_directories(directory)]
    if not runs:
        raise ValueError(
            f"{directory}: no runs here; give a directory created by a train or search command, or its parent"
        )
    return sorted(runs, key=lambda run: -run.updated)


def _run_directories(directory: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(directory):
        subfolders[:] = sorted(name for name in subfolders if name != "checkpoints" and not name.startswith("."))
        if {"recipe.json", "settings.json"} & set(files):
            yield Path(folder)


def describe(path: Path) -> RunInfo:
    """The run in a directory. A damaged one has an `error` instead of contents."""
    updated = max((file.stat().st_mtime for file in path.iterdir() if file.is_file()), default=0.0)
    try:
        return (_training if (path / "recipe.json").exists() else _search)(path, updated)
    except (ValueError, OSError, KeyError, TypeError) as error:
        return RunInfo(path, updated=updated, error=str(error) or type(error).__name__)


def _training(path: Path, updated: float) -> RunInfo:
    stored, records = read_json(path / "recipe.json", "app", "recipe"), read_records(path / "metrics.jsonl")
    step = int(records[-1]["step"]) if records else 0
    return RunInfo(
        path,
        app=str(stored["app"]),
        step=step,
        steps=int(stored["recipe"]["train"]["steps"]),
        updated=updated,
        best=_best(path, records),
        settings=flatten_settings(stored["recipe"]),
        curves=curves(records),
        tables=_tables(path),
        pictures=sorted([*path.glob("*.png"), *path.glob("samples/*.png")]),
        pages=_pages(path),
    )


def _pages(path: Path) -> list[Path]:
    """The HTML pages of a run, without runs.html, which is the page of all runs."""
    return sorted(page for page in path.glob("*.html") if page.name != "runs.html")


def _best(path: Path, records: list[dict[str, Any]]) -> str:
    """The best value with its metric and step, from the last checkpoint; empty without an evaluation."""
    checkpoints = checkpoint.steps(path / "checkpoints")
    best = read_json(checkpoints[-1] / "state.json", "best")["best"] if checkpoints else {}
    if not best:
        return ""
    step, value = int(best["step"]), best["value"]
    record = next((record for record in records if record["step"] == step), {})
    metric = next((name for name, other in record.items() if other == value and name != "step"), "value")
    return f"{metric} {value:.4g} at step {step}"


def _search(path: Path, updated: float) -> RunInfo:
    """A run of `monge prove search`."""
    from monge.apps.prove.report import share
    from monge.apps.prove.trajectories import results

    stored, finished = read_json(path / "settings.json", "search", "theorems"), results(path)
    proved = [result.proved for result in finished]
    rows = [
        [
            result.name,
            result.statement or result.signature,
            "; ".join(result.tactics) if result.tactics is not None else result.ended,
            f"{result.expanded}",
            f"{result.seconds:.1f}",
        ]
        for result in finished
    ]
    return RunInfo(
        path,
        app="prove",
        step=len(finished),
        steps=len(stored["theorems"]["texts"]),
        updated=updated,
        best=share(sum(proved), len(proved)) if proved else "",
        settings=flatten_settings(
            {name: value for name, value in stored.items() if name not in ("theorems", "tactics")}
        ),
        curves={"proved": _thinned([(n, float(total)) for n, total in enumerate(accumulate(proved), 1)])},
        tables=[Table("theorems", ["name", "statement", "proof or reason", "states", "seconds"], rows)] if rows else [],
        pages=_pages(path),
    )


def flatten_settings(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as text, by dotted name."""
    settings: dict[str, str] = {}
    for name, inner in value.items():
        if isinstance(inner, dict):
            settings |= flatten_settings(inner, f"{prefix}{name}.")
        else:
            settings[prefix + name] = inner if isinstance(inner, str) else json.dumps(inner)
    return settings


def curves(records: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """The logged metrics by name, as (step, value); a value that is not finite is None."""
    series: dict[str, Curve] = {}
    for record in records:
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float):
                series.setdefault(name, []).append((record["step"], value if math.isfinite(value) else None))
    return {name: _thinned(curve) for name, curve in series.items()}


def _thinned(curve: Curve) -> Curve:
    if len(curve) <= POINTS:
        return curve
    return [curve[k * (len(curve) - 1) // (POINTS - 1)] for k in range(POINTS)]


def _tables(path: Path) -> list[Table]:
    """The tables of evaluation.json; none if there is no such file."""
    if not (path / "evaluation.json").exists():
        return []
    stored = read_json(path / "evaluation.json")
    if "rows" in stored:
        return [_table("evaluation", stored["rows"])]
    tables = stored.get("tables") or {name: stored[name] for name in ("quality", "models") if name in stored}
    return [_table(title, rows) for title, rows in tables.items()]


def _table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    body = [[name, *(_cell(cells.get(column)) for column in columns)] for name, cells in rows.items()]
    return Table(title, ["", *columns], body)


def _cell(value: Any) -> str:
    """A number in four digits, an interval as value [low, high], anything else as text."""
    if isinstance(value, dict) and "value" in value:
        ends = [_cell(value[end]) for end in ("low", "high") if value.get(end) is not None]
        return _cell(value["value"]) + (f" [{', '.join(ends)}]" if ends else "")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    return "" if value is None else str(value)
