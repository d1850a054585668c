"""Sequences of vectors by id in parquet: streamed by row group, with the model's fingerprint in the schema's metadata.

    id: string    hidden: list<fixed_size_list<halffloat | uint16 | float>[D]>        bfloat16 is stored as its 16 bits

Files of list<list<double>>, and ids that are integers or dictionary-encoded, are read as well.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
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

from monge.files import atomic_write

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_STORED = {
    "float16": (pa.float16(), np.float16),
    "bfloat16": (pa.uint16(), np.uint16),
    "float32": (pa.float32(), np.float32),
}
GROUP = 2**25  # approximate maximum size of a row group in bytes
Row = tuple[str, Tensor]
Dropped = tuple[str, str]  # the id of a row that was left out, and the reason
OnBadRows = Literal["error", "drop"]
Dtype = Literal["float16", "bfloat16", "float32"]


def write(path: Path, groups: Iterable[Sequence[Row]], *, dtype: str, fingerprint: dict[str, Any]) -> int:
    """Write each group of rows (id, (n, D)) as one or more row groups, atomically; return the number of rows.

    ValueError, with the id, for a sequence that `check` rejects, such as one with a zero vector, and if there are no rows.
    """
    writer, rows = None, 0
    with atomic_write(path) as temporary:
        try:
            for group in groups:
                if not group:
                    continue
                table = _table(path, group, dtype, fingerprint, None if writer is None else writer.schema)
                writer = writer or pq.ParquetWriter(temporary, table.schema, compression="none", use_dictionary=False)
                writer.write_table(table, row_group_size=max(1, GROUP * len(table) // max(GROUP, table.nbytes)))
                rows += len(table)
            if writer is None:
                raise ValueError(f"{path}: no rows to write")
        finally:
            if writer is not None:
                writer.close()
    return rows


def merge(path: Path, parts: Sequence[Path]) -> int:
    """Write the row groups of all parts to one file, in order; return the number of rows."""
    schema, rows = pq.read_schema(parts[0]), 0
    with (
        atomic_write(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="none", use_dictionary=False) as writer,
    ):
        for part in parts:
            file = pq.ParquetFile(part)
            for k in range(file.num_row_groups):
                table = file.read_row_group(k)
                writer.write_table(table, row_group_size=len(table))
                rows += len(table)
    return rows


def _table(path: Path, group: Sequence[Row], dtype: str, fingerprint: dict[str, Any], schema: pa.Schema | None):
    width = group[0][1].shape[-1] if schema is None else schema.field("hidden").type.value_type.list_size
    arrow, stored_dtype = _STORED[dtype]
    parts: list[np.ndarray] = []
    for key, vectors in group:
        values = vectors.detach().cpu().to(DTYPES[dtype])
        check(f"{path}: id {key!r}", values, width)
        parts.append(
            (values.view(torch.uint16) if dtype == "bfloat16" else values).numpy().astype(stored_dtype, copy=False)
        )
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(parts).ravel(), arrow), width)
    hidden = pa.ListArray.from_arrays(pa.array(offsets), vectors)
    metadata = {"fingerprint": json.dumps({**fingerprint, "dtype": dtype})}
    return pa.table({"id": pa.array([key for key, _ in group], pa.string()), "hidden": hidden}, metadata=metadata)


def problem(vectors: Tensor, width: int) -> str | None:
    """The reason why a sequence cannot be used: empty, another width, or a zero or non-finite vector. None if it can."""
    if vectors.ndim != 2 or not len(vectors):
        return "no vectors"
    if vectors.shape[1] != width:
        return f"vectors of width {vectors.shape[1]}, but the others have {width}; embed all with one model"
    sizes = vectors.float().norm(dim=-1)
    unusable = (~torch.isfinite(sizes) | (sizes == 0)).nonzero()
    if not len(unusable):
        return None
    first = vectors[k := int(unusable[0])]
    if sizes[k] == 0:
        return f"vector {k} is " + ("too small for float32 arithmetic" if first.any() else "zero")
    if torch.isnan(first).any():
        return f"vector {k} holds NaN"
    if torch.isfinite(first).all():
        return f"vector {k} is too large for float32 arithmetic"
    overflow = vectors.dtype == torch.float16
    return f"vector {k} is infinite" + (" (values above 65504 overflow float16; store bfloat16)" if overflow else "")


def check(where: str, vectors: Float[Tensor, "_ D"], width: int) -> None:
    """ValueError, whose message begins with `where`, if `problem` returns a reason."""
    if reason := problem(vectors, width):
        raise ValueError(f"{where}: {reason}; leave the row out or fix its text")


def usable(rows: Iterable[Row], *, dtype: str, width: int, dropped: list[Dropped]) -> list[Row]:
    """The rows that can be written as `dtype`, converted; the others are appended to `dropped`, with the reason."""
    valid: list[Row] = []
    for key, vectors in rows:
        values = vectors.detach().cpu().to(DTYPES[dtype])
        if reason := problem(values, width):
            dropped.append((key, reason))
        else:
            valid.append((key, values))
    return valid


@dataclass(frozen=True)
class Vectors:
    """A parquet file of sequences by id, read in portions. ValueError if it is missing, damaged or of another schema."""

    path: Path

    @cached_property
    def _file(self) -> pq.ParquetFile:
        if not self.path.exists():
            raise ValueError(f"{self.path}: no such file")
        try:
            file = pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.path}: not a complete parquet file ({error}); write it again") from error
        names = file.schema_arrow.names
        if "id" not in names or "hidden" not in names:
            raise ValueError(f"{self.path}: columns are {', '.join(names)}; id and hidden are required")
        if not _is_id_type(kind := file.schema_arrow.field("id").type):
            raise ValueError(f"{self.path}: ids are {kind}; give strings or integers")
        if _number_type(kind := file.schema_arrow.field("hidden").type) is None:
            raise ValueError(f"{self.path}: hidden is {kind}; give lists of lists of numbers")
        if not file.metadata.num_rows:
            raise ValueError(f"{self.path}: no rows")
        return file

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """The origin of the vectors: model, layer, dtype. Empty if the file does not record it."""
        schema = self._file.schema_arrow
        try:
            fingerprint = json.loads((schema.metadata or {}).get(b"fingerprint", b"{}"))
            dtype = fingerprint.get("dtype", "float32")
            # bits of bfloat16 must not be read as numbers, nor numbers as bits
            if dtype in DTYPES and (dtype == "bfloat16") == (_number_type(schema.field("hidden").type) == pa.uint16()):
                return fingerprint
        except (ValueError, AttributeError, TypeError):
            pass
        raise ValueError(f"{self.path}: its fingerprint is damaged; write it again")

    @cached_property
    def dtype(self) -> str:
        """The dtype of the vectors: float16, bfloat16 or float32. A file of doubles counts as float32."""
        return self.fingerprint.get("dtype", "float32")

    @cached_property
    def width(self) -> int:
        """Number of entries of a vector."""
        kind = self._file.schema_arrow.field("hidden").type.value_type
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        for _, rows in self._parsed():
            for _, _, vectors in rows:
                if isinstance(vectors, Tensor) and len(vectors):
                    return vectors.shape[1]
        raise ValueError(f"{self.path}: no row holds vectors")

    def ids(self) -> list[str]:
        """All ids, in order, as strings; rows without an id are left out."""
        keys = (key for _, batch in self._batches("id") for key in batch.column("id").to_pylist())
        return [str(key) for key in keys if key is not None]

    def _batches(self, *columns: str, size: int = 128) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yields (row group number, up to `size` of its rows). A full group in memory takes several times its size on disk."""
        for number in range(self._file.num_row_groups):
            try:
                for batch in self._file.iter_batches(size, row_groups=[number], columns=list(columns)):
                    yield number, batch
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"{self.path}: row group {number} cannot be read ({error}); the file is damaged, write it again"
                ) from error

    def portions(self, dropped: list[Dropped] | None = None) -> Iterator[tuple[int, list[Row]]]:
        """Yields (row group number, some of its rows (id, (n, D))).

        Rows without an id or with a `problem` are appended to `dropped`; if that is None, they raise a ValueError that names
        the row group and the id.
        """
        for number, parsed in self._parsed():
            rows: list[Row] = []
            for row, key, vectors in parsed:
                reason = vectors if isinstance(vectors, str) else problem(vectors, self.width if len(vectors) else 0)
                if key is not None and isinstance(vectors, Tensor) and reason is None:
                    rows.append((key, vectors))
                    continue
                name, reason = (f"row {row}", "no id") if key is None else (f"id {key!r}", reason)
                if dropped is None:
                    where = f"{self.path}: row group {number}, {name}"
                    raise ValueError(f"{where}: {reason}; leave the row out, as --on-bad-rows drop does")
                dropped.append((name if key is None else key, str(reason)))
            yield number, rows

    def _parsed(self) -> Iterator[tuple[int, list[tuple[int, str | None, Tensor | str]]]]:
        """Yields (row group number, [(row in the file, id, vectors or the reason why there are none)]) for batches of rows."""
        first = 0
        for number, batch in self._batches("id", "hidden"):
            keys = [None if key is None else str(key) for key in batch.column("id").to_pylist()]
            vectors = _rows(batch.column("hidden"), self.dtype)
            yield number, list(zip(range(first, first + len(keys)), keys, vectors, strict=True))
            first += len(keys)


