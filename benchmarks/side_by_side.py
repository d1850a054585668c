"""Time callables in turn on one thread, and save the results.

Import this module first: it limits thread pools, whose sizes are fixed when their libraries load.
"""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_pool] = "1"


def interleave(
    callables: Mapping[str, Callable[[], object]], rounds: int = 30, seconds: float = 60.0
) -> dict[str, list[float]]:
    """Return the seconds that each callable took in each round A B C A B C..., after one untimed call of each.

    No round starts after `seconds`, but there are at least three (if `rounds` allows).
    """
    for call in callables.values():
        call()
    times = {name: [] for name in callables}
    end = time.perf_counter() + seconds
    for done in range(rounds):
        if done >= 3 and time.perf_counter() > end:
            break
        for name, call in callables.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return times


def compare(times: Mapping[str, Sequence[float]], ours: str = "monge") -> dict[str, float]:
    """Return the medians in milliseconds, and the ratio of each other median to that of `ours`."""
    medians = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    ratios = {f"{name} / {ours}": median / medians[ours] for name, median in medians.items() if name != ours}
    return {f"{name} ms": median for name, median in medians.items()} | ratios


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a plain table, with floats to three significant digits."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[f"{v:.3g}" if isinstance(v := row.get(h, ""), float) else str(v) for h in heads] for row in rows]
    widths = [max(len(line[k]) for line in [heads, *cells]) for k in range(len(heads))]
    print(f"\n{title}")
    for line in [heads, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), flush=True)


def write_result(
    name: str, rows: Sequence[Mapping[str, object]], packages: Sequence[str] = ("numpy", "numba", "torch")
) -> Path:
    """Write rows to results/NAME.json with the package versions, the processor and the commit; return the path.

    If tracked files outside benchmarks/results have uncommitted changes, the file goes to results/uncommitted/ instead.
    """
    head = origin() | {
        "threads": 1,
        "python": platform.python_version(),
        "packages": {package: metadata.version(package) for package in packages},
        "rows": list(rows),
    }
    path = _path(name, _commit())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(head, indent=1) + "\n")
    print(f"\nwritten to {path}")
    return path


def origin() -> dict[str, str]:
    """Return the time, the commit and the processor of this measurement."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"time": now, "commit": _commit(), "processor": _processor()}


def read_result(name: str) -> list[dict[str, Any]]:
    """Return the rows that `write_result` would replace under this name, or an empty list."""
    path = _path(name, _commit())
    return json.loads(path.read_text())["rows"] if path.exists() else []


def stored_rows(name: str, settings: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return (the rows of a result with these settings, all other rows), so that a benchmark can resume."""
    rows = read_result(name)
    same = [row for row in rows if settings.items() <= row.items()]
    return same, [row for row in rows if row not in same]


def _path(name: str, commit: str) -> Path:
    return RESULTS / ("uncommitted" if commit.endswith("-dirty") else "") / f"{name}.json"


def _commit() -> str:
    """The commit, followed by "-dirty" if a tracked file outside benchmarks/results differs from it."""
    changes = ("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/benchmarks/results")
    return (_git("rev-parse", "--short", "HEAD") or "none") + ("-dirty" if _git(*changes) else "")


def _git(*words: str) -> str:
    here = Path(__file__).parent
    return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
