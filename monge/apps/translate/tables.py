"""Tables of an evaluation for the terminal: one block per metric, within 80 columns."""

from collections.abc import Mapping

from rich.table import Table

from monge.math.interval import Interval

SHOWN = ("R@1 of", "R@10 of", "MRR of", "Chamfer R@1 of", "length exact", "length error", "matched cosine")
"""Prefixes of the metrics that are shown; evaluation.json holds all metrics."""


def blocks(rows: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, Interval]]:
    """{metric: {row: value}} of the metrics whose names start with an entry of SHOWN, in that order."""
    names = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    names = [name for start in SHOWN for name in names if name.startswith(start)]
    return {name: {row: cells[name] for row, cells in rows.items() if name in cells} for name in names}


def table(rows: Mapping[str, Mapping[str, Interval]], title: str) -> Table:
    """A table with a block per metric and a line per prediction: its value ± half the width of its 95 % interval."""
    grid = Table(title=title, title_justify="left", show_header=False, show_edge=False, pad_edge=False)
    grid.add_column("", overflow="fold")
    grid.add_column("", justify="right", no_wrap=True)
    for number, (name, cells) in enumerate(blocks(rows).items()):
        if number:
            grid.add_section()
        grid.add_row(name, "")
        for row, cell in cells.items():
            grid.add_row(f"  {row}", f"{cell.value:.2g} ±{(cell.high - cell.low) / 2:.1g}")
    return grid
