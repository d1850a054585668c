"""Tables are read with their labels and without row indices, and samples have the same column names and types."""

import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monge.apps.generate.data import load
from monge.apps.generate.tables import restore

DRAW = np.random.default_rng(0)
N = 12


def written(path: Path, table: pa.Table) -> str:
    pq.write_table(table, path / "x.parquet")
    return str(path / "x.parquet")


COLUMNS = {
    "int8": pa.array(DRAW.integers(-128, 128, N), pa.int8()),
    "uint16": pa.array(DRAW.integers(0, 65536, N), pa.uint16()),
    "int64": pa.array(10**15 + DRAW.integers(0, 9, N)),
    "float32": pa.array(DRAW.random(N).astype(np.float32)),
    "float64": pa.array(1.7e9 + DRAW.random(N)),
    "bool": pa.array(np.arange(N) % 2 == 0),
    "date": pa.array([datetime.date(2024, 1, 1 + k) for k in range(N)]),
    "timestamp": pa.array([datetime.datetime(2024, 1, 1, k, k, k) for k in range(N)], pa.timestamp("us")),
    "zoned": pa.array([datetime.datetime(2024, 1, 1, k) for k in range(N)], pa.timestamp("ms", tz="Europe/Berlin")),
    "decimal": pa.array([Decimal(k) / 4 for k in range(N)], pa.decimal128(9, 2)),
    "dictionary": pa.array(list(range(N))).dictionary_encode(),
}


def test_every_column_type_is_restored(tmp_path: Path) -> None:
    table = pa.table({**COLUMNS, "label": [["b", "a", "c"][k % 3] for k in range(N)]})
    data = load(written(tmp_path, table))
    assert data.layout.classes == ("a", "b", "c")
    restored = restore(data.x, data.labels, data.layout)
    assert restored.column_names == table.column_names
    for name in table.column_names:
        expected = table[name].cast(pa.int64()) if name == "dictionary" else table[name]
        assert restored[name].type == expected.type
        assert restored[name].to_pylist() == expected.to_pylist(), name


def test_generated_integers_are_rounded_and_fit_their_type(tmp_path: Path) -> None:
    data = load(written(tmp_path, pa.table({"a": COLUMNS["int8"], "b": COLUMNS["bool"], "c": COLUMNS["int64"]})))
    x = torch.tensor([[-500.0, 0.4, 1e30], [2.6, 0.6, -1e30]], dtype=torch.float64)
    columns = restore(x, None, data.layout).to_pydict()
    assert columns["a"] == [-128, 3]
    assert columns["b"] == [False, True]
    assert columns["c"][1] == -(2**63)
    assert columns["c"][0] > 2**62


@pytest.mark.parametrize(
    "label", [[5, 2, 5, 900], ["x", "y", "10", "9"], [True, False, True, True], [2.0, 3.0, 2.0, 7.0]]
)
def test_labels_are_written_as_they_were_read(tmp_path: Path, label: list) -> None:
    table = pa.table({"label": pa.array(label), "a": [0.1, 0.2, 0.3, 0.4]})
    data = load(written(tmp_path, table))
    assert restore(data.x, data.labels, data.layout) == table
    assert restore(data.x, None, data.layout).column_names == ["a"]


@pytest.mark.parametrize("name", ["__index_level_0__", "id"])
def test_the_index_of_pandas_is_left_out_with_a_note(tmp_path: Path, name: str) -> None:
    table = pa.table({"a": [1.0, 2.0, 4.0], "b": [3, 1, 2], name: [10, 20, 30]})
    metadata = {"pandas": f'{{"index_columns": ["{name}"]}}'}
    data = load(written(tmp_path, table.replace_schema_metadata(metadata)))
    assert data.layout.columns == ("a", "b")
    assert any(repr(name) in note for note in data.notes)


def test_a_range_index_of_pandas_is_not_a_column(tmp_path: Path) -> None:
    metadata = {"pandas": '{"index_columns": [{"kind": "range", "start": 0, "stop": 3, "step": 1}]}'}
    data = load(written(tmp_path, pa.table({"a": [1.0, 2.0, 4.0]}).replace_schema_metadata(metadata)))
    assert data.notes == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_is_read_with_its_delimiter(tmp_path: Path, delimiter: str) -> None:
    lines = ["a,b,label", "1,2.5,dog", "2,3,cat", "4,9.5,dog"]
    (tmp_path / "x.csv").write_text("\ufeff" + "\n".join(lines).replace(",", delimiter))
    data = load(str(tmp_path / "x.csv"))
    assert data.x.tolist() == [[1, 2.5], [2, 3], [4, 9.5]]
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 1]
    restored = restore(data.x, data.labels, data.layout)
    assert restored.schema.types == [pa.int64(), pa.float64(), pa.string()]


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_index_that_pandas_writes_into_csv_is_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.csv").write_text(f"{name},a\n0,1.5\n7,2\n9,2.5\n")
    data = load(str(tmp_path / "x.csv"))
    assert data.layout.columns == ("a",)
    assert "row index" in data.notes[0]


def test_a_fraction_in_the_last_row_makes_the_column_float(tmp_path: Path) -> None:
    rows = [str(k) for k in range(200_000)] + ["0.5"]
    (tmp_path / "x.csv").write_text("a\n" + "\n".join(rows))
    assert float(load(str(tmp_path / "x.csv")).x[-1]) == 0.5


def test_a_folder_that_looks_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "lr=2").mkdir()
    assert load(written(tmp_path / "lr=2", pa.table({"a": [1.0, 2.0]}))).layout.columns == ("a",)


def test_identifiers_that_float64_merges_are_rejected_and_nanoseconds_are_not(tmp_path: Path) -> None:
    numbers = pa.array(range(N))
    path = written(tmp_path, pa.table({"id": pa.array(2**60 + np.arange(N)), "b": numbers}))
    with pytest.raises(ValueError, match=r"column 'id' holds numbers of up to \d+ that float64 cannot distinguish"):
        load(path)
    moments = pa.array((1_700_000_000 + np.arange(N)) * 10**9).cast(pa.timestamp("ns"))
    assert load(written(tmp_path, pa.table({"at": moments, "b": numbers}))).shape == (2,)
