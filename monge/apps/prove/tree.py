"""Search settings, and the results of a search: a tree of states, attempts and an outcome."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from monge.apps.prove.state import Proof, State


class Suggestion(NamedTuple):
    """A tactic to try and its log-probability under the policy."""

    tactic: str
    logp: float


class Quarantined(RuntimeError):
    """Raised by a prover that gives up on a theorem, for example because its tactics crash one server after another."""


@dataclass(frozen=True)
class Search:
    """Settings of the search for a proof of one theorem."""

    max_states: int = 300
    """Maximum number of states to expand."""
    max_depth: int = 50
    """Maximum number of tactics in a proof."""
    max_seconds: float = 120.0
    """Wall-clock limit per theorem in seconds, checked before each call of the policy and each tactic."""
    num_tactics: int = 8
    """Number of tactics to try on each state."""
    batch_size: int = 8
    """Number of states to expand at once, with one call of the policy and one of the energy."""
    order: Literal["best", "breadth", "random", "puct"] = "best"
    """State to expand next: the one with the best score, the oldest, a random one, or the one selected by PUCT."""
    alpha: float = 0.5
    """Weight of the log-probability in the score of a state."""
    beta: float = 0.5
    """Weight of the negative energy in the score of a state."""
    policy_temperature: float = 1.0
    """Temperature that divides the log-probability in the score."""
    energy_temperature: float = 1.0
    """Temperature that divides the energy in the score."""
    path_logprob: Literal["mean", "sum", "last"] = "mean"
    """Log-probability of a state: the mean or the sum over the tactics that lead to it, or that of the last tactic."""
    exploration: float = 1.5
    """PUCT's weight of the prior relative to the value."""
    fallback_tactics: tuple[str, ...] = ()
    """Tactics to try on a state from which no tactic of the policy reaches a new state or a proof."""
    harvest: int = 0
    """Number of states to expand after a proof, among the siblings of states on its path, as training data."""
    seed: int = 0
    """Seed of the search order and of sampling."""

    def __post_init__(self) -> None:
        for name in (
            *("max_states", "max_depth", "max_seconds", "num_tactics", "batch_size"),
            *("policy_temperature", "energy_temperature"),
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.harvest < 0 or self.exploration < 0:
            raise ValueError(f"harvest and exploration must not be negative, got {self.harvest}, {self.exploration}")


@dataclass(eq=False)
class Node:
    """A state in the search tree."""

    number: int
    """Position in the order in which states were reached, from 0."""
    state: State
    parent: "Node | None" = None
    logp: float = 0.0
    """Log-probability of the last tactic."""
    total: float = 0.0
    """Sum of the log-probabilities of all tactics from the root."""
    energy: float | None = None
    """Energy of the state; None if it was not computed."""
    text: str = ""
    """Canonical text of the state."""

    @property
    def depth(self) -> int:
        """The number of tactics from the root."""
        return len(self.state.tactics)

    def path(self) -> "Iterator[Node]":
        """The nodes from this one to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


@dataclass
class Attempt:
    """A tactic tried on a state, and its result."""

    parent: Node
    suggestion: Suggestion
    outcome: str
    """state, proof, rejected, duplicate, loop (a state on the path from the root), no progress (the same state), mismatch (a
    replay with other goals), or the kind of a failure. A crash or replay that has a child means that the result could not be
    judged."""
    child: Node | None = None
    error: str = ""
    seconds: float = 0.0
    """Wall-clock time of the attempt in seconds."""
    lean_seconds: float = 0.0
    """Time in Lean in seconds."""


@dataclass
class Outcome:
    """Result of the search for a proof of one theorem."""

    attempts: list[Attempt] = field(default_factory=list)
    proof: Proof | None = None
    ended: str = "nothing left to try"
    """Reason to stop: proved, out of nodes, out of time, quarantined, not replayed, or nothing left to try."""
    error: str = ""
    """Reason why the theorem was quarantined or not replayed, or a note on lost requests to a model server."""
    expanded: int = 0
    """Number of expanded states."""
    seconds: float = 0.0
    """Wall-clock time until the search stopped, in seconds, without harvesting."""
    proofs: list[Node] = field(default_factory=list)
    """Last state of each proof: the first ended the search, the others come from harvesting."""


def score(node: Node, settings: Search) -> float:
    """alpha log p / T - beta energy / T', with the path's log-probability as `settings` defines it."""
    match settings.path_logprob:
        case "last":
            logp = node.logp
        case "sum":
            logp = node.total
        case "mean":
            logp = node.total / max(1, node.depth)
    value = settings.alpha * logp / settings.policy_temperature
    if node.energy is None or settings.beta == 0:
        return value
    return value - settings.beta * node.energy / settings.energy_temperature
