"""A policy without a network: tactics that led to proofs from similar states, with the names of hypotheses substituted."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import sparse

from monge.apps.prove.canonical import WORD
from monge.apps.prove.pairs import TacticPair
from monge.apps.prove.parsed import Parsed, parsed
from monge.apps.prove.parsed import substituted as renamed
from monge.apps.prove.policy import merged
from monge.apps.prove.state import State
from monge.apps.prove.tree import Suggestion


def features(goal: Parsed) -> Counter[str]:
    """Tokens and pairs of neighbouring tokens of target and hypotheses."""
    counts: Counter[str] = Counter()
    for place, text in [("goal", goal.target), *(("hypothesis", kind) for kind in goal.types.values())]:
        tokens = goal.tokens(text)
        counts.update(f"{place} {token}" for token in tokens)
        counts.update(f"{place} {first} {second}" for first, second in zip(tokens, tokens[1:], strict=False))
    return counts


SIMILAR = 256
"""Number of most similar states whose tactics are considered."""


class Copying:
    """Suggests the tactics of the most similar states in `pairs` of state and tactic, most likely first.

    The similarity is the cosine of the features' TF-IDF vectors; its softmax over all pairs, at `temperature`, summed over
    equal tactics among the most similar states, is the probability of a tactic. ValueError without pairs.
    """

    def __init__(self, pairs: Sequence[TacticPair], *, temperature: float = 0.1) -> None:
        examples = [(parsed(pair.state), pair.tactic) for pair in pairs]
        self._theorems = np.array([pair.theorem for pair in pairs])
        if not examples:
            raise ValueError("--policy copy: no pairs of states and tactics; give --examples RUN with proofs")
        self.examples, self.temperature = examples, temperature
        counts = [features(goal) for goal, _ in examples]
        frequency = Counter(name for count in counts for name in count)
        self._column = {name: k for k, name in enumerate(sorted(frequency))}
        self._idf = np.array([math.log((1 + len(counts)) / frequency[name]) for name in self._column])
        self._matrix = sparse.vstack([self._vector(count) for count in counts]).tocsr()

    def _vector(self, count: Counter[str]) -> sparse.csr_matrix:
        known = [(self._column[name], 1 + math.log(n)) for name, n in count.items() if name in self._column]
        columns = np.array([column for column, _ in known], int)
        values = np.array([value for _, value in known]) * self._idf[columns]
        norm = float(np.linalg.norm(values)) or 1.0
        return sparse.csr_matrix((values / norm, (np.zeros(len(columns), int), columns)), (1, len(self._column)))

    def __call__(self, states: Sequence[State | str], limit: int) -> list[list[Suggestion]]:
        return [self._suggestions(parsed(str(state)), limit, "") for state in states]

    def without(self, theorem: str) -> Callable[[Sequence[State | str], int], list[list[Suggestion]]]:
        """The policy without the pairs of this theorem, named as in TacticPair."""
        return lambda states, limit: [self._suggestions(parsed(str(state)), limit, theorem) for state in states]

    def _suggestions(self, goal: Parsed, limit: int, theorem: str) -> list[Suggestion]:
        similarity = (self._matrix @ self._vector(features(goal)).T).toarray()[:, 0]
        similarity[self._theorems == theorem] = -np.inf
        if np.isneginf(similarity).all():
            return []
        logits = similarity / self.temperature
        logits -= logits.max() + math.log(np.exp(logits - logits.max()).sum())
        found: dict[str, float] = {}
        for k in np.argsort(-similarity, kind="stable")[:SIMILAR].tolist():
            other, tactic = self.examples[k]
            tactic = substituted(tactic, other, goal)
            if tactic in found:
                found[tactic] = float(np.logaddexp(found[tactic], logits[k]))
            elif len(found) < limit and np.isfinite(logits[k]):
                found[tactic] = float(logits[k])
        return merged((Suggestion(*one) for one in found.items()), limit)


def substituted(tactic: str, source: Parsed, goal: Parsed) -> str:
    """A tactic for `source` with its hypotheses replaced by those of `goal` whose types are most alike.

    >>> substituted("rw [h, ih x]", parsed("x : N\\nih : P x\\nh : x = z\\n⊢ x = z"), parsed("a : N\\nk : a = z\\n⊢ z = a"))
    'rw [k, ih a]'
    """
    names: dict[str, str] = {}
    used = {word for word in WORD.split(tactic)[1::2] if word in source.types}
    for name in sorted(used, key=lambda name: (-len(source.types[name]), name)):
        candidates = [other for other in goal.types if other not in names.values() and "✝" not in other]
        own = source.tokens(source.types[name])
        likeness = {other: _likeness(own, goal.tokens(goal.types[other])) for other in candidates}
        best = max(candidates, key=lambda other: (likeness[other], other == name), default=name)
        if likeness.get(best, 0.0) > 0.7:
            names[name] = best
    return renamed(tactic, names)


@lru_cache(maxsize=100_000)
def _likeness(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """The share of tokens that two types have in common; 2 for equal types."""
    one, other = Counter(first), Counter(second)
    return 2 * (one & other).total() / (one.total() + other.total()) + (first == second)
