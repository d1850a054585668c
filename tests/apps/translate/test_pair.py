"""Pairs are joined by id, whatever the order of the files; what does not fit is counted or refused."""

import json
from pathlib import Path

import pytest
import torch

from monge.apps.translate.pair import Pairs, pair
from monge.lm.store import Vectors, write


def test_every_pair_has_the_vectors_of_its_id(files: tuple[Path, Path], pairs: Pairs) -> None:
    for end, path in zip(("source", "target"), files, strict=True):
        known = {key: row for group in Vectors(path).groups() for key, row in group}
        for number in (0, 57, 239):
            assert torch.equal(pairs.sequence(end, number), known[pairs.ids[number]].float())


def test_the_sides_of_the_split_share_no_group(files: tuple[Path, Path], tmp_path: Path) -> None:
    groups = {f"row-{k}": f"group-{k // 4}" for k in range(240)}
    pair(*files, tmp_path / "pairs", groups=groups, capacity=12)
    found = Pairs(tmp_path / "pairs")
    sides = [{groups[found.ids[n]] for n in found.side(side)} for side in ("train", "valid", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60
    assert len(sides[0]) > len(sides[2]) > 0


def some(path: Path, *keys: str, width: int = 4, length: int = 2) -> Path:
    rows = [(key, torch.ones(length, width)) for key in keys]
    write(path, [rows], dtype="float16", fingerprint={})
    return path


def test_what_has_no_partner_or_comes_twice_is_counted(tmp_path: Path) -> None:
    found = pair(some(tmp_path / "a", "x", "y", "z", "y"), some(tmp_path / "b", "y", "w", "x"), tmp_path / "pairs")
    assert found["pairs"] == 2
    assert found["unmatched"] == {"source": 1, "target": 1}
    assert found["repeated"] == {"source": 1, "target": 0}


@pytest.mark.parametrize(("longer", "lengths"), [("drop", None), ("truncate", [3])])
def test_what_is_longer_than_the_container_is_dealt_with_as_said(tmp_path: Path, longer, lengths) -> None:
    a, b = some(tmp_path / "a", "x", length=5), some(tmp_path / "b", "x")
    with pytest.raises(ValueError, match="a: row group 0, id 'x': 5 vectors do not fit 3; raise --capacity"):
        pair(a, b, tmp_path / "refused", capacity=3)
    assert not (tmp_path / "refused" / "pairs.json").exists()
    if lengths is None:
        with pytest.raises(ValueError, match="every pair is longer than 3"):
            pair(a, b, tmp_path / "pairs", capacity=3, longer=longer)
        return
    assert pair(a, b, tmp_path / "pairs", capacity=3, longer=longer)["longer"] == {"source": 1, "target": 0}
    assert Pairs(tmp_path / "pairs").lengths("source").tolist() == lengths


def test_other_widths_and_strangers_are_refused(tmp_path: Path) -> None:
    a = some(tmp_path / "a", "x")
    with pytest.raises(ValueError, match=r"width 4, .* of 5; the flow needs one width"):
        pair(a, some(tmp_path / "b", "x", width=5), tmp_path / "pairs")
    with pytest.raises(ValueError, match="share no id"):
        pair(a, some(tmp_path / "c", "y"), tmp_path / "pairs")


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / "mine").write_text("")
    with pytest.raises(ValueError, match="not empty"):
        pair(some(tmp_path / "a", "x"), some(tmp_path / "b", "x"), tmp_path / "pairs")
    assert [path.name for path in (tmp_path / "pairs").iterdir()] == ["mine"]


def test_vectors_cut_short_are_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    pair(*files, tmp_path / "pairs", capacity=12)
    path = tmp_path / "pairs" / "source.bin"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"source.bin is cut short"):
        Pairs(tmp_path / "pairs").sequence("source", 239)


def test_what_was_left_out_is_on_record(pairs: Pairs) -> None:
    found = json.loads((pairs.directory / "pairs.json").read_text())
    assert found["fingerprint"] == {
        "source": {"model": "a", "dtype": "float16"},
        "target": {"model": "b", "dtype": "bfloat16"},
    }
