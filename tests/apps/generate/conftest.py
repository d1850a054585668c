"""Fixtures that run the verbs: the command line in a separate process, or the same entry point in a forked one."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from torch import Tensor

from monge.apps.generate import evaluate
from monge.cli import main
from monge.run import fingerprint

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@dataclass
class Monge:
    """Runs `monge generate VERB ...` in a separate process."""

    forks: multiprocessing.context.ForkServerContext

    def command(self, *words: str | Path) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", "monge.cli", "generate", *map(str, words)]

    def __call__(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command and wait until it ends."""
        return subprocess.run(self.command(*words), env=ENVIRONMENT, text=True, capture_output=True, timeout=120)

    def start(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start the command without waiting for it."""
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self.command(*words), env=ENVIRONMENT, stdout=quiet, stderr=quiet)

    def fork(self, *words: str | Path) -> BaseProcess:
        """Start the verb in a process that has already imported everything, which saves three seconds."""
        process = self.forks.Process(target=main, args=(["generate", *map(str, words)],))
        process.start()
        return process


@pytest.fixture(scope="session")
def monge() -> Monge:
    context = multiprocessing.get_context("forkserver")
    lazily_imported = [
        "torch._dynamo",
        "matplotlib.figure",
        "matplotlib.backends.backend_agg",
        "rich.progress",
        "sklearn.datasets",
    ]
    context.set_forkserver_preload(["monge.apps.generate.cli", *lazily_imported])
    return Monge(context)


@dataclass
class Kill:
    """Kills a process with SIGKILL as soon as a condition on its run directory holds."""

    process: subprocess.Popen[bytes] | BaseProcess

    def when(self, condition: Callable[[], bool], *, pause: float = 0.0) -> bool:
        """Kill `pause` seconds after the condition holds. True if the process was still running then."""
        while self.alive():
            if condition():
                time.sleep(pause)
                break
            time.sleep(0.0005)
        was_alive = self.alive()
        os.kill(self.process.pid or 0, signal.SIGKILL)
        if isinstance(self.process, BaseProcess):
            self.process.join()
            return was_alive and self.process.exitcode == -signal.SIGKILL
        return was_alive and self.process.wait() == -signal.SIGKILL

    def alive(self) -> bool:
        return self.process.is_alive() if isinstance(self.process, BaseProcess) else self.process.poll() is None


@pytest.fixture(scope="session", autouse=True)
def train_classifier() -> Iterator[Callable[..., evaluate.Classifier]]:
    """The uncached training function of the metrics' classifier. It takes eight seconds, so tests cache its results by data."""
    cache, train = {}, evaluate.train_classifier

    def cached(x: Tensor, labels: Tensor, classes: int, **more: int) -> evaluate.Classifier:
        key = int(fingerprint(x, labels)), classes, *more.items()
        if key not in cache:
            cache[key] = train(x, labels, classes, **more)
        return cache[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "train_classifier", cached)
        yield train


@pytest.fixture(scope="session")
def kill() -> type[Kill]:
    return Kill


@pytest.fixture
def rejects(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], list[str]], None]:
    """rejects(words, parts): the command ends with exit code 2 and one line on stderr that contains all parts."""

    def check(words: list[str], parts: list[str]) -> None:
        assert main(["generate", *words]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"monge generate {words[0]}: ")
        assert message.count("\n") == 1
        for part in parts:
            assert part in message

    return check
