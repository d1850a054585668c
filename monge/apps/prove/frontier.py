"""Which state comes next: the best by score, the oldest, any, or the one that PUCT walks to."""

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from monge.apps.prove.tree import Node, Search, score


class Frontier(Protocol):
    """States that wait to be expanded."""

    def add(self, node: Node) -> None: ...
    def take(self, most: int) -> list[Node]: ...
    def learnt(self, node: Node, children: Sequence[Node]) -> None: ...
    def __bool__(self) -> bool: ...


def frontier_of(how: Search) -> Frontier:
    """The order in which states are expanded."""
    return Puct(how) if how.order == "puct" else Queue(how)


class Queue:
    """States by rank: by score, by age, or by lot."""

    def __init__(self, how: Search) -> None:
        self._how, self._random = how, random.Random(how.seed)
        self._heap: list[tuple[float, int, Node]] = []

    def add(self, node: Node) -> None:
        heapq.heappush(self._heap, (self._rank(node), node.number, node))

    def take(self, most: int) -> list[Node]:
        return [heapq.heappop(self._heap)[2] for _ in range(min(most, len(self._heap)))]

    def learnt(self, node: Node, children: Sequence[Node]) -> None:
        pass

    def __bool__(self) -> bool:
        return bool(self._heap)

    def _rank(self, node: Node) -> float:
        """Low comes first."""
        match self._how.order:
            case "breadth":
                return node.depth
            case "random":
                return self._random.random()
            case _:
                return -score(node, self._how)


@dataclass
class _Visits:
    """What PUCT knows of a state."""

    children: list[Node] = field(default_factory=list)
    expanded: bool = False
    closed: bool = False
    count: int = 0
    value: float = 0.0
    """The sum of the values of the states below."""


class Puct:
    """From the root to the child of the greatest Q + c P sqrt(N) / (1 + n) until a state is not expanded.

    P is the tactic's probability among its siblings' (a softmax of log p / T), Q the mean, over the expansions below, of the
    best child's exp(score): AlphaZero's rule (Silver et al. 2018) without rollouts. Where nothing is left to try below a
    state, it is closed.
    """

    def __init__(self, how: Search) -> None:
        self._how, self._root = how, None
        self._known: dict[Node, _Visits] = {}

    def add(self, node: Node) -> None:
        self._known[node] = _Visits()
        if node.parent is None:
            self._root = node

    def take(self, most: int) -> list[Node]:
        found: list[Node] = []
        while len(found) < most and (leaf := self._leaf()) is not None:
            found.append(leaf)
            self._known[leaf].expanded = True
            for node in leaf.path():  # so that the next walk goes elsewhere
                self._known[node].count += 1
            self._close(leaf)  # until its children are known
        return found

    def learnt(self, node: Node, children: Sequence[Node]) -> None:
        self._known[node].children = list(children)
        if not children:
            return
        for above in node.path():
            self._known[above].closed = False
            self._known[above].value += max(map(self._value, children))

    def __bool__(self) -> bool:
        return self._leaf() is not None

    def _value(self, node: Node) -> float:
        return math.exp(min(0.0, score(node, self._how)))

    def _leaf(self) -> Node | None:
        node = self._root
        while node is not None and not self._known[node].closed:
            known = self._known[node]
            if not known.expanded:
                return node
            node = max(self._open(known), key=self._worth(known), default=None)
        return None

    def _open(self, known: _Visits) -> list[Node]:
        return [child for child in known.children if not self._known[child].closed]

    def _worth(self, known: _Visits) -> Callable[[Node], float]:
        weights = {c: math.exp(c.logp / self._how.policy_temperature) for c in known.children}
        whole = sum(weights.values())

        def worth(child: Node) -> float:
            seen = self._known[child]
            value = seen.value / seen.count if seen.count else self._value(child)
            prior = weights[child] / whole if whole else 1 / len(weights)
            return value + self._how.exploration * prior * math.sqrt(known.count) / (1 + seen.count)

        return worth

    def _close(self, node: Node) -> None:
        """Close a state and all above it that have nothing open left."""
        self._known[node].closed = True
        above = node.parent
        while above is not None and not self._open(self._known[above]):
            self._known[above].closed = True
            above = above.parent
