"""The prompt of a language model and the parser of its answers: one format for search and for training."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from monge.apps.prove.state import State

Goals = Literal["all", "first"]
"""Goals of a state in the prompt: all, or the first one, on which most tactics act."""

TEMPLATE = """Complete the following Lean 4 code:

```lean4
/- tactic state:
{state}
-/
```
"""
FENCE = "```"
LEADING = re.compile(r"(?:\s+|```[^\n]*|--[^\n]*|/-.*?(?:-/|\Z)|by(?=\s|\Z))*", re.DOTALL)
"""Text that may precede a tactic: white space, fences, comments, `by`."""
CONTINUES = ("|", "·", "<;>", ")", "]", "}", "⟩")
"""Prefixes of lines that continue a tactic, whatever their indentation."""


def prompt(state: State | str, goals: Goals = "all") -> str:
    """The prompt for a state, or for its text; the model completes it with a tactic.

    >>> print(prompt("case a\\n⊢ x = 0\\n\\ncase b\\n⊢ y = 0", "first"), end="")
    Complete the following Lean 4 code:
    <BLANKLINE>
    ```lean4
    /- tactic state:
    case a
    ⊢ x = 0
    -/
    ```
    """
    text = str(state)
    return TEMPLATE.format(state=text.split("\n\n")[0] if goals == "first" else text)


def prompt_ids(tokenizer: Any, state: State | str, room: int | None = None, goals: Goals = "all") -> list[int]:
    """The tokens of the prompt, with the tokenizer's special tokens; cut at its start, after BOS, to `room` tokens."""
    ids: list[int] = tokenizer(prompt(state, goals), verbose=False)["input_ids"]
    if room is None or len(ids) <= room:
        return ids
    first = ids[:1] if ids[0] == tokenizer.bos_token_id else []
    return first[:room] + ids[len(ids) - max(0, room - len(first)) :]


def completion(tactic: str) -> str:
    """The answer to a prompt that `tactic_of` reads as this tactic."""
    return f"{tactic}\n{FENCE}"


def fingerprint() -> str:
    """12 hex digits of a hash of the template; models trained with another template do not fit this one."""
    return sha256(TEMPLATE.encode()).hexdigest()[:12]


def tactic_of(text: str) -> str:
    """The first tactic of a model's answer, with its continuation lines, dedented; '' if there is none."""
    return parse_tactic(text).tactic


@dataclass(frozen=True)
class ParsedTactic:
    """The first tactic of a text and its position: `text[start:end]` is the tactic as written."""

    tactic: str
    start: int
    end: int
    closed: bool
    """True if the text after it ends the tactic, so that no further text can extend it."""


def parse_tactic(text: str) -> ParsedTactic:
    """The first tactic of a text; an empty one if there is none."""
    leading = LEADING.match(text)
    start = leading.end() if leading else 0
    line = text.rfind("\n", 0, start) + 1
    indent, column = _indent(text[line:]), start - line
    first, *rest = text[start:].split("\n")
    first, fenced, _ = first.partition(FENCE)
    lines, pending, end, closed = [first.rstrip()], [], start + len(first.rstrip()), bool(fenced)
    position = start + len(first) + 1
    for row in [] if closed else rest:
        content = row.strip()
        if content and not content.startswith("--"):
            depth = _indent(row)
            # after a leading `by`, the next tactic starts in the same column
            deeper = depth > indent and depth != column and not content.startswith(FENCE)
            if not deeper and not content.startswith(CONTINUES):
                closed = not any(mark.startswith(content) for mark in (*CONTINUES, "--"))  # a mark may be incomplete
                break
            lines += [*pending, row[min(indent, depth) :].rstrip()]
            pending, end = [], position + len(row.rstrip())
        else:
            pending.append(row[min(indent, _indent(row)) :].rstrip())
        position += len(row) + 1
    return ParsedTactic("\n".join(lines), start, end, closed)


def _indent(row: str) -> int:
    return len(row) - len(row.lstrip(" "))
