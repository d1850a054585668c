"""Files that are whole or not there: atomic writes, a lock on a directory, JSON and safetensors with clear errors."""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An OSError of the disk while `path` is written says where and what to do; a subclass, which names its fault, stays."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if type(error) not in (OSError, SafetensorError):
            raise
        raise OSError(
            f"{path}: could not be written ({error}); what was saved before is whole. "
            "Free space and run the command again, with --resume where it has that"
        ) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file to: it becomes `path` at the end, or goes if anything is wrong.

    ValueError if another process is writing `path`.
    """
    place = path.with_name(f".writing-{path.name}")
    with writing(path), exclusive(path):
        try:
            yield place
            place.replace(path)
        finally:
            place.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """An empty directory beside `path` that becomes `path` at the end, or is removed on any error.

    ValueError if another process is writing `path`.
    """
    place = path.with_name(f".writing-{path.name}")
    with writing(path), exclusive(path):
        shutil.rmtree(place, ignore_errors=True)  # left by a crash
        try:
            place.mkdir()
            yield place
            place.replace(path)
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold `path`, which need not exist, against every other process that writes it. ValueError if one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = path.with_name(f".lock-{path.name}")
    try:
        lock = held.open("w")
    except PermissionError as error:
        raise PermissionError(error.errno, error.strerror, str(path)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{path}: another process is writing it; wait for it, or name another path") from error
        try:
            yield
        finally:
            held.unlink(missing_ok=True)


def ensure_absent(path: Path) -> None:
    """ValueError if there is something at `path` already."""
    if path.exists():
        raise ValueError(f"{path}: there already; name another file")


@contextmanager
def locked(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `directory`, made if new, against a second process until the end.

    If another one is at work there, ValueError, or `wait` until it is done.
    """
    new = not directory.exists()
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
                (directory / "lock").unlink()
                if new:
                    directory.rmdir()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file with the permissions of any other file: the library's own are for the owner alone."""
    # safetensors rejects tensors that share a storage, as views do
    own = {k: v.contiguous() if v.untyped_storage().nbytes() == v.nbytes else v.clone() for k, v in tensors.items()}
    save_file({k: v.contiguous() for k, v in own.items()}, path)
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
        found = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError:
        raise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a whole JSON file ({error}); restore it, or take another run") from error
    if not isinstance(found, dict) or any(key not in found for key in keys):
        raise ValueError(f"{path}: no object with {', '.join(keys)}; restore the file or take another run")
    return found


def write_json(path: Path, found: object) -> None:
    """`found` as JSON, written aside and renamed: a full disk leaves the earlier file whole."""
    with atomic_write(path) as place:
        place.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def strict(value: object) -> object:
    """A value for JSON that any parser reads: numbers in it that are not finite become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: strict(inner) for name, inner in value.items()}
    return [strict(inner) for inner in value] if isinstance(value, list | tuple) else value


def tensor_hash(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """The SHA-256 of tensors with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".strip().encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def flush(path: Path) -> None:
    """Wait until a file or a directory entry has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
