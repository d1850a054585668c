"""Tables of an evaluation for the terminal: a block per metric, narrow enough for 80 columns."""

from collections.abc import Mapping

from rich.table import Table

from monge.apps.translate.metrics import Interval

SHOWN = ("R@1 of", "R@10 of", "MRR of", "Chamfer R@1 of", "length exact", "length error", "matched cosine")
"""Beginnings of the metrics that are shown, of those of a row; all of them are in evaluation.json."""


def blocks(rows: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, Interval]]:
    """{metric: {row: value}} of the metrics in SHOWN, in their order."""
    names = list(dict.fromkeys(name for cells in rows.values() for name in cells))
    names = [name for start in SHOWN for name in names if name.startswith(start)]
    return {name: {row: cells[name] for row, cells in rows.items() if name in cells} for name in names}


def table(rows: Mapping[str, Mapping[str, Interval]], title: str) -> Table:
    """Blocks of a metric each: a line per prediction, with the half width of its 95 % interval."""
    found = Table(title=title, title_justify="left", show_header=False, show_edge=False, pad_edge=False)
    found.add_column("", overflow="fold")
    found.add_column("", justify="right", no_wrap=True)
    for number, (name, cells) in enumerate(blocks(rows).items()):
        if number:
            found.add_section()
        found.add_row(name, "")
        for row, cell in cells.items():
            found.add_row(f"  {row}", f"{cell.value:.2g} ±{(cell.high - cell.low) / 2:.1g}")
    return found
