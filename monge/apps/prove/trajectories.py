"""Attempts of search runs in parquet: a row for each tactic tried, a row group for each theorem; parts are never rewritten.

runs/NAME/   settings.json   part-*.parquet (attempts)   part-*.jsonl (results, one theorem per line)
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
        ("policy", pa.string()),
    ]
)
"""Columns of a row, which is one tactic tried:

* run: id of the run; theorem: name of the theorem; worker: host and process id; seed: seed of the search
* policy: policy of the run, such as template or template+local; written for a step of a written proof
* state_id, state_after: the state after the tactic, null if the tactic failed; parent_id, state_before: the state before it
* tactic: its text; outcome: see Attempt; error: of Lean, a crash or a failed replay; null if there is none
* log_probability: of the tactic under the policy; energy: of the state after it, null if no energy was computed
* depth: number of tactics before this one
* remaining_depth: number of tactics from the state before to the end of the proof; null off the path of a proof
* label: positive on the path of a proof; unknown if the theorem is unproved, if the tactic is a duplicate that leads to a
  state of the proof, or if its result was lost or could not be judged; otherwise negative
* wall_seconds: wall-clock time of the step; lean_seconds: the part of it that Lean reports for the tactic
"""
PART_THEOREMS, PART_SECONDS = 256, 60.0
"""Number of theorems, and age in seconds, at which a part is closed when a theorem finishes."""


@dataclass(frozen=True)
class Result:
    """The result of one theorem of a run."""

    number: int
    """Position of the theorem in the run, from 0."""
    name: str
    """Name of the theorem."""
    signature: str
    """Text after the name: hypotheses, colon and conclusion."""
    header: str
    """Lean source before the theorem, without imports."""
    imports: tuple[str, ...]
    """Modules imported before the header."""
    statement: str = ""
    """Statement as elaborated; empty if the theorem was refused, or if its search or replay did not begin."""
    header_notes: tuple[str, ...] = ()
    """Notes on the header: each thing that it redefines or does in addition to declaring."""
    ended: str = "refused"
    """Reason for the end: proved, nothing left to try, out of nodes, out of time, refused (an invalid statement), quarantined
    (it crashes servers or workers) or not replayed (it has no written proof, or the replay fails)."""
    error: str = ""
    """Message for a theorem that was refused, quarantined or not replayed, or on lost requests to a model server."""
    tactics: tuple[str, ...] | None = None
    """Tactics of the proof; None if there is none."""
    axioms: tuple[str, ...] = ()
    """Axioms that the proof uses; see Proof."""
    expanded: int = 0
    """Number of states expanded, without harvesting."""
    attempts: int = 0
    """Number of tactics tried, including harvesting."""
    seconds: float = 0.0
    """Wall-clock time of the search in seconds, without harvesting."""
    part: str = ""
    """Name of the parquet file that holds the attempts."""
    exclude: tuple[str, ...] = ()
    """Constants that the proof must not use."""
    exclude_importers: tuple[str, ...] = ()
    """Modules whose importers the proof must not use."""
    restates: str = ""
    """Library theorem that this one restates; the proof must use neither the theorems of its module nor anything that imports
    that module."""
    explicit: str = ""
    """Statement as elaborated, with every argument and universe level."""
    instances: tuple[str, ...] = ()
    """Instances in the statement from outside the library, each with its class."""
    places: tuple[Place, ...] = ()
    """Positions of header and statement in the user's file."""

    @property
    def proved(self) -> bool:
        """True if a proof was found and accepted."""
        return self.ended == "proved"

    @property
    def theorem(self) -> Theorem:
        """The theorem of this result."""
        return Theorem(**{field.name: getattr(self, field.name) for field in fields(Theorem)})

    @property
    def remarks(self) -> list[str]:
        """A line for each reason why the statement may not mean what it seems to."""
        return [
            *(f"Header: {note}" for note in self.header_notes),
            *(f"Instance from outside the library: {instance}" for instance in self.instances),
            *(f"Letter that looks like another: {letter}" for letter in look_alikes(self.statement)),
        ]

    @property
    def source(self) -> str:
        """The complete .lean file of the proof, with the elaborated statement as a comment; empty if there is no proof."""
        if self.tactics is None:
            return ""
        comments = [f"{self.name}, as elaborated: {self.statement}", *self.remarks]
        if any(self.theorem.restrictions.values()):
            comments.append(
                "The judge removed the excluded names from simp, ext and grind. With these names, a step may do"
            )
            comments.append("more than it did here, and the next step may have nothing left to do.")
        preamble = "".join(f"-- {line}\n" for text in comments for line in text.splitlines())
        return preamble + source_text(self.theorem, self.tactics)

    @staticmethod
    def read(line: str) -> "Result":
        """The result on a line of a part's .jsonl file. ValueError if it is not one."""
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(line).items()}
            values["places"] = tuple(Place(*place) for place in values.get("places", ()))
            return Result(**values)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"not a result written by this version of `monge prove`: {error}") from error


