"""The first goal of a state, read from its text, and substitution of names."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from monge.apps.prove.canonical import WORD

TOKEN = re.compile(r"[^\W\d][\w'✝!?.]*|\d+|[^\w\s]")
HYPOTHESES = re.compile(r"((?:[^\s:]+ )+): (.*)", re.DOTALL)


class Parsed(NamedTuple):
    """The first goal of a state as text."""

    types: dict[str, str]
    """Type of each hypothesis by its name."""
    target: str

    def tokens(self, text: str) -> tuple[str, ...]:
        """The tokens of a text, where the first token of a hypothesis' type stands for its name.

        >>> Parsed({"a": "N", "h": "a = z"}, "").tokens("a = s z")
        ('N', '=', 's', 'z')
        """
        words = TOKEN.findall(text)
        return tuple((TOKEN.findall(self.types[word]) or ["_"])[0] if word in self.types else word for word in words)


def parsed(state: str) -> Parsed:
    """The first goal of a printed state.

    >>> parsed("case z\\na b : N\\nh : a =\\n  b\\n⊢ b = a")
    Parsed(types={'a': 'N', 'b': 'N', 'h': 'a =\\n  b'}, target='b = a')
    """
    above, _, target = state.partition("⊢")
    types: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", "\n" + above):
        if match := HYPOTHESES.fullmatch(entry.strip()):
            types |= dict.fromkeys(match[1].split(), match[2])
    return Parsed(types, target.split("\n\n")[0].strip())


def substituted(text: str, names: Mapping[str, str]) -> str:
    """The text with each whole name that is a key replaced, except fields and the names of named arguments.

    >>> substituted("rw [h, a.h, h', foo (h := h)]", {"h": "k"})
    "rw [k, a.h, h', foo (h := k)]"
    >>> substituted("have e : 0 = h := h", {"h": "k"})
    'have e : 0 = k := k'
    """
    pieces = WORD.split(text)
    for k in range(1, len(pieces), 2):
        named = pieces[k - 1].rstrip().endswith(("(", "{")) and pieces[k + 1].lstrip().startswith(":=")
        if not named:
            pieces[k] = names.get(pieces[k], pieces[k])
    return "".join(pieces)
