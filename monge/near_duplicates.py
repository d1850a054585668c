"""Texts that are nearly the same, in groups that belong to one split."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence


def near_duplicates(texts: Sequence[str | Sequence[str]], *, threshold: float = 0.7, width: int = 1) -> list[int]:
    """The group of each text, named by the index of its first text. Groups are the connected components of similar texts.

    Two texts, which may be given as sequences of words, are similar if their sets of `width` successive words have a Jaccard
    index of at least `threshold`.
    Exact, by prefix filtering (Bayardo et al. 2007): two sets that are this similar share one of their few rarest words.
    """
    sets = [
        _runs(re.findall(r"\w+|[^\w\s]+", text.lower()) if isinstance(text, str) else text, width) for text in texts
    ]
    counts: dict[tuple[str, ...], int] = defaultdict(int)
    for words in sets:
        for word in words:
            counts[word] += 1
    index, links = defaultdict[tuple[str, ...], list[int]](list), list[tuple[int, int]]()
    for number, words in enumerate(sets):
        rare = sorted(words, key=lambda word: (counts[word], word))
        prefix = rare[: len(rare) - math.ceil(threshold * len(rare) - 1e-9) + 1]
        near = {other for word in prefix for other in index[word]}
        for other in near:
            shared = len(words & sets[other])
            if shared >= threshold * (len(words) + len(sets[other]) - shared):
                links.append((number, other))
        for word in prefix:
            index[word].append(number)
    return connected_components(len(sets), links)


def _runs(words: Sequence[str], width: int) -> frozenset[tuple[str, ...]]:
    starts = range(max(1, len(words) - width + 1)) if words else ()
    return frozenset(tuple(words[k : k + width]) for k in starts)


def connected_components(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """The connected component of each of `count` nodes, named by its smallest node."""
    parent = list(range(count))

    def first(k: int) -> int:
        while parent[k] != k:
            parent[k] = k = parent[parent[k]]
        return k

    for one, other in links:
        a, b = sorted((first(one), first(other)))
        parent[b] = a
    return [first(number) for number in range(count)]
