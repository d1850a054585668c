"""Two files of sequences, joined by id into a directory. Pairs are read from disk one at a time, in any order.

pairs/   source/  target/   the vectors of each side, see monge.lm.ragged
         index.parquet      id, group and split of each pair, and the row numbers of its two sequences
         pairs.json         width, dtypes, fingerprints, hashes of the vectors, and counts of rows that were left out
         dropped.jsonl      end, id and reason of each unusable row dropped by --on-bad-rows drop, if there are any
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.data import Split, Text
from monge.files import atomic_directory, read_json
from monge.lm.ragged import Ragged
from monge.lm.store import DTYPES, Dropped, Dtype, OnBadRows, Row, Vectors, check, usable

OnLongRows = Literal["error", "drop", "truncate"]
ENDS = ("source", "target")
_INDEX = pa.schema(
    [(name, pa.string()) for name in ("id", "group", "split")] + [(end, pa.int64()) for end in ENDS],
)


def pair(
    source: Path,
    target: Path,
    out: Path,
    *,
    texts: Mapping[str, Text] | None = None,
    capacity: int = 64,
    on_long_rows: OnLongRows = "error",
    on_bad_rows: OnBadRows = "error",
    dtype: Dtype | None = None,
) -> dict[str, Any]:
    """Join two files by id under `out`, atomically; return the contents of pairs.json.

    `texts` maps ids to texts with groups and splits (default: one group per id, and splits by its hash). `on_long_rows` applies
    to sequences of more than `capacity` vectors, `on_bad_rows` to unusable ones. For a repeated id the first usable row is
    used.
    `dtype` is that of the stored vectors (default: that of each file). ValueError if `out` is not empty, if the widths of the
    files differ, or if no pairs are left.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: not empty; remove it or choose another directory")
    files = {"source": Vectors(source), "target": Vectors(target)}
    ids = {end: Counter(file.ids()) for end, file in files.items()}
    common = _common(files, ids, texts)
    with atomic_directory(out) as tmp_dir:
        chosen = {
            end: Selection(file, common, capacity, on_long_rows, on_bad_rows, dtype) for end, file in files.items()
        }
        stores = {end: selection.store(tmp_dir / end) for end, selection in chosen.items()}
        keys = [key for key in stores["source"].ids if key in stores["target"]]
        if not keys:
            raise ValueError(f"{out}: no pairs are left ({_reasons(chosen, capacity)})")
        _write_index(tmp_dir / "index.parquet", keys, stores, texts or {})
        _write_dropped(tmp_dir / "dropped.jsonl", {end: selection.dropped for end, selection in chosen.items()})
        summary = {
            "width": files["source"].width,
            "capacity": capacity,
            "pairs": len(keys),
            "unmatched": {end: len(ids[end].keys() - common) for end in ENDS},
            "repeated": {end: sum(ids[end].values()) - len(ids[end]) for end in ENDS},
            "longer": {end: chosen[end].long for end in ENDS},
            "bad": {end: len(chosen[end].dropped) for end in ENDS},
            "options": {"on_long_rows": on_long_rows, "on_bad_rows": on_bad_rows},
            "ungrouped": sum(key not in (texts or {}) for key in keys),
            **({} if texts is None else {"texts": _hash_of(texts, keys)}),
            "sha256": {end: stores[end].sha256 for end in ENDS},
            "dtype": {end: stores[end].dtype for end in ENDS},
            "fingerprint": {end: stores[end].fingerprint for end in ENDS},
        }
        (tmp_dir / "pairs.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _common(
    files: Mapping[str, Vectors], ids: Mapping[str, Counter[str]], texts: Mapping[str, Text] | None
) -> set[str]:
    """The ids common to both files. ValueError if their vectors cannot be paired."""
    source, target = (files[end] for end in ENDS)
    if source.width != target.width:
        raise ValueError(
            f"{source.path} has vectors of width {source.width}, {target.path} of width {target.width}; "
            "embed one side with another model or layer, of the same width"
        )
    common = ids["source"].keys() & ids["target"].keys()
    if not common:
        one, two = (next(iter(ids[end]), "none") for end in ENDS)
        raise ValueError(
            f"{source.path} and {target.path} share no id ({one!r}, {two!r}, ...); embed the same texts on both sides"
        )
    if texts is not None and not common & texts.keys():
        raise ValueError(
            f"{source.path}: none of its ids ({next(iter(common))!r}, ...) is among the texts; "
            "pass the texts that were embedded"
        )
    return common


