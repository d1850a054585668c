"""Two files of sequences, joined by id into a directory whose rows are read at random without being held in memory.

pairs/   source.bin  target.bin   all vectors, one after the other
         index.parquet            id, group, side, and where each of the two sequences lies
         pairs.json               widths, dtypes, fingerprints, hashes of the vectors, and what was left out
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.data import Side, side_of
from monge.files import read_json, writing
from monge.lm.store import DTYPES, Vectors

Longer = Literal["refuse", "drop", "truncate"]
ENDS = ("source", "target")
_INDEX = pa.schema(
    [(name, pa.string()) for name in ("id", "group", "side")]
    + [(f"{end}_{what}", kind) for end in ENDS for what, kind in (("offset", pa.int64()), ("length", pa.int32()))]
)


def pair(
    source: Path,
    target: Path,
    out: Path,
    *,
    groups: Mapping[str, str] | None = None,
    capacity: int = 64,
    longer: Longer = "refuse",
) -> dict[str, Any]:
    """Join two files by id under `out`; return what pairs.json holds.

    `groups` names the group of each id (its own if not said), which decides its side of the split. A sequence of more than
    `capacity` vectors is refused, or its pair dropped, or it is cut, and counted. Of an id that comes twice the first counts.
    Everything is written aside and renamed: `out` is whole, or not there.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: not empty; name another directory, or remove it")
    files = {"source": Vectors(source), "target": Vectors(target)}
    if files["source"].width != files["target"].width:
        raise ValueError(
            f"{source} has vectors of width {files['source'].width}, {target} of {files['target'].width}; "
            "the flow needs one width: embed one side by another model or layer"
        )
    ids = {end: Counter(file.ids()) for end, file in files.items()}
    common = ids["source"].keys() & ids["target"].keys()
    if not common:
        one, two = (next(iter(ids[end]), "none") for end in ENDS)
        raise ValueError(f"{source} and {target} share no id ({one!r}, {two!r}, ...); are they of the same texts?")
    if groups is not None and not common & groups.keys():
        raise ValueError(
            f"{source}: none of its ids ({next(iter(common))!r}, ...) is among the texts; give the texts that were embedded"
        )
    with writing(out), _emptied(out.with_name(f".writing-{out.name}")) as aside:
        laid = {end: _lay_out(file, aside / f"{end}.bin", common, capacity, longer) for end, file in files.items()}
        kept = [key for key in laid["source"].places if key in laid["target"].places]
        if not kept:
            raise ValueError(f"{out}: every pair is longer than {capacity}; raise --capacity")
        _write_index(aside / "index.parquet", kept, laid, groups or {})
        found = {
            "width": files["source"].width,
            "capacity": capacity,
            "pairs": len(kept),
            "unmatched": {end: len(ids[end].keys() - common) for end in ENDS},
            "repeated": {end: sum(ids[end].values()) - len(ids[end]) for end in ENDS},
            "longer": {end: laid[end].longer for end in ENDS},
            "what became of the longer": longer,
            "ungrouped": sum(key not in (groups or {}) for key in kept),
            "vectors": {end: laid[end].vectors for end in ENDS},
            "sha256": {end: laid[end].sha256 for end in ENDS},
            "dtype": {end: file.dtype for end, file in files.items()},
            "fingerprint": {end: file.fingerprint for end, file in files.items()},
        }
        (aside / "pairs.json").write_text(json.dumps(found, indent=2) + "\n")
        aside.replace(out)
    return found


@contextmanager
def _emptied(directory: Path) -> Iterator[Path]:
    """A directory without what a crash left there; nothing stays in it."""
    shutil.rmtree(directory, ignore_errors=True)
    try:
        directory.mkdir(parents=True)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Laid(NamedTuple):
    """What `_lay_out` wrote."""

    places: dict[str, tuple[int, int]]  # (offset, length) by id
    longer: int
    vectors: int
    sha256: str


def _lay_out(file: Vectors, path: Path, common: set[str], capacity: int, longer: Longer) -> _Laid:
    """Write the sequences that are in `common`, one after the other."""
    places: dict[str, tuple[int, int]] = {}
    long, offset, seen, digest = 0, 0, set[str](), hashlib.sha256()
    with path.open("wb") as out:
        for number, rows in file.portions():
            for key, vectors in rows:
                if key not in common or key in seen:
                    continue
                seen.add(key)
                if len(vectors) > capacity:
                    if longer == "refuse":
                        raise ValueError(
                            f"{file.path}: row group {number}, id {key!r}: {len(vectors)} vectors do not fit {capacity}; "
                            "raise --capacity, or say --longer drop or truncate"
                        )
                    long += 1
                    if longer == "drop":
                        continue
                    vectors = vectors[:capacity]
                raw = vectors.contiguous().view(torch.uint8).numpy().tobytes()
                out.write(raw)
                digest.update(raw)
                places[key] = offset, len(vectors)
                offset += len(vectors)
    return _Laid(places, long, offset, digest.hexdigest())


