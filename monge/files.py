"""Crash-safe files: atomic writes, locks on directories, and JSON and safetensors with clear errors."""

import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Re-raise a plain OSError or a SafetensorError as an OSError with `path` and advice; subclasses already name the cause."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if type(error) not in (OSError, SafetensorError):
            raise
        raise OSError(
            f"{path}: could not be written ({error}); files saved earlier are intact. "
            "Free disk space and run the command again, with --resume if it has that option"
        ) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` for a file that becomes `path` at the end, or is removed on any error.

    ValueError if another process is writing `path`.
    """
    temporary = path.with_name(f".writing-{path.name}")
    with writing(path), exclusive(path):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """An empty directory next to `path` that becomes `path` at the end, or is removed on any error.

    ValueError if another process is writing `path`.
    """
    temporary = path.with_name(f".writing-{path.name}")
    with writing(path), exclusive(path):
        shutil.rmtree(temporary, ignore_errors=True)  # left by a crash
        try:
            temporary.mkdir()
            yield temporary
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lock `path`, which need not exist, against other writers. ValueError if another process holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.with_name(f".lock-{path.name}")
    try:
        lock, _ = _acquire(lock_path, wait=False)
    except PermissionError as error:
        raise PermissionError(error.errno, error.strerror, str(path)) from error
    except BlockingIOError as error:
        raise ValueError(
            f"{path}: another process is writing it; wait for it to finish or choose another path"
        ) from error
    with lock:
        try:
            yield
        finally:
            lock_path.unlink(missing_ok=True)


def cache_directory() -> Path:
    """Folder for files that can be regenerated: $XDG_CACHE_HOME/monge, or ~/.cache/monge if the variable is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "monge"


def ensure_absent(path: Path) -> None:
    """ValueError if `path` exists."""
    if path.exists():
        raise ValueError(f"{path} already exists; choose another path")


def ensure_new(path: Path) -> None:
    """ValueError if `path` exists or cannot be written. Called before any work, which may take hours."""
    ensure_absent(path)
    ensure_writable(path)


def ensure_writable(path: Path) -> None:
    """ValueError unless a file or directory can be created at `path`, or an existing one overwritten. Directories created
    for the check are removed."""
    created: list[Path] = []
    probe = path.with_name(f".probe-{os.getpid()}-{path.name}"[:200])
    try:
        for parent in [parent for parent in reversed(path.parents) if not parent.exists()]:
            parent.mkdir()
            created.append(parent)
        probe.touch()
        probe.unlink()
        if path.is_file() and not os.access(path, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
    finally:
        for parent in reversed(created):
            parent.rmdir()


@contextmanager
def locked(directory: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock `directory` against other processes, creating it if needed.

    If another process holds the lock: ValueError, or if `wait`, block until it is released. At the end, a directory that was
    created here and is still empty is removed.
    """
    try:
        lock, new = _acquire(directory / "lock", wait=wait)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{directory}: a file is in the way; choose another directory") from error
    except BlockingIOError as error:
        raise ValueError(
            f"{directory}: another process is using it; wait for it to finish or choose another directory"
        ) from error
    with lock:
        try:
            yield
        finally:
            if [entry.name for entry in directory.iterdir()] == ["lock"]:  # nothing was written
                (directory / "lock").unlink()
                if new:
                    with suppress(OSError):  # another process has locked it again
                        directory.rmdir()


def _acquire(path: Path, *, wait: bool) -> tuple[TextIO, bool]:
    """(lock file `path`, open and locked; True if its directory was created here).

    BlockingIOError if another process holds the lock and `wait` is False."""
    while True:
        lock, new = _opened(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock, new
        except FileNotFoundError:  # the previous holder removed the file in the meantime
            pass
        except BaseException:
            lock.close()
            raise
        lock.close()


def _opened(path: Path, *, attempts: int = 100) -> tuple[TextIO, bool]:
    """The file `path`, open for writing, and True if its directory did not exist before. Other processes may be creating and
    removing the directory."""
    for remaining in reversed(range(attempts)):
        new = not path.parent.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("w"), new
        except (FileExistsError, FileNotFoundError):  # removed during mkdir, or between mkdir and open
            if not remaining:
                raise
    raise AssertionError("unreachable")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file with default permissions; the library would make it readable only by its owner."""
    # safetensors rejects tensors that share storage, such as views
    separate = {
        k: v.contiguous() if v.untyped_storage().nbytes() == v.nbytes else v.clone() for k, v in tensors.items()
    }
    save_file({k: v.contiguous() for k, v in separate.items()}, path)
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU. ValueError if it is missing or damaged, PermissionError if it is unreadable."""
    try:
        path.open("rb").close()
        return load_file(path)
    except PermissionError:
        raise
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path}: not a complete safetensors file ({error}); restore it, or remove the checkpoint if it is part of one"
        ) from error


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object that has these keys.

    ValueError if the file is missing, truncated or not such an object, PermissionError if it is unreadable.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError:
        raise
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a complete JSON file ({error}); correct or restore the file") from error
    if not isinstance(result, dict) or any(key not in result for key in keys):
        raise ValueError(f"{path}: not an object{' with ' * bool(keys)}{', '.join(keys)}; correct or restore the file")
    return result


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, atomically: a full disk leaves the earlier file intact."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def finite_json(value: object) -> object:
    """`value` in a form that every JSON parser accepts: non-finite numbers become None, i.e. null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: finite_json(inner) for name, inner in value.items()}
    return [finite_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def tensor_hash(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """The SHA-256 of tensors with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".strip().encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.digest()


def content_hash(path: Path) -> str:
    """The SHA-256 of a file, or of the names and contents of the files in a directory, without locks, hidden files, pages and
    pictures. OSError if it is missing.
    """
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if file.name == "lock" or file.name.startswith(".") or file.suffix in (".html", ".png"):
            continue
        status = file.stat()
        digest.update(f"{file.relative_to(path)} {_hash_of(file, status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=10_000)
def _hash_of(file: Path, _size: int, _time: int) -> str:
    """The SHA-256 of a file of this size and time of change."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until the contents of a file or a directory have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
