"""Two files of sequences, joined by id into a directory whose rows are read at random without being held in memory.

pairs/   source.bin  target.bin   all vectors, one after the other
         index.parquet            id, group, side, and where each of the two sequences lies
         pairs.json               widths, dtypes, fingerprints, and what was left out
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.data import Side, side_of
from monge.lm.store import DTYPES, Vectors
from monge.train.checkpoint import read_json, writing

Longer = Literal["refuse", "drop", "truncate"]
ENDS = ("source", "target")


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
    """
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
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out}: not empty; name another directory, or remove it")
    out.mkdir(parents=True, exist_ok=True)
    aside = out / ".writing"
    aside.mkdir(exist_ok=True)
    with writing(out):
        places, long = {}, {}
        for end, file in files.items():
            places[end], long[end] = _lay_out(file, aside / f"{end}.bin", common, capacity, longer)
        kept = [key for key in places["source"] if key in places["target"]]
        if not kept:
            raise ValueError(f"{out}: every pair is longer than {capacity}; raise --capacity")
        _write_index(aside / "index.parquet", kept, places, groups or {})
        found = {
            "width": files["source"].width,
            "capacity": capacity,
            "pairs": len(kept),
            "unmatched": {end: len(ids[end].keys() - common) for end in ENDS},
            "repeated": {end: sum(ids[end].values()) - len(ids[end]) for end in ENDS},
            "longer": {end: len(long[end]) for end in ENDS},
            "what became of the longer": longer,
            "ungrouped": sum(key not in (groups or {}) for key in kept),
            "dtype": {end: file.dtype for end, file in files.items()},
            "fingerprint": {end: file.fingerprint for end, file in files.items()},
        }
        (aside / "pairs.json").write_text(json.dumps(found, indent=2) + "\n")
        for path in sorted(aside.iterdir(), key=lambda path: path.name == "pairs.json"):
            path.replace(out / path.name)
        aside.rmdir()
    return found


def _lay_out(
    file: Vectors, path: Path, common: set[str], capacity: int, longer: Longer
) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Write the sequences that are in `common`; return (offset, length) by id, and the ids that were too long."""
    places: dict[str, tuple[int, int]] = {}
    long: list[str] = []
    offset, seen = 0, set[str]()
    with path.open("wb") as out:
        for number, rows in enumerate(file.groups()):
            for key, vectors in rows:
                if vectors.shape[1] != file.width:
                    raise ValueError(
                        f"{file.path}: row group {number}, id {key!r}: vectors of width {vectors.shape[1]}, not {file.width}"
                    )
                if key not in common or key in seen:
                    continue
                seen.add(key)
                if len(vectors) > capacity:
                    if longer == "refuse":
                        raise ValueError(
                            f"{file.path}: row group {number}, id {key!r}: {len(vectors)} vectors do not fit {capacity}; "
                            "raise --capacity, or say --longer drop or truncate"
                        )
                    long.append(key)
                    if longer == "drop":
                        continue
                    vectors = vectors[:capacity]
                out.write(vectors.contiguous().view(torch.uint8).numpy().tobytes())
                places[key] = offset, len(vectors)
                offset += len(vectors)
    return places, long


def _write_index(
    path: Path, kept: list[str], places: dict[str, dict[str, tuple[int, int]]], groups: Mapping[str, str]
) -> None:
    named = [groups.get(key, key) for key in kept]
    columns: dict[str, Any] = {"id": kept, "group": named, "side": [side_of(group) for group in named]}
    for end in ENDS:
        columns[f"{end}_offset"] = np.array([places[end][key][0] for key in kept], np.int64)
        columns[f"{end}_length"] = np.array([places[end][key][1] for key in kept], np.int32)
    pq.write_table(pa.table(columns), path)


@dataclass(frozen=True)
class Pairs:
    """A directory that `pair` made."""

    directory: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        """What pairs.json holds."""
        return read_json(self.directory / "pairs.json", "width", "capacity", "dtype", "fingerprint")

    @cached_property
    def _index(self) -> pa.Table:
        return pq.read_table(self.directory / "index.parquet")

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
            raise ValueError(f"{self.directory}/{end}.bin is cut short; make the pairs anew")
        return torch.from_numpy(raw).view(dtype).reshape(-1, self.width).float()
