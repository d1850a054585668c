"""Positive states, on the paths of proofs, and negative ones, for the contrastive training of an energy."""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from monge.apps.prove.pairs import attempts_by_theorem
from monge.apps.prove.states import DONE
from monge.math.random import split_of
from monge.objective.contrastive import IndexedCandidates


class States(Protocol):
    """A store of states: embeddings, or token ids."""

    def __len__(self) -> int: ...

    def number(self, state: str) -> int | None:
        """The row of a state's text in `rows`; None if it is not stored."""
        ...

    def rows(self, numbers: Int[Tensor, "n"]) -> Shaped[Tensor, "n D"]:
        """The rows with these numbers."""
        ...


class Positive(NamedTuple):
    """A state on the path of a proof."""

    state: int
    """Its row in the store of embeddings."""
    remaining: int
    """Number of tactics from it to the end of the shortest known proof."""
    siblings: tuple[int, ...]
    """Rows of the negative states that other tactics reach from the same parents."""


@dataclass
class Group:
    """The states of one theorem."""

    positives: list[Positive] = field(default_factory=list[Positive])
    negatives: list[int] = field(default_factory=list[int])
    """Rows of all states that are on no path of a proof."""
    root: int | None = None
    """Row of the theorem's first state; None if it is not stored."""

    @property
    def rows(self) -> set[int]:
        """The rows of its positive and negative states."""
        return {*self.negatives, *(one.state for one in self.positives)}

    def without(self, rows: Set[int]) -> "Group":
        """The same theorem without the states in these rows."""
        positives = [
            one._replace(siblings=tuple(k for k in one.siblings if k not in rows))
            for one in self.positives
            if one.state not in rows
        ]
        return Group(positives, [k for k in self.negatives if k not in rows], self.root)


class NoContrast(ValueError):
    """Lack of positive or of negative states to train on."""


@dataclass
class Counts:
    """Numbers of theorems and states that the contrastive sampler uses or leaves out."""

    theorems: int = 0
    """Theorems with at least one positive state."""
    contrasted: int = 0
    """Those of them that also have negative states; the others are contrasted with states of other theorems only."""
    positives: int = 0
    """Positive states, distinct within each theorem."""
    siblings: int = 0
    """Negative states that share a parent with a positive one."""
    negatives: int = 0
    """All negative states."""
    contradictions: int = 0
    """Negative states that are positive in another row of the same split; they count as positive only."""
    missing: int = 0
    """Distinct states without an embedding."""
    shared: int = 0
    """States of validation theorems that occur in training theorems too, left out."""


def groups_of(
    runs: Sequence[Path], vectors: States, *, validation_share: float
) -> tuple[dict[str, list[Group]], dict[str, Counts]]:
    """The states of the proved theorems of runs, and their counts, by split: training or validation, drawn by theorem.

    Rows of the same theorem are joined over all runs. States that occur in training theorems are left out of validation.
    FileNotFoundError for a run without results; ValueError if two runs have the same id.
    """
    positive: dict[str, dict[str, int]] = defaultdict(dict)
    negative: dict[str, set[str]] = defaultdict(set)
    parents: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))  # theorem, child, parents
    roots: dict[str, str] = {}
    columns = ("state_before", "state_after", "outcome", "label", "remaining_depth")
    for _, rows in attempts_by_theorem(runs, columns):
        for theorem, row in rows:
            child = row["state_after"]
            if row["parent_id"].rsplit("-", 1)[-1] == "0":
                roots[theorem] = row["state_before"]
            if row["label"] == "positive":
                depth = row["remaining_depth"]
                _lower(positive[theorem], row["state_before"], depth)
                if child != DONE:
                    _lower(positive[theorem], child, depth - 1)
            elif row["label"] == "negative" and row["outcome"] == "state":
                negative[theorem].add(child)
            if child not in (None, DONE) and row["outcome"] in ("state", "duplicate", "proof"):
                parents[theorem][child].add(row["state_before"])
    shares = {"validation": validation_share, "training": 1 - validation_share}
    on_proofs: dict[str, set[str]] = defaultdict(set)
    for theorem, states in positive.items():
        on_proofs[split_of(theorem, shares)].update(states)
    groups: dict[str, list[Group]] = {"training": [], "validation": []}
    counts = {split: Counts() for split in groups}
    for theorem, states in positive.items():
        split = split_of(theorem, shares)
        counts[split].contradictions += len(negative[theorem] & on_proofs[split])
        group = _group(states, negative[theorem] - on_proofs[split], parents[theorem], vectors, counts[split])
        group.root = vectors.number(roots[theorem]) if theorem in roots else None
        groups[split].append(group)
    trained = set[int]().union(*(group.rows for group in groups["training"]))
    counts["validation"].shared = len(trained & set[int]().union(*(group.rows for group in groups["validation"])))
    groups["validation"] = [group.without(trained) for group in groups["validation"]]
    for split, count in counts.items():
        groups[split] = [group for group in groups[split] if group.positives]
        for group in groups[split]:
            count.theorems += 1
            count.contrasted += bool(group.negatives)
            count.positives += len(group.positives)
            count.negatives += len(group.negatives)
            count.siblings += len(set[int]().union(*(one.siblings for one in group.positives)))
    return groups, counts


def _lower(depths: dict[str, int], state: str, depth: int) -> None:
    depths[state] = min(depth, depths.get(state, depth))


