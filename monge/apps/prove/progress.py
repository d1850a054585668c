"""Output of a search run: errors in its files, each finished theorem, and a table of all."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monge.apps.prove.sources import Reading
from monge.apps.prove.trajectories import Result
from monge.text import one_line, printable

console = Console(soft_wrap=True)


def report(reading: Reading) -> None:
    """Print the errors in the files with their positions, and the number of rows and parts left out."""
    if reading.skipped:
        console.print(f"Read {len(reading.entries)} theorems; skipped {len(reading.skipped)} rows or parts of files:")
    for flaw in reading.flaws:
        _print(f"  {flaw}")


def _print(text: str) -> None:
    """Print text from files or from Lean, indented from its second line on so that it cannot imitate monge's own output."""
    console.print(printable(text).replace("\n", "\n    "), highlight=False, markup=False)


def print_result(count: int, headers: set[str], result: Result) -> None:
    """Print a finished theorem after the remarks on its statement. Remarks on a header come once, before its first theorem."""
    repeated = result.header in headers
    if result.header_notes:  # a refused theorem has no remarks
        headers.add(result.header)
    for remark in result.remarks[len(result.header_notes) if repeated else 0 :]:
        _print(remark)
    error = f": {result.error}" if result.error else ""
    verdict = "proved" if result.proved else f"not proved, {result.ended}{error}"
    _print(
        f"[{result.number + 1}/{count}] {result.name} : {result.statement or result.signature}: {verdict}; "
        f"{result.expanded} states, {result.seconds:.1f} s"
    )


def table_of(finished: list[Result]) -> Table:
    """A row for each finished theorem."""
    proved = sum(result.proved for result in finished)
    table = Table(
        title=f"{proved} of {len(finished)} proved; the kernel checked each proof again in a separate process"
    )
    for name in ("theorem", "proof", "states", "seconds"):
        table.add_column(name)
    for result in finished:
        proof = "; ".join(result.tactics) if result.tactics is not None else f"({result.ended})"
        table.add_row(
            escape(one_line(result.name)), escape(printable(proof)), str(result.expanded), f"{result.seconds:.1f}"
        )
    return table