@dataclass
class Selection:
    """Iterator over the rows of one side that can be paired. It counts overlong rows and lists unusable ones."""

    file: Vectors
    common: set[str]
    capacity: int
    on_long_rows: OnLongRows
    on_bad_rows: OnBadRows
    dtype: str | None
    long: int = 0
    dropped: list[Dropped] = field(default_factory=list[Dropped])

    def store(self, directory: Path) -> Ragged:
        """Write the rows to `directory`. ValueError if there are none."""
        rows, dtype = iter(self), self.dtype or self.file.dtype
        first = next(rows, None)
        if first is None:
            raise ValueError(f"{self.file.path}: no rows are left ({_reasons({'rows': self}, self.capacity)})")
        return Ragged.write(directory, _chain(first, rows), dtype=dtype, fingerprint=self.file.fingerprint)

    def __iter__(self) -> Iterator[Row]:
        seen = set[str]()
        for number, rows in self.file.portions(self.dropped if self.on_bad_rows == "drop" else None):
            for key, vectors in self._converted(number, [row for row in rows if row[0] in self.common]):
                if key in seen:
                    continue
                seen.add(key)
                if len(vectors) <= self.capacity:
                    yield key, vectors
                    continue
                if self.on_long_rows == "error":
                    raise ValueError(
                        f"{self.file.path}: row group {number}, id {key!r}: {len(vectors)} vectors do not fit into "
                        f"{self.capacity} slots; raise --capacity or pass --on-long-rows drop or truncate"
                    )
                self.long += 1
                if self.on_long_rows == "truncate":
                    yield key, vectors[: self.capacity]

    def _converted(self, number: int, rows: list[Row]) -> list[Row]:
        if self.dtype is None or self.dtype == self.file.dtype:
            return rows
        if self.on_bad_rows == "drop":
            return usable(rows, dtype=self.dtype, width=self.file.width, dropped=self.dropped)
        converted = [(key, vectors.to(DTYPES[self.dtype])) for key, vectors in rows]
        for key, vectors in converted:
            check(f"{self.file.path}: row group {number}, id {key!r}", vectors, self.file.width)
        return converted


def _chain(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rows


def _reasons(chosen: Mapping[str, Selection], capacity: int) -> str:
    long, unusable = (sum(count) for count in zip(*((s.long, len(s.dropped)) for s in chosen.values()), strict=True))
    return f"{long} longer than {capacity}, {unusable} unusable; raise --capacity or fix the rows"


def _write_index(path: Path, keys: list[str], stores: Mapping[str, Ragged], texts: Mapping[str, Text]) -> None:
    rows = [texts.get(key) or Text(key, key, "", "") for key in keys]
    columns: dict[str, Any] = {name: [getattr(row, name) for row in rows] for name in ("id", "group", "split")}
    for end in ENDS:
        columns[end] = [stores[end].number(key) for key in keys]
    pq.write_table(pa.table(columns, schema=_INDEX), path)


def _hash_of(texts: Mapping[str, Text], keys: Sequence[str]) -> int:
    """A hash of the texts with these ids; ids without a text are left out."""
    return json_hash([(key, texts[key].nl, texts[key].formal) for key in sorted(keys) if key in texts])


def check_texts(pairs: "Pairs", texts: Iterable[Text], path: Path) -> None:
    """ValueError if the texts, read from `path`, are not those that the pairs were made with, if that is recorded."""
    recorded, known = pairs.metadata.get("texts"), {text.id: text for text in texts}
    if recorded is not None and recorded != _hash_of(known, pairs.ids):
        raise ValueError(f"{path}: not the texts of {pairs.directory}; pass the file given to `monge translate pair`")


def _write_dropped(path: Path, dropped: Mapping[str, list[Dropped]]) -> None:
    rows = [{"end": end, "id": key, "reason": reason} for end, entries in dropped.items() for key, reason in entries]
    if rows:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def json_hash(value: Any) -> int:
    """A 64-bit hash of a JSON value."""
    return int.from_bytes(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:8], "big", signed=True)


