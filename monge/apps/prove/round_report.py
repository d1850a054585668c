"""The report of an iteration, filled from the files of its rounds: Markdown, JSON and a plot."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monge.apps.prove.energy_measures import alarms
from monge.apps.prove.evaluation import expansions, paired, states_until_proof
from monge.apps.prove.iteration import Iteration, Round
from monge.apps.prove.pairs import pairs_of
from monge.apps.prove.report import comparison, share
from monge.apps.prove.trajectories import results
from monge.files import finite_json, read_json
from monge.lm.ragged import Ragged
from monge.training.log import read_records

SCRATCH, LORA = ("width", "depth", "heads", "vocabulary"), ("rank", "alpha", "dropout", "modules")
POLICY = ("base", *SCRATCH, *LORA, "length", "renamed_copies", "lr", "steps", "batch_size", "weight_decay")
POLICY_CURVE = (
    "loss",
    "held-out loss",
    "grad_norm",
    "centroid distance",
    "positive norm",
    "negative norm",
    "separation",
)
ENERGY = ("loss", "hidden", "dropout", "goal", "negatives", "mix", "depth_weight", "batch_size", "lr", "steps")
ENERGY_CURVE = ("loss", "held-out loss", "gap", "top-1", "sibling top-1")
"""Settings and metrics of the policy's and the energy's training that the report shows."""


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
        policy = read_json(one.directory / "policy" / "policy.json")
        policy |= training(one.directory / "policy", POLICY, POLICY_CURVE)
        energy = read_json(one.directory / "energy" / "energy.json")
        if "skipped" not in energy:
            energy |= training(one.directory / "energy", ENERGY, ENERGY_CURVE)
            losses = [row["held-out loss"] for row in energy["curve"]]
            energy["alarms"] = alarms(energy["quality"]["sampled"], losses)
        content.append(
            {
                "round": number,
                "searches": searched,
                "pairs": len(pairs),
                "new pairs": len(new),
                "new pairs with a new tactic": sum(pair.tactic not in tactics for pair in new),
                "policy": _relative(policy, out),
                "states": embeddings(one.directory / "states"),
                "energy": energy,
                "arms": arms_of(settings, one),
            }
        )
        known |= {(pair.state, pair.tactic) for pair in pairs}
    return {"theorems": _relative({"path": str(settings.theorems)}, out)["path"], "rounds": content}


def training(run: Path, settings: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
    """The settings of a training run with these names, and its metrics of these names at each evaluation."""
    recipe = read_json(run / "recipe.json", "recipe")["recipe"]
    every = recipe | recipe["train"]
    rows = [row for row in read_records(run / "metrics.jsonl") if "held-out loss" in row]
    curve = [{name: row[name] for name in ("step", *columns) if name in row} for row in rows]
    unused = {*(SCRATCH if every.get("base") else ()), *(LORA if every.get("rank", 0) is None else ())}
    used = {name: every[name] for name in settings if name not in unused and every[name] not in (None, "")}
    return {"settings": used, "curve": curve}


def embeddings(directory: Path) -> dict[str, Any]:
    """Number, width and dtype of the embeddings of states, their pooling and the maximum length of a state."""
    stored = Ragged(directory)
    made = {name: value for name, value in stored.fingerprint.items() if name in ("pooling", "max_length")}
    return {"states": len(stored), "width": stored.width, "dtype": stored.dtype, **made}


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
            "base": base.name if base != arm else "",
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
        policy, energy = one["policy"], one["energy"]
        sources, losses = policy["sources"], policy["held-out loss"]
        names = tuple(sources[0])
        rows = [(*row.values(), losses.get(row["source"], {}).get("loss", "")) for row in sources]
        lines += _table((*names, "held-out loss"), rows)
        lines += _table(("setting", "value"), list(policy["settings"].items()))
        lines += _rows(policy["curve"])
        stored = ", ".join(f"{name} {value}" for name, value in one["states"].items())
        lines += [f"Embeddings: {stored}.", ""]
        skipped = energy.get("skipped")
        lines += [
            "Energy: states, and quality on held-out theorems." if skipped is None else f"No energy: {skipped}.",
            "",
        ]
        if skipped is None:
            lines += _table(("setting", "value"), list(energy["settings"].items()))
            lines += _rows(energy["curve"])
            lines += [sentence for alarm in energy["alarms"] for sentence in (alarm, "")]
        for part in ("states", "quality") if skipped is None else ():
            columns = energy[part]
            keys = list(next(iter(columns.values())))
            lines += _table(
                ("", *columns), [(key, *(column.get(key, "") for column in columns.values())) for key in keys]
            )
        if energy.get("depths"):
            lines += [
                "Steps until the proof, true and predicted, of draws of held-out states, uniform over theorems.",
                "",
            ]
            lines += _rows(energy["depths"])
        lines += [
            "Test theorems. more: proved by this arm and not by its base; fewer: the reverse; p: McNemar's test. "
            "ratio: states expanded until the proof, relative to its base, where both find one.",
            "",
        ]
        columns = ("proved", "share", "base", "more", "fewer", "p", "expanded")
        arms = [(name, *(row[c] for c in columns), _ratio(row["ratio"])) for name, row in one["arms"].items()]
        lines += _table(("arm", *columns, "ratio, 95 % interval"), arms)
    return "\n".join(lines)


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table with a column for each name in any of the rows."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _table(names, [[row.get(name, "") for name in names] for row in rows])


def _ratio(row: Mapping[str, Any]) -> str:
    return "" if row["value"] is None else f"{row['value']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    def text(value: object) -> str:
        return ("" if math.isnan(value) else f"{value:.3g}") if isinstance(value, float) else str(value)

    body = [f"| {' | '.join(map(text, row))} |" for row in rows]
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body, ""]


def plot(content: Mapping[str, Any], settings: Iteration, out: Path) -> None:
    """Draw report.png: losses of the policies and their separation of states, if it was measured, the gap and the ranks of the
    energies on held-out states, and test theorems proved by round."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rounds = content["rounds"]
    curves = [
        ("policy", "loss", "training loss (nats per token)"),
        ("policy", "held-out loss", "held-out loss (nats per token)"),
        ("policy", "separation", "separation of held-out states (AUC)"),
        ("energy", "gap", "gap of held-out energies"),
        ("energy", "top-1", "held-out positives ranked first"),
    ]
    shown = [one for one in curves if any(one[1] in row for part in rounds for row in part[one[0]].get("curve", ()))]
    height = 3.5 * math.ceil((len(shown) + 1) / 3)
    figure = pyplot.figure(figsize=(13, height), layout="constrained")
    *panels, right = figure.subplots(math.ceil((len(shown) + 1) / 3), 3, squeeze=False).flatten()[: len(shown) + 1]
    for axes, (name, key, label) in zip(panels, shown, strict=True):
        for part in rounds:
            rows = [row for row in part[name].get("curve", ()) if key in row]
            axes.plot(
                [row["step"] for row in rows], [row[key] for row in rows], marker=".", label=f"round {part['round']}"
            )
        axes.set(title=name, xlabel="step", ylabel=label)
    for name in (arm.name for arm in settings.chosen):
        found = [(one["round"], one["arms"][name]["proved"]) for one in rounds if name in one["arms"]]
        right.plot(*zip(*found, strict=True), marker="o", label=name) if found else None
    right.set(title="test theorems", xlabel="round", ylabel="proved", xticks=[one["round"] for one in rounds])
    right.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    low, high = right.get_ylim()
    right.set_ylim(low - 0.5, high + 0.5)  # at least one whole number, even if all arms prove the same theorems
    for axes in (*panels, right):
        axes.legend(frameon=False, fontsize="small")
    for axes in figure.axes[len(shown) + 1 :]:
        axes.remove()
    figure.savefig(out / "report.png", dpi=120)
    pyplot.close(figure)