def table(
    outcome: Outcome, *, run: str, number: int, theorem: str, worker: str, seed: int, policy: str = ""
) -> pa.Table:
    """The attempts of a search as rows."""
    remaining: dict[Node, int] = {}
    for last in reversed(outcome.proofs):  # the first proof overrides the others
        for node in last.path():
            remaining[node] = last.depth - node.depth
    texts: dict[Node, str] = {}

    def text(node: Node) -> str:
        if node not in texts:
            texts[node] = str(node.state)
        return texts[node]

    proof_texts = {node.text for node in remaining}

    def label(attempt: Attempt) -> str:
        if attempt.child in remaining:
            return "positive"
        child = attempt.child
        detour = attempt.outcome == "duplicate" and child is not None and child.text in proof_texts
        unjudged = attempt.outcome == "crash" and child is not None
        unknown = detour or unjudged or attempt.outcome == "replay"
        return "negative" if remaining and not unknown else "unknown"

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
                "policy": policy,
            }

    return pa.Table.from_pylist(list(rows()), SCHEMA)


class Recorder:
    """Writes a run in parts: a file of attempts, then a file of results, each renamed when it is complete.

    A part without its second file is deleted on `--resume`, and its theorems are searched again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._next, self._start = directory, 0, 0.0
        self._pending: list[tuple[Result, pa.Table]] = []
        for part in directory.glob("part-*.parquet"):
            if part.with_suffix(".jsonl").exists():
                self._next = max(self._next, 1 + int(part.stem[5:]))
            else:
                part.unlink()
        for unfinished in directory.glob(".writing-*"):
            unfinished.unlink()

    def add(self, result: Result, rows: pa.Table) -> None:
        """Add the result of a finished theorem, with its attempts."""
        if not self._pending:
            self._start = time.monotonic()
        self._pending.append((result, rows))
        if len(self._pending) >= PART_THEOREMS or time.monotonic() - self._start > PART_SECONDS:
            self.close()

    def close(self) -> None:
        """Write everything added so far to disk. It may be interrupted at any line and called again."""
        if not self._pending:
            return
        (part, part_draft), (lines, lines_draft) = self._part(".parquet"), self._part(".jsonl")
        with writing(part):
            with part_draft.open("wb") as file:
                with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
                    for _, rows in self._pending:
                        writer.write_table(rows)
                file.flush()
                os.fsync(file.fileno())
            part_draft.rename(part)
            with lines_draft.open("w", encoding="utf-8") as file:
                for result, _ in self._pending:
                    file.write(json.dumps({**asdict(result), "part": part.name}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            lines_draft.rename(lines)
        self._pending = []
        self._next += 1

    def _part(self, suffix: str) -> tuple[Path, Path]:
        """Final and temporary path of a file of the current part."""
        path = self._directory / f"part-{self._next:05d}{suffix}"
        return path, path.with_name(f".writing-{path.name}")

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def results(directory: Path) -> list[Result]:
    """Results of the finished theorems of a run, ordered by number. ValueError if a file of the run is damaged."""
    finished: list[Result] = []
    for file in sorted(directory.glob("part-*.jsonl")):
        try:
            finished += [Result.read(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return sorted(finished, key=lambda result: result.number)


def attempts(directory: Path) -> pa.Table:
    """All attempts of a run, as rows of SCHEMA. FileNotFoundError if no theorem is finished; ValueError if a part is damaged or
    of another schema."""
    parts = sorted({result.part for result in results(directory)})
    if not parts:
        raise FileNotFoundError(f"{directory} holds no run with a finished theorem; choose another directory")
    return pa.concat_tables([_part(directory / part) for part in parts])


def _part(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a complete parquet file ({error}); restore it or leave the run out") from error
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise ValueError(
            f"{path}: no column {missing[0]!r}, as in a file of another version; search again or convert it"
        )
    return table
