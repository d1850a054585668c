"""Paired texts, natural language and formal, as rows {id, group, nl, formal}: read, grouped by their near-copies, split."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from monge.apps.translate.metamath import theorems
from monge.files import atomic_write
from monge.lm.store import Dropped
from monge.math.random import split_of

Split = Literal["train", "validation", "test"]
SHARES: dict[Split, float] = {"test": 0.10, "validation": 0.05, "train": 0.85}
"""Expected shares of the groups. Their order decides which hashes fall into which split."""


@dataclass(frozen=True)
class Text:
    """A pair of texts. Rows of one group are near-duplicates of each other and must lie in one split."""

    id: str
    group: str
    nl: str
    formal: str


def split_of_group(group: str) -> Split:
    """The split of a group, by a hash of its name: every command finds the same one without being told."""
    return split_of(group, SHARES)


def metamath(path: Path, *, words: tuple[int, int] = (3, 60), symbols: int = 96) -> list[Text]:
    """The theorems of a Metamath database, one for each comment and each statement up to the names of its variables.

    Obsolete ones and those with too few or too many words or symbols are left out.
    """
    seen, kept = set[Any](), []
    for theorem in theorems(path):
        length = len(theorem.comment.split())
        stale = re.search(r"OLD|TODO", theorem.label + theorem.comment) or theorem.comment.startswith("Obsolete")
        if stale or not words[0] <= length <= words[1] or len(theorem.statement) > symbols:
            continue
        keys = {theorem.comment.lower(), theorem.pattern}
        if not keys & seen:
            kept.append(theorem)
        seen |= keys
    groups = near_duplicates([theorem.comment for theorem in kept])
    texts = [(theorem.label, theorem.comment, " ".join(theorem.statement)) for theorem in kept]
    return [Text(label, texts[group][0], nl, formal) for (label, nl, formal), group in zip(texts, groups, strict=True)]


def near_duplicates(texts: Sequence[str], *, threshold: float = 0.7) -> list[int]:
    """For each text the first of its group: texts are linked if their sets of words have a Jaccard index of `threshold`.

    Exact, by prefix filtering (Bayardo et al. 2007): sets this similar share one of their few rarest words.
    """
    sets = [frozenset(re.findall(r"\w+|[^\w\s]+", text.lower())) for text in texts]
    counts: dict[str, int] = defaultdict(int)
    for words in sets:
        for word in words:
            counts[word] += 1
    index, links = defaultdict[str, list[int]](list), list[tuple[int, int]]()
    for number, words in enumerate(sets):
        rare = sorted(words, key=lambda word: (counts[word], word))
        prefix = rare[: len(rare) - math.ceil(threshold * len(rare) - 1e-9) + 1]
        near = {other for word in prefix for other in index[word]}
        for other in near:
            shared = len(words & sets[other])
            if shared >= threshold * (len(words) + len(sets[other]) - shared):
                links.append((number, other))
        for word in prefix:
            index[word].append(number)
    return connected_components(len(sets), links)


def connected_components(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """The group of each of `count` when links join them: the least number in it."""
    parent = list(range(count))

    def first(k: int) -> int:
        while parent[k] != k:
            parent[k] = k = parent[parent[k]]
        return k

    for one, other in links:
        a, b = sorted((first(one), first(other)))
        parent[b] = a
    return [first(number) for number in range(count)]


# the public sets of pairs: the names of the id, the natural language and the Lean in each
FIELDS = {
    "herald": ("id", "informal_theorem", "formal_theorem"),
    "proofnet": ("name", "informal_prefix", "formal_statement"),
    "minif2f": ("name", "informal_prefix", "formal_statement"),
    "numina": ("uuid", "problem", "formal_statement"),
}


def public(name: str, path: Path, dropped: list[Dropped] | None = None) -> list[Text]:
    """A public set of natural language and Lean from a local .parquet or .jsonl file; near-duplicates are grouped.

    Rows without an id or a text are appended to `dropped`; without that list they are a ValueError.
    """
    key, nl, formal = FIELDS[name]
    rows: list[tuple[str, str, str]] = []
    first: dict[str, int] = {}
    for line, row in _rows(path, dropped):
        number = line - 1
        missing = [field for field in (nl, formal) if not isinstance(row.get(field), str)]
        label = row.get(key, number)  # rows of a set without ids are numbered
        if missing and (dropped is None or not row.keys() & {nl, formal}):
            raise ValueError(
                f"{path}: row {number} has no text {', '.join(missing)}, only {', '.join(sorted(row))}; is it {name}?"
            )
        if label is None and dropped is None:
            raise ValueError(f"{path}: row {number} has no {key}; give every row its own")
        if dropped is not None and (missing or label is None):
            dropped.append((f"row {number}", f"no {missing[0] if missing else key}"))
            continue
        if (before := first.setdefault(str(label), number)) != number:
            raise ValueError(f"{path}: row {number} has the {key} {label!r} of row {before}; give every row its own")
        rows.append((str(label), row[nl].strip(), row[formal].strip()))
    rows = [row for row in rows if row[1] and row[2]]
    near = (enumerate(near_duplicates([row[side] for row in rows])) for side in (1, 2))
    groups = connected_components(len(rows), chain(*near))
    return [Text(label, rows[group][0], nl, formal) for (label, nl, formal), group in zip(rows, groups, strict=True)]


READERS: dict[str, Callable[[Path, list[Dropped] | None], list[Text]]] = {
    "metamath": lambda path, _: metamath(path),
    **{name: lambda path, dropped, name=name: public(name, path, dropped) for name in FIELDS},
}
"""(path, list for unusable rows or None to reject them) -> texts, by the name of the data set."""


def write_texts(path: Path, texts: Sequence[Text]) -> None:
    """One JSON object a line, written aside and renamed."""
    with atomic_write(path) as place:
        lines = "".join(json.dumps(asdict(text), ensure_ascii=False) + "\n" for text in texts)
        place.write_text(lines, encoding="utf-8")


def read_texts(path: Path, dropped: list[Dropped] | None = None) -> list[Text]:
    """Texts as `write_texts` writes them; ids must differ, and integer ids become strings.

    Rows that are no texts are appended to `dropped`; without that list they are a ValueError, with the line. ValueError if no
    rows are left.
    """
    texts: list[Text] = []
    for number, row in _rows(path, dropped):
        fields = {name: row.get(name) for name in Text.__dataclass_fields__}
        fields |= {name: _name(fields[name]) for name in ("id", "group")}
        fields["group"] = fields["group"] or fields["id"]
        wrong = [name for name, value in fields.items() if not isinstance(value, str) or not value.strip()]
        if not wrong:
            texts.append(Text(**fields))  # pyright: ignore[reportArgumentType]
        elif dropped is None:
            raise ValueError(
                f"{path}: line {number}: {wrong[0]} is {fields[wrong[0]]!r}; give a text that is not empty"
            )
        else:
            key = fields["id"] if "id" not in wrong else f"line {number}"
            dropped.append((str(key), f"{wrong[0]} is {fields[wrong[0]]!r}"))
    if not texts:
        raise ValueError(f"{path}: no rows")
    seen = set[str]()
    for text in texts:
        if text.id in seen:
            raise ValueError(f"{path}: the id {text.id!r} is repeated; give every row its own")
        seen.add(text.id)
    return texts


def _name(value: Any) -> Any:
    """Integers, as ids may be, as strings."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _rows(path: Path, dropped: list[Dropped] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of a .parquet file or of JSON lines, blank lines left out."""
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if path.suffix == ".parquet":
        try:
            batches = pq.ParquetFile(path).iter_batches(1024)
            yield from enumerate(chain.from_iterable(batch.to_pylist() for batch in batches), 1)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a complete parquet file ({error}); download it again") from error
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield number, _parsed(line)
            except ValueError as error:
                if dropped is None:
                    raise ValueError(f"{path}: line {number} {error}") from error
                dropped.append((f"line {number}", str(error)))


def _parsed(line: bytes) -> dict[str, Any]:
    """A line's object. ValueError, with the reason, for anything else."""
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # half a character, "\ud800", passes for a string
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON in UTF-8 ({error}); give one object a line") from error
    if not isinstance(row, dict):
        raise ValueError("is not an object; give one with id, nl and formal")
    return row
