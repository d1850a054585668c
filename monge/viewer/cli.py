"""The verbs `monge runs` and `monge view`."""

import sys
import time
from contextlib import suppress
from pathlib import Path

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monge.files import atomic_write
from monge.text import printable
from monge.viewer.collect import RunInfo, runs_in
from monge.viewer.page import page, server

console = Console(soft_wrap=True)


def runs(directory: tyro.conf.Positional[Path] = Path("runs")) -> None:
    """List runs: application, step, age and best metric.

    Args:
        directory: Directory that holds run directories, at any depth.
    """
    # a pipe gets one line per run, whatever its length
    wide = Console(width=None if sys.stdout.isatty() else 1000, soft_wrap=False)
    table = Table(box=None, pad_edge=False)
    for column in ("run", "application", "step", "age", "best"):
        table.add_column(column, justify="right" if column in ("step", "age") else "left")
    for run in runs_in(directory):
        table.add_row(*(escape(printable(cell)) for cell in _cells(run)))
    wide.print(table)


def _cells(run: RunInfo) -> tuple[str, ...]:
    step = f"{run.step}/{run.steps}" if run.steps else str(run.step)
    if run.error:
        return str(run.path), run.app, "", age(run.updated), f"damaged: {run.error}"
    return str(run.path), run.app, step, age(run.updated), run.best


def age(then: float, now: float | None = None) -> str:
    """The time since `then`, a Unix time, in its largest unit.

    >>> age(0.0, 90.0), age(0.0, 7300.0)
    ('1 min', '2 h')
    """
    seconds = max(0.0, (time.time() if now is None else now) - then)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def view(
    directory: tyro.conf.Positional[Path] = Path("runs"),
    *,
    out: Path | None = None,
    watch: bool = False,
    port: int = 8765,
    refresh: float = 5.0,
) -> None:
    """Write one HTML page that shows all runs: curves, pictures, tables and settings.

    Args:
        directory: Directory that holds run directories, at any depth.
        out: HTML file to write; default: DIRECTORY/runs.html.
        watch: Serve the page on 127.0.0.1 and refresh it while runs continue, instead of writing a file.
        port: Port for --watch; 0 picks a free one.
        refresh: Time between refreshes with --watch, in seconds.
    """
    if watch:
        if not refresh > 0:
            raise ValueError(f"--refresh {refresh}: give a positive number of seconds")
        runs_in(directory)  # reports a wrong directory before the server starts
        with server(directory, port=port, refresh=refresh) as http:
            console.print(f"Serving http://127.0.0.1:{http.server_address[1]}/ (Ctrl-C stops)")
            with suppress(KeyboardInterrupt):
                http.serve_forever()
        return
    path = out or directory / "runs.html"
    text = page(directory, out=path)
    with atomic_write(path) as file:
        file.write_text(text, encoding="utf-8")
    console.print(f"The page is {path} ({len(text) / 1e6:.1f} MB)")


VERBS = {"runs": runs, "view": view}
