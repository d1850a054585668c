"""Tables and sentences that compare training curves of arms with those of the arm "plain", over paired seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from over_seeds import interval, shown
from side_by_side import print_table

INTERVALS = (0.0, 0.25, 0.5, 0.75)
"""Starts of the four intervals of t in which the held-out loss is measured."""
CONTROLS = ("REPA, random weights", "REPA, shuffled")
"""Arms that an alignment with the encoder CONTROLLED must beat: otherwise a gain does not come from what it has learned."""
CONTROLLED = ("contrastive", "ANI-2xt", "first quarter")
"""Parts of the names of the arms whose encoder the controls use."""
Curve = Sequence[Mapping[str, float]]  # a row of metrics for each number of steps
Curves = dict[int, Curve]  # by seed


def report(rows: Sequence[Mapping[str, Any]], metric: str, *, higher: bool = False) -> None:
    """Print the metric by steps; its paired differences from the arm "plain" after equal steps and after equal CPU time; the
    steps at which the mean curve crosses that of "plain"; and the fraction of the steps needed to match the final value of
    "plain", over the seeds that reach it. Then print a sentence for each arm with an encoder."""
    by_arm: dict[str, Curves] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], {})[row["seed"]] = row["curve"]
    plain = by_arm["plain"]
    table = []
    for arm, curves in by_arm.items():
        seeds = sorted(curves.keys() & plain.keys())
        pairs = [(curves[k], plain[k]) for k in seeds]
        line: dict[str, Any] = {"arm": arm}
        for number, point in enumerate(curves[seeds[0]]):
            line[f"{point['steps']} steps"] = interval([one[number][metric] for one in curves.values()])
        line["difference"] = interval([one[-1][metric] - other[-1][metric] for one, other in pairs])
        line["difference at equal CPU time"] = interval([at_equal_time(one, other, metric) for one, other in pairs])
        line["crossings, steps"] = crossings(pairs, metric)
        reached = [steps_to(one, other[-1][metric], metric, higher) for one, other in pairs]
        finite = [steps for steps in reached if np.isfinite(steps)]
        line["fraction of steps"] = interval(finite) if finite else "never"
        line["reached"] = len(finite) / len(seeds)
        line["CPU s per step / plain"] = interval([one[-1]["CPU s"] / other[-1]["CPU s"] for one, other in pairs])
        table.append(line)
    print_table(metric, shown(table))
    for arm in by_arm:
        if "REPA" in arm and arm not in CONTROLS:
            print(verdict(by_arm, arm, metric, higher=higher))


def at_equal_time(curve: Curve, plain: Curve, metric: str) -> float:
    """The difference in a metric after the CPU time of the shorter training, interpolated in log time.

    >>> plain = [{"CPU s": 1.0, "x": 4.0}, {"CPU s": 2.0, "x": 2.0}]
    >>> at_equal_time([{"CPU s": 2.0, "x": 3.0}, {"CPU s": 4.0, "x": 1.0}], plain, "x")
    1.0
    """
    seconds = min(curve[-1]["CPU s"], plain[-1]["CPU s"])
    one, other = (
        float(np.interp(np.log(seconds), np.log([p["CPU s"] for p in part]), [p[metric] for p in part]))
        for part in (curve, plain)
    )
    return one - other


def crossings(pairs: Sequence[tuple[Curve, Curve]], metric: str) -> str:
    """The steps between which the mean difference of paired curves changes its sign, interpolated in log steps.

    >>> plain = [{"steps": 100, "x": 2.0}, {"steps": 400, "x": 2.0}]
    >>> crossings([([{"steps": 100, "x": 3.0}, {"steps": 400, "x": 1.0}], plain)], "x"), crossings([(plain, plain)], "x")
    ('200', 'none')
    """
    steps = np.log([point["steps"] for point in pairs[0][0]])
    gap = np.mean([[p[metric] - q[metric] for p, q in zip(one, other, strict=True)] for one, other in pairs], axis=0)
    found = [
        steps[k] + (steps[k + 1] - steps[k]) * gap[k] / (gap[k] - gap[k + 1])
        for k in range(len(gap) - 1)
        if gap[k] * gap[k + 1] < 0
    ]
    return ", ".join(f"{np.exp(step):.0f}" for step in found) or "none"


def verdict(by_arm: Mapping[str, Curves], arm: str, metric: str, *, higher: bool) -> str:
    """A sentence: the arm after all steps next to "plain" and the controls of its encoder, by paired 95 % intervals, which are
    not corrected for the number of comparisons.

    >>> curves = {"plain": {0: [{"x": 2.0}], 1: [{"x": 2.1}]}, "REPA, own": {0: [{"x": 1.0}], 1: [{"x": 1.1}]}}
    >>> verdict(curves, "REPA, own", "x", higher=False)
    'REPA, own, x: better than plain (-1 +- 0).'
    """
    parts = []
    for control in ("plain", *(CONTROLS if any(name in arm for name in CONTROLLED) else ())):
        others = by_arm.get(control, {})
        gaps = [by_arm[arm][k][-1][metric] - others[k][-1][metric] for k in sorted(by_arm[arm].keys() & others.keys())]
        if len(gaps) < 2 or not np.isfinite(gaps).all():
            parts.append(f"not comparable with {control} (fewer than two finite pairs)")
            continue
        gap: Any = interval(gaps)
        shown_gap = f"({gap['mean']:+.3g} +- {gap['half']:.2g})"
        if abs(gap["mean"]) <= gap["half"]:
            parts.append(f"no difference found from {control} {shown_gap}")
        else:
            parts.append(f"{'better' if (gap['mean'] > 0) == higher else 'worse'} than {control} {shown_gap}")
    return f"{arm}, {metric}: {'; '.join(parts)}."


def report_by_time(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the held-out loss after all steps minus that of "plain", by intervals of t."""
    ends = {(row["arm"], row["seed"]): row["curve"][-1] for row in rows}
    parts = [f"loss, t from {low}" for low in INTERVALS]
    gaps: dict[str, dict[str, list[float]]] = {}
    for (arm, seed), end in ends.items():
        if arm != "plain":
            for part in parts:
                gaps.setdefault(arm, {}).setdefault(part, []).append(end[part] - ends["plain", seed][part])
    table = [{"arm": arm, **{part: interval(values) for part, values in line.items()}} for arm, line in gaps.items()]
    print_table("Difference in held-out loss from plain, by time", shown(table))


def steps_to(curve: Curve, value: float, metric: str, higher: bool) -> float:
    """The steps at which a curve first reaches `value`, interpolated in log steps and divided by all steps; inf if never.
    1/8, the first point, is an upper bound."""
    sign = -1.0 if higher else 1.0
    steps, values = [np.log(point["steps"]) for point in curve], [sign * point[metric] for point in curve]
    for k, now in enumerate(values):
        if now <= sign * value:
            if k == 0:
                return float(np.exp(steps[0] - steps[-1]))
            share = (values[k - 1] - sign * value) / (values[k - 1] - now)
            return float(np.exp(steps[k - 1] + share * (steps[k] - steps[k - 1]) - steps[-1]))
    return float("inf")
