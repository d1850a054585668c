"""Search for Lean proofs: what policies and orders prove at equal budgets, what a step costs, what workers and their deaths do.

    python benchmarks/prove.py shares [--work runs/benchmark-prove] [--seeds 3] [--workers 2]    # goes on where it was stopped
    python benchmarks/prove.py steps                # our Python beside the same requests through a bare pipe
    python benchmarks/prove.py workers              # theorems a minute, two workers beside one
    python benchmarks/prove.py soak --searches 2000    # a worker's Lean killed every 30 s

It needs `monge prove setup`. About eight minutes for each arm of `shares` on two cores, three on the library.
"""

import side_by_side as side  # it sets one thread

# isort: split

import hashlib
import json
import multiprocessing
import os
import random
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import tyro

from monge import fleet
from monge.apps.prove.campaign import program, run, undisturbed
from monge.apps.prove.config import SearchConfig
from monge.apps.prove.families import DATA
from monge.apps.prove.lean.judge import Judge
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.session import SEARCH, Session
from monge.apps.prove.lean.setup import embedded_lean
from monge.apps.prove.lean.supervisor import Supervisor
from monge.apps.prove.policy import PROBES, Names, Template
from monge.apps.prove.report import mcnemar, share
from monge.apps.prove.search import search
from monge.apps.prove.sources import Split, entries_of
from monge.apps.prove.state import Budget
from monge.apps.prove.trajectories import Result, attempts, results
from monge.apps.prove.tree import Search
from monge.apps.prove.worker import known

ARMS: dict[str, dict[str, Any]] = {
    "probes, best-first": {"policy": "probes"},
    "template, best-first": {},
    "template, breadth-first": {"order": "breadth"},
    "template, PUCT": {"order": "puct"},
    "template, random order": {"order": "random"},
}
"""Only the last draws anything: the others are run once."""
EQUAL = Search(candidates=32, nodes=16, batch_size=1, seconds=60.0)
"""States decide, not seconds, which the machine's load changes; one at a time, so that the order has its say."""
PACKAGES = ("numpy", "pyarrow", "psutil")


def config_of(arm: str, equal: Search, seed: int, tactics: tuple[str, ...]) -> SearchConfig:
    """What an arm is told."""
    how = ARMS[arm]
    order = how.get("order", "best")
    return SearchConfig(replace(equal, order=order, seed=seed), policy=how.get("policy", "template"), tactics=tactics)


def fleets(workers: int) -> Callable[[], fleet.Fleet]:
    """That many workers, each a process."""
    return lambda: fleet.processes(workers, start=undisturbed)


def shares(
    work: Path = Path("runs/benchmark-prove"),
    seeds: int = 3,
    workers: int = 2,
    source: Path = DATA,
    split: Split = "test",
    nodes: int = EQUAL.nodes,
    most: int | None = None,
    arms: tuple[str, ...] = tuple(ARMS),
) -> None:
    """The proved share of the benchmark, or of the library's theorems, by policy and order, at equal budgets.

    What other arms came to on the same terms (program, theorems, budget) is read back: arms can be run on different days.

    Args:
        work: Where runs are kept.
        seeds: Of the arm that draws.
        workers: Processes.
        source: Where the theorems are: the benchmark, or data/library.txt in it.
        split: Which of them.
        nodes: States of a search.
        most: The first of them, all if not said.
        arms: Which of them.
    """
    theorems = [entry.theorem for entry in entries_of(source, split)][:most]
    with LeanServer(embedded_lean(), theorems[0].imports) as server:
        tactics = tuple(known(server, PROBES))
    name, equal = f"prove_shares_{source.stem}", replace(EQUAL, nodes=nodes)
    terms = hashlib.blake2b(repr((program(), equal, theorems)).encode(), digest_size=6).hexdigest()
    rows = [row for row in side.read_result(name) if row.get("terms") != terms or row["arm"] not in arms]
    for arm in arms:
        for seed in range(seeds if ARMS[arm].get("order") == "random" else 1):
            out = work / source.stem / f"{arm} {seed}".replace(", ", "-").replace(" ", "-")
            config = config_of(arm, equal, seed, tactics)
            found = run(config, theorems, out, fleets=fleets(workers), resume=out.exists())
            rows.append({**row_of(arm, seed, found), "terms": terms, **side.origin()})
            print(f"{arm}, seed {seed}: {rows[-1]['proved']}", flush=True)
            side.write_result(name, rows, packages=PACKAGES)
    side.print_table(
        f"{source.stem}, {split}: {len(theorems)}, {nodes} states, {equal.seconds:g} s",
        paired([row for row in rows if row.get("terms") == terms]),
    )


