"""What to try on a state: the seed's probes, and a template that reads the goal."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

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


def merged(said: Iterable[Suggestion], most: int) -> list[Suggestion]:
    """The likeliest, each tactic once, as likely as it is at best."""
    best: dict[str, float] = {}
    for tactic, logp in said:
        best[tactic] = max(logp, best.get(tactic, -math.inf))
    return sorted((Suggestion(*one) for one in best.items()), key=lambda one: -one.logp)[:most]


class Probes:
    """The same tactics on every state, as long as Lean knows them."""

    def __init__(self, tactics: Sequence[str] = PROBES) -> None:
        self.tactics = tuple(tactics)

    def __call__(self, states: Sequence[State], most: int) -> list[list[Suggestion]]:
        return [ranked(self.tactics, most) for _ in states]


@dataclass(frozen=True)
class Names:
    """What a header declares, as it is called where the header ends."""

    lemmas: tuple[str, ...] = ()
    definitions: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    """Constructors of inductive propositions."""

    @staticmethod
    def of(header: str) -> "Names":
        """Read from its text."""
        attributes = r"^\s*(?:@\[[^\]]*\]\s*)?(?:(?:private|noncomputable)\s+)*"
        rules: list[str] = []
        for block in re.finditer(attributes + r"inductive\s+(\S+)([^\n]*)((?:\n[ \t]+[^\n]*)*)", header, re.MULTILINE):
            if re.search(r"Prop\s*(where)?\s*$", block[2].split("|")[0].rstrip()):
                rules += [f"{block[1]}.{name}" for name in re.findall(r"\|\s*([^\s:({|]+)", block[2] + block[3])]
        return Names(
            tuple(re.findall(attributes + r"(?:theorem|lemma)\s+([^\s:({\[]+)", header, re.MULTILINE)),
            tuple(re.findall(attributes + r"(?:def|abbrev)\s+([^\s:({\[]+)", header, re.MULTILINE)),
            tuple(rules),
        )


class Template:
    """Reads the first goal: introduces, splits, closes, rewrites by hypotheses and lemmas, inducts on variables."""

    def __init__(self, names: Names | None = None) -> None:
        self.names = names or Names()

    def __call__(self, states: Sequence[State], most: int) -> list[list[Suggestion]]:
        return [ranked(self._tactics(state.goals[0]), most) for state in states]

    def _tactics(self, goal: Goal) -> list[str]:
        lemmas, definitions = self.names.lemmas, self.names.definitions
        hidden = [h for h in goal.hypotheses if "✝" in h.name]
        if hidden:  # what induction and cases name by themselves cannot be said
            taken = {h.name for h in goal.hypotheses}
            fresh = iter(name for k in count() if (name := f"x{k}") not in taken)
            return ["rename_i " + " ".join(next(fresh) for _ in hidden), *self._closing(goal)]
        proofs = [h.name for h in goal.hypotheses if h.prop]
        data = [h.name for h in goal.hypotheses if not h.prop and not re.match(r"(Type|Sort|Prop)\b|.*→", h.type)]
        target, found = goal.target, self._closing(goal)
        if target.startswith(("∀", "¬")) or "→" in target or "≠" in target:
            found.insert(0, "intro h" + str(len(goal.hypotheses)))
        if "∧" in target or "↔" in target:
            found.insert(0, "constructor")
        if "∨" in target:
            found += ["left", "right"]
        simp = ", ".join([*lemmas, *definitions])
        found += [f"induction {name} <;> simp_all [{simp}]" for name in data]
        found += [f"induction {name}" for name in data]
        found += [f"apply {name}" for name in [*proofs, *self.names.rules]]
        found += [f"rw [{name}]" for name in [*proofs, *lemmas]]
        found += [f"cases {name}" for name in [*proofs, *data]]
        found += [f"induction {h} <;> simp_all [{simp}]" for h in proofs]
        found += [f"induction {h}" for h in proofs]
        found += [f"induction {a} generalizing {b}" for a in data for b in data if a != b]
        found += [f"rw [← {name}]" for name in [*proofs, *lemmas]]
        found += [f"simp only [{name}] at {h}" for h in proofs for name in [*lemmas, *definitions]]
        found += [f"unfold {name}" for name in definitions if re.search(rf"\b{re.escape(name)}\b", target)]
        found += [f"apply {name}" for name in lemmas]
        found += [f"exists {name}" for name in data] if "∃" in target else []
        return [*found, "constructor", "funext x", "split", "exfalso"]

    def _closing(self, goal: Goal) -> list[str]:
        """What may end a goal at once."""
        simp = ", ".join([*self.names.lemmas, *self.names.definitions])
        assumed = ["assumption", "contradiction"] if any(h.prop for h in goal.hypotheses) else []
        return ["rfl", *assumed, f"simp_all [{simp}]", "grind", "omega", "decide"]
