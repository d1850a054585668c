"""A store of sequences of vectors with random access by number or by id, without holding them in memory.

DIRECTORY/   vectors.bin      all vectors, concatenated
             index.parquet    id, offset and length of each sequence
             ragged.json      width, dtype, number of vectors, their SHA-256, and the fingerprint of their origin
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from monge.files import atomic_directory, read_json
from monge.lm.store import DTYPES, Row, check

_INDEX = pa.schema([("id", pa.string()), ("offset", pa.int64()), ("length", pa.int32())])


@dataclass(frozen=True)
class Ragged:
    """A directory written by `write`. len() counts its sequences; store[number] and store[id] are (n, D), in float32.

    KeyError for an unknown id, IndexError for a number out of range. ValueError if the directory is missing or one of its
    files is damaged.
    """

    directory: Path

    @staticmethod
    def write(directory: Path, rows: Iterable[Row], *, dtype: str, fingerprint: Mapping[str, Any]) -> "Ragged":
        """Store rows (id, (n, D)) as `dtype`, atomically: `directory` is complete or does not exist.

        ValueError, with the id, for a repeated id or a sequence that `store.check` rejects, and if there are no rows.
        """
        lengths, offsets, offset, width, digest = dict[str, int](), list[int](), 0, 0, hashlib.sha256()
        with atomic_directory(directory) as temporary:
            with (temporary / "vectors.bin").open("wb") as out:
                for key, vectors in rows:
                    width = width or vectors.shape[-1]
                    values = vectors.detach().cpu().to(DTYPES[dtype]).contiguous()
                    check(f"{directory}: id {key!r}", values, width)
                    if key in lengths:
                        raise ValueError(f"{directory}: the id {key!r} is repeated; give every sequence a unique id")
                    raw = values.view(torch.uint8).numpy().tobytes()
                    out.write(raw)
                    digest.update(raw)
                    lengths[key] = len(values)
                    offsets.append(offset)
                    offset += len(values)
            if not lengths:
                raise ValueError(f"{directory}: no rows to write")
            columns = {"id": list(lengths), "offset": offsets, "length": list(lengths.values())}
            pq.write_table(pa.table(columns, schema=_INDEX), temporary / "index.parquet")
            metadata = {"width": width, "dtype": dtype, "vectors": offset, "sha256": digest.hexdigest()}
            metadata |= {"fingerprint": dict(fingerprint)}
            (temporary / "ragged.json").write_text(json.dumps(metadata, indent=2) + "\n")
        return Ragged(directory)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, key: int | str) -> Float[Tensor, "n D"]:
        number = self.number(key) if isinstance(key, str) else range(len(self))[key]
        dtype, (offsets, lengths) = DTYPES[self.dtype], self._extents
        row, length = self.width * dtype.itemsize, int(lengths[number])
        # read, not mapped: pages of a mapped file count towards this process's memory
        path = self.directory / "vectors.bin"
        raw = np.fromfile(path, np.uint8, length * row, offset=int(offsets[number]) * row)
        if len(raw) != length * row:
            raise self._damaged(path.name)
        return torch.from_numpy(raw).view(dtype).reshape(-1, self.width).float()

    def __contains__(self, key: str) -> bool:
        return key in self._numbers

    def number(self, key: str) -> int:
        """The number of the sequence with the id `key`. KeyError if there is none."""
        return self._numbers[key]

    @property
    def ids(self) -> list[str]:
        """The id of each sequence, in order."""
        return list(self._numbers)

    @cached_property
    def matrix(self) -> Float[Tensor, "n D"]:
        """All vectors in the stored dtype, mapped from disk, for sequences of one vector each. ValueError for others."""
        if (self.lengths != 1).any():
            raise ValueError(f"{self.directory}: sequences of several vectors; give pooled ones")
        path = str(self.directory / "vectors.bin")
        size = len(self) * self.width
        return torch.from_file(path, size=size, dtype=DTYPES[self.dtype]).reshape(len(self), self.width)

    @property
    def lengths(self) -> np.ndarray:
        """The number of vectors of each sequence."""
        return self._extents[1]

    @property
    def width(self) -> int:
        """Number of entries of a vector."""
        return self._metadata["width"]

    @property
    def dtype(self) -> str:
        """The dtype of the stored vectors: float16, bfloat16 or float32."""
        return self._metadata["dtype"]

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The origin of the vectors, as given to `write`."""
        return self._metadata["fingerprint"]

    @property
    def sha256(self) -> str:
        """The SHA-256 of all vectors, computed when they were written."""
        return self._metadata["sha256"]

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        path = self.directory / "ragged.json"
        if not self.directory.is_dir():
            raise ValueError(f"{self.directory}: no vectors here")
        try:
            metadata = read_json(path, "fingerprint", "sha256")
            numbers = [metadata["width"], metadata["vectors"]]
            if metadata["dtype"] in DTYPES and all(isinstance(number, int) and number > 0 for number in numbers):
                return metadata
        except (ValueError, KeyError, TypeError):
            pass
        raise self._damaged(path.name)

    @cached_property
    def _index(self) -> pa.Table:
        path, metadata = self.directory / "vectors.bin", self._metadata
        size = metadata["vectors"] * metadata["width"] * DTYPES[metadata["dtype"]].itemsize
        if not path.exists() or path.stat().st_size != size:
            raise self._damaged(path.name)
        try:
            index = pq.read_table(self.directory / "index.parquet")
            if index.schema.equals(_INDEX):
                return index
        except (pa.ArrowException, OSError):
            pass
        raise self._damaged("index.parquet")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {key: number for number, key in enumerate(self._index.column("id").to_pylist())}

    @cached_property
    def _extents(self) -> tuple[np.ndarray, np.ndarray]:
        return self._index.column("offset").to_numpy(), self._index.column("length").to_numpy()

    def _damaged(self, name: str) -> ValueError:
        return ValueError(f"{self.directory}: {name} is damaged or cut short; write the vectors again")
