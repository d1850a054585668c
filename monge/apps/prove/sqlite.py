"""SQLite files that several processes share, with clear errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def connection(path: Path, table: str, *, of: str) -> Iterator[sqlite3.Connection]:
    """A new connection to a cache, in which `table`, a CREATE TABLE IF NOT EXISTS statement, has been executed.

    Neither threads nor processes share a connection. Commits unless an error is raised. `of` names the contents in errors:
    OSError if the file cannot be accessed, ValueError if it is damaged or not a database.
    """
    try:
        with closing(sqlite3.connect(path, timeout=60.0)) as opened, opened:
            opened.execute(table)
            yield opened
    except sqlite3.OperationalError as error:  # locked, or the disk is full: the stored data are intact
        raise OSError(f"{path}: cannot access the cache of {of} ({error}); check the disk") from error
    except sqlite3.Error as error:
        raise ValueError(f"{path}: not a cache of {of} ({error}); delete it or choose another path") from error