def _write_index(path: Path, kept: list[str], laid: Mapping[str, _Laid], groups: Mapping[str, str]) -> None:
    named = [groups.get(key, key) for key in kept]
    columns: dict[str, Any] = {"id": kept, "group": named, "side": [side_of(group) for group in named]}
    for end in ENDS:
        columns[f"{end}_offset"], columns[f"{end}_length"] = zip(*(laid[end].places[key] for key in kept), strict=True)
    pq.write_table(pa.table(columns, schema=_INDEX), path)


def digested(found: Any) -> int:
    """64 bits that change with what JSON can say."""
    return int.from_bytes(hashlib.sha256(json.dumps(found, sort_keys=True).encode()).digest()[:8], "big", signed=True)


def origin(fingerprint: Mapping[str, Any]) -> int:
    """Changes with the model that vectors come from and with how it was asked, not with how they are stored."""
    return digested({name: said for name, said in fingerprint.items() if name != "dtype"})


@dataclass(frozen=True)
class Pairs:
    """A directory that `pair` made."""

    directory: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """What pairs.json holds."""
        path = self.directory / "pairs.json"
        if not path.exists():
            raise ValueError(f"{self.directory}: no pairs here; make them with `monge translate pair`")
        try:
            found = read_json(path, "fingerprint")
            numbers = [found["width"], found["capacity"], *(found["vectors"][end] for end in ENDS)]
            known = all(found["dtype"][end] in DTYPES for end in ENDS)
            if known and all(isinstance(number, int) and number > 0 for number in numbers):
                return found
        except (ValueError, KeyError, TypeError):
            pass
        raise self._damaged("pairs.json")

    @cached_property
    def _index(self) -> pa.Table:
        for end in ENDS:
            path, entries = self.directory / f"{end}.bin", self.about["vectors"][end] * self.width
            if not path.exists() or path.stat().st_size != entries * DTYPES[self.about["dtype"][end]].itemsize:
                raise self._damaged(path.name)
        try:
            found = pq.read_table(self.directory / "index.parquet")
            if found.schema.equals(_INDEX):
                return found
        except (pa.ArrowException, OSError):
            pass
        raise self._damaged("index.parquet")

    def _damaged(self, name: str) -> ValueError:
        return ValueError(f"{self.directory}: {name} is damaged or cut short; make the pairs anew")

    @cached_property
    def fingerprint(self) -> int:
        """Changes with any vector, with where they come from, and with which pairs there are."""
        columns = [column.to_pylist() for column in self._index.itercolumns()]
        return digested([self.about, *columns])

    def origin(self, end: str) -> int:
        """Of a side's vectors, see `origin`."""
        return origin(self.about["fingerprint"][end])

    @cached_property
    def ids(self) -> list[str]:
        """The id of each pair."""
        return self._index.column("id").to_pylist()

    @cached_property
    def _places(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {
            end: tuple(self._index.column(f"{end}_{what}").to_numpy() for what in ("offset", "length")) for end in ENDS
        }  # pyright: ignore[reportReturnType]

    @property
    def width(self) -> int:
        """Entries of a vector."""
        return int(self.about["width"])

    @property
    def capacity(self) -> int:
        """No sequence is longer."""
        return int(self.about["capacity"])

    def side(self, side: Side) -> np.ndarray:
        """The numbers of the pairs on this side of the split."""
        return np.flatnonzero(np.array(self._index.column("side").to_pylist()) == side)

    def lengths(self, end: str) -> np.ndarray:
        """The length of every sequence of `source` or `target`."""
        return self._places[end][1]

    def sequence(self, end: str, number: int) -> Float[Tensor, "_ D"]:
        """A sequence, read from disk, in float32."""
        offsets, lengths = self._places[end]
        dtype = DTYPES[self.about["dtype"][end]]
        row = self.width * dtype.itemsize
        # read, not mapped: pages of a mapped file count as this process's memory
        raw = np.fromfile(
            self.directory / f"{end}.bin", np.uint8, int(lengths[number]) * row, offset=int(offsets[number]) * row
        )
        if len(raw) != int(lengths[number]) * row:
            raise self._damaged(f"{end}.bin")
        return torch.from_numpy(raw).view(dtype).reshape(-1, self.width).float()
