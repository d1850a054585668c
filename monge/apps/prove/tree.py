"""What a search is told, and what it makes: a tree of states, an attempt for each tactic tried, an outcome."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from monge.apps.prove.state import Proof, State


class Suggestion(NamedTuple):
    """A tactic to try, and how likely the policy holds it."""

    tactic: str
    logp: float


class Quarantined(RuntimeError):
    """What a prover raises of a theorem that it gives up: its tactics kill server after server, say."""


@dataclass(frozen=True)
class Search:
    """How to search, and for how long."""

    nodes: int = 300
    """States expanded at most."""
    depth: int = 50
    """Tactics of a proof at most."""
    seconds: float = 120.0
    """For a theorem, from its first state on; looked at before the policy and each tactic. What has begun goes on to
    its own end."""
    candidates: int = 8
    """Tactics tried on a state."""
    batch_size: int = 8
    """States expanded at once: one call of the policy and one of the energy for all."""
    order: Literal["best", "breadth", "random", "puct"] = "best"
    """Which state comes next: that of the best score, the oldest, any, or the one that PUCT finds from the root."""
    alpha: float = 0.5
    """Weight of the policy's log-probability."""
    beta: float = 0.5
    """Weight of minus the energy."""
    policy_temperature: float = 1.0
    energy_temperature: float = 1.0
    path: Literal["normalised", "sum", "last"] = "normalised"
    """Which log-probability a state has: the mean of its path's, their sum, or that of its last tactic alone."""
    exploration: float = 1.5
    """Of PUCT: weight of the prior against the value."""
    fallback: tuple[str, ...] = ()
    """Tactics tried on a state where none of the policy's worked."""
    harvest: int = 0
    """States expanded after a proof, among the siblings of those on its path, to learn from."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "nodes",
            "depth",
            "seconds",
            "candidates",
            "batch_size",
            "policy_temperature",
            "energy_temperature",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.harvest < 0 or self.exploration < 0:
            raise ValueError(f"harvest and exploration must not be below 0, got {self.harvest}, {self.exploration}")


@dataclass(eq=False)
class Node:
    """A state in the tree of a search."""

    number: int
    state: State
    parent: "Node | None" = None
    logp: float = 0.0
    """Of the last tactic."""
    total: float = 0.0
    """Of all tactics up to here."""
    energy: float | None = None
    """None where nobody was asked."""
    text: str = ""
    """Canonical."""

    @property
    def depth(self) -> int:
        return len(self.state.tactics)

    def path(self) -> "Iterator[Node]":
        """From here to the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


@dataclass
class Attempt:
    """A tactic tried on a state, and what came of it."""

    parent: Node
    suggestion: Suggestion
    outcome: str
    """state, proof, rejected, duplicate, loop (a state on the way here), no progress (the state itself), or the kind of a
    failure; died or lost with a child: an end that nobody could judge."""
    child: Node | None = None
    error: str = ""
    seconds: float = 0.0
    lean_seconds: float = 0.0


@dataclass
class Outcome:
    """What a search came to."""

    attempts: list[Attempt] = field(default_factory=list)
    proof: Proof | None = None
    ended: str = "nothing left to try"
    """Why it stopped: proved, out of nodes, out of time, quarantined, or this."""
    error: str = ""
    """Of a quarantined theorem."""
    expanded: int = 0
    seconds: float = 0.0
    """Until it stopped, without harvesting."""
    found: list[Node] = field(default_factory=list)
    """The last state of each proof: the first ends the search, others come of harvesting."""


def score(node: Node, how: Search) -> float:
    """alpha log p / T - beta energy / T', with the log-probability of the path as `how` says."""
    match how.path:
        case "last":
            logp = node.logp
        case "sum":
            logp = node.total
        case "normalised":
            logp = node.total / max(1, node.depth)
    return how.alpha * logp / how.policy_temperature - how.beta * (node.energy or 0.0) / how.energy_temperature
