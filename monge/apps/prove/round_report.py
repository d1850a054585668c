"""The report of an iteration, filled from the files of its rounds: Markdown, JSON and a plot."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.apps.prove.iteration import Iteration, Round
from monge.apps.prove.pairs import pairs_of
from monge.apps.prove.report import comparison, mcnemar, share
from monge.apps.prove.trajectories import results
from monge.files import read_json
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
    """The test theorems that each arm proves, compared with the first arm. ValueError if settings are not equal."""
    first, table = settings.chosen[0], dict[str, dict[str, Any]]()
    base = {result.number for result in results(one.arm(first)) if result.proved}
    for arm in settings.chosen:
        comparison(one.arm(first), one.arm(arm))  # refuses other budgets or decoding settings
        finished = results(one.arm(arm))
        proved = {result.number for result in finished if result.proved}
        more, fewer = len(proved - base), len(base - proved)
        table[arm.name] = {
            "proved": len(proved),
            "share": share(len(proved), len(finished)),
            "more": more,
            "fewer": fewer,
            "p": mcnemar(more, fewer),
            "expanded": sum(result.expanded for result in finished),
            "which": sorted(proved),
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
        lines += ["Energy: states, and quality on held-out theorems.", ""]
        for part in ("states", "quality"):
            columns = one["energy"][part]
            keys = list(next(iter(columns.values())))
            lines += _table(
                ("", *columns), [(key, *(column.get(key, "") for column in columns.values())) for key in keys]
            )
        lines += [
            "Test theorems. more: proved by this arm and not by the first; fewer: the reverse; p: McNemar's exact test.",
            "",
        ]
        columns = ("proved", "share", "more", "fewer", "p", "expanded")
        lines += _table(("arm", *columns), [(name, *(row[c] for c in columns)) for name, row in one["arms"].items()])
    return "\n".join(lines)


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
            rows = [row for row in read_records(directory / name / "metrics.jsonl") if key in row]
            axes.plot([row["step"] for row in rows], [row[key] for row in rows], marker=".", label=f"round {number}")
    left.set(title="policy", xlabel="step", ylabel="held-out loss (nats per token)")
    middle.set(title="energy", xlabel="step", ylabel="held-out positives ranked first")
    numbers = [one["round"] for one in content["rounds"]]
    for name in content["rounds"][0]["arms"]:
        right.plot(numbers, [one["arms"][name]["proved"] for one in content["rounds"]], marker="o", label=name)
    right.set(title="test theorems", xlabel="round", ylabel="proved", xticks=numbers)
    right.yaxis.get_major_locator().set_params(integer=True)
    for axes in (left, middle, right):
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(out / "report.png", dpi=120)
    pyplot.close(figure)
