"""What is written is what is read; what must not be there is refused by id, and nothing half-written stays."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monge.lm.store import DTYPES, Row, Vectors, merge, write


def rows(*lengths: int, seed: int = 0, width: int = 6) -> list[Row]:
    draws = torch.Generator().manual_seed(seed)
    return [(f"{seed}-{k}", torch.randn(n, width, generator=draws)) for k, n in enumerate(lengths)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sequences_come_back_in_their_groups(tmp_path: Path, dtype: str) -> None:
    groups = [rows(3, 1, 5), rows(2, 2, seed=1)]
    path = tmp_path / "x.parquet"
    assert write(path, groups, dtype=dtype, fingerprint={"model": "m"}) == 5
    found = Vectors(path)
    assert found.fingerprint == {"model": "m", "dtype": dtype}
    assert found.ids() == [key for group in groups for key, _ in group]
    assert found.width == 6
    for group, read in zip(groups, found.groups(), strict=True):
        for (key, x), (read_key, y) in zip(group, read, strict=True):
            assert key == read_key
            assert y.dtype == DTYPES[dtype]
            assert torch.equal(y, x.to(DTYPES[dtype]))


def test_parts_become_one_file(tmp_path: Path) -> None:
    parts = [tmp_path / "a", tmp_path / "b"]
    for seed, path in enumerate(parts):
        write(path, [rows(2, 3, seed=seed)], dtype="float16", fingerprint={"model": "m"})
    assert merge(tmp_path / "x.parquet", parts) == 4
    found = Vectors(tmp_path / "x.parquet")
    assert found.ids() == ["0-0", "0-1", "1-0", "1-1"]
    assert found.fingerprint["model"] == "m"


def test_a_file_of_lists_of_lists_of_doubles_is_read(tmp_path: Path) -> None:
    """The schema of seed 000."""
    (_, x), (_, y) = rows(3, 2)
    table = pa.table({"id": ["a", "b"], "hidden": pa.array([x.tolist(), y.tolist()], pa.list_(pa.list_(pa.float64())))})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1)
    first, second = (group[0] for group in Vectors(tmp_path / "x.parquet").groups())
    assert torch.equal(first[1], x)
    assert torch.equal(second[1], y)


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (torch.zeros(1, 6), "vector 0 is zero"),
        (torch.full((1, 6), float("nan")), "vector 0 is not finite"),
        (torch.full((1, 6), 1e6), "not finite .* store bfloat16"),
        (torch.zeros(0, 6), "no vectors"),
        (torch.ones(1, 5), "width 5, the others have 6"),
    ],
)
def test_what_must_not_be_there_is_refused_by_id(tmp_path: Path, vector: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=f"id 'bad': .*{said}"):
        write(tmp_path / "x.parquet", [rows(2), [("bad", vector)]], dtype="float16", fingerprint={})
    assert not list(tmp_path.iterdir())


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write(path, [rows(3)], dtype="float16", fingerprint={})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"x.parquet: not a whole parquet file"):
        Vectors(path).ids()


def test_vectors_that_are_not_finite_are_named_with_row_group_and_id(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "hidden": pa.array([[[1.0, 2.0]], [[float("inf"), 1.0]]])})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1)
    with pytest.raises(ValueError, match="row group 1, id 'b': vector 0 is not finite"):
        list(Vectors(tmp_path / "x.parquet").groups())


def test_ids_of_another_type_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "hidden": pa.array([[[1.0]]])}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="ids are int64; give strings"):
        Vectors(tmp_path / "x.parquet").ids()


def test_the_metadata_are_json(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [rows(1)], dtype="bfloat16", fingerprint={"layer": "3"})
    metadata = pq.read_schema(tmp_path / "x.parquet").metadata
    assert json.loads(metadata[b"fingerprint"]) == {"layer": "3", "dtype": "bfloat16"}
