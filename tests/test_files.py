"""Files are complete or absent, and a directory is locked by one process at a time."""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event, Lock, Thread

import pytest

from monge.files import atomic_directory, atomic_write, finite_json, locked, write_json


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
        part.write_text("complete")
    assert (path / "part" if path.is_dir() else path).read_text() == "complete"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("writer", [atomic_write, atomic_directory])
def test_only_a_plain_os_error_is_reworded(
    tmp_path: Path, writer: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    with pytest.raises(ConnectionError, match=r"^the server has gone$"), writer(tmp_path / "x"):
        raise ConnectionError("the server has gone")
    message = r"x: could not be written \(.*full.*\); files saved earlier are intact"
    with pytest.raises(OSError, match=message), writer(tmp_path / "x"):
        raise OSError(28, "the disk is full")
    assert not list(tmp_path.iterdir())


def test_a_process_that_waited_for_a_removed_lock_file_locks_the_new_one(tmp_path: Path) -> None:
    entered, release = Event(), Event()

    def second() -> None:
        with locked(directory, wait=True):
            entered.set()
            release.wait(60)

    directory = tmp_path / "new"
    with locked(directory):
        thread = Thread(target=second)
        thread.start()
        time.sleep(0.2)  # time to open the file that is about to be removed; a shorter sleep tests less
    assert entered.wait(60)
    try:
        with pytest.raises(ValueError, match="another process is using it"), locked(directory):
            pass
    finally:
        release.set()
        thread.join()
    assert not directory.exists()


def test_one_process_at_a_time_locks_a_directory_that_is_created_and_removed_each_time(tmp_path: Path) -> None:
    directory, inside = tmp_path / "new", Lock()

    def lock_often(_: int) -> int:
        for _ in range(200):
            with locked(directory, wait=True):
                assert inside.acquire(blocking=False)
                inside.release()
        return 200

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lock_often, range(8))) == 1600


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_directory_that_is_removed_while_it_is_created_is_created_again(
    error: type[OSError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed_once(self: Path, **options: bool) -> None:
        if errors:
            raise errors.pop()
        mkdir(self, **options)

    errors, mkdir = [error()], Path.mkdir
    monkeypatch.setattr(Path, "mkdir", removed_once)
    with locked(tmp_path / "new"):
        assert (tmp_path / "new" / "lock").exists()
    assert not errors


def test_an_existing_directory_stays_and_a_created_one_is_removed(tmp_path: Path) -> None:
    (tmp_path / "existing").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "existing")
    for name in ("existing", "link", "new"):
        with pytest.raises(ValueError, match="bad data"), locked(tmp_path / name):
            raise ValueError("bad data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["existing", "link"]
    assert not list((tmp_path / "existing").iterdir())


def test_strict_json_has_null_for_non_finite_numbers(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", finite_json({"a": math.nan, "b": [1.5, math.inf, "nan"], "c": (2, None)}))
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.5, None, "nan"],
        "c": [2, None],
    }
