"""Pairs are joined by id in any order of the files; rows that do not fit are counted or rejected."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monge.apps.translate.data import Split, Text
from monge.apps.translate.pair import Pairs, pair
from monge.lm.store import Vectors, write


def test_every_pair_has_the_vectors_of_its_id(files: tuple[Path, Path], pairs: Pairs) -> None:
    for end, path in zip(("source", "target"), files, strict=True):
        known = {key: row for _, group in Vectors(path).portions() for key, row in group}
        for number in (0, 57, 239):
            assert torch.equal(pairs.sequence(end, number), known[pairs.ids[number]].float())


def test_splits_share_no_group(files: tuple[Path, Path], tmp_path: Path) -> None:
    texts = {f"row-{k}": Text(f"row-{k}", f"group-{k // 4}", "", "") for k in range(240)}
    pair(*files, tmp_path / "pairs", texts=texts, capacity=12)
    grouped = Pairs(tmp_path / "pairs")
    sides = [{texts[grouped.ids[n]].group for n in grouped.split(split)} for split in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60
    assert len(sides[0]) > len(sides[2]) > 0


def test_texts_can_name_their_split(files: tuple[Path, Path], tmp_path: Path) -> None:
    names: list[Split] = ["train", "validation", "test"]
    texts = {f"row-{k}": Text(f"row-{k}", f"row-{k}", "", "", names[k % 3]) for k in range(240)}
    pair(*files, tmp_path / "pairs", texts=texts, capacity=12)
    made = Pairs(tmp_path / "pairs")
    for name in names:
        ids = {made.ids[number] for number in made.split(name)}
        assert ids == {key for key, text in texts.items() if text.split == name}


def write_constant(path: Path, *keys: str, width: int = 4, length: int = 2, value: float = 1.0) -> Path:
    rows = [(key, torch.full((length, width), value)) for key in keys]
    write(path, [rows], dtype="float16", fingerprint={})
    return path


def test_unmatched_and_repeated_rows_are_counted(tmp_path: Path) -> None:
    summary = pair(
        write_constant(tmp_path / "a", "x", "y", "z", "y"),
        write_constant(tmp_path / "b", "y", "w", "x"),
        tmp_path / "pairs",
    )
    assert summary["pairs"] == 2
    assert summary["unmatched"] == {"source": 1, "target": 1}
    assert summary["repeated"] == {"source": 1, "target": 0}


@pytest.mark.parametrize(("on_long_rows", "lengths"), [("drop", None), ("truncate", [3])])
def test_longer_sequences_are_handled_as_requested(tmp_path: Path, on_long_rows, lengths) -> None:
    a, b = write_constant(tmp_path / "a", "x", length=5), write_constant(tmp_path / "b", "x")
    with pytest.raises(ValueError, match="a: row group 0, id 'x': 5 vectors do not fit into 3 slots; raise --capacity"):
        pair(a, b, tmp_path / "rejected", capacity=3)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    if lengths is None:
        with pytest.raises(ValueError, match=r"a: no rows are left \(1 longer than 3, 0 unusable; raise --capacity"):
            pair(a, b, tmp_path / "pairs", capacity=3, on_long_rows=on_long_rows)
        return
    assert pair(a, b, tmp_path / "pairs", capacity=3, on_long_rows=on_long_rows)["longer"] == {"source": 1, "target": 0}
    assert Pairs(tmp_path / "pairs").lengths("source").tolist() == lengths


def test_different_widths_and_disjoint_ids_are_rejected(tmp_path: Path) -> None:
    a = write_constant(tmp_path / "a", "x")
    with pytest.raises(ValueError, match=r"width 4, .* of width 5; embed one side"):
        pair(a, write_constant(tmp_path / "b", "x", width=5), tmp_path / "pairs")
    with pytest.raises(ValueError, match="share no id"):
        pair(a, write_constant(tmp_path / "c", "y"), tmp_path / "pairs")


def test_a_directory_that_is_not_empty_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "mine").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        pair(write_constant(tmp_path / "a", "x"), write_constant(tmp_path / "b", "x"), tmp_path / "pairs")
    assert [path.name for path in (tmp_path / "pairs").iterdir()] == ["mine"]


DAMAGES = {
    "source/vectors.bin": [lambda raw: raw[:-10], None],
    "index.parquet": [lambda raw: raw[:-20], None],
    "pairs.json": [
        lambda raw: raw[:-20],
        lambda raw: raw.replace(b'"width": 4', b'"width": 0'),
        lambda raw: raw.replace(b'"capacity": 64', b'"capacity": "64"'),
    ],
}


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, damages in DAMAGES.items() for damage in damages]
)
def test_damaged_files_are_named_in_the_error(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes] | None
) -> None:
    pair(write_constant(tmp_path / "a", "x"), write_constant(tmp_path / "b", "x"), tmp_path / "pairs")
    path = tmp_path / "pairs" / name
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{Path(name).name} is damaged or cut short; .* again"):
        Pairs(tmp_path / "pairs").sequence("source", 0)


def test_an_index_with_another_schema_is_named_in_the_error(tmp_path: Path) -> None:
    pair(write_constant(tmp_path / "a", "x"), write_constant(tmp_path / "b", "x"), tmp_path / "pairs")
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "pairs" / "index.parquet")
    with pytest.raises(ValueError, match=r"index\.parquet is damaged"):
        _ = Pairs(tmp_path / "pairs").ids


def test_a_directory_without_pairs_names_the_command_that_creates_them(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="no pairs here; create them with `monge translate pair`"):
            _ = Pairs(path).ids


def test_the_fingerprint_depends_on_every_vector(tmp_path: Path) -> None:
    a, fingerprints = write_constant(tmp_path / "a", "x"), set[int]()
    for k, value in enumerate((1.0, 2.0, 1.0)):
        pair(a, write_constant(tmp_path / "b", "x", value=value), tmp_path / f"pairs-{k}")
        fingerprints.add(Pairs(tmp_path / f"pairs-{k}").fingerprint)
    assert len(fingerprints) == 2


def test_pairs_with_other_wordings_have_the_same_fingerprint_and_those_with_other_groups_have_not(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    found = []
    for k, (group, wording) in enumerate([("g", "x"), ("g", "y"), ("h", "y")]):
        pair(*files, tmp_path / str(k), texts={"row-0": Text("row-0", group, wording, "z")})
        found.append(Pairs(tmp_path / str(k)).fingerprint)
    assert found[0] == found[1] != found[2]


def test_a_capacity_of_zero_and_unrelated_texts_are_rejected(files: tuple[Path, Path], tmp_path: Path) -> None:
    stranger = Text("stranger", "g", "", "")
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        pair(*files, tmp_path / "pairs", capacity=0)
    with pytest.raises(ValueError, match=r"none of its ids .* is among the texts; pass the texts that were embedded"):
        pair(*files, tmp_path / "pairs", texts={"stranger": stranger})
    summary = pair(*files, tmp_path / "pairs", texts={"row-0": Text("row-0", "g", "", ""), "stranger": stranger})
    assert summary["ungrouped"] == 239


def test_an_interruption_leaves_nothing_and_leftovers_of_a_crash_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = write_constant(tmp_path / "a", "x"), write_constant(tmp_path / "b", "x")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("monge.apps.translate.pair._write_index", stop)
        with pytest.raises(KeyboardInterrupt):
            pair(a, b, tmp_path / "pairs")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    (tmp_path / ".writing-pairs").mkdir()
    (tmp_path / ".writing-pairs" / "target.bin").write_bytes(b"half")
    (tmp_path / "pairs").mkdir()
    assert pair(a, b, tmp_path / "pairs")["pairs"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "pairs"}
    assert torch.equal(Pairs(tmp_path / "pairs").sequence("target", 0), torch.ones(2, 4))


def test_fingerprints_are_recorded(pairs: Pairs) -> None:
    summary = json.loads((pairs.directory / "pairs.json").read_text())
    assert summary["fingerprint"] == {
        "source": {"model": "a", "dtype": "float16"},
        "target": {"model": "b", "dtype": "bfloat16"},
    }
