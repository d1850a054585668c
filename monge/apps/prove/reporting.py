"""The verbs of `monge prove` that read finished runs: `summary`, `compare` and `view`."""

from pathlib import Path

import tyro
from rich.console import Console

from monge.apps.prove.report import comparison, summary_of
from monge.apps.prove.view import page
from monge.files import atomic_write

console = Console(soft_wrap=True)


def summary(runs: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    """Print statistics of runs: the proved share with its 95 % interval, and counts of results and of tactic outcomes.

    Args:
        runs: Run directories.
    """
    if not runs:
        raise ValueError("name at least one run directory")
    for path in runs:
        console.print(summary_of(path))


def compare(first: tyro.conf.Positional[Path], second: tyro.conf.Positional[Path], *, unequal: bool = False) -> None:
    """Compare two runs on the same theorems: McNemar's exact test, Wilson intervals, states and time.

    Args:
        first: Run directory.
        second: Another run directory.
        unequal: Compare even if budgets, Lean or sampling settings differ.
    """
    console.print(comparison(first, second, unequal=unequal))


def view(path: tyro.conf.Positional[Path], *, out: Path | None = None) -> None:
    """Write one HTML page of a run: its theorems, their proofs and the tree of each search.

    Args:
        path: Run directory.
        out: HTML file to write; default: view.html in the run directory.
    """
    text = page(path)
    target = out or path / "view.html"
    with atomic_write(target) as file:
        file.write_text(text, encoding="utf-8")
    console.print(f"The page is {target} ({len(text) / 1e6:.1f} MB)")
