"""Files are complete or absent, and a directory is locked by one process at a time."""

import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from monge.files import atomic_directory, atomic_write, locked, strict, write_json


@pytest.mark.parametrize("writer", [atomic_write, atomic_directory])
def test_two_writers_of_one_path_exclude_each_other(
    tmp_path: Path, writer: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    path = tmp_path / "deep" / "x"
    with writer(path) as temporary:
        part = temporary / "part" if temporary.is_dir() else temporary
        part.write_text("first")
        with pytest.raises(ValueError, match="x: another process is writing it"), writer(path):
            pass
        part.write_text("whole")
    assert (path / "part" if path.is_dir() else path).read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("writer", [atomic_write, atomic_directory])
def test_an_error_of_the_producer_is_not_changed(
    tmp_path: Path, writer: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    with pytest.raises(ConnectionError, match=r"^the server has gone$"), writer(tmp_path / "x"):
        raise ConnectionError("the server has gone")
    message = r"x: could not be written \(.*full.*\); files saved earlier are intact"
    with pytest.raises(OSError, match=message), writer(tmp_path / "x"):
        raise OSError(28, "the disk is full")
    assert not list(tmp_path.iterdir())


def test_an_existing_directory_stays_and_a_created_one_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for name in ("there", "link", "new"):
        with pytest.raises(ValueError, match="bad data"), locked(tmp_path / name):
            raise ValueError("bad data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]
    assert not list((tmp_path / "there").iterdir())


def test_strict_json_has_null_for_non_finite_numbers(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", strict({"a": math.nan, "b": [1.5, math.inf, "nan"], "c": (2, None)}))
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None, "nan"],
        "c": [2, None],
    }
