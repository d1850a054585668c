"""A cache of suggestions, so that a server is not asked twice: the latest in memory, all of them in a file."""

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock

from monge.apps.prove.tree import Suggestion


class SuggestionCache:
    """Suggestions by key: at most `most` in memory, the latest used; any number in `path` if there is one."""

    def __init__(self, most: int, path: Path | None = None) -> None:
        self.most, self.path = most, path
        self._known: OrderedDict[str, tuple[Suggestion, ...]] = OrderedDict()
        self._lock = Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._file() as file:
                file.execute("CREATE TABLE IF NOT EXISTS said (key TEXT PRIMARY KEY, suggestions TEXT NOT NULL)")

    def get(self, key: str) -> list[Suggestion] | None:
        """What was put under the key; None if nothing was, or it is gone."""
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
            found = [Suggestion(str(tactic), float(logp)) for tactic, logp in json.loads(row[0])]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path}: a damaged cache of suggestions ({error}); delete it") from error
        self._keep(key, found)
        return found

    def put(self, key: str, said: Sequence[Suggestion]) -> None:
        """Keep it; in the file the first that came for the key stays."""
        self._keep(key, said)
        if self.path is not None:
            with self._file() as file:
                file.execute("INSERT OR IGNORE INTO said VALUES (?, ?)", (key, json.dumps(said)))

    def _keep(self, key: str, said: Sequence[Suggestion]) -> None:
        with self._lock:
            self._known[key] = tuple(said)
            self._known.move_to_end(key)
            while len(self._known) > self.most:
                self._known.popitem(last=False)

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        """A connection of this thread and for now, so that neither threads nor processes share one; what is done is kept."""
        assert self.path is not None
        try:
            with closing(sqlite3.connect(self.path, timeout=60.0)) as connection, connection:
                yield connection
        except sqlite3.OperationalError as error:  # locked, or a full disk: what it holds is good
            raise OSError(f"{self.path}: the cache of suggestions cannot be read or written ({error})") from error
        except sqlite3.Error as error:
            raise ValueError(f"{self.path}: no cache of suggestions ({error}); delete it or name another") from error
