"""A cache of suggestions: recent ones in memory, and all of them in a file if one is given."""

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock

from monge.apps.prove.sqlite import connection
from monge.apps.prove.tree import Suggestion

TABLE = "CREATE TABLE IF NOT EXISTS said (key TEXT PRIMARY KEY, suggestions TEXT NOT NULL)"


class SuggestionCache:
    """Suggestions by key: up to `size` recently used entries in memory, and all entries in the SQLite file `path` if given.

    OSError if the file cannot be accessed, ValueError if it is damaged or not a cache.
    """

    def __init__(self, size: int, path: Path | None = None) -> None:
        self.size, self.path = size, path
        self._known: OrderedDict[str, tuple[Suggestion, ...]] = OrderedDict()
        self._lock = Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._file():  # fails here if it is no cache
                pass

    def get(self, key: str) -> list[Suggestion] | None:
        """The suggestions stored under the key; None if there are none or they were evicted."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return list(self._known[key])
        if self.path is None:
            return None
        with self._file() as file:
            row = file.execute("SELECT suggestions FROM said WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            suggestions = [Suggestion(str(tactic), float(logp)) for tactic, logp in json.loads(row[0])]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path}: the cache of suggestions is damaged ({error}); delete it") from error
        self._remember(key, suggestions)
        return suggestions

    def put(self, key: str, suggestions: Sequence[Suggestion]) -> None:
        """Store suggestions under the key. The file keeps the first value stored for a key."""
        self._remember(key, suggestions)
        if self.path is not None:
            with self._file() as file:
                file.execute("INSERT OR IGNORE INTO said VALUES (?, ?)", (key, json.dumps(suggestions)))

    def _remember(self, key: str, suggestions: Sequence[Suggestion]) -> None:
        with self._lock:
            self._known[key] = tuple(suggestions)
            self._known.move_to_end(key)
            while len(self._known) > self.size:
                self._known.popitem(last=False)

    def _file(self) -> AbstractContextManager[sqlite3.Connection]:
        assert self.path is not None
        return connection(self.path, TABLE, of="suggestions")