def _is_id_type(kind: pa.DataType) -> bool:
    """True if ids of this type are strings or integers, dictionary-encoded or not."""
    if pa.types.is_dictionary(kind):
        return _is_id_type(kind.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_text(kind) for is_text in texts) or pa.types.is_integer(kind)


def _number_type(kind: pa.DataType) -> pa.DataType | None:
    """The type of the numbers in lists of lists; None if the type is not a list of lists of numbers."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return None
    inner = kind.value_type
    if not (pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner)):
        return None
    return inner.value_type if pa.types.is_floating(inner.value_type) or pa.types.is_integer(inner.value_type) else None


def _rows(hidden: pa.ListArray, dtype: str) -> list[Tensor | str]:
    """The vectors of each row, or the reason why there are none."""
    offsets = hidden.offsets.to_numpy()
    inner, offsets = hidden.values.slice(offsets[0], offsets[-1] - offsets[0]), offsets - offsets[0]
    width = _width(inner)
    # flatten() drops missing vectors, and missing numbers would read as nan
    if width is None or hidden.null_count or inner.null_count or inner.values.null_count:
        return [_row(row, dtype) for row in hidden.to_pylist()]
    matrix = inner.flatten().to_numpy(zero_copy_only=False).reshape(len(inner), width)
    tensor = _tensor(matrix.copy(), dtype)
    return [tensor[start:end] for start, end in zip(offsets[:-1], offsets[1:], strict=True)]


def _width(inner: pa.Array) -> int | None:
    """Number of entries of each vector; None if it varies."""
    if pa.types.is_fixed_size_list(inner.type):
        return inner.type.list_size
    widths = set(np.diff(inner.offsets.to_numpy()).tolist()) or {0}
    return widths.pop() if len(widths) == 1 else None


def _row(vectors: list[list[float] | None] | None, dtype: str) -> Tensor | str:
    if not vectors:
        return "no vectors"
    for k, vector in enumerate(vectors):
        if vector is None or None in vector:
            return f"vector {k} is missing" if vector is None else f"vector {k} has a missing number"
    widths = {len(vector) for vector in vectors if vector is not None}
    if len(widths) > 1:
        return f"vectors of {len(widths)} widths; embed all with one model"
    return _tensor(np.array(vectors, _STORED[dtype][1]), dtype)


def _tensor(matrix: np.ndarray, dtype: str) -> Tensor:
    tensor = torch.from_numpy(matrix)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor.to(DTYPES[dtype])
