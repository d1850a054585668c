"""The prompt of a language model and the parser of its answers: one format for search and for training."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from monge.apps.prove.canonical import WORD
from monge.apps.prove.parsed import parsed, substituted
from monge.apps.prove.state import State

Goals = Literal["all", "first"]
"""Goals of a state in the prompt: all, or the first one, on which most tactics act."""
Names = Literal["given", "numbered"]
"""Names of hypotheses in the prompt: those of the state, or numbers (v1, v2, ...), counted from the last hypothesis."""
NUMBER = re.compile(r"v\d+✝?")

TEMPLATE = """Complete the following Lean 4 code:

```lean4
/- tactic state:
{state}
-/
```
"""
HINTS = """/- tactics of similar states:
{tactics}
-/
"""
FENCE = "```"
LEADING = re.compile(r"(?:\s+|```[^\n]*|--[^\n]*|/-.*?(?:-/|\Z)|by(?=\s|\Z))*", re.DOTALL)
"""Text that may precede a tactic: white space, fences, comments, `by`."""
CONTINUES = ("|", "·", "<;>", ")", "]", "}", "⟩")
"""Prefixes of lines that continue a tactic, whatever their indentation."""


@dataclass(frozen=True)
class Style:
    """The form in which a model sees states and tactics. A model's config.json records it, as prompt_goals and so on.

    >>> numbered, state = Style("first", "numbered"), "n : N\\nh : n = z\\n⊢ z = n\\n\\n⊢ True"
    >>> print(numbered.state(state))
    v2 : N
    v1 : v2 = z
    ⊢ z = v2
    >>> numbered.tactic(state, "rw [h]"), numbered.original(state, "rw [v1]"), numbered.original(state, "rw [v7]")
    ('rw [v1]', 'rw [h]', None)
    """

    goals: Goals = "all"
    names: Names = "given"
    retrieved: int = 0
    """Number of tactics of similar states that precede the state."""

    @staticmethod
    def of(model: Any) -> "Style":
        """The style that a Hugging Face model's configuration records; by default, the state as it is."""
        config = model.config
        return Style(
            getattr(config, "prompt_goals", "all"),
            getattr(config, "prompt_names", "given"),
            getattr(config, "prompt_retrieved", 0),
        )

    def record(self, model: Any) -> None:
        """Record the style in a model's configuration."""
        model.config.prompt_goals, model.config.prompt_names = self.goals, self.names
        model.config.prompt_retrieved = self.retrieved

    def state(self, state: State | str) -> str:
        """The state as the model sees it."""
        text = str(state)
        return substituted(text.split("\n\n")[0] if self.goals == "first" else text, self._numbers(text))

    def tactic(self, state: State | str, tactic: str) -> str:
        """A tactic for the state as the model sees it."""
        return substituted(tactic, self._numbers(str(state)))

    def original(self, state: State | str, tactic: str) -> str | None:
        """The tactic of a model with the state's own names; None if it has a number that names no hypothesis."""
        names = {number: name for name, number in self._numbers(str(state)).items()}
        if self.names == "numbered" and any(
            NUMBER.fullmatch(word) and word not in names for word in WORD.split(tactic)[1::2]
        ):
            return None
        return substituted(tactic, names)

    def _numbers(self, text: str) -> dict[str, str]:
        """The numbers of the first goal's hypotheses, counted from the last one."""
        if self.names == "given":
            return {}
        names = reversed(parsed(text.split("\n\n")[0]).types)
        return {name: f"v{k}" + "✝" * ("✝" in name) for k, name in enumerate(names, 1)}


PLAIN = Style()


def prompt(state: State | str, style: Style = PLAIN, hints: Sequence[str] = ()) -> str:
    """The prompt for a state, or for its text; the model completes it with a tactic. `hints` are tactics of similar states.

    >>> print(prompt("case a\\n⊢ x = 0\\n\\ncase b\\n⊢ y = 0", Style("first")), end="")
    Complete the following Lean 4 code:
    <BLANKLINE>
    ```lean4
    /- tactic state:
    case a
    ⊢ x = 0
    -/
    ```
    """
    text = TEMPLATE.format(state=style.state(state))
    if not hints:
        return text
    before, state_mark, after = text.partition("/- tactic state:")
    tactics = "\n".join(style.tactic(state, hint) for hint in hints)
    return before + HINTS.format(tactics=tactics) + state_mark + after


def prompt_ids(
    tokenizer: Any, state: State | str, room: int | None = None, style: Style = PLAIN, hints: Sequence[str] = ()
) -> list[int]:
    """The tokens of the prompt, with the tokenizer's special tokens; cut at its start, after BOS, to `room` tokens."""
    ids: list[int] = tokenizer(prompt(state, style, hints), verbose=False)["input_ids"]
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