def row_of(arm: str, seed: int, found: list[Result]) -> dict[str, Any]:
    """What an arm came to."""
    return {
        "arm": arm,
        "seed": seed,
        "proved": share(sum(r.proved for r in found), len(found)),
        "out of time": sum(r.ended == "out of time" for r in found),
        "states, median": statistics.median(r.expanded for r in found),
        "seconds, median": statistics.median(r.seconds for r in found),
        "which": [r.number for r in found if r.proved],
    }


def paired(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The arms in order, each beside the template with best-first where that is there."""
    best = next((set(row["which"]) for row in rows if row["arm"] == "template, best-first"), None)
    table: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (list(ARMS).index(row["arm"]), row["seed"])):
        shown = {key: value for key, value in row.items() if key not in {"which", "terms", "time", "commit"}}
        if best is not None:
            ours, theirs = len(set(row["which"]) - best), len(best - set(row["which"]))
            shown |= {"alone": ours, "best-first alone": theirs, "McNemar p": mcnemar(ours, theirs)}
        table.append(shown)
    return table


class Recording(LeanServer):
    """A server that remembers what it was asked."""

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        self.asked: list[bytes] = []
        super().__init__(*arguments, **fields)

    def request(self, do: str, *, seconds: float = 60.0, **fields: Any) -> dict[str, Any]:
        self.asked.append(json.dumps({"do": do, **fields}).encode() + b"\n")
        return super().request(do, seconds=seconds, **fields)


def bare(lines: list[bytes]) -> float:
    """Seconds that a server takes for these requests when nothing is done with the answers."""
    with LeanServer(embedded_lean()) as server:
        server.hello()
        into, out = server._process.stdin, server._process.stdout
        assert into is not None
        assert out is not None
        began = time.perf_counter()
        for line in lines:
            os.write(into.fileno(), line)
            while not os.read(out.fileno(), 1 << 20).endswith(b"\n"):
                pass
        return time.perf_counter() - began


def steps(rounds: int = 5, nodes: int = 40) -> None:
    """Tactic steps a second, and what our Python adds to the bare server (bar: at most 15 %).

    Args:
        rounds: Of both, one after the other; medians count.
        nodes: States expanded in each.
    """
    theorem = next(e.theorem for e in entries_of(DATA / "naturals.lean") if e.theorem.name == "add_comm")
    how = replace(EQUAL, nodes=nodes, seconds=600.0)
    ours: list[float] = []
    theirs: list[float] = []
    count = 0
    with Judge(embedded_lean()) as judge:
        for _ in range(rounds):
            servers = Supervisor(lambda: Recording(embedded_lean()))
            server = servers.ready(SEARCH)
            session = Session(theorem, servers, judge, Budget())
            began = time.perf_counter()
            outcome = search(session, Template(Names.of(theorem.header)), how)
            ours.append(time.perf_counter() - began)
            assert servers.current(SEARCH) is server, "a server crashed: the comparison is not fair"
            assert isinstance(server, Recording)
            count = len(outcome.attempts)
            servers.close()
            theirs.append(bare(server.asked))
    mine, others = statistics.median(ours), statistics.median(theirs)
    row = {"steps": count, "monge steps/s": count / mine, "bare steps/s": count / others, "overhead": mine / others - 1}
    side.print_table("Steps", [row])
    side.write_result("prove_steps", [{**row, "monge s": ours, "bare s": theirs}], packages=PACKAGES)


def spin(_: int) -> float:
    """Seconds of a loop that needs nothing but a core."""
    began = time.perf_counter()
    total = 0
    for number in range(30_000_000):
        total += number
    return time.perf_counter() - began


def machine() -> float:
    """How many times one core's work this machine's two do at once: what any two workers could come to at most."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        alone = statistics.median(pool.apply(spin, (0,)) for _ in range(3))
        both = statistics.median(max(pool.map(spin, (0, 0), chunksize=1)) for _ in range(3))
    return 2 * alone / both


def workers(rounds: int = 3, nodes: int = 24) -> None:
    """Theorems a minute with two workers beside one (bar: 1.6 times), from the first result on, and with the start of Lean.

    Args:
        rounds: Of both, one after the other.
        nodes: States of a search: these alone end it, so that both do the same work.
    """
    family = [entry.theorem for entry in entries_of(DATA / "naturals.lean")]
    theorems = [replace(theorem, name=f"{theorem.name}_{turn}") for turn in range(2) for theorem in family]
    random.Random(0).shuffle(theorems)  # the hard ones come last in the family, and the very last is one worker's alone
    config = SearchConfig(replace(EQUAL, nodes=nodes, seconds=600.0))
    seen: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    cores: list[float] = []
    for _ in range(rounds):
        cores.append(machine())
        for count, spans in seen.items():
            ends: list[float] = []
            with TemporaryDirectory() as folder:
                began = time.perf_counter()
                run(
                    config,
                    theorems,
                    Path(folder),
                    fleets=fleets(count),
                    told=lambda _, ends=ends: ends.append(time.perf_counter()),
                )
            spans.append((ends[0] - began, ends[-1] - ends[0]))
            print(f"{count}: the first after {spans[-1][0]:.0f} s, the others in {spans[-1][1]:.0f} s", flush=True)
    first = {count: statistics.median(start for start, _ in spans) for count, spans in seen.items()}
    most = len(theorems)
    whole = {count: 60 * most / statistics.median(map(sum, spans)) for count, spans in seen.items()}
    rate = {count: 60 * (most - 1) / statistics.median(rest for _, rest in spans) for count, spans in seen.items()}
    row = {
        "one, theorems/min": rate[1],
        "two, theorems/min": rate[2],
        "two / one": rate[2] / rate[1],
        "one, first after s": first[1],
        "two, first after s": first[2],
        "two / one, with that": whole[2] / whole[1],
        "two cores / one": statistics.median(cores),
    }
    side.print_table("Workers", [row])
    side.write_result("prove_workers", [{**row, "seconds": {str(k): v for k, v in seen.items()}}], packages=PACKAGES)


def soak(
    work: Path = Path("runs/benchmark-soak"), searches: int = 2000, every: float = 30.0, count: int = 2, nodes: int = 4
) -> None:
    """Many searches while a Lean of a worker is killed again and again: nothing lost, doubled or falsely proved.

    Args:
        work: Where the run is kept; begun runs go on.
        searches: How many; the benchmark's theorems in turn, each tenth of them false.
        every: Seconds between kills.
        count: Workers.
        nodes: States of a search.
    """
    entries = [entry.theorem for entry in entries_of(DATA)]
    entries = [replace(t, name=f"{t.name}_{k}") for k, t in enumerate(entries * (searches // len(entries) + 1))][
        :searches
    ]
    # what is false: the last thing said, and its contrary
    entries = [replace(t, signature=": False") if k % 10 == 9 else t for k, t in enumerate(entries)]
    ended, kills, peak = threading.Event(), [0], [0.0]

    def disturb() -> None:
        draws, next_kill = random.Random(0), time.monotonic() + every
        while not ended.wait(1.0):
            mine = [p for p in psutil.Process().children(recursive=True) if "node" in _name(p)]
            peak[0] = max(peak[0], sum(_resident(p) for p in mine) / 1e9)
            if time.monotonic() > next_kill and mine:
                draws.choice(mine).kill()
                kills[0] += 1
                next_kill = time.monotonic() + every

    threading.Thread(target=disturb, daemon=True).start()
    began = time.monotonic()
    config = SearchConfig(replace(EQUAL, nodes=nodes, seconds=30.0))
    found = run(config, entries, work, fleets=fleets(count), resume=work.exists())
    ended.set()
    rows = attempts(work)
    keys = [key for key in rows.column("state_id").to_pylist() if key]
    row = {
        "searches": len(found),
        "kills": kills[0],
        "lost": searches - len({r.number for r in found}),
        "doubled": len(results(work)) - len({r.number for r in found}) + len(keys) - len(set(keys)),
        "rows": len(rows),
        "rows missing": sum(r.attempts for r in found) - len(rows),
        "proved": sum(r.proved for r in found),
        "false ones proved": sum(r.proved and r.signature == ": False" for r in found),
        "GB of all Leans, most": peak[0],
        "GB, cap": 4 * count * config.limits.memory,
        "hours": (time.monotonic() - began) / 3600,
    }
    side.print_table("Soak", [row])
    side.write_result("prove_soak", [row], packages=PACKAGES)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _resident(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0.0


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({f.__name__: f for f in (shares, steps, workers, soak)})
