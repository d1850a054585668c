"""Training that stops early."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from regression import Regression
from torch.testing import assert_close

from monge import files
from monge.math.types import Pair
from monge.run import fit
from monge.runs import reopen
from monge.training import checkpoint
from monge.training.config import TrainConfig
from monge.training.loop import Run

TRAIN = TrainConfig(steps=16, warmup_steps=0, save_every=2, device="cpu", keep_last=9, milestones=(2,))


def everything(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@dataclass(frozen=True)
class Scored(Regression):
    """A regression with these held-out losses, one for each evaluation of a process."""

    losses: ClassVar[tuple[float, ...]] = (3.0, 2.0, 2.5, 2.0, 1.0, 4.0, 5.0, 0.0)

    def build(self) -> Run[Pair]:
        run, values = super().build(), iter(self.losses)
        run.evaluate = lambda _: {"held-out loss": next(values)}
        return run


@dataclass(frozen=True)
class Resumed(Scored):
    losses: ClassVar[tuple[float, ...]] = Scored.losses[4:]


def test_training_stops_early_when_evaluations_no_longer_improve(tmp_path: Path, caplog) -> None:
    train, early = TRAIN, replace(TRAIN, patience=2)
    assert fit(Scored(train), tmp_path / "all").step == 16
    assert fit(Scored(early), tmp_path / "early").step == 8
    assert "stopped early: no better held-out loss since step 4" in caplog.text
    assert checkpoint.step_of(reopen(tmp_path / "early", app="regression").checkpoint("best")) == 4
    before = everything(tmp_path / "early")
    caplog.clear()
    assert fit(Scored(early), tmp_path / "early", resume=True).step == 8
    assert "stopped early" in caplog.text
    caplog.clear()
    assert fit(Scored(replace(early, steps=8)), tmp_path / "whole").step == 8
    assert "stopped early" not in caplog.text  # all steps are taken
    assert everything(tmp_path / "early") == before
    assert fit(Resumed(replace(train, patience=3)), tmp_path / "early", resume=True).step == 16
    weights = (tmp_path / name / "checkpoints/step-00000016/model.safetensors" for name in ("all", "early"))
    one, two = map(files.read_tensors, weights)
    assert_close(one, two, rtol=0, atol=0)


def test_patience_without_an_evaluation_is_an_error(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Blind(Regression):
        def build(self) -> Run[Pair]:
            return replace(super().build(), evaluate=None)

    with pytest.raises(ValueError, match="patience 1: regression runs are not evaluated; omit it"):
        fit(Blind(replace(TRAIN, patience=1)), tmp_path / "run")
    with pytest.raises(ValueError, match="patience must not be negative, got -1"):
        replace(TRAIN, patience=-1)
