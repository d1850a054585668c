"""A ragged store returns every sequence by number and by id, names damaged files and leaves no partial ones."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monge.lm.ragged import Ragged
from monge.lm.store import DTYPES, Row


def rows(*lengths: int, width: int = 6) -> list[Row]:
    draws = torch.Generator().manual_seed(0)
    return [(f"id-{k}", torch.randn(n, width, generator=draws)) for k, n in enumerate(lengths)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_sequences_are_read_as_written_by_number_and_by_id(tmp_path: Path, dtype: str) -> None:
    written = rows(3, 1, 5)
    store = Ragged.write(tmp_path / "store", iter(written), dtype=dtype, fingerprint={"model": "m"})
    for opened in (store, Ragged(tmp_path / "store")):
        assert (len(opened), opened.width, opened.dtype, opened.fingerprint) == (3, 6, dtype, {"model": "m"})
        assert opened.ids == [key for key, _ in written]
        assert opened.lengths.tolist() == [3, 1, 5]
        for number, (key, x) in enumerate(written):
            assert torch.equal(opened[number], x.to(DTYPES[dtype]).float())
            assert torch.equal(opened[key], opened[number])
        assert torch.equal(opened[-1], opened[2])
        assert ("id-1" in opened, "unknown" in opened) == (True, False)
    for missing in (3, -4):
        with pytest.raises(IndexError):
            store[missing]
    with pytest.raises(KeyError):
        store["unknown"]


def test_the_hash_depends_on_every_vector_and_only_on_vectors(tmp_path: Path) -> None:
    written = rows(3, 1)
    hashes = [
        Ragged.write(tmp_path / str(k), some, dtype="float32", fingerprint={"number": k}).sha256
        for k, some in enumerate((written, written, [written[0], ("id-1", 2 * written[1][1])]))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("id-0", torch.ones(1, 6)), "the id 'id-0' is repeated"),
        (("bad", torch.ones(1, 5)), "id 'bad': vectors of width 5"),
        (("bad", torch.zeros(1, 6)), "id 'bad': vector 0 is zero"),
        (("bad", torch.full((1, 6), 1e6)), "id 'bad': vector 0 is infinite .*store bfloat16"),
    ],
)
def test_an_unusable_row_leaves_no_files(tmp_path: Path, row: Row, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Ragged.write(tmp_path / "store", [*rows(2), row], dtype="float16", fingerprint={})
    with pytest.raises(ValueError, match="store: no rows to write"):
        Ragged.write(tmp_path / "store", [], dtype="float16", fingerprint={})
    assert not list(tmp_path.iterdir())


def test_files_left_by_a_crash_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".writing-store").mkdir()
    (tmp_path / ".writing-store" / "vectors.bin").write_bytes(b"half")
    assert len(Ragged.write(tmp_path / "store", rows(2), dtype="float16", fingerprint={})) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


DAMAGES = {
    "vectors.bin": [lambda raw: raw[:-10], lambda raw: raw + b"more", None],
    "index.parquet": [lambda raw: raw[:-20], None],
    "ragged.json": [
        lambda raw: raw[:-20],
        lambda raw: raw.replace(b'"width": 6', b'"width": 0'),
        lambda raw: raw.replace(b'"float16"', b'"int8"'),
        None,
    ],
}


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, damages in DAMAGES.items() for damage in damages]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: Callable[[bytes], bytes] | None) -> None:
    Ragged.write(tmp_path / "store", rows(2, 3), dtype="float16", fingerprint={})
    path = tmp_path / "store" / name
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"store: {name} is damaged or cut short; write the vectors again"):
        Ragged(tmp_path / "store")[0]


def test_a_wrong_index_and_a_missing_store_are_named(tmp_path: Path) -> None:
    Ragged.write(tmp_path / "store", rows(2, 3), dtype="float16", fingerprint={})
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "store" / "index.parquet")
    with pytest.raises(ValueError, match=r"index\.parquet is damaged"):
        _ = Ragged(tmp_path / "store").ids
    with pytest.raises(ValueError, match="nowhere: no vectors here"):
        len(Ragged(tmp_path / "nowhere"))
    assert json.loads((tmp_path / "store" / "ragged.json").read_text())["vectors"] == 5
