"""Checkpoints: directories of safetensors and JSON, written under a temporary name, flushed and renamed. No pickle.

    checkpoints/step-00001000/   model.safetensors  ema.safetensors  resume.safetensors  state.json

A crash during a write leaves the earlier checkpoints intact.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from monge.files import flush, read_json, read_tensors, write_tensors, writing
from monge.training.distributed import Ranks
from monge.training.state import State


def save(directory: Path, state: State, where: Ranks) -> Path:
    """Write `state` to `directory`/step-NNNNNNNN, unless that exists, and return the path. OSError if the disk is full.

    Every rank must call it; rank zero writes.
    """
    files = state.tensors(where)
    target = directory / f"step-{state.step:08d}"
    if where.first and not target.exists():
        temporary = directory / f".writing-{target.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with writing(target):
                temporary.mkdir(parents=True)
                for name, tensors in files.items():
                    write_tensors(temporary / f"{name}.safetensors", tensors)
                (temporary / "state.json").write_text(json.dumps(state.scalars(where)))
                for path in temporary.iterdir():
                    flush(path)
                os.replace(temporary, target)
                flush(directory)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return target


def prune(directory: Path, *, keep: int, keep_steps: set[int]) -> None:
    """Remove partial checkpoints left by a crash, and all others except the last `keep` and those at steps `keep_steps`."""
    for stale in directory.glob(".writing-*"):
        shutil.rmtree(stale)
    for path in steps(directory)[:-keep]:
        if step_of(path) not in keep_steps:
            # renamed first: a partly removed directory must not be taken for a checkpoint
            removed = path.rename(path.with_name(f".writing-{path.name}"))
            shutil.rmtree(removed)


def steps(directory: Path) -> list[Path]:
    """The checkpoints under `directory`, oldest first."""
    return sorted(directory.glob("step-" + "[0-9]" * 8))


def step_of(path: Path) -> int:
    """The step of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def read(path: Path, names: Sequence[str]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """(tensors by file, scalars) of a checkpoint with tensor files `names`. ValueError if a file is missing or truncated."""
    return {name: read_tensors(path / f"{name}.safetensors") for name in names}, read_json(
        path / "state.json", "step", "best"
    )
