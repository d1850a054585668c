"""Files that are whole or not there, and directories that one process holds."""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from monge.files import atomic_directory, atomic_write, locked, strict, write_json


@pytest.mark.parametrize("writer", [atomic_write, atomic_directory])
def test_two_writers_of_one_path_do_not_meet(
    tmp_path: Path, writer: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    path = tmp_path / "deep" / "x"
    with writer(path) as place:
        part = place / "part" if place.is_dir() else place
        part.write_text("first")
        with pytest.raises(ValueError, match="x: another process is writing it"), writer(path):
            pass
        part.write_text("whole")
    assert (path / "part" if path.is_dir() else path).read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("writer", [atomic_write, atomic_directory])
def test_an_error_of_the_producer_stays_what_it_is(
    tmp_path: Path, writer: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    with pytest.raises(ConnectionError, match=r"^the server has gone$"), writer(tmp_path / "x"):
        raise ConnectionError("the server has gone")
    said = r"x: could not be written \(.*full.*\); what was saved before is whole"
    with pytest.raises(OSError, match=said), writer(tmp_path / "x"):
        raise OSError(28, "the disk is full")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_was_there_stays_and_one_that_was_made_goes(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for name in ("there", "link", "new"):
        with pytest.raises(ValueError, match="bad data"), locked(tmp_path / name):
            raise ValueError("bad data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    assert not list((tmp_path / "there").iterdir())


def test_json_that_every_parser_reads_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", strict({"a": math.nan, "b": [1.5, math.inf, "nan"], "c": (2, None)}))
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None, "nan"],
        "c": [2, None],
    }
