"""No attack is taken for a proof, and the judge outlives them all."""

import random
import re

import pytest
from attacks import ATTACKS
from attacks_by_code import KERNEL

from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import Limits
from monge.apps.prove.state import Budget, Proof, Rejection, Theorem

pytestmark = pytest.mark.slow


def test_there_are_at_least_a_hundred():
    assert len({(a.tactics, a.theorem) for a in ATTACKS}) == len(ATTACKS) >= 100


def refused(lean, imports, attacks, seconds=60.0):
    with Judge(lean, imports, limits=Limits(memory_gb=2.5), patience=Budget(seconds=seconds)) as judge:
        for attack in sorted(attacks, key=lambda attack: attack.theorem.header):  # two new Leans for each header
            if attack.imports == imports:
                try:
                    found = judge(attack.theorem, attack.tactics)
                    if isinstance(found, Rejection) and found.kind == "crash" and not attack.deadly:
                        found = judge(attack.theorem, attack.tactics)  # out of time, on a machine with much to do
                except ValueError:  # what it asks is no statement
                    assert attack.kind == "no statement", attack
                    continue
                assert not isinstance(found, Proof), attack
                assert attack.kind in ("", found.kind), (attack.name, found)
                assert re.search(attack.said, found.message), (attack.name, found)
        honest = Theorem("target", ": True", imports=imports)
        assert isinstance(judge(honest, ("trivial",)), Proof)


@pytest.mark.parametrize("imports", [("Init",), ("Lean",)], ids=lambda imports: imports[0])
def test_no_attack_is_a_proof(lean, imports):
    """Those that worked once, and a random fortieth of the rest; `pytest -m long` tries them all."""
    mild = [a for a in ATTACKS if not a.deadly and a not in KERNEL]
    refused(lean, imports, [*KERNEL, *random.sample(mild, len(mild) // 40)])


@pytest.mark.long
@pytest.mark.parametrize("imports", [("Init",), ("Lean",)], ids=lambda imports: imports[0])
def test_no_attack_at_all_is_a_proof(lean, imports):
    refused(lean, imports, [a for a in ATTACKS if not a.deadly])
    refused(lean, imports, [a for a in ATTACKS if a.deadly], 10.0)
