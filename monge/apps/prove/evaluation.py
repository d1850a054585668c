"""Measures of search arms on the same theorems: proved shares by budget, paired tests, and states expanded."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from monge.apps.prove.report import mcnemar, share
from monge.apps.prove.trajectories import Result

Passes = Sequence[Sequence[float]]
"""For each pass of an arm over all theorems, the number of states expanded until the proof of each; infinite without one.

An arm whose searches do not depend on the seed has one pass.
"""
ORACLE = "oracle order"


def states_until_proof(results: Iterable[Result]) -> list[float]:
    """The number of states that each search expanded until its proof; infinite without one."""
    return [result.expanded if result.proved else math.inf for result in results]


def pass_at(count: int, successes: int, k: int) -> float:
    """Unbiased estimate, from `count` searches, of the probability that one of k succeeds. Chen et al. 2107.03374, eq. 1.

    >>> pass_at(4, 1, 2)
    0.5
    """
    return 1 - math.comb(count - successes, k) / math.comb(count, k)


class Paired(NamedTuple):
    """An arm next to another, in the first pass."""

    more: int
    """Searches in which only this arm finds a proof."""
    fewer: int
    """Searches in which only the other one does."""
    p: float
    """p-value of McNemar's exact test."""


def paired(arm: Passes, base: Passes, budget: float) -> Paired:
    """`arm` next to `base` within this number of states. Only the first pass counts, since passes over the same theorem are not
    independent.

    >>> paired([[1, 3, math.inf]], [[9, 2, math.inf]], 4)
    Paired(more=1, fewer=0, p=1.0)
    """
    pairs = list(zip(arm[0], base[0], strict=True))
    more = sum(one <= budget < other for one, other in pairs)
    fewer = sum(other <= budget < one for one, other in pairs)
    return Paired(more, fewer, mcnemar(more, fewer))


class Ratio(NamedTuple):
    """States expanded by an arm over those of another, with a 95 % bootstrap interval over theorems."""

    value: float
    low: float
    high: float
    searches: int
    """Searches in which both find a proof, over which states are summed; the ratio is nan without any."""


def expansions(arm: Passes, base: Passes, budget: float, *, draws: int = 2000) -> Ratio:
    """States that `arm` and `base` expand in the searches in which both find a proof within the budget."""
    count, sums = max(len(arm), len(base)), list[tuple[float, float]]()
    if not {len(arm), len(base)} <= {1, count}:
        raise ValueError(f"arms with {len(arm)} and {len(base)} passes; give the same number, or 1")
    searches = 0
    for theorem in range(len(arm[0])):
        pairs = [(arm[k % len(arm)][theorem], base[k % len(base)][theorem]) for k in range(count)]
        both = [pair for pair in pairs if max(pair) <= budget]
        searches += len(both)
        if both:
            sums.append((sum(one for one, _ in both), sum(other for _, other in both)))
    if not sums:
        return Ratio(math.nan, math.nan, math.nan, 0)
    table = np.array(sums)
    drawn = table[np.random.default_rng(0).integers(len(table), size=(draws, len(table)))].sum(1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975]).tolist()
    return Ratio(float(table[:, 0].sum() / table[:, 1].sum()), low, high, searches)


def oracle(runs: Iterable[Sequence[Result]]) -> list[float]:
    """For each theorem, the number of states of a search that expands only those on the shortest proof of any of these runs."""
    best: dict[int, float] = {}
    for run in runs:
        for result in run:
            steps = math.inf if result.tactics is None else len(result.tactics)
            best[result.number] = min(steps, best.get(result.number, math.inf))
    return [best[number] for number in sorted(best)]


def table(
    arms: Mapping[str, Passes], budgets: Sequence[int], *, bases: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """A row for each arm and budget. `bases` names the arm that each one is compared with; by default, it is the first."""
    first = next(iter(arms))
    rows: list[dict[str, Any]] = []
    for budget in budgets:
        for name, passes in arms.items():
            found = np.array(passes) <= budget
            count, theorems = found.shape
            base = arms[other := (bases or {}).get(name, first)]
            row: dict[str, Any] = {"arm": name, "base": other, "states": budget, "passes": count}
            row["proved"] = float(found.sum(1).mean())
            row["share"] = share(int(found[0].sum()), theorems)
            row[f"pass@{count}"] = sum(pass_at(count, int(n), count) for n in found.sum(0)) / theorems
            rows.append(
                {**row, **paired(passes, base, budget)._asdict(), "ratio": expansions(passes, base, budget)._asdict()}
            )
    return rows


def markdown(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """The rows as a Markdown table."""
    head = (
        "arm",
        "states",
        "proved",
        "share, 95 % interval",
        "pass@n",
        "base",
        "more",
        "fewer",
        "p",
        "states expanded, 95 % interval",
    )
    lines = [f"# {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        count, ratio = row["passes"], row["ratio"]
        expanded = (
            "" if math.isnan(ratio["value"]) else f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        )
        passes = "" if count == 1 else f"pass@{count} {row[f'pass@{count}']:.1%}"
        cells = (
            row["arm"],
            row["states"],
            f"{row['proved']:g}",
            row["share"],
            passes,
            row["base"] if row["base"] != row["arm"] else "",
            row["more"],
            row["fewer"],
            f"{row['p']:.2g}",
        )
        lines.append(f"| {' | '.join(map(str, (*cells, expanded)))} |")
    lines += [
        "",
        "more: theorems that this arm proves in its first pass and its base does not prove in its own; fewer: the "
        "reverse; p: McNemar's exact test. states expanded: in the searches in which both find a proof, relative to that arm.",
        "",
    ]
    return "\n".join(lines)
