"""`torchrun -m monge.cli generate train` trains and resumes on two processes, with DDP and FSDP."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch.testing import assert_close

from monge.apps.generate.recipes import generator_of
from monge.apps.generate.sample import Sampling
from monge.files import read_tensors
from monge.math.random import seeded
from monge.runs import reopen
from monge.training.log import read_records

pytestmark = pytest.mark.long  # tests/training/test_distributed.py tests the same on a smaller run
WORDS = [
    "-m",
    "monge.cli",
    "generate",
    "train",
    "--data",
    "digits",
    "--width",
    "16",
    "--depth",
    "2",
    "--batch-size",
    "16",
    "--steps",
    "8",
]
WORDS += ["--save-every", "4", "--log-every", "2", "--warmup-steps", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def runs(torchrun: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run for each kind of parallelism."""
    directories = {parallel: tmp_path_factory.mktemp(parallel) / "run" for parallel in ("ddp", "fsdp")}
    for parallel, directory in directories.items():
        torchrun(*WORDS, "--parallel", parallel, "--out", directory)
    return directories


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_loss_falls_and_the_run_opens_in_one_process(runs: dict[str, Path], parallel: str) -> None:
    records = read_records(runs[parallel] / "metrics.jsonl")
    assert [record["step"] for record in records] == [2, 4, 6, 8]
    assert records[-1]["held-out loss"] < records[1]["held-out loss"]
    generator = generator_of(reopen(runs[parallel], app="generate"))
    x, _ = generator.sample(3, Sampling(2), generator=seeded(0))
    assert x.shape == (3, 1, 8, 8)
    assert ((x >= 0) & (x <= 16)).all()


def test_sharded_and_replicated_runs_have_the_same_weights(runs: dict[str, Path]) -> None:
    for name in ("model", "ema"):
        one, two = (read_tensors(run / f"checkpoints/step-00000008/{name}.safetensors") for run in runs.values())
        assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_resumed_run_is_identical_bit_for_bit(torchrun: Callable[..., None], runs: dict[str, Path]) -> None:
    run = runs["ddp"]
    last, log = run / "checkpoints/step-00000008", (run / "metrics.jsonl").read_bytes()
    before = {path.name: path.read_bytes() for path in last.iterdir()}
    last.rename(last.with_name(".writing-step-00000008"))  # as after a crash
    torchrun(*WORDS, "--parallel", "ddp", "--out", run, "--resume")
    assert {path.name: path.read_bytes() for path in last.iterdir()} == before
    assert (run / "metrics.jsonl").read_bytes() == log
