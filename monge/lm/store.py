"""Sequences of vectors by id in parquet: row groups streamed, the fingerprint of their model in the schema's metadata.

    id: string    hidden: list<fixed_size_list<halffloat | uint16 | float>[D]>        bfloat16 is kept as its 16 bits

Files of list<list<double>> are read as well.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from monge.train.checkpoint import writing

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_STORED = {
    "float16": (pa.float16(), np.float16),
    "bfloat16": (pa.uint16(), np.uint16),
    "float32": (pa.float32(), np.float32),
}
Row = tuple[str, Tensor]


def write(path: Path, groups: Iterable[Sequence[Row]], *, dtype: str, fingerprint: dict[str, str]) -> int:
    """Write each sequence of (id, (n, D)) as a row group, aside, then rename; return the number of rows.

    ValueError, with the id, for an empty sequence, a vector that is zero or not finite, or another width than the first.
    """
    aside, writer, rows = path.with_name(f".writing-{path.name}"), None, 0
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            for group in groups:
                if not group:
                    continue
                table = _table(path, group, dtype, fingerprint, None if writer is None else writer.schema)
                writer = writer or pq.ParquetWriter(aside, table.schema, compression="none", use_dictionary=False)
                writer.write_table(table, row_group_size=len(table))
                rows += len(table)
            if writer is None:
                raise ValueError(f"{path}: no rows to write")
            writer.close()
            aside.replace(path)
        finally:
            if writer is not None and writer.is_open:
                writer.close()
            aside.unlink(missing_ok=True)
    return rows


def merge(path: Path, parts: Sequence[Path]) -> int:
    """One file of the row groups of all parts, in order; return the number of rows."""
    aside, rows = path.with_name(f".writing-{path.name}"), 0
    schema = pq.read_schema(parts[0])
    with writing(path):
        try:
            with pq.ParquetWriter(aside, schema, compression="none", use_dictionary=False) as writer:
                for part in parts:
                    file = pq.ParquetFile(part)
                    for k in range(file.num_row_groups):
                        table = file.read_row_group(k)
                        writer.write_table(table, row_group_size=len(table))
                        rows += len(table)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return rows


def _table(path: Path, group: Sequence[Row], dtype: str, fingerprint: dict[str, str], schema: pa.Schema | None):
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
        try:
            file = pq.ParquetFile(self.path)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{self.path}: not a whole parquet file ({error}); write it anew") from error
        names = file.schema_arrow.names
        if "id" not in names or "hidden" not in names:
            raise ValueError(f"{self.path}: columns are {', '.join(names)}; there must be id and hidden")
        if not pa.types.is_string(kind := file.schema_arrow.field("id").type) and not pa.types.is_large_string(kind):
            raise ValueError(f"{self.path}: ids are {kind}; give strings")
        return file

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """What its vectors depend on; empty if the file does not say."""
        metadata = self._file.schema_arrow.metadata or {}
        return json.loads(metadata.get(b"fingerprint", b"{}"))

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
        return len(next(self.groups())[0][1][0])

    def ids(self) -> list[str]:
        """All ids, in order."""
        return self._file.read(columns=["id"]).column("id").to_pylist()

    def groups(self) -> Iterator[list[Row]]:
        """(id, (n, D)) of each row group; ValueError for what `check` refuses, with row group and id."""
        for number in range(self._file.num_row_groups):
            where = f"{self.path}: row group {number}"
            try:
                table = self._file.read_row_group(number, columns=["id", "hidden"])
            except (pa.ArrowInvalid, OSError) as error:
                raise ValueError(f"{where} cannot be read ({error}); the file is cut short, write it anew") from error
            keys, hidden = table.column("id").to_pylist(), table.column("hidden").combine_chunks()
            rows: list[Row] = []
            for key, row in zip(keys, _rows(hidden, self.dtype, where), strict=True):
                if key is None:
                    raise ValueError(f"{where}: a row has no id; give every row its own")
                check(f"{where}, id {key!r}", row, row.shape[-1] if not rows else rows[0][1].shape[-1])
                rows.append((key, row))
            yield rows


def _rows(hidden: pa.ListArray, dtype: str, where: str) -> Iterator[Tensor]:
    offsets = hidden.offsets.to_numpy()
    inner = hidden.values
    if pa.types.is_fixed_size_list(inner.type):
        width = inner.type.list_size
        flat = inner.flatten().to_numpy(zero_copy_only=False)
    else:  # list<list<double>>: all inner lists must be of one length
        lengths = np.diff(inner.offsets.to_numpy())
        if len(lengths) and (lengths != lengths[0]).any():
            raise ValueError(f"{where}: its vectors are of {len(set(lengths.tolist()))} widths; embed all by one model")
        width = int(lengths[0]) if len(lengths) else 0
        flat = inner.flatten().to_numpy(zero_copy_only=False)
    matrix = np.ascontiguousarray(flat).reshape(-1, width)
    tensor = torch.from_numpy(matrix.copy())
    tensor = tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor.to(DTYPES[dtype])
    first = int(offsets[0])
    for start, end in zip(offsets[:-1], offsets[1:], strict=True):
        yield tensor[start - first : end - first]
