"""What a language model is shown of a state, and what is read of its answer: one format, to ask and to teach."""

import re
from dataclasses import dataclass
from hashlib import sha256

from monge.apps.prove.state import State

TEMPLATE = """Complete the following Lean 4 code:

```lean4
/- tactic state:
{state}
-/
```
"""
FENCE = "```"
LEADING = re.compile(r"(?:\s+|```[^\n]*|--[^\n]*|/-.*?(?:-/|\Z)|by(?=\s|\Z))*", re.DOTALL)
"""What may stand before a tactic: blanks, fences, comments, `by`."""
CONTINUES = ("|", "·", "<;>", ")", "]", "}", "⟩")
"""How a line begins that begins no tactic of its own, wherever it stands."""


def prompt(state: State) -> str:
    """What a model reads; the tactic is what it writes after it."""
    return TEMPLATE.format(state=state)


def fingerprint() -> str:
    """12 hex digits of the template: what was learnt from another one is not for this one."""
    return sha256(TEMPLATE.encode()).hexdigest()[:12]


def tactic_of(text: str) -> str:
    """The first tactic of what a model wrote, with the lines that go on with it, its own indentation taken off; '' if none."""
    return found_in(text).tactic


@dataclass(frozen=True)
class Found:
    """The first tactic of a text and where it stands: `text[start:end]` as it was written."""

    tactic: str
    start: int
    end: int
    closed: bool
    """Whether something stands after it that is no part of it, whatever else may follow."""


def found_in(text: str) -> Found:
    """The first tactic of a text; an empty one where there is none."""
    leading = LEADING.match(text)
    start = leading.end() if leading else 0
    line = text.rfind("\n", 0, start) + 1
    indent, column = _indent(text[line:]), start - line
    first, *rest = text[start:].split("\n")
    first, fenced, _ = first.partition(FENCE)
    kept, pending, end, closed = [first.rstrip()], [], start + len(first.rstrip()), bool(fenced)
    place = start + len(first) + 1
    for row in [] if closed else rest:
        words = row.strip()
        if words and not words.startswith("--"):
            depth = _indent(row)
            # after a leading `by`, the column of the tactic is that of the next one
            deeper = depth > indent and depth != column and not words.startswith(FENCE)
            if not deeper and not words.startswith(CONTINUES):
                closed = not any(mark.startswith(words) for mark in (*CONTINUES, "--"))  # more of a mark may be to come
                break
            kept += [*pending, row[min(indent, depth) :].rstrip()]
            pending, end = [], place + len(row.rstrip())
        else:
            pending.append(row[min(indent, _indent(row)) :].rstrip())
        place += len(row) + 1
    return Found("\n".join(kept), start, end, closed)


def _indent(row: str) -> int:
    return len(row) - len(row.lstrip(" "))
