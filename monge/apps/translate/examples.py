"""Translations side by side with the true texts, and a sentence that says which kind is closest to them."""

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
    """Print a few theorems with the true statement and those of files written by `decode`, and which file is closest."""
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
    """A sentence that says which kind of texts shares the most tokens with the true ones, and how many more than the next.

    >>> verdict({"nearest": ["a b"] * 20, "decoded": ["a c"] * 20}, ["a b"] * 20).split(" Its ")[0]
    'Closer to the true statements: nearest.'
    """
    scored = {name: torch.tensor([*map(token_f1, part, true)]) for name, part in texts.items()}
    one, two = sorted(scored, key=lambda name: float(scored[name].mean()), reverse=True)[:2]
    gap = Interval.of(scored[one] - scored[two])
    numbers = f"{scored[one].mean():.3f}, that of {two} {scored[two].mean():.3f}; the difference is {gap.value:.3f}"
    numbers += f" (95 % interval {gap.low:.3f} to {gap.high:.3f}, {len(true)} test theorems)."
    if gap.low > 0 and len(true) >= LEAST:
        return f"Closer to the true statements: {one}. Its token F1 is {numbers}"
    return f"No significant difference between {one} and {two}: the token F1 of {one} is {numbers}"
