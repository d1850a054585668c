"""Proof search over states. It depends on neither Lean nor torch: the prover, the policy and the energy are arguments."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from monge.apps.prove.canonical import canonical
from monge.apps.prove.frontier import Frontier, frontier_of
from monge.apps.prove.policy import Policy
from monge.apps.prove.state import Failure, Proof, Rejection, State
from monge.apps.prove.tree import Attempt, Node, Outcome, Quarantined, Search, Suggestion

Energy = Callable[[Sequence[State]], list[float]]
"""Energy of each state, low near a proof."""


class Prover(Protocol):
    """A theorem to prove step by step."""

    def start(self) -> State:
        """The state before the first tactic."""
        ...

    def step(self, state: State, tactic: str) -> State | Failure:
        """The state after a tactic, or its failure. Quarantined if the prover gives up on the theorem."""
        ...

    def finish(self, state: State) -> Proof | Rejection:
        """The verdict on a state without goals."""
        ...


def search(prover: Prover, policy: Policy, settings: Search, energy: Energy | None = None) -> Outcome:
    """Expand states until a proof is found or a budget is exhausted. The outcome holds every attempt."""
    return _Run(prover, policy, settings, energy).run()


class _Run:
    def __init__(self, prover: Prover, policy: Policy, settings: Search, energy: Energy | None) -> None:
        self.prover, self.policy, self.settings, self.energy = prover, policy, settings, energy
        self.outcome, self.start, self.count = Outcome(), 0.0, 1
        self.seen: set[str] = set()

    def run(self) -> Outcome:
        outcome, settings = self.outcome, self.settings
        state = self.prover.start()
        self.start = time.monotonic()  # excludes the header, which is elaborated once for many theorems
        root = Node(0, state, text=canonical(state))
        self.seen.add(root.text)
        frontier = frontier_of(settings)
        frontier.add(root)
        try:
            while outcome.proof is None and (
                chosen := frontier.take(min(settings.batch_size, settings.max_states - outcome.expanded))
            ):
                if not self.expand(chosen, frontier):
                    break
                if outcome.expanded >= settings.max_states and frontier:
                    outcome.ended = "out of nodes"
            outcome.seconds = time.monotonic() - self.start
            if outcome.proof is not None and settings.harvest:
                self.harvest()
        except Quarantined as error:
            outcome.error = str(error)
            outcome.ended = outcome.ended if outcome.proof else "quarantined"
        outcome.seconds = outcome.seconds or time.monotonic() - self.start
        return outcome

    @property
    def late(self) -> bool:
        """True if the time limit is exceeded."""
        return time.monotonic() - self.start > self.settings.max_seconds

    def expand(self, chosen: list[Node], frontier: Frontier) -> bool:
        """Try the policy's suggestions for these states; False if the search must stop."""
        outcome, settings = self.outcome, self.settings
        if self.late:
            outcome.ended = "out of time"
            return False
        suggested = self.policy([node.state for node in chosen], settings.num_tactics)
        children: dict[Node, list[Node]] = {node: [] for node in chosen}
        for node, suggestions in zip(chosen, suggested, strict=True):
            outcome.expanded += 1
            for suggestion in self.with_fallback(suggestions):
                if self.late:
                    outcome.ended = "out of time"
                    return False
                attempt = self.attempt(node, suggestion)
                if attempt.outcome == "state" and attempt.child is not None:
                    children[node].append(attempt.child)
                if outcome.proof is not None:
                    return False
        fresh = [child for reached in children.values() for child in reached]
        if self.energy and fresh:
            for node, value in zip(fresh, self.energy([node.state for node in fresh]), strict=True):
                node.energy = value
        for node, reached in children.items():
            deeper = [child for child in reached if child.depth < settings.max_depth]
            for child in deeper:
                frontier.add(child)
            frontier.update(node, deeper)
        return True

    def with_fallback(self, suggestions: list[Suggestion]) -> Iterator[Suggestion]:
        """The suggestions without duplicates, then the fallback tactics if no suggestion worked."""
        seen: set[str] = set()
        first = len(self.outcome.attempts)
        lowest = min((s.logp for s in suggestions), default=-math.log(max(1, len(self.settings.fallback_tactics))))
        for suggestion in suggestions:
            if suggestion.tactic not in seen:
                seen.add(suggestion.tactic)
                yield suggestion
        if not any(attempt.outcome in ("state", "proof") for attempt in self.outcome.attempts[first:]):
            yield from (Suggestion(tactic, lowest) for tactic in self.settings.fallback_tactics if tactic not in seen)

    def attempt(self, node: Node, suggestion: Suggestion) -> Attempt:
        """Try a tactic and record the attempt, even if the tactic gets the theorem quarantined."""
        attempt = Attempt(node, suggestion, "crash")
        self.outcome.attempts.append(attempt)
        start = time.monotonic()
        try:
            result = self.prover.step(node.state, suggestion.tactic)
            attempt.seconds, attempt.lean_seconds = time.monotonic() - start, result.seconds
            if isinstance(result, Failure):
                attempt.outcome, attempt.error = result.kind, result.message
            else:
                self.classify(attempt, result)
        except Quarantined as error:
            attempt.seconds, attempt.error = time.monotonic() - start, str(error)
            raise
        return attempt

    def classify(self, attempt: Attempt, state: State) -> None:
        """Set the outcome of an attempt from the state that its tactic led to."""
        node, suggestion = attempt.parent, attempt.suggestion
        child = Node(self.count, state, node, suggestion.logp, node.total + suggestion.logp, text=canonical(state))
        self.count += 1
        attempt.child = child
        if state.done:
            verdict = self.prover.finish(state)
            if isinstance(verdict, Rejection):
                attempt.outcome = verdict.kind if verdict.kind in ("crash", "replay") else "rejected"
                attempt.error = f"{verdict.kind}: {verdict.message}"
            else:
                attempt.outcome = "proof"
                self.outcome.proofs.append(child)
                if self.outcome.proof is None:
                    self.outcome.proof, self.outcome.ended = verdict, "proved"
        elif child.text == node.text:
            attempt.outcome = "no progress"
        elif child.text in self.seen:
            attempt.outcome = "loop" if any(child.text == before.text for before in node.path()) else "duplicate"
        else:
            attempt.outcome = "state"
            if child.depth < self.settings.max_depth:  # a state at the depth limit must not block a shorter path to it
                self.seen.add(child.text)

    def harvest(self) -> None:
        """Expand unexpanded siblings of the states on the proof's path, up to the configured number."""
        path = set(self.outcome.proofs[0].path())
        expanded = {attempt.parent for attempt in self.outcome.attempts}
        siblings = [
            attempt.child
            for attempt in self.outcome.attempts
            if attempt.outcome == "state" and attempt.child and attempt.parent in path and attempt.child not in path
        ]
        for node in [node for node in siblings if node not in expanded and node.depth < self.settings.max_depth][
            : self.settings.harvest
        ]:
            if self.late:
                return
            (suggestions,) = self.policy([node.state], self.settings.num_tactics)
            for suggestion in self.with_fallback(suggestions):
                if self.late:
                    return
                self.attempt(node, suggestion)