def _group(
    positive: dict[str, int], negative: set[str], parents: dict[str, set[str]], vectors: States, counts: Counts
) -> Group:
    numbers = {state: vectors.number(state) for state in {*positive, *negative}}
    counts.missing += sum(number is None for number in numbers.values())
    wrong = {state: number for state in sorted(negative) if (number := numbers[state]) is not None}
    children: dict[str, set[int]] = defaultdict(set)
    for state, number in wrong.items():
        for parent in parents[state]:
            children[parent].add(number)
    group = Group(negatives=sorted(wrong.values()))
    for state, remaining in positive.items():
        if (number := numbers[state]) is not None:
            siblings = set[int]().union(*(children[parent] for parent in parents[state]))
            group.positives.append(Positive(number, remaining, tuple(sorted(siblings))))
    return group


@dataclass(frozen=True)
class ContrastBatch:
    """Positive states with their negatives, and the remaining depths of the positive ones."""

    candidates: IndexedCandidates
    remaining: Float[Tensor, "B"]

    def __len__(self) -> int:
        return len(self.candidates)

    def to(self, device: torch.device | str) -> "ContrastBatch":
        """The same batch on `device`."""
        return ContrastBatch(self.candidates.to(device), self.remaining.to(device))


class Sampler:
    """Draws positive states uniformly over theorems, each with up to `negatives` negative ones.

    A negative is a true sibling, a state of the same theorem, or one of another theorem, with the probabilities `mix`; the
    next kind is taken where there is none. Repeated draws are masked. With `goal`, the first state of the
    positive state's theorem is appended to each candidate, (n, 2 D). NoContrast without positive or negative states.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        vectors: States,
        *,
        negatives: int = 7,
        mix: Sequence[float] = (0.3, 0.4, 0.3),
        goal: bool = False,
    ) -> None:
        groups = [group for group in groups if group.root is not None] if goal else groups
        self.groups, self.vectors, self.negatives, self.goal = groups, vectors, negatives, goal
        self.mix = np.cumsum(np.array(mix) / sum(mix))
        self.all = np.array([number for group in groups for number in group.negatives], int)
        ends = np.cumsum([len(group.negatives) for group in groups]).tolist()
        self.spans = {
            id(group): (end - len(group.negatives), len(group.negatives))
            for group, end in zip(groups, ends, strict=True)
        }
        if not groups or not len(self.all):
            raise NoContrast(
                "no proved theorem, or no states off the paths of proofs; add runs of `monge prove search` that prove theorems"
            )

    def batch(self, size: int, generator: np.random.Generator) -> ContrastBatch:
        """A batch of `size` positive states."""
        rows = np.empty((size, 1 + self.negatives), int)
        remaining, roots = np.empty(size), np.empty(size, int)
        for k, (group, one) in enumerate(self._positives(size, generator)):
            rows[k, 0], remaining[k], roots[k] = one.state, one.remaining, group.root or 0
            kinds = np.searchsorted(self.mix, generator.random(self.negatives), side="right")
            for column, kind in enumerate(kinds.clip(max=2).tolist(), 1):
                rows[k, column] = self._negative(group, one, kind, generator)
        return self._batch(rows, remaining, roots)

    def _negative(self, group: Group, one: Positive, kind: int, generator: np.random.Generator) -> int:
        """A random negative state: a sibling (kind 0), of the same theorem (1), or of another one (2)."""
        for pool in (one.siblings, group.negatives)[kind:]:
            if len(pool):
                return pool[generator.integers(len(pool))]
        first, own = self.spans[id(group)]
        others = len(self.all) - own
        if not others:
            return group.negatives[generator.integers(own)]
        drawn = int(generator.integers(others))
        return int(self.all[drawn if drawn < first else drawn + own])

    def _positives(self, size: int, generator: np.random.Generator) -> list[tuple[Group, Positive]]:
        chosen = [self.groups[k] for k in generator.integers(len(self.groups), size=size)]
        return [(group, group.positives[generator.integers(len(group.positives))]) for group in chosen]

    def sibling_sets(self, generator: np.random.Generator, *, least: int = 1) -> list[ContrastBatch]:
        """Each positive state with at least `least` true siblings, with up to `negatives` of them, in batches."""
        rows, remaining, roots = [], [], []
        for group in self.groups:
            for one in group.positives:
                if len(one.siblings) >= least:
                    count = min(self.negatives, len(one.siblings))
                    chosen = generator.choice(len(one.siblings), count, replace=False)
                    padding = [one.state] * (self.negatives - count)
                    rows.append([one.state, *(one.siblings[k] for k in chosen), *padding])
                    remaining.append(one.remaining)
                    roots.append(group.root or 0)
        parts = [slice(k, k + 256) for k in range(0, len(rows), 256)]
        return [self._batch(np.array(rows[p]), np.array(remaining[p]), np.array(roots[p])) for p in parts]

    def _batch(self, rows: np.ndarray, remaining: np.ndarray, roots: np.ndarray) -> ContrastBatch:
        count = len(self.vectors)
        inputs = roots[:, None] * count + rows if self.goal else rows
        distinct, index = np.unique(inputs, return_inverse=True)
        x = self.vectors.rows(torch.from_numpy(distinct % count))
        if self.goal:
            x = torch.cat([x, self.vectors.rows(torch.from_numpy(distinct // count))], 1)
        earlier = np.tril(rows[:, :, None] == rows[:, None, :], -1).any(2)
        candidates = IndexedCandidates(x, torch.from_numpy(index.reshape(rows.shape)), torch.from_numpy(~earlier))
        return ContrastBatch(candidates, torch.from_numpy(remaining).float())
