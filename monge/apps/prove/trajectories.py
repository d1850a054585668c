"""What a search tried, in parquet: a row for each tactic, failures too; a row group for each theorem, never rewritten.

runs/NAME/   settings.json   part-*.parquet (what was tried)   part-*.jsonl (what came of it: a line for each theorem)
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monge.apps.prove.letters import look_alikes
from monge.apps.prove.state import Place, Theorem, source_text
from monge.apps.prove.tree import Attempt, Node, Outcome
from monge.files import writing

SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("theorem", pa.string()),
        ("state_id", pa.string()),
        ("parent_id", pa.string()),
        ("state_before", pa.string()),
        ("tactic", pa.string()),
        ("state_after", pa.string()),
        ("outcome", pa.string()),
        ("error", pa.string()),
        ("log_probability", pa.float64()),
        ("energy", pa.float64()),
        ("depth", pa.int32()),
        ("remaining_depth", pa.int32()),
        ("label", pa.string()),
        ("wall_seconds", pa.float64()),
        ("lean_seconds", pa.float64()),
        ("worker", pa.string()),
        ("seed", pa.int64()),
    ]
)
"""A row is a tactic tried. state_id is that of the state after it, null where it failed; parent_id that of the state before.
depth: tactics before it. label: positive on the path of a proof, where remaining_depth counts the tactics from the state before
to the end; negative elsewhere in a theorem that was proved, but for other ways to a state of the proof and what was not
tried in the end; else unknown."""
GROUPS, SECONDS = 256, 60.0
"""A part is closed after so many theorems, or so long."""


@dataclass(frozen=True)
class Result:
    """What came of a theorem."""

    number: int
    """Its place in the run."""
    name: str
    signature: str
    header: str
    imports: tuple[str, ...]
    statement: str = ""
    """As elaborated."""
    tells: tuple[str, ...] = ()
    """What the header redefines, or does besides declaring."""
    ended: str = "refused"
    """proved, nothing left to try, out of nodes, out of time, refused (it is no statement), quarantined (it kills servers)."""
    error: str = ""
    tactics: tuple[str, ...] | None = None
    """Of the proof."""
    axioms: tuple[str, ...] = ()
    expanded: int = 0
    attempts: int = 0
    seconds: float = 0.0
    part: str = ""
    """The file of its attempts."""
    exclude: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    after: str = ""
    """What its proof was not to use, as of a theorem."""
    explicit: str = ""
    """The statement as elaborated, with every argument and universe level."""
    instances: tuple[str, ...] = ()
    """Each instance in it that is not the library's: its class, and the instance."""
    places: tuple[Place, ...] = ()
    """Positions of its texts in the user's file."""

    @property
    def proved(self) -> bool:
        return self.ended == "proved"

    @property
    def theorem(self) -> Theorem:
        return Theorem(**{field.name: getattr(self, field.name) for field in fields(Theorem)})

    @property
    def remarks(self) -> list[str]:
        """A line for each thing that makes the statement say something else than it seems to."""
        return [
            *(f"Its header: {tell}" for tell in self.tells),
            *(f"An instance that is not the library's: {instance}" for instance in self.instances),
            *(f"A letter that looks like another: {letter}" for letter in look_alikes(self.statement)),
        ]

    @property
    def source(self) -> str:
        """The whole .lean file of its proof, after what it says as a comment; empty if there is none."""
        if self.tactics is None:
            return ""
        told = [f"{self.name}, as elaborated: {self.statement}", *self.remarks]
        if any(self.theorem.walls.values()):
            told.append(
                "Judged where simp, ext and grind did not know what is excluded. Where they do, a step may do more than"
            )
            told.append("it did, and the next find nothing left to do.")
        comment = "".join(f"-- {line}\n" for text in told for line in text.splitlines())
        return comment + source_text(self.theorem, self.tactics)

    @staticmethod
    def read(line: str) -> "Result":
        """What `asdict` and JSON made of one. ValueError if it is none."""
        try:
            found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(line).items()}
            found["places"] = tuple(Place(*place) for place in found.get("places", ()))
            return Result(**found)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"no line of this version of `monge prove`: {error}") from error


