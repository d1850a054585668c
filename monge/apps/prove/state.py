"""What a search and Lean say to each other: theorems, goals, states, and how an attempt may end."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A position in a text that Lean elaborates and the same position in the user's file; what follows runs in parallel."""

    text: str
    """header or statement: the name that Lean's messages give the text."""
    line: int
    column: int
    where: str
    """The user's file, and for a row its line and field."""
    at_line: int
    at_column: int


PLACE = re.compile(r"<(header|statement)>:(\d+):(\d+)")


@dataclass(frozen=True)
class Theorem:
    """A statement to prove: `theorem NAME SIGNATURE` after a header."""

    name: str
    signature: str
    """What stands after the name: hypotheses, a colon, and what is to be shown."""
    header: str = ""
    """Lean source before it: definitions, lemmas, open namespaces; no imports."""
    imports: tuple[str, ...] = ("Init",)
    """Modules that the header stands on."""
    exclude: tuple[str, ...] = ()
    """Constants that a proof may not use."""
    beyond: tuple[str, ...] = ()
    """Modules of which nothing that imports them may be used."""
    after: str = ""
    """A theorem of the library that this one restates: no theorem of its module may be used, and nothing that imports it. What
    comes before it in its module is out of reach as well, for the build does not say what does."""
    places: tuple[Place, ...] = field(default=(), compare=False, repr=False)
    """Positions of the header and the statement in the user's file; empty for a theorem that comes from no file."""

    @property
    def file(self) -> str:
        """The user's file, and for a row its line and field; empty if there is none."""
        return next((place.where for place in self.places if place.text == "statement"), "")

    def located(self, message: str) -> str:
        """A message of Lean's with the places of the user's file instead of those of header and statement."""

        def moved(found: re.Match[str]) -> str:
            text, line, column = found[1], int(found[2]), int(found[3])
            before = [place for place in self.places if place.text == text and place[1:3] <= (line, column)]
            if not before:
                return found[0]
            place = max(before, key=lambda place: place[1:3])
            if line == place.line:
                column += place.at_column - place.column
            return f"{place.where}:{place.at_line + line - place.line}:{column}"

        return PLACE.sub(moved, message)

    @property
    def walls(self) -> dict[str, Any]:
        """What may not be used, as the server is told."""
        return {"exclude": list(self.exclude), "beyond": list(self.beyond), "after": self.after}


@dataclass(frozen=True)
class Hypothesis:
    """A local constant of a goal. What cannot be referred to by its name ends in a dagger."""

    name: str
    type: str
    prop: bool
    """Whether it is a proof."""
    value: str | None = None
    """What a `let` bound it to."""
    mark: str = ""
    """A number of what it says, as an expression, and the names of the variables in it: tells apart what prints alike."""

    def __str__(self) -> str:
        return f"{self.name} : {self.type}" + (f" := {self.value}" if self.value else "")


@dataclass(frozen=True)
class Goal:
    """What is left to show, and from what."""

    target: str
    hypotheses: tuple[Hypothesis, ...] = ()
    case: str = ""
    mark: str = ""
    """Of the target, as of a hypothesis."""

    def __str__(self) -> str:
        return "\n".join(
            [*([f"case {self.case}"] if self.case else []), *map(str, self.hypotheses), f"⊢ {self.target}"]
        )


@dataclass(frozen=True)
class State:
    """All goals that are left after some tactics; none when a proof may be complete."""

    goals: tuple[Goal, ...]
    tactics: tuple[str, ...] = ()
    """From the statement to here."""
    number: int = 0
    """What the server that made it calls it."""
    seconds: float = field(default=0.0, compare=False)
    """Of Lean's time for the last tactic."""

    @property
    def done(self) -> bool:
        return not self.goals

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.goals)) or "no goals"


@dataclass(frozen=True)
class Budget:
    """What one tactic may spend."""

    heartbeats: int = 2000
    """Thousands of Lean's heartbeats: small allocations."""
    seconds: float = 10.0
    """Wall clock; whoever needs more is killed."""
    goals: int = 24
    """That it may leave; more is a failure. Nested inductions leave a hundred, which take longer to print than to find."""

    def __post_init__(self) -> None:
        if self.heartbeats < 1 or not self.seconds > 0 or self.goals < 1:
            raise ValueError(f"a tactic's budget must be above 0, got {self}")


@dataclass(frozen=True)
class Limits:
    """What a server may spend before it is replaced."""

    memory: float = 3.0
    """GB resident; whoever has more is killed."""
    uses: int = 20_000
    """Requests."""
    age: float = 3600.0
    """Seconds."""
    processor: int = 7200
    """Seconds of processor time, of all threads together."""
    start: float = 120.0
    """Seconds until the first answer."""

    @property
    def full(self) -> float:
        """GB resident with which it is better replaced."""
        return 0.8 * self.memory


@dataclass(frozen=True)
class Failure:
    """A tactic that did not work, and why: parse, tactic, excluded, axiom, died, lost (its state could not be had again)."""

    kind: str
    message: str
    seconds: float = field(default=0.0, compare=False)
    """Of Lean's time."""


@dataclass(frozen=True)
class Rejection:
    """A proof that is none, and why: proof, kernel, axiom, excluded, statement, compile, export, died, lost."""

    kind: str
    message: str


@dataclass(frozen=True)
class Proof:
    """A proof that the kernel accepted in a process that ran no tactic."""

    theorem: Theorem
    tactics: tuple[str, ...]
    axioms: tuple[str, ...] = ()
    """Those that it names itself, among propext, Classical.choice and Quot.sound; what it cites of the library may rest on
    others of the three."""
    statement: str = ""
    """As elaborated: without notations, with all namespaces."""
    tells: tuple[str, ...] = ()
    """What the header redefines, or does besides declaring."""

    @property
    def text(self) -> str:
        """The theorem with its proof, as it stands after the header."""
        return proof_text(self.theorem, self.tactics)

    @property
    def source(self) -> str:
        """The whole .lean file."""
        return source_text(self.theorem, self.tactics)


def proof_text(theorem: Theorem, tactics: Sequence[str]) -> str:
    """`theorem NAME SIGNATURE := by` and the tactics, indented; as in `judged_text` if that would change one of them."""
    if not all(map(_may_be_indented, tactics)):
        return judged_text(theorem, tactics)
    return stated_text(theorem) + "\n".join("  " + line for tactic in tactics for line in tactic.split("\n"))


def judged_text(theorem: Theorem, tactics: Sequence[str]) -> str:
    """The text that the judge compiles: each tactic to the letter, in the brackets in which the server stepped it."""
    return stated_text(theorem) + "\n".join(f"(\n{tactic}\n)" for tactic in tactics)


def stated_text(theorem: Theorem) -> str:
    """`theorem NAME SIGNATURE := by` and a new line."""
    end = "\n" if "--" in theorem.signature.split("\n")[-1] else " "  # a comment does not swallow what follows
    return f"theorem {theorem.name} {theorem.signature}{end}:= by\n"


def _may_be_indented(tactic: str) -> bool:
    """True if no token of a tactic, a string say, can run over more than one line."""
    return "\n" not in tactic or not re.search("[\"'«]", tactic)


def source_text(theorem: Theorem, tactics: Sequence[str]) -> str:
    """The whole .lean file of a theorem with its proof: imports, options as of the judge, header, theorem."""
    imports = "".join(f"import {name}\n" for name in theorem.imports if name != "Init")
    before = f"{imports}set_option autoImplicit false\n{theorem.header}".rstrip()
    return f"{before}\n\nset_option maxHeartbeats 0\n{proof_text(theorem, tactics)}\n"
