"""Tables from .parquet and .csv files: read as float64, written with their original column names and types."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monge.apps.generate.dataset import Dataset, Layout, check_distinct, classes_of, to_float_tensor, to_integers

LABEL = "label"


def table(path: Path) -> Dataset:
    """The data of a table of numbers, booleans or times. A column named label, of strings or whole numbers, holds the classes.

    ValueError, with the column and the row, for entries that cannot be used.
    """
    contents = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    contents, notes = _without_index(path, contents)
    labels, classes = None, ()
    if LABEL in contents.column_names:
        labels, classes = _labels(path, contents[LABEL])
    names = [name for name in contents.column_names if name != LABEL]
    if not names:
        raise ValueError(f"{path}: no numeric columns other than 'label'; add some")
    columns = [_numbers(path, name, contents[name]) for name in names]
    x = to_float_tensor(np.stack(columns, 1))
    schema = base64.b64encode(contents.schema.remove_metadata().serialize().to_pybytes()).decode()
    kind = "csv" if path.suffix.lower() == ".csv" else "table"
    layout = Layout(kind, columns=tuple(names), schema=schema, classes=classes)
    return Dataset(str(path), x, labels, None, layout, tuple(notes))


def _read_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_names(path, file.schema_arrow.names)
            return _plain(file.read())
    except PermissionError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a complete parquet file ({error}); save it again") from error


def _read_csv(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    header = _header(path)
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().strip('"') for name in header.split(delimiter)]
    if names and all(re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", name) for name in names):
        raise ValueError(f"{path}: the first line holds numbers; add a header line with column names")
    size = min(
        max(path.stat().st_size + 1, 1 << 20), 2**31 - 1
    )  # read in one block, so that each type is inferred from the full column
    try:
        contents = csv.read_csv(
            path,
            read_options=csv.ReadOptions(block_size=size),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        )
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable CSV file ({error}); save it again in UTF-8") from error
    _check_names(path, contents.column_names)
    return _plain(contents)


def _header(path: Path) -> str:
    """The first line of a file in UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.readline().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a readable CSV file ({error}); save it again in UTF-8") from error


def _check_names(path: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{path}: {names.count(name)} columns are named {name!r}; rename or drop all but one")


def _plain(contents: Any) -> Any:
    """The table with dictionary-encoded columns decoded."""
    import pyarrow as pa

    for number, field in enumerate(contents.schema):
        if pa.types.is_dictionary(field.type):
            contents = contents.set_column(number, field.name, contents[field.name].cast(field.type.value_type))
    return contents


def _without_index(path: Path, contents: Any) -> tuple[Any, list[str]]:
    """The table without the row index that pandas writes, and a note for each column left out."""
    metadata = json.loads((contents.schema.metadata or {}).get(b"pandas", b"{}"))
    index_columns = {name for name in metadata.get("index_columns", ()) if isinstance(name, str)}
    index = [
        name
        for name in contents.column_names
        if name != LABEL and (name in index_columns or re.fullmatch(r"__index_level_\d+__|Unnamed: 0|", name))
    ]
    notes = [f"{path}: column {name!r} is left out: it is a row index written by pandas" for name in index]
    return contents.drop_columns(index) if index else contents, notes


def _labels(path: Path, column: Any) -> tuple[torch.Tensor, tuple[str, ...]]:
    """(labels, class names) of the label column."""
    import pyarrow as pa

    _check_nulls(path, LABEL, column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = np.array(column.to_pylist(), dtype=np.str_)
    elif pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        values = column.to_numpy()
    else:
        raise ValueError(f"{path}: column 'label' is {column.type}; make it strings or whole numbers")
    return classes_of(f"{path}: the entries of column 'label'", values)


def _check_nulls(path: Path, name: str, column: Any) -> None:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ValueError(
            f"{path}: column {name!r} is null in row {row}, one of {column.null_count} nulls (rows count from 0);"
            " remove or fill them"
        )


def _numbers(path: Path, name: str, column: Any) -> np.ndarray:
    """A column of numbers, booleans or times as float64. ValueError for other types, nulls, non-finite values and constants."""
    import pyarrow as pa

    kind = column.type
    _check_nulls(path, name, column)
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        column = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        hint = "rename it to 'label' if it holds classes, or " if pa.types.is_string(kind) else ""
        raise ValueError(f"{path}: column {name!r} is {kind}; {hint}keep only numeric columns")
    exact = column.to_numpy()
    check_distinct(f"{path}: column {name!r}", exact)
    values = exact.astype(np.float64)
    nonfinite = np.flatnonzero(~np.isfinite(values))
    if len(nonfinite):
        raise ValueError(
            f"{path}: column {name!r} is {values[nonfinite[0]]} in row {nonfinite[0]}, one of {len(nonfinite)} non-finite"
            " values (rows count from 0); remove or fill them"
        )
    if len(values) > 1 and (values == values[0]).all():
        raise ValueError(f"{path}: column {name!r} is {values[0]} in every row; drop it")
    return values


def restore(x: torch.Tensor, labels: torch.Tensor | None, layout: Layout) -> Any:
    """Samples as an Arrow table with the columns and types of the data; without the label column if samples have no labels."""
    import pyarrow as pa

    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(layout.schema)))
    values = dict(zip(layout.columns, x.double().numpy().T, strict=True))
    fields = [field.with_nullable(True) for field in schema if field.name in values or labels is not None]
    arrays = []
    for field in fields:
        if field.name in values:
            arrays.append(_typed(values[field.name], field.type))
        elif labels is not None:
            arrays.append(_names([layout.classes[k] for k in labels.tolist()], field.type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _typed(values: np.ndarray, kind: Any) -> Any:
    """Numbers as an Arrow array of this type: integers are rounded and clipped, booleans are true from 0.5."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return pa.array(values >= 0.5)
    if pa.types.is_integer(kind):
        return pa.array(to_integers(values, np.dtype(kind.to_pandas_dtype())), type=kind)
    if pa.types.is_temporal(kind):
        return pa.array(to_integers(values, np.dtype(f"int{kind.bit_width}"))).cast(kind)
    if pa.types.is_decimal(kind):
        return pa.array(values.round(kind.scale)).cast(kind, safe=False)
    return pa.array(values.astype(kind.to_pandas_dtype()), type=kind)


def _names(names: list[str], kind: Any) -> Any:
    """Class names as an Arrow array of the type of the label column."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return pa.array([name == "True" for name in names])
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return pa.array([int(name) for name in names]).cast(kind)
    return pa.array(names, type=kind)


def write(samples: Any, directory: Path, layout: Layout) -> list[str]:
    """Write samples.parquet, and also samples.csv if the data were a CSV file; return the file names."""
    import pyarrow.parquet as pq
    from pyarrow import csv

    pq.write_table(samples, directory / "samples.parquet")
    if layout.kind != "csv":
        return ["samples.parquet"]
    csv.write_csv(samples, directory / "samples.csv")
    return ["samples.parquet", "samples.csv"]
