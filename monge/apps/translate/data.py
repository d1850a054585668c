"""Paired natural-language and formal texts, rows {id, group, nl, formal, split}: reading, near-duplicates, splits."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from monge.apps.translate.metamath import theorems
from monge.files import atomic_write
from monge.lm.store import Dropped
from monge.math.random import split_of
from monge.near_duplicates import connected_components, near_duplicates

Split = Literal["train", "validation", "test"]
SHARES: dict[Split, float] = {"test": 0.10, "validation": 0.05, "train": 0.85}
"""Expected share of the groups in each split. The order determines which hashes fall into which split."""


@dataclass(frozen=True)
class Text:
    """A pair of texts. Rows of one group are near-duplicates and must be in the same split."""

    id: str
    group: str
    nl: str
    formal: str
    split: Split = None  # pyright: ignore[reportAssignmentType]
    """Split of the pair; by default, a hash of the group's name determines it."""

    def __post_init__(self) -> None:
        if self.split is None:
            object.__setattr__(self, "split", split_of(self.group, SHARES))


def metamath(path: Path, *, citations: bool = False, words: tuple[int, int] = (3, 60), symbols: int = 96) -> list[Text]:
    """The theorems of a Metamath database, without repeated comments or statements that are equal up to variable names.

    Without `citations`, sentences that cite literature or other theorems are removed. Obsolete theorems, those that the
    database marks as unfinished, comments whose number of words is outside `words`, and statements of more than `symbols`
    symbols are left out.
    """
    seen, selected = set[Any](), []
    for theorem in theorems(path):
        stale = re.search(r"OLD|TODO", theorem.label + theorem.comment) or theorem.comment.startswith("Obsolete")
        if not citations:
            theorem = replace(theorem, comment=theorem.content)
        length = len(theorem.comment.split())
        if stale or not words[0] <= length <= words[1] or len(theorem.statement) > symbols:
            continue
        keys = {theorem.comment.lower(), theorem.pattern}
        if not keys & seen:
            selected.append(theorem)
        seen |= keys
    groups = near_duplicates([theorem.comment for theorem in selected])
    texts = [(theorem.label, theorem.comment, " ".join(theorem.statement)) for theorem in selected]
    return [Text(label, texts[group][0], nl, formal) for (label, nl, formal), group in zip(texts, groups, strict=True)]


FROM_0 = "(rows count from 0)"
# public data sets: the names of their id, natural-language and Lean fields
FIELDS = {
    "herald": ("id", "informal_theorem", "formal_theorem"),
    "proofnet": ("name", "informal_prefix", "formal_statement"),
    "minif2f": ("name", "informal_prefix", "formal_statement"),
    "numina": ("uuid", "problem", "formal_statement"),
}


def public(name: str, path: Path, dropped: list[Dropped] | None = None) -> list[Text]:
    """A public data set of natural language and Lean from a local .parquet or .jsonl file; near-duplicates are grouped.

    Rows with a null id or without one of the texts are appended to `dropped`, or are a ValueError if it is None. Rows with a
    blank text are left out. A row without an id field is named by its number. ValueError if ids repeat, or if a row has neither
    text field.
    """
    key, nl, formal = FIELDS[name]
    rows: list[tuple[str, str, str]] = []
    first: dict[str, int] = {}
    for line, row in _rows(path, dropped):
        number = line - 1
        missing = [field for field in (nl, formal) if not isinstance(row.get(field), str)]
        label = row.get(key, number)  # a row without the field is named by its number
        if missing and (not row.keys() & {nl, formal} or (dropped is None and not row.keys() >= {nl, formal})):
            raise ValueError(
                f"{path}: row {number} {FROM_0} has no {' and no '.join(missing)}, only the fields {', '.join(sorted(row))}; "
                f"check that this is {name}"
            )
        if missing and dropped is None:
            raise ValueError(
                f"{path}: row {number} {FROM_0} has no text in {' and '.join(missing)}; add it, or remove the row"
            )
        if label is None and dropped is None:
            raise ValueError(f"{path}: row {number} {FROM_0} has no {key}; give every row a unique {key}")
        if dropped is not None and (missing or label is None):
            dropped.append((f"row {number} {FROM_0}", f"no {missing[0] if missing else key}"))
            continue
        if (earlier := first.setdefault(str(label), number)) != number:
            raise ValueError(
                f"{path}: rows {earlier} and {number} {FROM_0} have the same {key} {label!r}; give every row a unique {key}"
            )
        rows.append((str(label), row[nl].strip(), row[formal].strip()))
    rows = [row for row in rows if row[1] and row[2]]
    near = (enumerate(near_duplicates([row[side] for row in rows])) for side in (1, 2))
    groups = connected_components(len(rows), chain(*near))
    return [Text(label, rows[group][0], nl, formal) for (label, nl, formal), group in zip(rows, groups, strict=True)]


