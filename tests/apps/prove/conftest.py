"""Real Lean for the tests of `prove`: set up once for all, a server and a judge for each file."""

from collections.abc import Callable, Iterator

import pytest
from speaker import Fake, serving

from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import setup_embedded
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.state import Theorem

NATURALS = """inductive N | z | s (n : N)
namespace N
def add : N → N → N | a, z => a | a, s b => s (add a b)
instance : Add N := ⟨add⟩
theorem add_z (a : N) : a + z = a := rfl
theorem add_s (a b : N) : a + s b = s (a + b) := rfl
"""


@pytest.fixture(scope="session")
def lean() -> Toolchain:
    """Lean, from the cache or fetched into it; without a network and a cache there is nothing to test on."""
    try:
        return setup_embedded()
    except ConnectionError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server(lean: Toolchain) -> Iterator[LeanServer]:
    with LeanServer(lean) as server:
        yield server


@pytest.fixture(scope="module")
def judge(lean: Toolchain) -> Iterator[Judge]:
    with Judge(lean) as judge:
        yield judge


@pytest.fixture(scope="session")
def naturals() -> Callable[[str], Theorem]:
    """naturals(signature): a theorem about naturals with addition, defined from nothing."""
    return lambda signature: Theorem("target", signature, NATURALS)


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A server that a policy can ask."""
    with serving() as fake:
        yield fake
