"""Sequences of vectors by id in parquet: row groups streamed, the fingerprint of their model in the schema's metadata.

    id: string    hidden: list<fixed_size_list<halffloat | uint16 | float>[D]>        bfloat16 is kept as its 16 bits

Files of list<list<double>> are read as well.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
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

from monge.files import atomic_write

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_STORED = {
    "float16": (pa.float16(), np.float16),
    "bfloat16": (pa.uint16(), np.uint16),
    "float32": (pa.float32(), np.float32),
}
GROUP = 2**25  # bytes of a row group at most
Row = tuple[str, Tensor]


def write(path: Path, groups: Iterable[Sequence[Row]], *, dtype: str, fingerprint: dict[str, Any]) -> int:
    """Write each sequence of (id, (n, D)) as a row group or several, aside, then rename; return the number of rows.

    ValueError, with the id, for an empty sequence, a vector that is zero or not finite, or another width than the first.
    """
    writer, rows = None, 0
    with atomic_write(path) as place:
        try:
            for group in groups:
                if not group:
                    continue
                table = _table(path, group, dtype, fingerprint, None if writer is None else writer.schema)
                writer = writer or pq.ParquetWriter(place, table.schema, compression="none", use_dictionary=False)
                writer.write_table(table, row_group_size=max(1, GROUP * len(table) // max(GROUP, table.nbytes)))
                rows += len(table)
            if writer is None:
                raise ValueError(f"{path}: no rows to write")
        finally:
            if writer is not None:
                writer.close()
    return rows


def merge(path: Path, parts: Sequence[Path]) -> int:
    """One file of the row groups of all parts, in order; return the number of rows."""
    schema, rows = pq.read_schema(parts[0]), 0
    with (
        atomic_write(path) as place,
        pq.ParquetWriter(place, schema, compression="none", use_dictionary=False) as writer,
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
    arrow, kept = _STORED[dtype]
    parts: list[np.ndarray] = []
    for key, vectors in group:
        values = vectors.detach().cpu().to(DTYPES[dtype])
        check(f"{path}: id {key!r}", values, width)
        parts.append((values.view(torch.uint16) if dtype == "bfloat16" else values).numpy().astype(kept, copy=False))
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(parts).ravel(), arrow), width)
    hidden = pa.ListArray.from_arrays(pa.array(offsets), vectors)
    metadata = {"fingerprint": json.dumps({**fingerprint, "dtype": dtype})}
    return pa.table({"id": pa.array([key for key, _ in group], pa.string()), "hidden": hidden}, metadata=metadata)


def check(where: str, vectors: Float[Tensor, "_ D"], width: int) -> None:
    """ValueError that begins with `where` unless there are vectors of this width, all finite and none zero."""
    if vectors.ndim != 2 or not len(vectors):
        raise ValueError(f"{where}: no vectors; leave it out")
    if vectors.shape[1] != width:
        raise ValueError(
            f"{where}: vectors of width {vectors.shape[1]}, the others have {width}; embed all by one model"
        )
    sizes = vectors.float().norm(dim=-1)
    bad = (~torch.isfinite(sizes) | (sizes == 0)).nonzero()
    if len(bad):
        k = int(bad[0])
        what = "zero" if sizes[k] == 0 else "not finite (for values above 65504 store bfloat16)"
        raise ValueError(f"{where}: vector {k} is {what}; leave the row out or mend its text")


@dataclass(frozen=True)
class Vectors:
    """A file of sequences by id, read a row group at a time."""

    path: Path

    @cached_property
    def _file(self) -> pq.ParquetFile:
        if not self.path.exists():
            raise ValueError(f"{self.path}: no such file")
        try:
            file = pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.path}: not a whole parquet file ({error}); write it anew") from error
        names = file.schema_arrow.names
        if "id" not in names or "hidden" not in names:
            raise ValueError(f"{self.path}: columns are {', '.join(names)}; there must be id and hidden")
        if not pa.types.is_string(kind := file.schema_arrow.field("id").type) and not pa.types.is_large_string(kind):
            raise ValueError(f"{self.path}: ids are {kind}; give strings")
        if _number(kind := file.schema_arrow.field("hidden").type) is None:
            raise ValueError(f"{self.path}: hidden is {kind}; give lists of lists of numbers")
        if not file.metadata.num_rows:
            raise ValueError(f"{self.path}: no rows")
        return file

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What its vectors depend on; empty if the file does not say."""
        schema = self._file.schema_arrow
        try:
            found = json.loads((schema.metadata or {}).get(b"fingerprint", b"{}"))
            dtype = found.get("dtype", "float32")
            # bits of bfloat16 must not be read as numbers, nor numbers as bits
            if dtype in DTYPES and (dtype == "bfloat16") == (_number(schema.field("hidden").type) == pa.uint16()):
                return found
        except (ValueError, AttributeError, TypeError):
            pass
        raise ValueError(f"{self.path}: its fingerprint is damaged; write it anew")

    @cached_property
    def dtype(self) -> str:
        """float16, bfloat16 or float32: what the vectors are kept as. A file of doubles counts as float32."""
        return self.fingerprint.get("dtype", "float32")

    @cached_property
    def width(self) -> int:
        """Entries of a vector."""
        kind = self._file.schema_arrow.field("hidden").type.value_type
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        return next(vectors.shape[1] for _, rows in self.portions() for _, vectors in rows)

    def ids(self) -> list[str]:
        """All ids, in order."""
        return [key for _, batch in self._batches("id") for key in batch.column("id").to_pylist()]

    def _batches(self, *columns: str, size: int = 128) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(row group, up to `size` of its rows): a whole group would take several times its size on disk."""
        for number in range(self._file.num_row_groups):
            try:
                for batch in self._file.iter_batches(size, row_groups=[number], columns=list(columns)):
                    yield number, batch
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"{self.path}: row group {number} cannot be read ({error}); the file is damaged, write it anew"
                ) from error

    def portions(self) -> Iterator[tuple[int, list[Row]]]:
        """(row group, some of its rows (id, (n, D))); ValueError for what `check` refuses, with row group and id."""
        width = None
        for number, batch in self._batches("id", "hidden"):
            where = f"{self.path}: row group {number}"
            rows: list[Row] = []
            keys, vectors = batch.column("id").to_pylist(), _rows(batch.column("hidden"), self.dtype, where)
            for key, row in zip(keys, vectors, strict=True):
                if key is None:
                    raise ValueError(f"{where}: a row has no id; give every row its own")
                width = row.shape[-1] if width is None else width
                check(f"{where}, id {key!r}", row, width)
                rows.append((key, row))
            yield number, rows


def _number(kind: pa.DataType) -> pa.DataType | None:
    """The type of the numbers in lists of lists; None if it is something else."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return None
    inner = kind.value_type
    if not (pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner)):
        return None
    return inner.value_type if pa.types.is_floating(inner.value_type) or pa.types.is_integer(inner.value_type) else None


def _rows(hidden: pa.ListArray, dtype: str, where: str) -> Iterator[Tensor]:
    offsets = hidden.offsets.to_numpy()
    inner, offsets = hidden.values.slice(offsets[0], offsets[-1] - offsets[0]), offsets - offsets[0]
    for what, missing in (("vectors", inner.null_count), ("numbers", inner.values.null_count)):
        if missing:  # arrow keeps no place for them: what follows would move up
            raise ValueError(f"{where}: {missing} {what} are missing; leave their rows out")
    if pa.types.is_fixed_size_list(inner.type):
        width = inner.type.list_size
    else:  # list<list<double>>: all inner lists must be of one length
        widths = set(np.diff(inner.offsets.to_numpy()).tolist())
        if len(widths) > 1:
            raise ValueError(f"{where}: its vectors are of {len(widths)} widths; embed all by one model")
        width = widths.pop() if widths else 0
    matrix = inner.flatten().to_numpy(zero_copy_only=False).reshape(len(inner), width)
    tensor = torch.from_numpy(matrix.copy())
    tensor = tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor.to(DTYPES[dtype])
    for start, end in zip(offsets[:-1], offsets[1:], strict=True):
        yield tensor[start:end]
