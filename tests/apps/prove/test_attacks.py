"""No attack is accepted as a proof, and the judge still works afterwards."""

import random
import re

import pytest
from attacks import ATTACKS
from attacks_by_code import KERNEL

from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import Limits
from monge.apps.prove.state import Budget, Proof, Rejection, Theorem

pytestmark = pytest.mark.slow


def test_there_are_at_least_a_hundred_attacks_without_duplicates():
    assert len({(a.tactics, a.theorem) for a in ATTACKS}) == len(ATTACKS) >= 100


def assert_rejected(lean, imports, attacks, seconds=60.0):
    """All attacks with these imports are rejected, and the judge then still accepts a proof."""
    with Judge(lean, imports, limits=Limits(memory_gb=2.5), patience=Budget(seconds=seconds)) as judge:
        for attack in sorted(attacks, key=lambda attack: attack.theorem.header):  # each new header starts two processes
            if attack.imports == imports:
                try:
                    verdict = judge(attack.theorem, attack.tactics)
                    if isinstance(verdict, Rejection) and verdict.kind == "crash" and not attack.may_crash:
                        verdict = judge(attack.theorem, attack.tactics)  # it may have timed out on a busy machine
                except ValueError:  # the statement is invalid
                    assert attack.kind == "no statement", attack
                    continue
                assert not isinstance(verdict, Proof), attack
                assert attack.kind in ("", verdict.kind), (attack.name, verdict)
                assert re.search(attack.message, verdict.message), (attack.name, verdict)
        honest = Theorem("target", ": True", imports=imports)
        assert isinstance(judge(honest, ("trivial",)), Proof)


@pytest.mark.parametrize(
    "imports", [("Init",), pytest.param(("Lean",), marks=pytest.mark.long)], ids=lambda imports: imports[0]
)
def test_a_sample_of_attacks_is_rejected(lean, imports):
    """Attacks on the kernel, some of which once succeeded, and a random fortieth of the others; `pytest -m long` tries all."""
    others = [a for a in ATTACKS if not a.may_crash and a not in KERNEL]
    assert_rejected(lean, imports, [*KERNEL, *random.sample(others, len(others) // 40)])


@pytest.mark.long
@pytest.mark.parametrize("imports", [("Init",), ("Lean",)], ids=lambda imports: imports[0])
def test_all_attacks_are_rejected(lean, imports):
    assert_rejected(lean, imports, [a for a in ATTACKS if not a.may_crash])
    assert_rejected(lean, imports, [a for a in ATTACKS if a.may_crash], 10.0)
