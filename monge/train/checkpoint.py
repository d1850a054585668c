"""Checkpoints are directories of safetensors and JSON: written aside, flushed, renamed. No pickle anywhere.

    checkpoints/step-00001000/   model.safetensors  ema.safetensors  resume.safetensors  state.json

Whatever happens while one is written, the ones before it stay whole.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from monge.files import flush, read_json, read_tensors, write_tensors, writing
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
                    flush(path)
                os.replace(place, target)
                flush(directory)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)
            raise
    return target


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
