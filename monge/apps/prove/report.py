"""What runs came to: shares with intervals, and two runs paired."""

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


def share(proved: int, of: int) -> str:
    """A share with its 95 % interval, Wilson 1927."""
    from scipy.stats import binomtest  # a second to import

    found = binomtest(proved, of).proportion_ci(method="wilson")
    return f"{proved} of {of}, {proved / of:.1%} ({found.low:.1%} to {found.high:.1%})"


def settings(path: Path) -> dict[str, Any]:
    """What a run was told. FileNotFoundError if there is none, ValueError if it cannot be read."""
    file = path / "settings.json"
    if not file.exists():
        raise FileNotFoundError(f"{path}: no run of `monge prove search` here")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{file}: no settings of a run")
    return told


def done(path: Path) -> list[Result]:
    """The theorems of a run that are done. ValueError if none is, FileNotFoundError if there is no run."""
    settings(path)
    if not (found := results(path)):
        raise ValueError(f"{path}: no theorem is done here yet")
    return found


def summary_of(path: Path) -> Table:
    """A run in numbers."""
    found, tried = done(path), attempts(path)
    table = Table(title=escape(printable(str(path))), show_header=False)
    proved = [result for result in found if result.proved]
    table.add_row("proved, 95 % interval", share(len(proved), len(found)))
    for ended, count in Counter(result.ended for result in found).most_common():
        table.add_row(f"  {ended}", str(count))
    table.add_row("states expanded, median", f"{median(result.expanded for result in found):g}")
    table.add_row("seconds, median", f"{median(result.seconds for result in found):.1f}")
    if proved:
        table.add_row("tactics of a proof, median", f"{median(len(result.tactics or ()) for result in proved):g}")
    table.add_row("tactics tried", str(len(tried)))
    for outcome, count in Counter(tried.column("outcome").to_pylist()).most_common():
        table.add_row(f"  {outcome}", f"{count} ({count / len(tried):.1%})")
    labelled = zip(tried.column("label").to_pylist(), tried.column("tactic").to_pylist(), strict=True)
    for tactic, count in Counter(tactic for label, tactic in labelled if label == "positive").most_common(5):
        table.add_row(escape(printable(f"  in proofs: {tactic}")), str(count))
    for tell in sorted({tell for result in found for tell in result.tells}):
        table.add_row("a header", escape(printable(tell)))
    return table


ASIDE = {
    *("run", "program", "policy", "tactics", "theorems", "server", "local"),
    *(f"search.{name}" for name in ("order", "alpha", "beta", "policy_temperature", "energy_temperature", "path")),
    *(f"search.{name}" for name in ("exploration", "seed", "harvest")),
}
"""Settings that two runs may differ in: they are what is compared. Budgets and settings of decoding are not."""
DECODING = ("temperature", "top_p", "max_tokens")


def decoding(told: dict[str, Any]) -> dict[str, Any]:
    """How the policy of a run draws tactics; nothing if it draws none."""
    match told.get("policy"):
        case "server":
            return {name: told["server"][name] for name in DECODING}
        case "local":
            drawn = told["local"]["sampling"]
            return {"temperature": drawn["temperature"], "top_p": drawn["top_p"], "max_tokens": drawn["max_new_tokens"]}
        case _:
            return {}


def comparison(first: Path, second: Path, *, unequal: bool = False) -> Table:
    """Two runs on the theorems that both have done. ValueError if budgets or settings differ, or they share no theorem."""
    told = settings(first), settings(second)
    differ = _differences(*told)
    if all(drawn := [decoding(one) for one in told]):
        differ += [f"{told[0]['policy']}.{name}" for name in DECODING if drawn[0][name] != drawn[1][name]]
    if differ and not unequal:
        raise ValueError(f"{first} and {second} differ in {', '.join(differ)}; --unequal compares them all the same")
    one, other = ({_key(result): result for result in done(path)} for path in (first, second))
    pairs = [(one[key], other[key]) for key in one.keys() & other.keys()]
    if not pairs:
        raise ValueError(f"{first} and {second} have no theorem in common")
    ours, theirs = sum(a.proved and not b.proved for a, b in pairs), sum(b.proved and not a.proved for a, b in pairs)
    both = [(a, b) for a, b in pairs if a.proved and b.proved]
    table = Table(title=f"{len(pairs)} theorems in both" + (f"; unequal: {', '.join(differ)}" if differ else ""))
    for name in ("", str(first), str(second)):
        table.add_column(escape(printable(name)))
    if (programs := [one.get("program", "") for one in told])[0] != programs[1]:
        table.add_row("program", *programs)
    table.add_row("proved, 95 % interval", *(share(sum(pair[k].proved for pair in pairs), len(pairs)) for k in (0, 1)))
    if any(alone := [len(one) - len(pairs), len(other) - len(pairs)]):
        table.add_row("left out: not done in the other", *map(str, alone))
    table.add_row("proved by it alone", str(ours), str(theirs))
    table.add_row("McNemar's exact p", f"{mcnemar(ours, theirs):.3g}", "")
    for name, over in (("all", pairs), ("proved by both", both)):
        if over:
            table.add_row(
                f"states, median, {name}", *(f"{median(pair[k].expanded for pair in over):g}" for k in (0, 1))
            )
            table.add_row(
                f"seconds, median, {name}", *(f"{median(pair[k].seconds for pair in over):.2f}" for k in (0, 1))
            )
    return table


def mcnemar(first: int, second: int) -> float:
    """p of the exact two-sided test that what one run alone proves is as often the first's. McNemar 1947."""
    from scipy.stats import binomtest

    return float(binomtest(first, first + second).pvalue) if first + second else 1.0


def _key(result: Result) -> Theorem:
    return result.theorem


def _differences(first: dict[str, Any], second: dict[str, Any], before: str = "") -> list[str]:
    """Names of settings that differ."""
    found: list[str] = []
    for key in sorted(first.keys() | second.keys()):
        a, b = first.get(key), second.get(key)
        if before + key in ASIDE:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{before}{key}.")
        elif a != b:
            found.append(before + key)
    return found
