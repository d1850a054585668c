"""Statistics of search runs: proved shares with confidence intervals, and paired comparisons of two runs."""

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from rich.markup import escape
from rich.table import Table

from monge.apps.prove.state import Theorem
from monge.apps.prove.trajectories import Result, attempts, results
from monge.text import printable


def share(proved: int, total: int) -> str:
    """A proportion with its 95 % confidence interval. Wilson 1927."""
    from scipy.stats import binomtest  # takes a second to import

    interval = binomtest(proved, total).proportion_ci(method="wilson")
    return f"{proved} of {total}, {proved / total:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def settings(path: Path) -> dict[str, Any]:
    """Contents of a run's settings.json. FileNotFoundError if there is no run, ValueError if it cannot be read."""
    file = path / "settings.json"
    if not file.exists():
        raise FileNotFoundError(f"{path} holds no run of `monge prove search`; choose another directory")
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{file}: expected a JSON object; restore the file")
    return stored


def done(path: Path) -> list[Result]:
    """Results of the finished theorems of a run. ValueError if there are none, FileNotFoundError if there is no run."""
    settings(path)
    if not (finished := results(path)):
        raise ValueError(f"{path}: no theorem is finished yet; resume the run with --resume")
    return finished


def summary_of(path: Path) -> Table:
    """Table of a run's proved share, reasons for ending, medians, and outcomes of tactics. Errors as in `done`."""
    finished, tried = done(path), attempts(path)
    table = Table(title=escape(printable(str(path))), show_header=False)
    proved = [result for result in finished if result.proved]
    table.add_row("proved, 95 % interval", share(len(proved), len(finished)))
    for ended, count in Counter(result.ended for result in finished).most_common():
        table.add_row(f"  {ended}", str(count))
    table.add_row("states expanded, median", f"{median(result.expanded for result in finished):g}")
    table.add_row("seconds, median", f"{median(result.seconds for result in finished):.1f}")
    if proved:
        table.add_row("tactics per proof, median", f"{median(len(result.tactics or ()) for result in proved):g}")
    table.add_row("tactics tried", str(len(tried)))
    for outcome, count in Counter(tried.column("outcome").to_pylist()).most_common():
        table.add_row(f"  {outcome}", f"{count} ({count / len(tried):.1%})")
    labelled = zip(tried.column("label").to_pylist(), tried.column("tactic").to_pylist(), strict=True)
    for tactic, count in Counter(tactic for label, tactic in labelled if label == "positive").most_common(5):
        table.add_row(escape(printable(f"  in proofs: {tactic}")), str(count))
    for note in sorted({note for result in finished for note in result.header_notes}):
        table.add_row("header", escape(printable(note)))
    return table


COMPARED = {
    *(
        "run",
        "program",
        "contents",
        "cache",
        "policy",
        "examples",
        "energy",
        "energy_measure",
        "embeddings",
        "tactics",
        "prompt",
        "theorems",
        "server",
        "local",
    ),
    *(
        f"search.{name}"
        for name in ("order", "alpha", "beta", "policy_temperature", "energy_temperature", "path_logprob")
    ),
    *(f"search.{name}" for name in ("exploration", "seed", "harvest")),
}
"""Settings in which compared runs may differ. All others must be equal, as must the DECODING settings of the policy in use."""
DECODING = ("temperature", "top_p", "max_tokens")


def decoding(settings: dict[str, Any]) -> dict[str, Any]:
    """Decoding settings of a run's policy; empty if it does not sample."""
    policies = settings.get("policy", "").split("+")
    if "server" in policies:
        return {name: settings["server"][name] for name in DECODING}
    if "local" in policies:
        sampling = settings["local"]["sampling"]
        temperature, top_p, max_tokens = (sampling[name] for name in ("temperature", "top_p", "max_new_tokens"))
        added = {"replacement": True, "reranked": 0, "answers": True}  # earlier runs lack these settings
        others = {name: sampling.get(name, default) for name, default in added.items()}
        return {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, **others}
    return {}


def comparison(first: Path, second: Path, *, unequal: bool = False) -> Table:
    """Table that compares two runs on the theorems that both have finished.

    ValueError if there are none, or if the runs differ in settings outside COMPARED or in decoding, and `unequal` is False.
    """
    stored = settings(first), settings(second)
    differ = _differences(*stored)
    if all(sampling := [decoding(run) for run in stored]):
        differ += [
            f"{stored[0]['policy']}.{name}"
            for name in sampling[0]
            if sampling[0][name] != sampling[1].get(name, sampling[0][name])
        ]
    if differ and not unequal:
        raise ValueError(f"{first} and {second} differ in {', '.join(differ)}; pass --unequal to compare them anyway")
    one, other = ({_key(result): result for result in done(path)} for path in (first, second))
    pairs = [(one[key], other[key]) for key in one.keys() & other.keys()]
    if not pairs:
        raise ValueError(f"{first} and {second} share no finished theorem; choose runs on the same theorems")
    only_first = sum(a.proved and not b.proved for a, b in pairs)
    only_second = sum(b.proved and not a.proved for a, b in pairs)
    both = [(a, b) for a, b in pairs if a.proved and b.proved]
    table = Table(title=f"{len(pairs)} theorems in both" + (f"; they differ in {', '.join(differ)}" if differ else ""))
    for name in ("", str(first), str(second)):
        table.add_column(escape(printable(name)))
    if (programs := [run.get("program", "") for run in stored])[0] != programs[1]:
        table.add_row("program", *programs)
    table.add_row("proved, 95 % interval", *(share(sum(pair[k].proved for pair in pairs), len(pairs)) for k in (0, 1)))
    if any(unpaired := [len(one) - len(pairs), len(other) - len(pairs)]):
        table.add_row("left out: not finished in the other", *map(str, unpaired))
    table.add_row("proved by this run only", str(only_first), str(only_second))
    table.add_row("McNemar's exact test, p", f"{mcnemar(only_first, only_second):.3g}", "")
    for name, subset in (("all", pairs), ("proved by both", both)):
        if subset:
            table.add_row(
                f"states, median, {name}", *(f"{median(pair[k].expanded for pair in subset):g}" for k in (0, 1))
            )
            table.add_row(
                f"seconds, median, {name}", *(f"{median(pair[k].seconds for pair in subset):.2f}" for k in (0, 1))
            )
    return table


def mcnemar(first: int, second: int) -> float:
    """p-value of the exact two-sided test, from the numbers of theorems that only one of two runs proves. McNemar 1947."""
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def _key(result: Result) -> Theorem:
    return result.theorem


def _differences(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the settings that differ."""
    names: list[str] = []
    for key in sorted(first.keys() | second.keys()):
        a, b = first.get(key), second.get(key)
        if prefix + key in COMPARED:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            names += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            names.append(prefix + key)
    return names
