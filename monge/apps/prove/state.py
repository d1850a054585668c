"""Data exchanged between a search and Lean: theorems, goals, states, limits, failures and proofs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A position in a text that Lean elaborates, and the same position in the user's file. The text after both is the same.

    Lines count from 1, columns from 0.
    """

    text: str
    """Name of the text in Lean's messages: header or statement."""
    line: int
    column: int
    where: str
    """The user's file; for a row, also its line and field."""
    at_line: int
    at_column: int


PLACE = re.compile(r"<(header|statement)>:(\d+):(\d+)")


@dataclass(frozen=True)
class Theorem:
    """A statement to prove: `theorem NAME SIGNATURE` after a header."""

    name: str
    signature: str
    """Text after the name: hypotheses, a colon and the proposition."""
    header: str = ""
    """Lean source before the theorem: definitions, lemmas, open namespaces; no imports."""
    imports: tuple[str, ...] = ("Init",)
    """Modules imported before the header."""
    exclude: tuple[str, ...] = ()
    """Constants that a proof may not use."""
    exclude_importers: tuple[str, ...] = ()
    """Modules whose importers a proof may not use."""
    restates: str = ""
    """Library theorem that this one restates: a proof may use no theorem of its module, and nothing that imports the module.
    Theorems before it in its module are excluded too, since the build does not record their order."""
    places: tuple[Place, ...] = field(default=(), compare=False, repr=False)
    """Positions of the header and the statement in the user's file; empty for a theorem without a file."""

    @property
    def file(self) -> str:
        """The user's file; for a row, also its line and field. Empty for a theorem without a file."""
        return next((place.where for place in self.places if place.text == "statement"), "")

    def locate_message(self, message: str) -> str:
        """Lean's message with positions in the user's file instead of positions in the header and the statement."""

        def moved(match: re.Match[str]) -> str:
            text, line, column = match[1], int(match[2]), int(match[3])
            before = [place for place in self.places if place.text == text and place[1:3] <= (line, column)]
            if not before:
                return match[0]
            place = max(before, key=lambda place: place[1:3])
            if line == place.line:
                column += place.at_column - place.column
            return f"{place.where}:{place.at_line + line - place.line}:{column}"

        return PLACE.sub(moved, message)

    @property
    def restrictions(self) -> dict[str, Any]:
        """Constants and modules that a proof may not use, as fields of a request."""
        return {
            "exclude": list(self.exclude),
            "exclude_importers": list(self.exclude_importers),
            "restates": self.restates,
        }


@dataclass(frozen=True)
class Hypothesis:
    """A local constant of a goal. Its name contains a dagger if tactics cannot refer to it."""

    name: str
    type: str
    prop: bool
    """True if its type is a proposition."""
    value: str | None = None
    """Value that a `let` bound it to."""
    mark: str = ""
    """Hashes of type and value as expressions, with the names of variables; they distinguish those that print identically."""

    def __str__(self) -> str:
        return f"{self.name} : {self.type}" + (f" := {self.value}" if self.value else "")


@dataclass(frozen=True)
class Goal:
    """A proposition to prove, with its hypotheses."""

    target: str
    hypotheses: tuple[Hypothesis, ...] = ()
    case: str = ""
    mark: str = ""
    """Hash of the target with the names of its variables, as in Hypothesis."""

    @staticmethod
    def read(fields: dict[str, Any]) -> "Goal":
        """The goal in an answer of the server."""
        hypotheses = tuple(Hypothesis(**hypothesis) for hypothesis in fields["hypotheses"])
        return Goal(fields["target"], hypotheses, fields["case"], fields["mark"])

    def __str__(self) -> str:
        return "\n".join(
            [*([f"case {self.case}"] if self.case else []), *map(str, self.hypotheses), f"⊢ {self.target}"]
        )


@dataclass(frozen=True)
class State:
    """The goals that remain after some tactics; none if the proof may be complete."""

    goals: tuple[Goal, ...]
    tactics: tuple[str, ...] = ()
    """Tactics that lead from the statement to this state."""
    number: int = 0
    """Id of the state on the server that made it."""
    seconds: float = field(default=0.0, compare=False)
    """Lean's time for the last tactic, in seconds."""

    @property
    def done(self) -> bool:
        """True if no goals remain."""
        return not self.goals

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.goals)) or "no goals"


