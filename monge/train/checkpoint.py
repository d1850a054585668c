"""Checkpoints are directories of safetensors and JSON: written aside, flushed, renamed. No pickle anywhere.

    checkpoints/step-00001000/   model.safetensors  ema.safetensors  resume.safetensors  state.json

Whatever happens while one is written, the ones before it stay whole.
"""

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
        aside = directory / f".writing-{target.name}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            with writing(target):
                aside.mkdir(parents=True)
                for name, tensors in files.items():
                    write_tensors(aside / f"{name}.safetensors", tensors)
                (aside / "state.json").write_text(json.dumps(state.scalars(where)))
                for path in aside.iterdir():
                    _flush(path)
                os.replace(aside, target)
                _flush(directory)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return target


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever goes wrong while `path` is written is an OSError that says where and what to do."""
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError, FileNotFoundError):
        raise  # the path's own fault, which it names
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"{path}: could not be written ({error}); what was saved before is whole. "
            "Free space and run the command again, a training with --resume"
        ) from error


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
    aside = path.with_name(f".writing-{path.name}")
    with writing(path):
        try:
            aside.write_text(json.dumps(found, indent=2) + "\n")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
