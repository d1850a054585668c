"""Vectors are read as written, invalid rows are rejected by id, and no partial files remain."""

import json
import resource
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monge.lm.store import DTYPES, Dropped, Row, Vectors, merge, problem, usable, write


def rows(*lengths: int, seed: int = 0, width: int = 6) -> list[Row]:
    draws = torch.Generator().manual_seed(seed)
    return [(f"{seed}-{k}", torch.randn(n, width, generator=draws)) for k, n in enumerate(lengths)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sequences_are_read_as_written_in_their_groups(tmp_path: Path, dtype: str) -> None:
    groups = [rows(3, 1, 5), rows(2, 2, seed=1)]
    path = tmp_path / "x.parquet"
    assert write(path, groups, dtype=dtype, fingerprint={"model": "m"}) == 5
    result = Vectors(path)
    assert result.fingerprint == {"model": "m", "dtype": dtype}
    assert result.ids() == [key for group in groups for key, _ in group]
    assert result.width == 6
    for group, (_, read) in zip(groups, result.portions(), strict=True):
        for (key, x), (read_key, y) in zip(group, read, strict=True):
            assert key == read_key
            assert y.dtype == DTYPES[dtype]
            assert torch.equal(y, x.to(DTYPES[dtype]))


def test_parts_are_merged_into_one_file(tmp_path: Path) -> None:
    parts = [tmp_path / "a", tmp_path / "b"]
    for seed, path in enumerate(parts):
        write(path, [rows(2, 3, seed=seed)], dtype="float16", fingerprint={"model": "m"})
    assert merge(tmp_path / "x.parquet", parts) == 4
    merged = Vectors(tmp_path / "x.parquet")
    assert merged.ids() == ["0-0", "0-1", "1-0", "1-1"]
    assert merged.fingerprint["model"] == "m"


def test_a_file_of_lists_of_lists_of_doubles_is_read(tmp_path: Path) -> None:
    """Other programs write such files."""
    (_, x), (_, y) = rows(3, 2)
    table = pa.table({"id": ["a", "b"], "hidden": pa.array([x.tolist(), y.tolist()], pa.list_(pa.list_(pa.float64())))})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1)
    first, second = (group[0] for _, group in Vectors(tmp_path / "x.parquet").portions())
    assert torch.equal(first[1], x)
    assert torch.equal(second[1], y)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (torch.zeros(1, 6), "vector 0 is zero"),
        (torch.full((1, 6), float("nan")), "vector 0 holds NaN; leave"),
        (torch.full((1, 6), 1e6), "vector 0 is infinite .* store bfloat16"),
        (torch.zeros(0, 6), "no vectors"),
        (torch.ones(1, 5), "width 5, but the others have 6"),
    ],
)
def test_invalid_vectors_are_rejected_by_id(tmp_path: Path, vector: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"id 'bad': .*{message}"):
        write(tmp_path / "x.parquet", [rows(2), [("bad", vector)]], dtype="float16", fingerprint={})
    assert not list(tmp_path.iterdir())


def test_vectors_without_a_norm_in_float32_are_distinguished_from_zeros() -> None:
    assert problem(torch.full((1, 6), 1e-40), 6) == "vector 0 is too small for float32 arithmetic"
    assert problem(torch.full((1, 6), 1e38), 6) == "vector 0 is too large for float32 arithmetic"


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write(path, [rows(3)], dtype="float16", fingerprint={})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"x.parquet: not a complete parquet file"):
        Vectors(path).ids()


def test_vectors_that_are_not_finite_are_named_with_row_group_and_id(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "hidden": pa.array([[[1.0, 2.0]], [[float("inf"), 1.0]]])})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1)
    with pytest.raises(ValueError, match="row group 1, id 'b': vector 0 is infinite; leave"):
        list(Vectors(tmp_path / "x.parquet").portions())


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([7, 8, 9]),
        pa.array([7, 8, 9], pa.uint16()),
        pa.array(["7", "8", "9"]).dictionary_encode(),
        pa.array([7, 8, 9]).dictionary_encode(),
        pa.array(["7", "8", "9"], pa.large_string()),
        pa.array(["7", "8", "9"], pa.string_view()),
    ],
    ids=lambda ids: str(ids.type),
)
def test_integer_and_dictionary_ids_are_read_as_strings(tmp_path: Path, ids: pa.Array) -> None:
    pq.write_table(pa.table({"id": ids, "hidden": pa.array([[[1.0]]] * 3)}), tmp_path / "x.parquet")
    vectors = Vectors(tmp_path / "x.parquet")
    assert vectors.ids() == [key for _, rows in vectors.portions() for key, _ in rows] == ["7", "8", "9"]