def table(outcome: Outcome, *, run: str, number: int, theorem: str, worker: str, seed: int) -> pa.Table:
    """The attempts of a search as rows."""
    remaining: dict[Node, int] = {}
    for last in reversed(outcome.found):  # the first proof has the last word
        for node in last.path():
            remaining[node] = last.depth - node.depth
    said: dict[Node, str] = {}

    def text(node: Node) -> str:
        if node not in said:
            said[node] = str(node.state)
        return said[node]

    good = {node.text for node in remaining}

    def label(attempt: Attempt) -> str:
        if attempt.child in remaining:
            return "positive"
        child = attempt.child
        other = attempt.outcome == "duplicate" and child is not None and child.text in good
        unjudged = attempt.outcome == "died" and child is not None
        unknown = other or unjudged or attempt.outcome == "lost"
        return "negative" if remaining and not unknown else "unknown"  # another way to a state of the proof is neither

    def rows() -> Iterator[dict[str, Any]]:
        for attempt in outcome.attempts:
            child = attempt.child
            yield {
                "run": run,
                "theorem": theorem,
                "state_id": f"{run}-{number}-{child.number}" if child else None,
                "parent_id": f"{run}-{number}-{attempt.parent.number}",
                "state_before": text(attempt.parent),
                "tactic": attempt.suggestion.tactic,
                "state_after": text(child) if child else None,
                "outcome": attempt.outcome,
                "error": attempt.error or None,
                "log_probability": attempt.suggestion.logp,
                "energy": child.energy if child else None,
                "depth": attempt.parent.depth,
                "remaining_depth": 1 + remaining[child] if child in remaining else None,
                "label": label(attempt),
                "wall_seconds": attempt.seconds,
                "lean_seconds": attempt.lean_seconds,
                "worker": worker,
                "seed": seed,
            }

    return pa.Table.from_pylist(list(rows()), SCHEMA)


class Recorder:
    """Writes a run in parts: the attempts of some theorems, then what came of them, each renamed when it is whole.

    A part without the second file is as if it had not been; its theorems are done again by `--resume`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._next, self._began = directory, 0, 0.0
        self._waiting: list[tuple[Result, pa.Table]] = []
        for part in directory.glob("part-*.parquet"):
            if part.with_suffix(".jsonl").exists():
                self._next = max(self._next, 1 + int(part.stem[5:]))
            else:
                part.unlink()
        for rest in directory.glob(".writing-*"):
            rest.unlink()

    def add(self, result: Result, rows: pa.Table) -> None:
        """A theorem that is done, with its attempts."""
        if not self._waiting:
            self._began = time.monotonic()
        self._waiting.append((result, rows))
        if len(self._waiting) >= GROUPS or time.monotonic() - self._began > SECONDS:
            self.close()

    def close(self) -> None:
        """Put all that was added on disk; whoever interrupts it, at whatever line, may call it again."""
        if not self._waiting:
            return
        (part, attempts), (lines, place) = self._part(".parquet"), self._part(".jsonl")
        with writing(part):
            with attempts.open("wb") as file:
                with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
                    for _, rows in self._waiting:
                        writer.write_table(rows)
                file.flush()
                os.fsync(file.fileno())
            attempts.rename(part)
            with place.open("w", encoding="utf-8") as file:
                for result, _ in self._waiting:
                    file.write(json.dumps({**asdict(result), "part": part.name}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            place.rename(lines)
        self._waiting = []
        self._next += 1

    def _part(self, suffix: str) -> tuple[Path, Path]:
        """A file of the part at hand, and where it is written."""
        path = self._directory / f"part-{self._next:05d}{suffix}"
        return path, path.with_name(f".writing-{path.name}")

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def results(directory: Path) -> list[Result]:
    """The theorems of a run that are done, in the order of their numbers. ValueError if a file of it is broken."""
    found: list[Result] = []
    for file in sorted(directory.glob("part-*.jsonl")):
        try:
            found += [Result.read(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return sorted(found, key=lambda result: result.number)


def attempts(directory: Path) -> pa.Table:
    """All rows of a run. FileNotFoundError if it has none."""
    parts = sorted({result.part for result in results(directory)})
    if not parts:
        raise FileNotFoundError(f"{directory}: no run of `monge prove search` with a theorem that is done")
    return pa.concat_tables(pq.read_table(directory / part) for part in parts)
