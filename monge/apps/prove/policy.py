"""Policies without a language model: a fixed list of probe tactics, and a template that reads the goal."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest

from monge.apps.prove.state import Goal, State
from monge.apps.prove.tree import Suggestion

Policy = Callable[[Sequence[State], int], list[list[Suggestion]]]
"""Suggestions for each state, most likely first; the integer is the maximum number per state."""
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
"""Seventeen general-purpose tactics, most likely first; some of them need Mathlib."""


def ranked(tactics: Sequence[str], limit: int) -> list[Suggestion]:
    """The first `limit` distinct tactics; the probability of the k-th is proportional to 1/k."""
    distinct = list(dict.fromkeys(tactics))[:limit]
    total = sum(1 / (k + 1) for k in range(len(distinct)))
    return [Suggestion(tactic, math.log(1 / (k + 1) / total)) for k, tactic in enumerate(distinct)]


def merged(suggestions: Iterable[Suggestion], limit: int) -> list[Suggestion]:
    """The `limit` most likely tactics, each once with its highest log-probability."""
    best: dict[str, float] = {}
    for tactic, logp in suggestions:
        best[tactic] = max(logp, best.get(tactic, -math.inf))
    return sorted((Suggestion(*one) for one in best.items()), key=lambda one: -one.logp)[:limit]


class Probes:
    """Policy that suggests the same tactics for every state."""

    def __init__(self, tactics: Sequence[str] = PROBES) -> None:
        self.tactics = tuple(tactics)

    def __call__(self, states: Sequence[State], limit: int) -> list[list[Suggestion]]:
        return [ranked(self.tactics, limit) for _ in states]


class Combined:
    """Policy that takes equally many suggestions from each of several policies, merged by rank.

    Where policies agree or run short, further suggestions of the first one fill the rest. The probability of the k-th
    suggestion is proportional to 1/k, since the policies' own probabilities are not comparable.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = tuple(policies)

    def __call__(self, states: Sequence[State], limit: int) -> list[list[Suggestion]]:
        share = -(-limit // len(self.policies))
        answers = [policy(states, share) for policy in self.policies]
        merged = [
            list(dict.fromkeys(one.tactic for rank in zip_longest(*parts) for one in rank if one is not None))
            for parts in zip(*answers, strict=True)
        ]
        short = [k for k, tactics in enumerate(merged) if len(tactics) < limit]
        if short:
            for k, more in zip(short, self.policies[0]([states[k] for k in short], limit), strict=True):
                merged[k] += [one.tactic for one in more]
        return [ranked(tactics, limit) for tactics in merged]


@dataclass(frozen=True)
class Names:
    """Names that a header declares, as written in it; namespaces are not added."""

    lemmas: tuple[str, ...] = ()
    """Theorems and lemmas."""
    definitions: tuple[str, ...] = ()
    """Definitions and abbreviations."""
    rules: tuple[str, ...] = ()
    """Constructors of inductive propositions."""

    @staticmethod
    def of(header: str) -> "Names":
        """The names in the text of a header."""
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
    """Policy that reads the first goal: introduces, splits, closes, rewrites with hypotheses and lemmas, inducts on data."""

    def __init__(self, names: Names | None = None) -> None:
        self.names = names or Names()

    def __call__(self, states: Sequence[State], limit: int) -> list[list[Suggestion]]:
        return [ranked(self._tactics(state.goals[0]), limit) for state in states]

    def _tactics(self, goal: Goal) -> list[str]:
        lemmas, definitions = self.names.lemmas, self.names.definitions
        hidden = [h for h in goal.hypotheses if "✝" in h.name]
        if hidden:  # tactics cannot refer to names that induction and cases generate
            taken = {h.name for h in goal.hypotheses}
            fresh = iter(name for k in count() if (name := f"x{k}") not in taken)
            return ["rename_i " + " ".join(next(fresh) for _ in hidden), *self._closing(goal)]
        proofs = [h.name for h in goal.hypotheses if h.prop]
        data = [h.name for h in goal.hypotheses if not h.prop and not re.match(r"(Type|Sort|Prop)\b|.*→", h.type)]
        target, tactics = goal.target, self._closing(goal)
        if target.startswith(("∀", "¬")) or "→" in target or "≠" in target:
            tactics.insert(0, "intro h" + str(len(goal.hypotheses)))
        if "∧" in target or "↔" in target:
            tactics.insert(0, "constructor")
        if "∨" in target:
            tactics += ["left", "right"]
        simp = ", ".join([*lemmas, *definitions])
        tactics += [f"induction {name} <;> simp_all [{simp}]" for name in data]
        tactics += [f"induction {name}" for name in data]
        tactics += [f"apply {name}" for name in [*proofs, *self.names.rules]]
        tactics += [f"rw [{name}]" for name in [*proofs, *lemmas]]
        tactics += [f"cases {name}" for name in [*proofs, *data]]
        tactics += [f"induction {h} <;> simp_all [{simp}]" for h in proofs]
        tactics += [f"induction {h}" for h in proofs]
        tactics += [f"induction {a} generalizing {b}" for a in data for b in data if a != b]
        tactics += [f"rw [← {name}]" for name in [*proofs, *lemmas]]
        tactics += [f"simp only [{name}] at {h}" for h in proofs for name in [*lemmas, *definitions]]
        tactics += [f"unfold {name}" for name in definitions if re.search(rf"\b{re.escape(name)}\b", target)]
        tactics += [f"apply {name}" for name in lemmas]
        tactics += [f"exists {name}" for name in data] if "∃" in target else []
        return [*tactics, "constructor", "funext x", "split", "exfalso"]

    def _closing(self, goal: Goal) -> list[str]:
        """Tactics that may close a goal at once."""
        simp = ", ".join([*self.names.lemmas, *self.names.definitions])
        assumed = ["assumption", "contradiction"] if any(h.prop for h in goal.hypotheses) else []
        return ["rfl", *assumed, f"simp_all [{simp}]", "grind", "omega", "decide"]
