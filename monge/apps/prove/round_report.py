"""The report of an iteration, filled from the files of its rounds: Markdown, JSON and a plot."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.apps.prove.evaluation import expansions, paired, states_until_proof
from monge.apps.prove.iteration import Iteration, Round
from monge.apps.prove.pairs import pairs_of
from monge.apps.prove.report import comparison, share
from monge.apps.prove.trajectories import results
from monge.files import finite_json, read_json
from monge.training.log import read_records


def report(settings: Iteration, out: Path, rounds: int) -> dict[str, Any]:
    """The contents of report.json. ValueError if two arms were not searched at equal budgets and decoding settings."""
    content: list[dict[str, Any]] = []
    known: set[tuple[str, str]] = set()
    for number in range(rounds):
        one = Round(settings, out, number)
        searched = {name: _searched(path) for name, path in one.searches.items() if results(path)}
        pairs, _ = pairs_of(one.data())
        new = [pair for pair in pairs if (pair.state, pair.tactic) not in known]
        tactics = {tactic for _, tactic in known}
        energy, policy = (
            read_json(one.directory / "energy" / "energy.json"),
            read_json(one.directory / "policy/policy.json"),
        )
        content.append(
            {
                "round": number,
                "searches": searched,
                "pairs": len(pairs),
                "new pairs": len(new),
                "new pairs with a new tactic": sum(pair.tactic not in tactics for pair in new),
                "policy": _relative(policy, out),
                "energy": energy,
                "arms": arms_of(settings, one),
            }
        )
        known |= {(pair.state, pair.tactic) for pair in pairs}
    return {"theorems": _relative({"path": str(settings.theorems)}, out)["path"], "rounds": content}


def _searched(run: Path) -> dict[str, int]:
    finished = results(run)
    return {"theorems": len(finished), "proved": sum(result.proved for result in finished)}


def _relative(content: Any, out: Path) -> Any:
    """The content with paths relative to `out`, so that reports of equal iterations are equal."""
    return json.loads(json.dumps(content).replace(json.dumps(str(out.resolve()))[1:-1] + "/", ""))


def arms_of(settings: Iteration, one: Round) -> dict[str, dict[str, Any]]:
    """The test theorems that each arm proves, compared with its base. ValueError if settings are not equal."""
    arms, table = one.arms, dict[str, dict[str, Any]]()
    searched, budget = {arm: results(one.arm(arm)) for arm in arms}, settings.search.search.max_states
    for arm, finished in searched.items():
        comparison(one.arm(arms[0]), one.arm(arm))  # refuses other budgets or decoding settings
        base = arm.base(arms)
        until, others = ([states_until_proof(searched[name])] for name in (arm, base))
        proved = [result.number for result in finished if result.proved]
        table[arm.name] = {
            "next to": base.name if base != arm else "",
            "proved": len(proved),
            "share": share(len(proved), len(finished)),
            **paired(until, others, budget)._asdict(),
            "expanded": sum(result.expanded for result in finished),
            "ratio": finite_json(expansions(until, others, budget)._asdict()),
            "which": proved,
        }
    return table


def markdown(content: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = ["# Iteration", "", f"Theorems: {content['theorems']}", ""]
    for one in content["rounds"]:
        lines += [f"## Round {one['round']}", ""]
        lines += _table(
            ("search", "theorems", "proved"), [(n, s["theorems"], s["proved"]) for n, s in one["searches"].items()]
        )
        lines += [
            f"{one['pairs']} distinct pairs, {one['new pairs']} of them new; {one['new pairs with a new tactic']} of the new "
            "ones have a tactic that was in no pair before.",
            "",
            "Policy: training data and held-out loss (nats per token).",
            "",
        ]
        sources = one["policy"]["sources"]
        losses = one["policy"]["held-out loss"]
        names = tuple(sources[0])
        rows = [(*row.values(), losses.get(row["source"], {}).get("loss", "")) for row in sources]
        lines += _table((*names, "held-out loss"), rows)
        skipped = one["energy"].get("skipped")
        lines += [
            "Energy: states, and quality on held-out theorems." if skipped is None else f"No energy: {skipped}.",
            "",
        ]
        for part in ("states", "quality") if skipped is None else ():
            columns = one["energy"][part]
            keys = list(next(iter(columns.values())))
            lines += _table(
                ("", *columns), [(key, *(column.get(key, "") for column in columns.values())) for key in keys]
            )
        lines += [
            "Test theorems. more: proved by this arm and not by the one next to it; fewer: the reverse; p: McNemar's test. "
            "ratio: states expanded until the proof, relative to the arm next to it, where both find one.",
            "",
        ]
        columns = ("proved", "share", "next to", "more", "fewer", "p", "expanded")
        arms = [(name, *(row[c] for c in columns), _ratio(row["ratio"])) for name, row in one["arms"].items()]
        lines += _table(("arm", *columns, "ratio, 95 % interval"), arms)
    return "\n".join(lines)


def _ratio(row: Mapping[str, Any]) -> str:
    return "" if row["value"] is None else f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    def text(value: object) -> str:
        return ("" if math.isnan(value) else f"{value:.3g}") if isinstance(value, float) else str(value)

    body = [f"| {' | '.join(map(text, row))} |" for row in rows]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body, ""]


def plot(content: Mapping[str, Any], settings: Iteration, out: Path) -> None:
    """Draw report.png: losses of the policies, the energies' held-out quality, and test theorems proved by round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for one in content["rounds"]:
        number = one["round"]
        directory = Round(settings, out, number).directory
        for axes, name, key in ((left, "policy", "held-out loss"), (middle, "energy", "top-1")):
            path = directory / name / "metrics.jsonl"
            rows = [row for row in read_records(path) if key in row] if path.exists() else []
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], marker=".", label=f"round {number}")
    left.set(title="policy", xlabel="step", ylabel="held-out loss (nats per token)")
    middle.set(title="energy", xlabel="step", ylabel="held-out positives ranked first")
    rounds = content["rounds"]
    for name in (arm.name for arm in settings.chosen):
        found = [(one["round"], one["arms"][name]["proved"]) for one in rounds if name in one["arms"]]
        right.plot(*zip(*found, strict=True), marker="o", label=name) if found else None
    right.set(title="test theorems", xlabel="round", ylabel="proved", xticks=[one["round"] for one in rounds])
    right.yaxis.get_major_locator().set_params(integer=True)
    for axes in (left, middle, right):
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(out / "report.png", dpi=120)
    pyplot.close(figure)
