"""Frontiers of a search, which decide the next state to expand: best-first, breadth-first, random order and PUCT."""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from monge.apps.prove.tree import Node, Search, score


class Frontier(Protocol):
    """States waiting to be expanded."""

    def add(self, node: Node) -> None:
        """Add a new state."""

    def take(self, count: int) -> list[Node]:
        """Remove and return the next states to expand, at most `count`."""
        ...

    def update(self, node: Node, children: Sequence[Node]) -> None:
        """Record the new children of an expanded state, after each of them was added."""

    def __bool__(self) -> bool:
        """True if a state is left to expand."""
        ...


def frontier_of(settings: Search) -> Frontier:
    """The frontier for the configured order of expansion."""
    return Puct(settings) if settings.order == "puct" else Queue(settings)


class Queue:
    """Priority queue by score (best-first), depth (breadth-first) or a random number."""

    def __init__(self, settings: Search) -> None:
        self._settings, self._random = settings, random.Random(settings.seed)
        self._heap: list[tuple[float, int, Node]] = []

    def add(self, node: Node) -> None:
        heapq.heappush(self._heap, (self._rank(node), node.number, node))

    def take(self, count: int) -> list[Node]:
        return [heapq.heappop(self._heap)[2] for _ in range(min(count, len(self._heap)))]

    def update(self, node: Node, children: Sequence[Node]) -> None:
        pass

    def __bool__(self) -> bool:
        return bool(self._heap)

    def _rank(self, node: Node) -> float:
        """Priority of a state; the lowest is expanded first."""
        match self._settings.order:
            case "breadth":
                return node.depth
            case "random":
                return self._random.random()
            case _:
                return -score(node, self._settings)


@dataclass
class _Visits:
    """PUCT statistics of a state."""

    children: list[Node] = field(default_factory=list)
    """New states that its expansion reached."""
    expanded: bool = False
    """True once it was taken for expansion."""
    closed: bool = False
    """True if nothing is left to expand at or below it, or while its own expansion is in progress."""
    count: int = 0
    """Number of expansions at or below it."""
    value: float = 0.0
    """Sum, over these expansions, of the best child's value."""


class Puct:
    """PUCT, the selection rule of AlphaZero (Silver et al. 2018), without rollouts.

    Descends from the root to the child with the largest Q + c P sqrt(N) / (1 + n) until it reaches an unexpanded state. P is
    the prior of the child's tactic, a softmax of log p / T over its siblings. Q is the mean, over the n expansions
    at or below the child, of the largest exp(score) (at most 1) among the new states of each; an expansion without
    new states counts as 0. At n = 0, Q is the child's own exp(score). N is the number of expansions at or below its parent,
    and c the exploration weight. The descent skips closed states: those with nothing left to expand at or below them.
    """

    def __init__(self, settings: Search) -> None:
        self._settings, self._root = settings, None
        self._visits: dict[Node, _Visits] = {}

    def add(self, node: Node) -> None:
        self._visits[node] = _Visits()
        if node.parent is None:
            self._root = node

    def take(self, count: int) -> list[Node]:
        leaves: list[Node] = []
        while len(leaves) < count and (leaf := self._leaf()) is not None:
            leaves.append(leaf)
            self._visits[leaf].expanded = True
            for node in leaf.path():  # so that the next descent prefers other states
                self._visits[node].count += 1
            self._close(leaf)  # until its children are known
        return leaves

    def update(self, node: Node, children: Sequence[Node]) -> None:
        self._visits[node].children = list(children)
        if not children:
            return
        for above in node.path():
            self._visits[above].closed = False
            self._visits[above].value += max(map(self._value, children))

    def __bool__(self) -> bool:
        return self._leaf() is not None

    def _value(self, node: Node) -> float:
        return math.exp(min(0.0, score(node, self._settings)))

    def _leaf(self) -> Node | None:
        node = self._root
        while node is not None and not self._visits[node].closed:
            visits = self._visits[node]
            if not visits.expanded:
                return node
            node = max(self._open_children(visits), key=self._puct(visits), default=None)
        return None

    def _open_children(self, visits: _Visits) -> list[Node]:
        return [child for child in visits.children if not self._visits[child].closed]

    def _puct(self, parent: _Visits) -> Callable[[Node], float]:
        """Q + c P sqrt(N) / (1 + n) of each child."""
        weights = {c: math.exp(c.logp / self._settings.policy_temperature) for c in parent.children}
        total = sum(weights.values())

        def puct(child: Node) -> float:
            visits = self._visits[child]
            value = visits.value / visits.count if visits.count else self._value(child)
            prior = weights[child] / total if total else 1 / len(weights)
            return value + self._settings.exploration * prior * math.sqrt(parent.count) / (1 + visits.count)

        return puct

    def _close(self, node: Node) -> None:
        """Close a state, and each ancestor whose children are all closed."""
        self._visits[node].closed = True
        above = node.parent
        while above is not None and not self._open_children(self._visits[above]):
            self._visits[above].closed = True
            above = above.parent
