"""Search for a proof over states. It knows neither Lean nor torch: how to step and what to try are callables."""

import heapq
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from monge.apps.prove.canonical import canonical
from monge.apps.prove.state import Failure, Proof, Rejection, State


class Suggestion(NamedTuple):
    """A tactic to try, and how likely the policy holds it."""

    tactic: str
    logp: float


Policy = Callable[[Sequence[State], int], list[list[Suggestion]]]
"""For each of some states at most so many suggestions, the likeliest first."""
Energy = Callable[[Sequence[State]], list[float]]
"""For each of some states how far it is from a proof; low is near."""


class Prover(Protocol):
    """One theorem to prove, step by step."""

    def start(self) -> State: ...
    def step(self, state: State, tactic: str) -> State | Failure: ...
    def finish(self, state: State) -> Proof | Rejection: ...


@dataclass(frozen=True)
class Search:
    """How to search, and for how long."""

    nodes: int = 300
    """States expanded at most."""
    depth: int = 50
    """Tactics of a proof at most."""
    seconds: float = 120.0
    """For a theorem."""
    candidates: int = 8
    """Tactics tried on a state."""
    batch: int = 8
    """States expanded at once: one call of the policy and one of the energy for all."""
    order: Literal["best", "breadth", "random"] = "best"
    """Which state comes next: that of the best score, the oldest, or any."""
    alpha: float = 0.5
    """Weight of the policy's log-probability."""
    beta: float = 0.5
    """Weight of minus the energy."""
    policy_temperature: float = 1.0
    energy_temperature: float = 1.0
    path: Literal["normalised", "sum", "last"] = "normalised"
    """Which log-probability a state has: the mean of its path's, their sum, or that of its last tactic alone."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("nodes", "depth", "seconds", "candidates", "batch", "policy_temperature", "energy_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


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
    energy: float = 0.0

    @property
    def depth(self) -> int:
        return len(self.state.tactics)


@dataclass
class Attempt:
    """A tactic tried on a state, and what came of it."""

    parent: Node
    suggestion: Suggestion
    outcome: str
    """state, proof, duplicate, or the kind of a failure."""
    child: Node | None = None
    error: str = ""
    seconds: float = 0.0


@dataclass
class Outcome:
    """What a search came to."""

    attempts: list[Attempt] = field(default_factory=list)
    proof: Proof | None = None
    ended: str = "nothing left to try"
    """Why it stopped."""
    expanded: int = 0
    seconds: float = 0.0


def search(prover: Prover, policy: Policy, how: Search, energy: Energy | None = None) -> Outcome:
    """Expand states until one is proved or a budget is spent. Every attempt is in the outcome."""
    began, outcome = time.monotonic(), Outcome()
    root = Node(0, prover.start())
    frontier, seen, count = _Frontier(how), {canonical(root.state)}, 1
    frontier.add([root])
    while outcome.proof is None and (chosen := frontier.take(min(how.batch, how.nodes - outcome.expanded))):
        outcome.expanded += len(chosen)
        fresh: list[Node] = []
        for node, suggestion in _interleaved(chosen, policy([node.state for node in chosen], how.candidates)):
            if time.monotonic() - began > how.seconds:
                outcome.ended = "out of time"
                break
            attempt = _attempted(prover, node, suggestion, seen, count)
            outcome.attempts.append(attempt)
            if attempt.outcome == "state" and attempt.child is not None:
                fresh.append(attempt.child)
                count += 1
            elif attempt.outcome == "proof":
                found = prover.finish(attempt.child.state) if attempt.child else None
                if isinstance(found, Proof):
                    outcome.proof, outcome.ended = found, "proved"
                    break
                attempt.outcome, attempt.error = ("rejected", found.message) if found else ("rejected", "")
        if outcome.ended in ("proved", "out of time"):
            break
        if energy and fresh:
            for node, value in zip(fresh, energy([node.state for node in fresh]), strict=True):
                node.energy = value
        frontier.add([node for node in fresh if node.depth < how.depth])
        if outcome.expanded >= how.nodes:
            outcome.ended = "out of nodes"
    outcome.seconds = time.monotonic() - began
    return outcome


def _interleaved(nodes: list[Node], said: list[list[Suggestion]]) -> Iterator[tuple[Node, Suggestion]]:
    """Each state's suggestions without repetitions, state after state."""
    for node, suggestions in zip(nodes, said, strict=True):
        tried: set[str] = set()
        for suggestion in suggestions:
            if suggestion.tactic not in tried:
                tried.add(suggestion.tactic)
                yield node, suggestion


def _attempted(prover: Prover, node: Node, suggestion: Suggestion, seen: set[str], number: int) -> Attempt:
    began = time.monotonic()
    found = prover.step(node.state, suggestion.tactic)
    attempt = Attempt(node, suggestion, "", seconds=time.monotonic() - began)
    if isinstance(found, Failure):
        attempt.outcome, attempt.error = found.kind, found.message
        return attempt
    total = node.total + suggestion.logp
    attempt.child = Node(number, found, node, suggestion.logp, total)
    if found.done:
        attempt.outcome = "proof"
    elif (text := canonical(found)) in seen:
        attempt.outcome = "duplicate"
    else:
        seen.add(text)
        attempt.outcome = "state"
    return attempt


class _Frontier:
    """States that wait to be expanded."""

    def __init__(self, how: Search) -> None:
        self._how, self._random = how, random.Random(how.seed)
        self._heap: list[tuple[float, int, Node]] = []

    def add(self, nodes: list[Node]) -> None:
        for node in nodes:
            heapq.heappush(self._heap, (self._rank(node), node.number, node))

    def take(self, most: int) -> list[Node]:
        return [heapq.heappop(self._heap)[2] for _ in range(min(most, len(self._heap)))]

    def _rank(self, node: Node) -> float:
        """Low comes first."""
        match self._how.order:
            case "breadth":
                return node.depth
            case "random":
                return self._random.random()
        how = self._how
        match how.path:
            case "last":
                logp = node.logp
            case "sum":
                logp = node.total
            case "normalised":
                logp = node.total / max(1, node.depth)
        return -(how.alpha * logp / how.policy_temperature - how.beta * node.energy / how.energy_temperature)
