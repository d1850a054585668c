"""Random renaming of hypotheses in training pairs."""

import re

import numpy as np
import pytest

from monge.apps.prove.pairs import TacticPair
from monge.apps.prove.renaming import Renamer

STATES = (
    "n m : N\nih : n = m + m\na✝ : n = z\n⊢ s n + m = s m",
    "case s\na b : N\nh : a = b\n⊢ b = a",
    "k : N\ng : k = z\n⊢ z = k\n\ncase z\nw : N\n⊢ w = w",
)


@pytest.mark.parametrize("seed", range(10))
def test_names_change_one_to_one_and_everything_else_stays(seed):
    rename = Renamer(STATES)
    pair = TacticPair(STATES[0], "rw [ih, h.ih, (n.succ), an, n', ← m]", "t", "s")
    changed = rename(pair, np.random.default_rng(seed))
    state = re.fullmatch(
        r"(\w) (\w) : N\n(\w+) : (\w) = (\w) \+ (\w)\na✝ : (\w) = z\n⊢ s (\w) \+ (\w) = s (\w)", changed.state
    )
    assert state is not None
    n, m, ih = state[1], state[2], state[3]
    assert state.groups() == (n, m, ih, n, m, m, n, n, m, m)
    assert {n, m} < {"n", "m", "a", "b", "k", "w"}
    assert ih in {"h", "g"}
    assert changed.tactic == f"rw [{ih}, h.ih, ({n}.succ), an, n', ← {m}]"
    assert len({n, m, ih}) == 3
    assert changed[2:] == pair[2:]


def test_a_name_without_an_alternative_stays():
    pair = TacticPair("f : N → N\nn : N\n⊢ f n = n", "simp [f, n]", "", "")
    assert Renamer([pair.state])(pair, np.random.default_rng(0)) == pair


def test_new_names_do_not_occur_in_the_tactic():
    pair = TacticPair("n : N\n⊢ ∀ m, n = m", "intro k; exact (foo a b w)", "", "")
    names = {Renamer(STATES)(pair, np.random.default_rng(seed)).state[0] for seed in range(20)}
    assert names == {"n"}  # all others occur in the pair
