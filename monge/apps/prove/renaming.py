"""Random renaming of the hypotheses and variables of states and their tactics, to augment training data."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from monge.apps.prove.canonical import WORD
from monge.apps.prove.pairs import TacticPair
from monge.apps.prove.parsed import Parsed, parsed, substituted

Kind = tuple[tuple[str, ...], bool]
"""The first two tokens of a type, and True if the type is itself a variable."""


class Renamer:
    """Renames hypotheses and variables to names that those of a similar type have in `states`.

    Types are similar if their first two tokens agree, where a variable counts as the first token of its own type.
    """

    def __init__(self, states: Iterable[str]) -> None:
        pools: dict[Kind, dict[str, None]] = defaultdict(dict)
        for state in states:
            for goal in map(parsed, state.split("\n\n")):
                for name, text in goal.types.items():
                    if "✝" not in name:
                        pools[_kind(goal, text)][name] = None
        self._pools = {kind: sorted(names) for kind, names in pools.items()}

    def __call__(self, pair: TacticPair, generator: np.random.Generator) -> TacticPair:
        """The pair with new names for the hypotheses of the first goal, the same in state and tactic.

        New names do not occur in state or tactic. A name stays if there is no other, and so does one with a dagger.

        >>> rename = Renamer(["a b : N\\nh : a = b\\n⊢ b = a", "n : N\\nk : n = z\\n⊢ z = n"])
        >>> pair = TacticPair("a : N\\nh : a = z\\n⊢ s a = s z", "rw [h]", "", "")
        >>> rename(pair, np.random.default_rng(0))[:2]
        ('n : N\\nk : n = z\\n⊢ s n = s z', 'rw [k]')
        """
        state, tactic = pair[:2]
        goal = parsed(state.split("\n\n")[0])
        used = {*WORD.split(state)[1::2], *WORD.split(tactic)[1::2]}
        names: dict[str, str] = {}
        for name, text in goal.types.items():
            free = [other for other in self._pools.get(_kind(goal, text), ()) if other not in used]
            if free and "✝" not in name:
                names[name] = free[generator.integers(len(free))]
                used.add(names[name])
        return pair._replace(state=substituted(state, names), tactic=substituted(tactic, names))


def _kind(goal: Parsed, text: str) -> Kind:
    return goal.tokens(text)[:2], text in goal.types
