"""Two ranks under torchrun, gloo on the CPU: equal to one process that accumulates two batches."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from regression import Network, Regression, as_rank
from torch.distributed import TCPStore
from torch.testing import assert_close

from monge.files import read_tensors
from monge.run import fit
from monge.runs import reopen
from monge.training.config import TrainConfig
from monge.training.log import read_records

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("regression.py")
TRAIN = {"steps": 4, "warmup_steps": 0, "save_every": 2, "keep_last": 9, "device": "cpu", "log_every": 1}


@pytest.fixture(scope="module")
def regress() -> Callable[..., None]:
    """regress(directory, *resume, **settings): train on two ranks, in processes that have already imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["regression", "torch.distributed.fsdp", "torch._dynamo"])

    def run(directory: Path, *resume: str, **settings: Any) -> None:
        store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        words = str(directory), json.dumps(fields_of(settings)), *resume
        ranks = [context.Process(target=as_rank, args=(rank, store.port, *words)) for rank in (0, 1)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(timeout=120)
        assert [process.exitcode for process in ranks] == [0, 0]

    return run


def fields_of(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields of the regression, with short training."""
    return {**settings, "train": {**TRAIN, **settings.get("train", {})}}


def files(directory: Path) -> dict[str, bytes]:
    """The contents of all checkpoint files and of the log, by name."""
    checkpoints = {str(p.relative_to(directory)): p.read_bytes() for p in (directory / "checkpoints").glob("*/*")}
    return {**checkpoints, "metrics": (directory / "metrics.jsonl").read_bytes()}


def weights(directory: Path, step: int, name: str = "model") -> dict[str, torch.Tensor]:
    return read_tensors(directory / "checkpoints" / f"step-{step:08d}" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process that accumulates the two batches that two ranks would share."""
    directory = tmp_path_factory.mktemp("alone") / "run"
    fit(Regression(TrainConfig(**{**TRAIN, "gradient_accumulation": 2})), directory)
    return directory


@pytest.fixture(scope="module")
def ddp(torchrun: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that torchrun started."""
    directory = tmp_path_factory.mktemp("ddp") / "run"
    (directory / "seen").mkdir(parents=True)
    torchrun(SCRIPT, directory, json.dumps(fields_of({"trace": str(directory / "seen")})))
    return directory


def test_the_ranks_see_different_batches_and_together_all_of_them(ddp: Path) -> None:
    seen = [[int(line) for line in (ddp / "seen" / str(rank)).read_text().split()] for rank in (0, 1)]
    assert sorted(seen[0]) == [0, 2, 4, 6]
    assert sorted(seen[1]) == [1, 3, 5, 7]


def test_two_ranks_step_as_one_process_that_accumulates(alone: Path, ddp: Path) -> None:
    for step in (2, 4):
        for name in ("model", "ema"):
            assert_close(weights(ddp, step, name), weights(alone, step, name), rtol=1e-4, atol=1e-6)
    for one, two in zip(read_records(alone / "metrics.jsonl"), read_records(ddp / "metrics.jsonl"), strict=True):
        assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_run_of_two_ranks_opens_in_one_process(ddp: Path) -> None:
    model = reopen(ddp, app="regression").weights(Network(), which="last", averaged=False)
    assert_close(model.state_dict(), weights(ddp, 4), rtol=0, atol=0)


def test_another_number_of_ranks_is_rejected(ddp: Path, tmp_path: Path) -> None:
    shutil.copytree(ddp, tmp_path / "run")
    config = TrainConfig(**TRAIN)
    with pytest.raises(ValueError, match="trained on 2 ranks, got 1"):
        fit(Regression(config, trace=str(ddp / "seen")), tmp_path / "run", resume=True)


@pytest.fixture(scope="module")
def complete_runs(regress: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Complete runs by kind of parallelism, with muon, accumulation and random numbers in the loss."""
    directories = {parallel: tmp_path_factory.mktemp(parallel) / "run" for parallel in ("ddp", "fsdp")}
    for parallel, directory in directories.items():
        regress(directory, **settings_of(parallel))
    return directories


def settings_of(parallel: str) -> dict[str, Any]:
    return {"train": {"parallel": parallel, "gradient_accumulation": 2, "optimizer": "muon"}, "blur": 0.3}


def test_sharded_weights_step_as_replicated_ones(complete_runs: dict[str, Path]) -> None:
    torch.manual_seed(0)
    start = Network().state_dict()
    ddp, fsdp = (weights(complete_runs[parallel], 4) for parallel in ("ddp", "fsdp"))
    for name, end in ddp.items():
        # muon's Newton-Schulz iterations run in bfloat16, so only two digits of a matrix agree
        tolerance = 0.05 if name.startswith("blocks") and end.ndim == 2 else 1e-3
        assert (fsdp[name] - end).norm() < tolerance * (end - start[name]).norm(), name
    records = [read_records(complete_runs[parallel] / "metrics.jsonl") for parallel in ("ddp", "fsdp")]
    for one, two in zip(*records, strict=True):
        assert_close(one, two, rtol=1e-3, atol=0)


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.long), "fsdp"])
def test_stopped_ranks_resume_bit_for_bit(
    regress: Callable[..., None], tmp_path: Path, complete_runs: dict[str, Path], parallel: str
) -> None:
    # the loss draws from each rank's generator, whose state must be restored too
    interrupted = tmp_path / "interrupted"
    shutil.copytree(complete_runs[parallel], interrupted)
    # as after a crash: the last checkpoint is half-written, and the log is ahead
    checkpoints = interrupted / "checkpoints"
    (checkpoints / "step-00000004").rename(checkpoints / ".writing-step-00000004")
    regress(interrupted, "--resume", **settings_of(parallel))
    assert files(interrupted) == files(complete_runs[parallel])
    assert not list(checkpoints.glob(".writing-*"))


@pytest.mark.parametrize("parallel", [pytest.param("ddp", marks=pytest.mark.long), "fsdp"])
def test_a_signal_to_one_rank_stops_all_ranks_with_a_checkpoint(
    regress: Callable[..., None], tmp_path: Path, parallel: str
) -> None:
    settings = {"parallel": parallel, "steps": 40, "save_every": 40, "log_every": 5, "loader_threads": 0}
    regress(tmp_path / "run", train=settings, stop_at=2 * 6 + 1)  # in step 7 of the second rank
    (saved,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert saved.name == "step-00000010"
    assert [record["step"] for record in read_records(tmp_path / "run" / "metrics.jsonl")] == [5, 10]
