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
from monge.lm.store import Bad, Dropped
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
    groups = alike([theorem.comment for theorem in kept])
    texts = [(theorem.label, theorem.comment, " ".join(theorem.statement)) for theorem in kept]
    return [Text(label, texts[group][0], nl, formal) for (label, nl, formal), group in zip(texts, groups, strict=True)]


def alike(texts: Sequence[str], *, threshold: float = 0.7) -> list[int]:
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
    return linked(len(sets), links)


def linked(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
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


# the public sets of pairs: what each calls its id, its natural language and its Lean
FIELDS = {
    "herald": ("id", "informal_theorem", "formal_theorem"),
    "proofnet": ("name", "informal_prefix", "formal_statement"),
    "minif2f": ("name", "informal_prefix", "formal_statement"),
    "numina": ("uuid", "problem", "formal_statement"),
}


def public(name: str, path: Path) -> list[Text]:
    """A public set of natural language and Lean from a local .parquet or .jsonl file; near-copies are grouped."""
    key, nl, formal = FIELDS[name]
    rows: list[tuple[str, str, str]] = []
    first: dict[str, int] = {}
    for number, row in enumerate(_rows(path)):
        missing = [field for field in (nl, formal) if not isinstance(row.get(field), str)]
        if missing:
            raise ValueError(
                f"{path}: row {number} has no text {', '.join(missing)}, only {', '.join(sorted(row))}; is it {name}?"
            )
        label = row.get(key, number)  # a set without ids is numbered
        if label is None:
            raise ValueError(f"{path}: row {number} has no {key}; give every row its own")
        if (before := first.setdefault(str(label), number)) != number:
            raise ValueError(f"{path}: row {number} has the {key} {label!r} of row {before}; give every row its own")
        rows.append((str(label), row[nl].strip(), row[formal].strip()))
    rows = [row for row in rows if row[1] and row[2]]
    near = (enumerate(alike([row[side] for row in rows])) for side in (1, 2))
    groups = linked(len(rows), chain(*near))
    return [Text(label, rows[group][0], nl, formal) for (label, nl, formal), group in zip(rows, groups, strict=True)]


READERS: dict[str, Callable[[Path], list[Text]]] = {
    "metamath": metamath,
    **{name: lambda path, name=name: public(name, path) for name in FIELDS},
}


def write_texts(path: Path, texts: Sequence[Text]) -> None:
    """One JSON object a line, written aside and renamed."""
    with atomic_write(path) as place:
        lines = "".join(json.dumps(asdict(text), ensure_ascii=False) + "\n" for text in texts)
        place.write_text(lines, encoding="utf-8")


def read_texts(path: Path) -> list[Text]:
    """What `write_texts` wrote; the ids must differ. ValueError, with the line, for what is none, or if there are no rows."""
    texts: list[Text] = []
    for number, row in enumerate(_rows(path), 1):
        fields = {name: row.get(name) for name in Text.__dataclass_fields__}
        fields["group"] = fields["group"] or fields["id"]
        wrong = [name for name, value in fields.items() if not isinstance(value, str) or not value.strip()]
        if wrong:
            raise ValueError(
                f"{path}: line {number}: {wrong[0]} is {fields[wrong[0]]!r}; give a text that is not empty"
            )
        texts.append(Text(**fields))  # pyright: ignore[reportArgumentType]
    if not texts:
        raise ValueError(f"{path}: no rows")
    seen = set[str]()
    for text in texts:
        if text.id in seen:
            raise ValueError(f"{path}: the id {text.id!r} comes twice; give every row its own")
        seen.add(text.id)
    return texts


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if path.suffix == ".parquet":
        try:
            for batch in pq.ParquetFile(path).iter_batches(1024):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a whole parquet file ({error}); fetch it anew") from error
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()  # half a character, "\ud800", passes for a string
            except (ValueError, RecursionError) as error:
                raise ValueError(
                    f"{path}: line {number} is not JSON in UTF-8 ({error}); give one object a line"
                ) from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}: line {number} is no object; give one with id, nl and formal")
            yield row
