"""What the tests share: shapes checked by beartype, one thread, seeded draws."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

# numba cannot compile what the hook decorates, so monge.kernels stays outside; an int passes for a float, as in pyright
BEARTYPE = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook(["monge.math", "monge.nets", "monge.objective"], BEARTYPE)

torch.set_num_threads(1)
settings.register_profile("monge", deadline=None, max_examples=20)
settings.load_profile("monge")


@pytest.fixture(scope="session")
def draw() -> Callable[..., Tensor]:
    """draw(seed, *shape): float64 normals, the same for the same seed."""

    def normal(seed: int, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return normal


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., None]:
    """torchrun(*words): two ranks of a script or a module (`-m NAME`), one thread each; torch picks a free port."""

    def run(*words: str | Path) -> None:
        ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*ranks, *map(str, words)], env=one, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def stir() -> Callable[..., nn.Module]:
    """stir(network): the network in float64, every parameter moved, so that nothing is hidden behind a zero."""

    def stirred(network: nn.Module, seed: int = 0, size: float = 0.2) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        network.double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        return network

    return stirred
