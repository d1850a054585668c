"""A cache of the results of tactics in an SQLite file, which searches of the same theorems share."""

import json
import sqlite3
import zlib
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.pairs import digest
from monge.apps.prove.search import Prover
from monge.apps.prove.sqlite import connection
from monge.apps.prove.state import Budget, Failure, Goal, Proof, Rejection, State, Theorem

Steps = dict[tuple[str, ...], State | Failure]
"""Results of tactics, by the tactics from the statement on."""
TABLE = (
    "CREATE TABLE IF NOT EXISTS steps (theorem TEXT, tactics TEXT, result BLOB NOT NULL, "
    "PRIMARY KEY (theorem, tactics)) WITHOUT ROWID"
)


class StepCache:
    """Results of tactics by theorem, compressed, in the SQLite file `path`. They hold for one Lean and one budget of a tactic.

    OSError if the file cannot be accessed, ValueError if it is not such a cache.
    """

    def __init__(self, path: Path, toolchain: Toolchain, budget: Budget) -> None:
        self.path, self._context = path, f"{toolchain!r} {budget!r}"
        with self._file():  # fails here if it is no cache
            pass

    def of(self, theorem: Theorem) -> Steps:
        """The known results for a theorem."""
        with self._file() as file:
            rows = file.execute("SELECT tactics, result FROM steps WHERE theorem = ?", (self._key(theorem),)).fetchall()
        try:
            return dict(_read(tactics, result) for tactics, result in rows)
        except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
            raise ValueError(f"{self.path}: the cache of tactics is damaged ({error}); delete it") from error

    def add(self, theorem: Theorem, results: Steps) -> None:
        """Store results. The file keeps the first one for each sequence of tactics."""
        key = self._key(theorem)
        rows = [(key, json.dumps(tactics), _written(result)) for tactics, result in results.items()]
        with self._file() as file:
            file.executemany("INSERT OR IGNORE INTO steps VALUES (?, ?, ?)", rows)

    def _key(self, theorem: Theorem) -> str:
        return digest(self._context, repr(theorem))

    def _file(self) -> AbstractContextManager[sqlite3.Connection]:
        return connection(self.path, TABLE, of="tactics")


class Cached:
    """A prover that takes the results of tactics from `known` if they are there, in no time, and collects others in `new`.

    Crashes and failed replays depend on the machine, and are not collected. Proofs are judged every time.
    """

    def __init__(self, prover: Prover, known: Steps) -> None:
        self.prover, self.known, self.new = prover, known, Steps()

    def start(self) -> State:
        """The state before the first tactic."""
        return self.prover.start()

    def step(self, state: State, tactic: str) -> State | Failure:
        """The state after a tactic, or its failure."""
        path = (*state.tactics, tactic)
        known = self.known.get(path) or self.new.get(path)
        if known is None:
            known = self.prover.step(state, tactic)
            if isinstance(known, State) or known.kind not in ("crash", "replay"):
                self.new[path] = known
        return known

    def finish(self, state: State) -> Proof | Rejection:
        """The verdict on a state without goals."""
        return self.prover.finish(state)


def _written(result: State | Failure) -> bytes:
    if isinstance(result, Failure):
        fields: dict[str, Any] = {"kind": result.kind, "message": result.message}
    else:
        fields = {"goals": [asdict(goal) for goal in result.goals]}
    return zlib.compress(json.dumps(fields).encode())


def _read(tactics: str, result: bytes) -> tuple[tuple[str, ...], State | Failure]:
    path, fields = tuple(json.loads(tactics)), json.loads(zlib.decompress(result))
    return path, State(tuple(map(Goal.read, fields["goals"])), path) if "goals" in fields else Failure(**fields)
