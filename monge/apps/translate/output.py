"""Output of the verbs: the console, lists of dropped rows, and checks that a path can be written."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from monge.files import atomic_write, ensure_absent

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


def ensure_new(path: Path) -> None:
    """ValueError if `path` exists or cannot be written. Called before any work, which may take hours."""
    ensure_absent(path)
    ensure_writable(path)


def ensure_writable(path: Path) -> None:
    """ValueError unless a file can be written to `path`. Directories created for the check are removed."""
    created: list[Path] = []
    probe = path.with_name(f".probe-{os.getpid()}-{path.name}"[:200])
    try:
        for parent in [parent for parent in reversed(path.parents) if not parent.exists()]:
            parent.mkdir()
            created.append(parent)
        probe.touch()
        probe.unlink()
        if path.is_file() and not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
    finally:
        for parent in reversed(created):
            parent.rmdir()
