"""One text for all states that differ in the names and the order of hypotheses alone."""

import hashlib
import re

from monge.apps.prove.state import Goal, State


def canonical(state: State) -> str:
    """The goals in order, hypotheses sorted and numbered, case names left out."""
    return "\n\n".join(map(_goal, state.goals))


def _goal(goal: Goal) -> str:
    names = [h.name for h in goal.hypotheses]
    said = [f"{h.type} := {h.value}" if h.value else h.type for h in goal.hypotheses]
    labels = ["_"] * len(names)
    for _ in range(3):  # colour refinement: by what a hypothesis says, and what is said of it, and so on
        known = dict(zip(names, labels, strict=True))
        labels = [
            _digest(
                [
                    _renamed(said[k], known),
                    *sorted(_renamed(text, known | {name: "@"}) for text in [*said, goal.target]),
                ]
            )
            for k, name in enumerate(names)
        ]
    order = sorted(range(len(names)), key=lambda k: labels[k])
    known = {names[k]: f"h{place}" for place, k in enumerate(order)}
    lines = [f"{known[names[k]]} : {_renamed(said[k], known)}" for k in order]
    return "\n".join([*lines, f"⊢ {_renamed(goal.target, known)}"])


def _digest(texts: list[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def _renamed(text: str, names: dict[str, str]) -> str:
    if not names:
        return text
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    pattern = rf"(?<![\w.'✝])({'|'.join(longest_first)})(?![\w'✝¹²³⁴⁵⁶⁷⁸⁹⁰])"
    return re.sub(pattern, lambda found: names[found[0]], text)
