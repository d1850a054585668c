"""Search for a proof over states. It knows neither Lean nor torch: how to step and what to try are callables."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from monge.apps.prove.canonical import canonical
from monge.apps.prove.frontier import Frontier, frontier_of
from monge.apps.prove.state import Failure, Proof, Rejection, State
from monge.apps.prove.tree import Attempt, Node, Outcome, Quarantined, Search, Suggestion

Policy = Callable[[Sequence[State], int], list[list[Suggestion]]]
"""For each of some states at most so many suggestions, the likeliest first."""
Energy = Callable[[Sequence[State]], list[float]]
"""For each of some states how far it is from a proof; low is near."""


class Prover(Protocol):
    """One theorem to prove, step by step."""

    def start(self) -> State: ...
    def step(self, state: State, tactic: str) -> State | Failure: ...
    def finish(self, state: State) -> Proof | Rejection: ...


def search(prover: Prover, policy: Policy, how: Search, energy: Energy | None = None) -> Outcome:
    """Expand states until one is proved or a budget is spent. Every attempt is in the outcome."""
    return _Run(prover, policy, how, energy).run()


class _Run:
    def __init__(self, prover: Prover, policy: Policy, how: Search, energy: Energy | None) -> None:
        self.prover, self.policy, self.how, self.energy = prover, policy, how, energy
        self.outcome, self.began, self.count = Outcome(), 0.0, 1
        self.seen: set[str] = set()

    def run(self) -> Outcome:
        outcome, how = self.outcome, self.how
        state = self.prover.start()
        self.began = time.monotonic()  # a header is elaborated once for many theorems: none of them pays for it
        root = Node(0, state, text=canonical(state))
        self.seen.add(root.text)
        frontier = frontier_of(how)
        frontier.add(root)
        try:
            while outcome.proof is None and (
                chosen := frontier.take(min(how.batch_size, how.nodes - outcome.expanded))
            ):
                if not self.expand(chosen, frontier):
                    break
                if outcome.expanded >= how.nodes and frontier:
                    outcome.ended = "out of nodes"
            outcome.seconds = time.monotonic() - self.began
            if outcome.proof is not None and how.harvest:
                self.harvest()
        except Quarantined as given_up:
            outcome.error = str(given_up)
            outcome.ended = outcome.ended if outcome.proof else "quarantined"
        outcome.seconds = outcome.seconds or time.monotonic() - self.began
        return outcome

    @property
    def late(self) -> bool:
        """Whether the theorem's time is over."""
        return time.monotonic() - self.began > self.how.seconds

    def expand(self, chosen: list[Node], frontier: Frontier) -> bool:
        """Try what the policy says of these states; whether the search goes on."""
        outcome, how = self.outcome, self.how
        if self.late:
            outcome.ended = "out of time"
            return False
        said = self.policy([node.state for node in chosen], how.candidates)
        children: dict[Node, list[Node]] = {node: [] for node in chosen}
        for node, suggestions in zip(chosen, said, strict=True):
            outcome.expanded += 1
            for suggestion in self.tried(node, suggestions):
                if self.late:
                    outcome.ended = "out of time"
                    return False
                attempt = self.attempt(node, suggestion)
                if attempt.outcome == "state" and attempt.child is not None:
                    children[node].append(attempt.child)
                if outcome.proof is not None:
                    return False
        fresh = [child for found in children.values() for child in found]
        if self.energy and fresh:
            for node, value in zip(fresh, self.energy([node.state for node in fresh]), strict=True):
                node.energy = value
        for node, found in children.items():
            deeper = [child for child in found if child.depth < how.depth]
            for child in deeper:
                frontier.add(child)
            frontier.learnt(node, deeper)
        return True

    def tried(self, node: Node, suggestions: list[Suggestion]) -> Iterator[Suggestion]:
        """The suggestions without repetitions, then the fallback where none of them worked."""
        known: set[str] = set()
        began = len(self.outcome.attempts)
        least = min((s.logp for s in suggestions), default=-math.log(max(1, len(self.how.fallback))))
        for suggestion in suggestions:
            if suggestion.tactic not in known:
                known.add(suggestion.tactic)
                yield suggestion
        if not any(attempt.outcome in ("state", "proof") for attempt in self.outcome.attempts[began:]):
            yield from (Suggestion(tactic, least) for tactic in self.how.fallback if tactic not in known)

    def attempt(self, node: Node, suggestion: Suggestion) -> Attempt:
        """Try a tactic. It is in the outcome also where the prover gives the theorem up for it."""
        attempt = Attempt(node, suggestion, "died")
        self.outcome.attempts.append(attempt)
        began = time.monotonic()
        try:
            found = self.prover.step(node.state, suggestion.tactic)
            attempt.seconds, attempt.lean_seconds = time.monotonic() - began, found.seconds
            if isinstance(found, Failure):
                attempt.outcome, attempt.error = found.kind, found.message
            else:
                self.reached(attempt, found)
        except Quarantined as given_up:
            attempt.seconds, attempt.error = time.monotonic() - began, str(given_up)
            raise
        return attempt

    def reached(self, attempt: Attempt, found: State) -> None:
        """What there is to say of the state after a tactic."""
        node, suggestion = attempt.parent, attempt.suggestion
        child = Node(self.count, found, node, suggestion.logp, node.total + suggestion.logp, text=canonical(found))
        self.count += 1
        attempt.child = child
        if found.done:
            judged = self.prover.finish(found)
            if isinstance(judged, Rejection):
                attempt.outcome = judged.kind if judged.kind in ("died", "lost") else "rejected"
                attempt.error = f"{judged.kind}: {judged.message}"
            else:
                attempt.outcome = "proof"
                self.outcome.found.append(child)
                if self.outcome.proof is None:
                    self.outcome.proof, self.outcome.ended = judged, "proved"
        elif child.text == node.text:
            attempt.outcome = "no progress"
        elif child.text in self.seen:
            attempt.outcome = "loop" if any(child.text == before.text for before in node.path()) else "duplicate"
        else:
            attempt.outcome = "state"
            if child.depth < self.how.depth:  # at the end it does not stand in the way of a shorter path to it
                self.seen.add(child.text)

    def harvest(self) -> None:
        """Expand siblings of the states on the proof's path that have not been."""
        path = set(self.outcome.found[0].path())
        expanded = {attempt.parent for attempt in self.outcome.attempts}
        siblings = [
            attempt.child
            for attempt in self.outcome.attempts
            if attempt.outcome == "state" and attempt.child and attempt.parent in path and attempt.child not in path
        ]
        for node in [node for node in siblings if node not in expanded and node.depth < self.how.depth][
            : self.how.harvest
        ]:
            if self.late:
                return
            (said,) = self.policy([node.state], self.how.candidates)
            for suggestion in self.tried(node, said):
                if self.late:
                    return
                self.attempt(node, suggestion)