@pytest.mark.parametrize("ids", [[1.0], [True], [b"a"], [["a"]]])
def test_ids_of_another_type_are_rejected(tmp_path: Path, ids: list) -> None:
    pq.write_table(pa.table({"id": ids, "hidden": pa.array([[[1.0]]])}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"ids are .*; give strings or integers"):
        Vectors(tmp_path / "x.parquet").ids()


FLOATS, BITS = pa.list_(pa.list_(pa.float64())), pa.list_(pa.list_(pa.uint16(), 2))


def table(path: Path, hidden: list, kind: pa.DataType | None, fingerprint: str = "{}", groups: int = 1) -> Vectors:
    ids = [f"row-{k}" for k in range(len(hidden))]
    contents = pa.table(
        {"id": pa.array(ids, pa.string()), "hidden": pa.array(hidden, kind)}, metadata={"fingerprint": fingerprint}
    )
    pq.write_table(contents, path, row_group_size=max(1, len(ids) // groups))
    return Vectors(path)


NAN, INF = float("nan"), float("inf")
UNUSABLE = {
    "zero": ([[0.0, 0.0]], "vector 0 is zero"),
    "nan": ([[1.0, 2.0], [1.0, NAN]], "vector 1 holds NaN"),
    "infinite": ([[1.0, INF]], "vector 0 is infinite"),
    "empty": ([], "no vectors"),
    "null": (None, "no vectors"),
    "missing vector": ([[1.0, 2.0], None], "vector 1 is missing"),
    "missing number": ([[1.0, None]], "vector 0 has a missing number"),
    "too large": ([[3e38, 3e38]], "vector 0 is too large"),
    "of another width": ([[1.0, 2.0, 3.0]], "vectors of width 3, but the others have 2"),
    "of two widths": ([[1.0, 2.0], [1.0]], "vectors of 2 widths"),
}
FLOAT32 = pa.list_(pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, FLOATS) for name in UNUSABLE]
    + [(name, FLOAT32) for name in UNUSABLE]
    + [(name, pa.list_(pa.list_(pa.float16(), 2))) for name in UNUSABLE if "width" not in name and name != "too large"],
)
def test_an_unusable_row_is_named_or_dropped_and_shifts_no_later_row(
    tmp_path: Path, name: str, kind: pa.DataType
) -> None:
    unusable, reason = UNUSABLE[name]
    rows = [[[1.0, 2.0]], unusable, [[3.0, 4.0], [5.0, 6.0]]]
    vectors = table(tmp_path / "x.parquet", rows, kind)
    with pytest.raises(
        ValueError, match=rf"x\.parquet: row group 0, id 'row-1': {reason}.*; leave the row out"
    ) as error:
        list(vectors.portions())
    assert "bfloat16" not in str(error.value) or (name == "infinite" and "halffloat" in str(kind))
    dropped: list[Dropped] = []
    read = [row for _, portion in vectors.portions(dropped) for row in portion]
    assert [(key, x.tolist()) for key, x in read] == [("row-0", rows[0]), ("row-2", rows[2])]
    ((key, message),) = dropped
    assert (key, message.startswith(reason)) == ("row-1", True)


def test_a_row_without_an_id_is_named_or_dropped(tmp_path: Path) -> None:
    hidden = pa.array([[[1.0]], [[2.0]]])
    pq.write_table(pa.table({"id": pa.array([None, "a"]), "hidden": hidden}), tmp_path / "x.parquet")
    vectors = Vectors(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="row group 0, row 0: no id; leave the row out"):
        list(vectors.portions())
    dropped: list[Dropped] = []
    assert [[key for key, _ in rows] for _, rows in vectors.portions(dropped)] == [["a"]]
    assert (dropped, vectors.ids()) == ([("row 0", "no id")], ["a"])


def test_the_width_is_that_of_the_first_row_with_vectors(tmp_path: Path) -> None:
    assert table(tmp_path / "x.parquet", [None, [], [[1.0, 2.0]], [[1.0]]], FLOATS).width == 2
    with pytest.raises(ValueError, match=r"y\.parquet: no row holds vectors"):
        _ = table(tmp_path / "y.parquet", [None, []], FLOATS).width


def test_rows_that_a_dtype_cannot_hold_are_dropped_before_they_are_written() -> None:
    dropped: list[Dropped] = []
    large, small = torch.full((1, 2), 1e5), torch.full((1, 2), 1e-9)
    usable_rows = usable(
        [("a", torch.ones(1, 2)), ("b", large), ("c", small)], dtype="float16", width=2, dropped=dropped
    )
    assert [(key, x.dtype) for key, x in usable_rows] == [("a", torch.float16)]
    assert [key for key, _ in dropped] == ["b", "c"]
    assert "store bfloat16" in dropped[0][1]
    assert dropped[1][1] == "vector 0 is zero"


@pytest.mark.parametrize(
    ("hidden", "kind"),
    [
        ([[1.0]], pa.list_(pa.float64())),
        ([1.0], pa.float64()),
        (["a"], pa.string()),
        ([[["a"]]], pa.list_(pa.list_(pa.string()))),
        ([[[1.0]]], pa.list_(pa.list_(pa.float64()), 1)),
    ],
)
def test_columns_that_are_not_lists_of_vectors_are_named(tmp_path: Path, hidden: list, kind: pa.DataType) -> None:
    with pytest.raises(ValueError, match=r"x\.parquet: hidden is .*; give lists of lists of numbers"):
        _ = table(tmp_path / "x.parquet", hidden, kind).width


@pytest.mark.parametrize(
    ("fingerprint", "kind"),
    [
        *(
            (fingerprint, FLOATS)
            for fingerprint in ("[1]", "{", "3", '{"dtype": "int8"}', '{"dtype": [1]}', '{"dtype": "bfloat16"}')
        ),
        ("{}", BITS),  # 16-bit integers of unknown meaning
    ],
)
def test_a_damaged_fingerprint_is_named(tmp_path: Path, fingerprint: str, kind: pa.DataType) -> None:
    with pytest.raises(ValueError, match=r"x\.parquet: its fingerprint is damaged; write it again"):
        list(table(tmp_path / "x.parquet", [[[1, 2]]], kind, fingerprint).portions())


def test_no_rows_and_no_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.parquet: no rows"):
        table(tmp_path / "x.parquet", [], FLOATS).ids()
    with pytest.raises(ValueError, match="nowhere: no such file"):
        Vectors(tmp_path / "nowhere").ids()


def test_rows_without_vectors_and_other_widths_in_later_groups_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row group 0, id 'row-0': no vectors"):
        list(table(tmp_path / "x.parquet", [[], []], FLOATS).portions())
    with pytest.raises(ValueError, match="row group 1, id 'row-1': vectors of width 1, but the others have 2"):
        list(table(tmp_path / "x.parquet", [[[1.0, 2.0]], [[1.0]]], FLOATS, groups=2).portions())


def test_a_full_disk_leaves_no_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))  # writing fails in the middle of the file
    try:
        with pytest.raises(OSError, match=r"x\.parquet: could not be written"):
            write(tmp_path / "x.parquet", [rows(500), rows(500)], dtype="float32", fingerprint={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_the_metadata_is_json(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [rows(1)], dtype="bfloat16", fingerprint={"layer": "3"})
    metadata = pq.read_schema(tmp_path / "x.parquet").metadata
    assert json.loads(metadata[b"fingerprint"]) == {"layer": "3", "dtype": "bfloat16"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_large_row_group_is_read_in_portions_without_loss(tmp_path, dtype):
    draws = torch.Generator().manual_seed(0)
    rows = [(f"{k}", torch.randn(1 + k % 7, 3, generator=draws).to(DTYPES[dtype])) for k in range(300)]
    write(tmp_path / "x.parquet", [rows], dtype=dtype, fingerprint={})
    portions = list(Vectors(tmp_path / "x.parquet").portions())
    assert len(portions) > 1
    assert {number for number, _ in portions} == {0}
    read = [row for _, portion in portions for row in portion]
    assert [key for key, _ in read] == [key for key, _ in rows]
    assert all(torch.equal(one, two) for (_, one), (_, two) in zip(read, rows, strict=True))
