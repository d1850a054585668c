"""Checkpoints are directories of safetensors and JSON: written aside, flushed, renamed. No pickle anywhere.

    checkpoints/step-00001000/   model.safetensors  ema.safetensors  resume.safetensors  state.json

Whatever happens while one is written, the ones before it stay whole.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from monge.train.distributed import Ranks
from monge.train.state import State


def save(directory: Path, state: State, where: Ranks) -> Path:
    """Write `state` under `directory`; every rank must call it, rank zero writes. OSError if the disk is full."""
    files = state.tensors(where)
    target = directory / f"step-{state.step:08d}"
    if where.first and not target.exists():
        place = directory / f".writing-{target.name}"
        shutil.rmtree(place, ignore_errors=True)
        try:
            with writing(target):
                place.mkdir(parents=True)
                for name, tensors in files.items():
                    write_tensors(place / f"{name}.safetensors", tensors)
                (place / "state.json").write_text(json.dumps(state.scalars(where)))
                for path in place.iterdir():
                    _flush(path)
                os.replace(place, target)
                _flush(directory)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)
            raise
    return target


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever goes wrong while `path` is written is an OSError that says where and what to do."""
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError):
        raise  # the path's own fault, which it names
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{path}: could not be written ({error}); what was saved before is whole. "
            "Free space and run the command again, with --resume where it has that"
        ) from error


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file to: it becomes `path` at the end, or goes if anything is wrong."""
    place = path.with_name(f".writing-{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield place
            place.replace(path)
        finally:
            place.unlink(missing_ok=True)


def free(path: Path) -> None:
    """ValueError if there is something at `path` already."""
    if path.exists():
        raise ValueError(f"{path}: there already; name another file")


@contextmanager
def locked(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `directory`, made if new, against a second process until the end.

    If another one is at work there, ValueError, or `wait` until it is done.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{directory}: a file is in the way; name another directory") from error
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ValueError(
                f"{directory}: another process is at work here; wait for it or name another directory"
            ) from error
        try:
            yield
        finally:
            if [left.name for left in directory.iterdir()] == ["lock"]:  # it did not come to anything
                shutil.rmtree(directory)


def prune(directory: Path, *, keep: int, also: set[int]) -> None:
    """Remove all checkpoints but the last `keep` and those at the steps `also`, and what a crash left half-written."""
    for stale in directory.glob(".writing-*"):
        shutil.rmtree(stale)
    for path in steps(directory)[:-keep]:
        if step_of(path) not in also:
            # renamed first: a directory half removed must not pass for a checkpoint
            gone = path.rename(path.with_name(f".writing-{path.name}"))
            shutil.rmtree(gone)


def steps(directory: Path) -> list[Path]:
    """The checkpoints under `directory`, oldest first."""
    return sorted(directory.glob("step-" + "[0-9]" * 8))


def step_of(path: Path) -> int:
    """The step at which a checkpoint was taken."""
    return int(path.name.removeprefix("step-"))


def read(path: Path, names: Sequence[str]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(tensors by file, scalars) of a checkpoint. ValueError, with the file's name, if one is missing or cut short."""
    return {name: read_tensors(path / f"{name}.safetensors") for name in names}, read_json(
        path / "state.json", "step", "best"
    )


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file with the permissions of any other file: the library's own are for the owner alone."""
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file on the CPU. ValueError if it is missing, cut short or something else; OSError if it is closed."""
    try:
        path.open("rb").close()
        return load_file(path)
    except PermissionError:
        raise
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}); restore it, or remove the checkpoint that it is part of"
        ) from error


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object with these keys. ValueError if it is missing, cut short or something else."""
    try:
        found = json.loads(path.read_text())
    except PermissionError:
        raise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a whole JSON file ({error}); restore it, or take another run") from error
    if not isinstance(found, dict) or any(key not in found for key in keys):
        raise ValueError(f"{path}: no object with {', '.join(keys)}; restore the file or take another run")
    return found


def write_json(path: Path, found: object) -> None:
    """`found` as JSON, written aside and renamed: a full disk leaves the earlier file whole."""
    with aside(path) as place:
        place.write_text(json.dumps(found, indent=2) + "\n")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
