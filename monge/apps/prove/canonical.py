"""Canonical text of a state: independent of the names of hypotheses, and of their order unless refinement leaves ties."""

import hashlib
import re

from monge.apps.prove.state import Goal, State

WORD = re.compile(r"((?<![\w.'✝!?])[^\W\d][\w'✝!?]*)")
MAX_MENTIONS = 100
"""Maximum number of compared texts that mention the same hypothesis; beyond it, equal states may get different texts."""


def canonical(state: State) -> str:
    """The goals in order, with hypotheses sorted and numbered, and without case names."""
    return "\n\n".join(map(_goal, state.goals))


def _goal(goal: Goal) -> str:
    names = [h.name for h in goal.hypotheses]
    texts = [f"{h.type} := {h.value} #{h.mark}" if h.value else f"{h.type} #{h.mark}" for h in goal.hypotheses]
    pieces = _pieces([*texts, f"{goal.target} #{goal.mark}"], names)
    mentions: dict[str, list[int]] = {name: [] for name in names}
    for k, text in enumerate(pieces):
        for name in set(text[1::2]):
            mentions[name].append(k)
    labels = ["_"] * len(names)
    for _ in range(3):  # colour refinement: a label combines a hypothesis with the texts that mention it
        label_of = dict(zip(names, labels, strict=True))
        labels = [
            _digest(
                [
                    _joined(pieces[k], label_of) + ("✝" if "✝" in name else ""),
                    *sorted(_joined(pieces[i], label_of | {name: "@"}) for i in mentions[name][:MAX_MENTIONS]),
                ]
            )
            for k, name in enumerate(names)
        ]
    order = sorted(range(len(names)), key=lambda k: labels[k])
    label_of = {names[k]: f"#{index}" for index, k in enumerate(order)}  # no Lean name starts with #
    hidden = ["✝" if "✝" in name else "" for name in names]  # making a name accessible changes the state
    lines = [f"{label_of[names[k]]}{hidden[k]} : {_joined(pieces[k], label_of)}" for k in order]
    return "\n".join([*lines, f"⊢ {_joined(pieces[-1], label_of)}"])


def _digest(texts: list[str]) -> str:
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def _pieces(texts: list[str], names: list[str]) -> list[list[str]]:
    """Each text split at the names: even pieces are the text between names, odd pieces are names."""
    if not names:
        return [[text] for text in texts]
    hypotheses = set(names)
    result: list[list[str]] = []
    for text in texts:
        pieces = [""]
        for k, word in enumerate(WORD.split(text)):
            if k % 2 and word in hypotheses:
                pieces += [word, ""]
            else:
                pieces[-1] += word
        result.append(pieces)
    return result


def _joined(pieces: list[str], names: dict[str, str]) -> str:
    return "".join(names[piece] if k % 2 else piece for k, piece in enumerate(pieces))