@dataclass(frozen=True)
class Budget:
    """Limits of one tactic."""

    heartbeats: int = 2000
    """Maximum number of Lean's heartbeats (small allocations), in thousands."""
    seconds: float = 10.0
    """Time limit in seconds; Lean is killed when its wall-clock time and its CPU time exceed it, or when it is idle that long.
    If other processes slow it down, it gets more time."""
    goals: int = 24
    """Maximum number of goals after the tactic; more counts as a failure."""

    def __post_init__(self) -> None:
        if self.heartbeats < 1 or not self.seconds > 0 or self.goals < 1:
            raise ValueError(f"limits of a tactic must be above 0, got {self}")


@dataclass(frozen=True)
class Limits:
    """Limits of a Lean server, after which it is replaced."""

    memory_gb: float = 3.0
    """Maximum resident memory in GB; a server that exceeds it is killed."""
    requests: int = 20_000
    """Maximum number of requests."""
    age_seconds: float = 3600.0
    """Maximum age in seconds."""
    cpu_seconds: int = 7200
    """Maximum CPU time in seconds, summed over threads."""
    start_seconds: float = 120.0
    """Time limit of startup in seconds, as in Budget."""

    @property
    def full(self) -> float:
        """Resident memory in GB above which a server is replaced before its next theorem."""
        return 0.8 * self.memory_gb


@dataclass(frozen=True)
class Failure:
    """A tactic that failed. `kind`: parse, tactic, excluded, axiom, crash (of Lean) or replay (the state cannot be rebuilt)."""

    kind: str
    message: str
    seconds: float = field(default=0.0, compare=False)
    """Lean's time in seconds."""


@dataclass(frozen=True)
class Rejection:
    """A rejected proof. `kind`: proof, kernel, axiom, excluded, statement, compile, export, crash or replay."""

    kind: str
    message: str


@dataclass(frozen=True)
class Proof:
    """A proof that the kernel accepted in a process that executed no tactics."""

    theorem: Theorem
    tactics: tuple[str, ...]
    axioms: tuple[str, ...] = ()
    """Axioms among propext, Classical.choice and Quot.sound that the proof uses, directly or through the header or a library
    other than Lean's. Theorems of Lean's own library may depend on others of the three."""
    statement: str = ""
    """The statement as elaborated: without notation, with full names."""
    header_notes: tuple[str, ...] = ()
    """Notes on the header: names that it redefines, instances for types of the library, declarations with attributes other
    than common ones such as `@[simp]`, and all other commands except those, such as `open`, that only affect name lookup."""

    @property
    def text(self) -> str:
        """The theorem with its proof, without the header."""
        return proof_text(self.theorem, self.tactics)

    @property
    def source(self) -> str:
        """The complete .lean file."""
        return source_text(self.theorem, self.tactics)


def proof_text(theorem: Theorem, tactics: Sequence[str]) -> str:
    """`theorem NAME SIGNATURE := by` and the tactics, indented; as in `judged_text` if indentation would change a tactic."""
    if not all(map(_may_be_indented, tactics)):
        return judged_text(theorem, tactics)
    return statement_text(theorem) + "\n".join("  " + line for tactic in tactics for line in tactic.split("\n"))


def judged_text(theorem: Theorem, tactics: Sequence[str]) -> str:
    """The text that the judge compiles: each tactic verbatim, in parentheses as on the server."""
    return statement_text(theorem) + "\n".join(f"(\n{tactic}\n)" for tactic in tactics)


def statement_text(theorem: Theorem) -> str:
    """`theorem NAME SIGNATURE := by` and a new line."""
    end = "\n" if "--" in theorem.signature.split("\n")[-1] else " "  # or a comment would hide `:= by`
    return f"theorem {theorem.name} {theorem.signature}{end}:= by\n"


def _may_be_indented(tactic: str) -> bool:
    """True if no token of a tactic, such as a string, can span lines."""
    return "\n" not in tactic or not re.search("[\"'«]", tactic)


def source_text(theorem: Theorem, tactics: Sequence[str]) -> str:
    """The complete .lean file of a theorem with its proof: imports, the judge's options, header, theorem."""
    imports = "".join(f"import {name}\n" for name in theorem.imports if name != "Init")
    before = f"{imports}set_option autoImplicit false\n{theorem.header}".rstrip()
    return f"{before}\n\nset_option maxHeartbeats 0\n{proof_text(theorem, tactics)}\n"
