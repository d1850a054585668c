"""Settings and fixtures of all tests: shapes checked by beartype, one thread, seeded draws."""

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

# numba cannot compile decorated functions, so monge.kernels is left out; an int is accepted as a float, as in pyright
BEARTYPE = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook(["monge.math", "monge.nets", "monge.objective"], BEARTYPE)

os.environ["HF_HUB_OFFLINE"] = "1"  # without a network, the hub's retries take a minute
torch.set_num_threads(1)
settings.register_profile("monge", deadline=None, max_examples=20)
settings.load_profile("monge")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """All tests of `prove` go to one process, so that they share one Lean server and one judge; others go file by file."""
    from xdist.scheduler import LoadFileScheduling

    class ByLean(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "prove" if nodeid.startswith("tests/apps/prove/") else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # keep the order of pytest_collection_modifyitems
    return ByLean(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest parts first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/test_readme", "tests/apps/prove/")))


@pytest.fixture(scope="session")
def draw() -> Callable[..., Tensor]:
    """draw(seed, *shape): float64 normals that depend only on the seed and the shape."""

    def normal(seed: int, *shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return normal


@pytest.fixture(scope="session")
def torchrun() -> Callable[..., None]:
    """torchrun(*words): two ranks of a script or a module (`-m NAME`), one thread each; torch picks a free port."""

    def run(*words: str | Path) -> None:
        ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            [*ranks, *map(str, words)], env=environment, text=True, capture_output=True, timeout=120
        )
        assert result.returncode == 0, result.stderr

    return run


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random GPT-NeoX with three blocks and its tokenizer, in the format that `Pretrain` saves."""
    from transformers import PreTrainedTokenizerFast

    from monge.pretrain import END, neox, tokenizer_of

    path = tmp_path_factory.mktemp("lm") / "model"
    tokenizer = tokenizer_of(["( ph -> ps )", "A e. B", "( A u. B ) = ( B u. A )", "-. ch"], 300)
    torch.manual_seed(0)
    neox(tokenizer.get_vocab_size(), 32, 3, 2, 64, tokenizer.token_to_id(END)).save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def stir() -> Callable[..., nn.Module]:
    """stir(network): the network in float64 with noise on every parameter, so that no zero initialisation hides an error."""

    def stirred(network: nn.Module, seed: int = 0, size: float = 0.2) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        network.double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        return network

    return stirred
