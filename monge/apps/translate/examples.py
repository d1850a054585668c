"""Translations side by side with the true texts, and a sentence that says which of two kinds is closer to them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from monge.apps.translate.data import read_texts
from monge.apps.translate.decode import token_f1
from monge.apps.translate.output import console
from monge.math.interval import Interval

LEAST = 20
"""Minimum number of theorems for a verdict."""


def show(texts: Path, files: Mapping[str, Path], *, count: int = 5) -> None:
    """Print a few theorems with the true statement and those of two files written by `decode`, and which file is closer."""
    rows = {
        name: {row["id"]: row["text"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
        for name, path in files.items()
    }
    known = {text.id: text for text in read_texts(texts)}
    keys = list(next(iter(rows.values())))
    for key in keys[:count]:
        console.print(f"\n{key}: {known[key].nl}\n  {'true:':9} {known[key].formal}")
        for name, found in rows.items():
            console.print(f"  {name + ':':9} {found[key]}")
    true = [known[key].formal for key in keys]
    console.print(f"\n{verdict({name: [found[key] for key in keys] for name, found in rows.items()}, true)}")


def verdict(texts: Mapping[str, Sequence[str]], true: Sequence[str]) -> str:
    """A sentence that says which of two kinds of texts shares more tokens with the true ones, and by how much.

    >>> verdict({"nearest": ["a b"] * 20, "decoded": ["a c"] * 20}, ["a b"] * 20).split(" Its ")[0]
    'Closer to the true statements: nearest.'
    """
    (one, two), scores = texts, [torch.tensor([*map(token_f1, part, true)]) for part in texts.values()]
    if scores[0].mean() < scores[1].mean():
        (one, two), scores = (two, one), scores[::-1]
    gap = Interval.of(scores[0] - scores[1])
    numbers = f"{scores[0].mean():.3f}, that of {two} {scores[1].mean():.3f}; the difference is {gap.value:.3f}"
    numbers += f" (95 % interval {gap.low:.3f} to {gap.high:.3f}, {len(true)} test theorems)."
    if gap.low > 0 and len(true) >= LEAST:
        return f"Closer to the true statements: {one}. Its token F1 is {numbers}"
    return f"No significant difference between {one} and {two}: the token F1 of {one} is {numbers}"
