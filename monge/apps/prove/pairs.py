"""Training pairs of a tactic policy: states with tactics that led to a proof, from runs and from files of published pairs."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from monge.apps.prove.lm.prompt import completion, tactic_of
from monge.apps.prove.report import settings
from monge.apps.prove.trajectories import attempts, results
from monge.files import write_text

STATES, TACTICS = ("state_before", "state", "goal"), ("tactic",)
THEOREMS = ("theorem", "full_name", "decl", "name")
"""Fields of published pairs, in order of preference: state, tactic and, if there is one, the theorem's name."""
FORBIDDEN = re.compile(r"\b(?:sorry|sorryAx|admit|stop|native_decide)\b")


class TacticPair(NamedTuple):
    """A state and a tactic for it."""

    state: str
    tactic: str
    theorem: str
    """Hash that identifies the theorem; the split into training and validation depends on it."""
    source: str
    """The run or file that it comes from."""


@dataclass
class Counts:
    """Number of rows of a source, and of those left out for each reason."""

    rows: int = 0
    """Rows read."""
    positive: int = 0
    """Rows on the path of a proof; all rows of a file of published pairs."""
    empty: int = 0
    """Positive rows with an empty tactic."""
    forbidden: int = 0
    """Positive rows whose tactic uses sorry, admit, stop or native_decide."""
    unreadable: int = 0
    """Positive rows whose tactic would change when it is read from an answer, such as one with a line
    that would be read as the start of the next tactic."""
    duplicate: int = 0
    """Positive rows whose state and tactic occurred before, in this source or an earlier one."""
    kept: int = 0
    """Rows that became pairs."""


def check_splits(runs: Sequence[Path]) -> None:
    """ValueError if a run is not restricted to training theorems, so that it may hold some of the test split."""
    for run in runs:
        split = settings(run)["theorems"].get("split")
        if split != "train":
            raise ValueError(
                f"{run}: a run on split {split}; give runs with --split train, which hold no test theorems"
            )


def pairs_of(runs: Sequence[Path], files: Sequence[Path] = ()) -> tuple[list[TacticPair], dict[str, Counts]]:
    """The distinct pairs of runs of `monge prove` and of files of published pairs, and the counts by source.

    FileNotFoundError for a run without results; ValueError if a file cannot be read, or two runs have the same id.
    """
    seen: set[tuple[str, str]] = set()
    pairs: list[TacticPair] = []
    counts: dict[str, Counts] = {}
    columns = ("state_before", "tactic", "label")
    of_runs = ((str(run), _of_run(run, rows)) for run, rows in attempts_by_theorem(runs, columns))
    for source, rows in chain(of_runs, ((str(file), _of_file(file)) for file in files)):
        count = counts[source] = Counts()
        for pair in rows:
            count.rows += 1
            if pair is None:
                continue
            count.positive += 1
            if not pair.tactic.strip():
                count.empty += 1
            elif FORBIDDEN.search(pair.tactic):
                count.forbidden += 1
            elif tactic_of(completion(pair.tactic)) != pair.tactic:
                count.unreadable += 1
            elif (pair.state, pair.tactic) in seen:
                count.duplicate += 1
            else:
                seen.add((pair.state, pair.tactic))
                pairs.append(pair)
                count.kept += 1
    return pairs, counts


def attempts_by_theorem(
    runs: Iterable[Path], columns: Sequence[str]
) -> Iterator[tuple[Path, list[tuple[str, dict[str, Any]]]]]:
    """Yields each run with its attempts: (hash of the theorem, row of these columns and parent_id).

    FileNotFoundError for a run without results; ValueError if two runs have the same id.
    """
    ids: dict[str, Path] = {}
    for run in runs:
        theorems = {result.number: digest(result.header, result.signature) for result in results(run)}
        table = attempts(run)
        for name in table.column("run").unique().to_pylist():
            if ids.setdefault(name, run) != run:
                raise ValueError(f"{run} and {ids[name]} have the same id {name}; give one of them")
        rows = table.select(list(dict.fromkeys(("parent_id", *columns)))).to_pylist()
        yield run, [(theorems[int(row["parent_id"].rsplit("-", 2)[-2])], row) for row in rows]


def _of_run(run: Path, rows: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[TacticPair | None]:
    """A pair for each positive row of a run, None for each other row."""
    for theorem, row in rows:
        positive = row["label"] == "positive"
        yield TacticPair(row["state_before"], row["tactic"], theorem, str(run)) if positive else None


def _of_file(path: Path) -> Iterator[TacticPair]:
    """The rows of a .jsonl or .parquet file of published pairs."""
    if path.suffix not in (".jsonl", ".parquet") or not path.is_file():
        raise ValueError(f"{path}: give a .jsonl or .parquet file of pairs")
    for number, row in enumerate(_rows(path), 1):
        state, tactic = _field(row, STATES), _field(row, TACTICS)
        if state is None or tactic is None:
            raise ValueError(f"{path}, row {number}: needs a string {TACTICS[0]} and a string {' or '.join(STATES)}")
        theorem = _field(row, THEOREMS)
        yield TacticPair(state, tactic, digest(theorem if theorem is not None else state), str(path))


def _rows(path: Path) -> Iterator[Any]:
    try:
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        else:
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except ValueError as error:
                        raise ValueError(f"line {number}: {error}") from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: {error}; restore the file") from error


def _field(row: Any, names: Iterable[str]) -> str | None:
    """The first of these fields that is a text."""
    if not isinstance(row, dict):
        return None
    return next((row[name] for name in names if isinstance(row.get(name), str)), None)


EXAMPLES = "examples.jsonl"
"""File in a model's directory with its training pairs, whose tactics its prompts may show and a search may rerank."""


def write_examples(model: Path, pairs: Sequence[TacticPair]) -> None:
    """Save pairs in a model's directory."""
    write_text(model / EXAMPLES, "".join(json.dumps(pair._asdict(), ensure_ascii=False) + "\n" for pair in pairs))


def read_examples(model: Path) -> list[TacticPair]:
    """The pairs in a model's directory. ValueError if the file is missing or damaged."""
    path = model / EXAMPLES
    try:
        return [TacticPair(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"{path}: {reason}; local.sampling.reranked, and models trained with --retrieved, need the examples that `monge "
            "prove finetune` saves with a model"
        ) from error


def digest(*texts: str) -> str:
    """A short hash of texts."""
    return blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def as_rows(counts: dict[str, Counts]) -> list[dict[str, Any]]:
    """The counts as rows, with the source."""
    return [{"source": source, **asdict(count)} for source, count in counts.items()]