def origin(fingerprint: Mapping[str, Any]) -> int:
    """A hash of the model, its name or path included, and of the settings that vectors were made with, but not of the dtype."""
    return json_hash({name: value for name, value in fingerprint.items() if name != "dtype"})


@dataclass(frozen=True)
class Pairs:
    """A directory written by `pair`."""

    directory: Path

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The contents of pairs.json. ValueError if there are none, or if they are damaged or of an earlier version."""
        path = self.directory / "pairs.json"
        if not path.exists():
            raise ValueError(f"{self.directory}: no pairs here; create them with `monge translate pair`")
        if (self.directory / "source.bin").exists():
            raise ValueError(
                f"{self.directory}: written by an earlier version of monge; run `monge translate pair` again"
            )
        try:
            metadata = read_json(path, "fingerprint", "dtype", "sha256")
            if all(isinstance(metadata[name], int) and metadata[name] > 0 for name in ("width", "capacity")):
                return metadata
        except (ValueError, KeyError, TypeError):
            pass
        raise self._damaged("pairs.json")

    @cached_property
    def _index(self) -> pa.Table:
        _ = self.metadata
        try:
            index = pq.read_table(self.directory / "index.parquet")
            if index.schema.equals(_INDEX):
                return index
        except (pa.ArrowException, OSError):
            pass
        raise self._damaged("index.parquet")

    def _damaged(self, name: str) -> ValueError:
        return ValueError(f"{self.directory}: {name} is damaged or cut short; run `monge translate pair` again")

    @cached_property
    def fingerprint(self) -> int:
        """A hash that changes with any vector, with the vectors' origin and with the set of pairs; texts do not count."""
        columns = [column.to_pylist() for column in self._index.itercolumns()]
        return json_hash([{name: value for name, value in self.metadata.items() if name != "texts"}, *columns])

    def origin(self, end: str) -> int:
        """A hash of the origin of one side's vectors; see the function `origin`."""
        return origin(self.metadata["fingerprint"][end])

    @cached_property
    def ids(self) -> list[str]:
        """The id of each pair."""
        return self._index.column("id").to_pylist()

    @cached_property
    def _stores(self) -> dict[str, tuple[Ragged, np.ndarray]]:
        return {end: (Ragged(self.directory / end), self._index.column(end).to_numpy()) for end in ENDS}

    @property
    def width(self) -> int:
        """Number of entries of a vector."""
        return int(self.metadata["width"])

    @property
    def capacity(self) -> int:
        """Maximum number of vectors per sequence."""
        return int(self.metadata["capacity"])

    def split(self, split: Split) -> np.ndarray:
        """The numbers of the pairs in this split."""
        return np.flatnonzero(np.array(self._index.column("split").to_pylist()) == split)

    def lengths(self, end: str) -> np.ndarray:
        """The length of each pair's sequence of `source` or `target`."""
        store, numbers = self._stores[end]
        return store.lengths[numbers]

    def sequence(self, end: str, number: int) -> Float[Tensor, "_ D"]:
        """The sequence of a pair on one side, read from disk, in float32."""
        store, numbers = self._stores[end]
        return store[int(numbers[number])]


def same_pairs(directory: Path, constants: Mapping[str, Tensor], run: Path) -> Pairs:
    """The pairs in a directory. ValueError unless they are those that a run with these constants was trained on."""
    pairs, trained_on = Pairs(directory), constants.get("pairs")
    if trained_on is None or pairs.fingerprint != int(trained_on):
        raise ValueError(f"{directory}: not the pairs that {run} was trained on; restore them, or train a new run")
    return pairs
