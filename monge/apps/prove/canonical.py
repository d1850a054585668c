"""One text for all states that differ in the names and the order of hypotheses alone."""

import hashlib
import re

from monge.apps.prove.state import Goal, State

WORD = re.compile(r"((?<![\w.'✝!?])[^\W\d][\w'✝!?]*)")
MOST = 100
"""Texts looked at that mention a hypothesis; where there are more, equal states may pass for different ones."""


def canonical(state: State) -> str:
    """The goals in order, hypotheses sorted and numbered, case names left out."""
    return "\n\n".join(map(_goal, state.goals))


def _goal(goal: Goal) -> str:
    names = [h.name for h in goal.hypotheses]
    said = [f"{h.type} := {h.value} #{h.mark}" if h.value else f"{h.type} #{h.mark}" for h in goal.hypotheses]
    pieces = _pieces([*said, f"{goal.target} #{goal.mark}"], names)
    about: dict[str, list[int]] = {name: [] for name in names}
    for k, text in enumerate(pieces):
        for name in set(text[1::2]):
            about[name].append(k)
    labels = ["_"] * len(names)
    for _ in range(3):  # colour refinement: by what a hypothesis says, and what is said of it, and so on
        known = dict(zip(names, labels, strict=True))
        labels = [
            _digest(
                [
                    _joined(pieces[k], known) + ("✝" if "✝" in name else ""),
                    *sorted(_joined(pieces[i], known | {name: "@"}) for i in about[name][:MOST]),
                ]
            )
            for k, name in enumerate(names)
        ]
    order = sorted(range(len(names)), key=lambda k: labels[k])
    known = {names[k]: f"#{place}" for place, k in enumerate(order)}  # no name in Lean begins so
    hidden = ["✝" if "✝" in name else "" for name in names]  # what cannot be said is another state than what can
    lines = [f"{known[names[k]]}{hidden[k]} : {_joined(pieces[k], known)}" for k in order]
    return "\n".join([*lines, f"⊢ {_joined(pieces[-1], known)}"])


def _digest(texts: list[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def _pieces(texts: list[str], names: list[str]) -> list[list[str]]:
    """Each text cut at the names: what is between them, a name, what is between, and so on."""
    if not names:
        return [[text] for text in texts]
    known = set(names)
    found: list[list[str]] = []
    for text in texts:
        pieces = [""]
        for k, word in enumerate(WORD.split(text)):
            if k % 2 and word in known:
                pieces += [word, ""]
            else:
                pieces[-1] += word
        found.append(pieces)
    return found


def _joined(pieces: list[str], names: dict[str, str]) -> str:
    return "".join(names[piece] if k % 2 else piece for k, piece in enumerate(pieces))
