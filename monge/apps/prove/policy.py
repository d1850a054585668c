"""What to try on a state: the seed's probes, and a template that reads the goal."""

import math
import re
from collections.abc import Sequence

from monge.apps.prove.state import Goal, State
from monge.apps.prove.tree import Suggestion

PROBES = (
    *(
        "simp",
        "ring",
        "omega",
        "norm_num",
        "decide",
        "trivial",
        "rfl",
        "tauto",
        "linarith",
        "push_neg",
        "contradiction",
    ),
    *("exfalso", "constructor", "left", "right", "ext", "simp_all"),
)
"""The seed's 17 tactics, in its order."""


def ranked(tactics: Sequence[str], most: int) -> list[Suggestion]:
    """The first of them, likelier the earlier: the k-th has a weight of 1/k."""
    kept = list(dict.fromkeys(tactics))[:most]
    whole = sum(1 / (k + 1) for k in range(len(kept)))
    return [Suggestion(tactic, math.log(1 / (k + 1) / whole)) for k, tactic in enumerate(kept)]


class Probes:
    """The same tactics on every state, as long as Lean knows them."""

    def __init__(self, tactics: Sequence[str] = PROBES) -> None:
        self.tactics = tuple(tactics)

    def __call__(self, states: Sequence[State], most: int) -> list[list[Suggestion]]:
        return [ranked(self.tactics, most) for _ in states]


class Template:
    """Reads the first goal: introduces, splits, closes, rewrites by hypotheses and lemmas, inducts on variables."""

    def __init__(self, lemmas: Sequence[str] = ()) -> None:
        self.lemmas = tuple(lemmas)

    def __call__(self, states: Sequence[State], most: int) -> list[list[Suggestion]]:
        return [ranked(self._tactics(state.goals[0]), most) for state in states]

    def _tactics(self, goal: Goal) -> list[str]:
        named = [h for h in goal.hypotheses if "✝" not in h.name]
        proofs = [h.name for h in named if h.prop]
        data = [h.name for h in named if not h.prop and not re.match(r"(Type|Sort|Prop)\b", h.type)]
        target, tactics = goal.target, ["rfl"]
        if target.startswith(("∀", "¬")) or "→" in target:
            tactics.append("intro h" + str(len(goal.hypotheses)))
        if goal.hypotheses and any(h.prop for h in goal.hypotheses):
            tactics += ["assumption", "simp_all"]
        tactics += [f"simp [{', '.join([*self.lemmas, *(['*'] if proofs or goal.case else [])])}]", "omega"]
        if "∧" in target or "↔" in target or "∃" in target:
            tactics.append("constructor")
        if "∨" in target:
            tactics += ["left", "right"]
        tactics += [f"induction {name} <;> simp_all [{', '.join(self.lemmas)}]" for name in data]
        tactics += [f"induction {name}" for name in data]
        tactics += [f"rw [{name}]" for name in [*proofs, *self.lemmas]]
        tactics += [f"rw [← {name}]" for name in [*proofs, *self.lemmas]]
        tactics += [f"apply {name}" for name in [*proofs, *self.lemmas]]
        tactics += [f"cases {name}" for name in [*proofs, *data]]
        return [*tactics, "grind", "decide", "contradiction", "exfalso"]


def lemmas_of(header: str) -> list[str]:
    """The names of a header's theorems, as they are called where it ends."""
    return re.findall(r"^\s*(?:@\[[^\]]*\]\s*)?theorem\s+([^\s:({\[]+)", header, flags=re.MULTILINE)