READERS: dict[str, Callable[[Path, list[Dropped] | None], list[Text]]] = {
    name: partial(public, name) for name in FIELDS
}
"""Reader of each public data set: (path, list for unusable rows or None to reject them) -> texts."""


def write_texts(path: Path, texts: Sequence[Text]) -> None:
    """Write one JSON object per line, atomically."""
    with atomic_write(path) as tmp_path:
        lines = "".join(json.dumps(asdict(text), ensure_ascii=False) + "\n" for text in texts)
        tmp_path.write_text(lines, encoding="utf-8")


def read_texts(path: Path, dropped: list[Dropped] | None = None) -> list[Text]:
    """Texts written by `write_texts`. Integer ids become strings; a row without a group is its own group.

    Invalid rows are appended to `dropped`, or are a ValueError with the line number if it is None. ValueError if ids repeat, if
    a group has rows in two splits, or if no rows are left.
    """
    texts: list[Text] = []
    for number, row in _rows(path, dropped):
        fields = {name: row.get(name) for name in ("id", "group", "nl", "formal")}
        fields |= {name: _as_id(fields[name]) for name in ("id", "group")}
        fields["group"] = fields["group"] or fields["id"]
        wrong = [name for name, value in fields.items() if not isinstance(value, str) or not value.strip()]
        fields["split"] = row.get("split")
        if fields["split"] not in (None, *SHARES):
            wrong.append("split")
        if not wrong:
            texts.append(Text(**fields))  # pyright: ignore[reportArgumentType]
        elif dropped is None:
            rule = f"one of {', '.join(SHARES)}" if wrong[0] == "split" else "a non-empty string"
            raise ValueError(f"{path}: line {number}: {wrong[0]} is {fields[wrong[0]]!r}; it must be {rule}")
        else:
            key = fields["id"] if "id" not in wrong else f"line {number}"
            dropped.append((str(key), f"{wrong[0]} is {fields[wrong[0]]!r}"))
    if not texts:
        first = "" if not dropped else f"no usable rows; {dropped[0][0]}: {dropped[0][1]}"
        raise ValueError(f"{path}: {first or 'no rows'}")
    seen, splits = set[str](), dict[str, Split]()
    for text in texts:
        if text.id in seen:
            raise ValueError(f"{path}: id {text.id!r} is repeated; give every row a unique id")
        seen.add(text.id)
        if (split := splits.setdefault(text.group, text.split)) != text.split:
            raise ValueError(
                f"{path}: group {text.group!r} has rows in {split} and {text.split}; give its rows the same split"
            )
    return texts


def _as_id(value: Any) -> Any:
    """The value, as a string if it is an integer: ids may be integers."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _rows(path: Path, dropped: list[Dropped] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, row) of a .parquet or JSON lines file; `dropped` as in `read_texts`."""
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
                yield number, _parse(line)
            except ValueError as error:
                if dropped is None:
                    raise ValueError(f"{path}: line {number} {error}") from error
                dropped.append((f"line {number}", str(error)))


def _parse(line: bytes) -> dict[str, Any]:
    """The JSON object in a line. ValueError, with the reason, if it is not one."""
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # rejects lone surrogates, "\ud800"
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON in UTF-8 ({error}); write one object per line") from error
    if not isinstance(row, dict):
        raise ValueError("is not a JSON object; write one object per line")
    return row
