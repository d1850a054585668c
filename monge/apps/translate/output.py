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


def write_dropped(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write one JSON object per dropped row, atomically; write no file if there are none."""
    lines = [json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows]
    if lines:
        with atomic_write(path) as tmp_path:
            tmp_path.write_text("".join(lines), encoding="utf-8")
