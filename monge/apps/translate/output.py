"""Output of the verbs: the console and lists of dropped rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from monge.files import atomic_write

console = Console(soft_wrap=True, markup=False, emoji=False)
"""Prints text verbatim: brackets in a path are not markup."""


def listed(names: Sequence[str], *, count: int = 5) -> str:
    """The first `count` names and the number of further ones."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def dropped_note(dropped: Sequence[tuple[str, str]] | None) -> str:
    """The number of dropped rows and the first of them with their reasons; empty without any.

    >>> dropped_note([("a", "no text")])
    '; 1 dropped: a (no text)'
    """
    return f"; {len(dropped)} dropped: {listed([f'{key} ({reason})' for key, reason in dropped])}" if dropped else ""


EMPTY = "its translation is empty"
"""Reason why `run` has no vectors for a sequence, in the list of dropped rows."""


def write_dropped(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write one JSON object per dropped row, atomically; write no file if there are none."""
    lines = [json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows]
    if lines:
        with atomic_write(path) as tmp_path:
            tmp_path.write_text("".join(lines), encoding="utf-8")
