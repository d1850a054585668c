"""Benchmarks of the Lean proof search: shares proved at equal budgets, cost of a step, scaling over workers, crash safety.

    python benchmarks/prove.py shares [--work runs/benchmark-prove] [--seeds 3] [--workers 2]    # resumes where it was stopped
    python benchmarks/prove.py steps                # our Python compared with the same requests through a bare pipe
    python benchmarks/prove.py workers              # theorems per minute, two workers compared with one
    python benchmarks/prove.py soak --searches 2000    # a Lean server of a worker is killed every 30 s

Requires `monge prove setup`. Each arm of `shares` takes about eight minutes on two cores, or three on the library's theorems.
"""

import side_by_side as side  # sets the number of threads to one

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
from monge.apps.prove.campaign import ignore_interrupts, program, run
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
"""Settings by arm. Only the last arm is random; the others are run once."""
EQUAL = Search(num_tactics=32, max_states=16, batch_size=1, max_seconds=60.0)
"""The limit is meant to be on states, since seconds depend on the machine's load; states are expanded singly, so that order
matters."""
PACKAGES = ("numpy", "pyarrow", "psutil")


def config_of(arm: str, equal: Search, seed: int, tactics: tuple[str, ...]) -> SearchConfig:
    """The settings of an arm."""
    options = ARMS[arm]
    order = options.get("order", "best")
    return SearchConfig(
        replace(equal, order=order, seed=seed), policy=options.get("policy", "template"), tactics=tactics
    )


def fleets(workers: int) -> Callable[[], fleet.Fleet]:
    """Fleets of the given number of worker processes."""
    return lambda: fleet.processes(workers, start=ignore_interrupts)


def shares(
    work: Path = Path("runs/benchmark-prove"),
    seeds: int = 3,
    workers: int = 2,
    source: Path = DATA,
    split: Split = "test",
    max_states: int = EQUAL.max_states,
    limit: int | None = None,
    arms: tuple[str, ...] = tuple(ARMS),
) -> None:
    """Share proved of the benchmark's or the library's theorems, by policy and order, at equal budgets.

    Results of other arms with the same program, theorems and budget are read back, so arms can be run separately.

    Args:
        work: Directory for the runs.
        seeds: Number of seeds for the random arm.
        workers: Number of worker processes.
        source: File or directory of theorems, such as monge/apps/prove/data/library.txt; default: the benchmark.
        split: Split of the theorems to use.
        max_states: Maximum number of states per search.
        limit: Number of theorems to use from the beginning (default: all).
        arms: Arms to run.
    """
    theorems = [entry.theorem for entry in entries_of(source, split)][:limit]
    with LeanServer(embedded_lean(), theorems[0].imports) as server:
        tactics = tuple(known(server, PROBES))
    name, equal = f"prove_shares_{source.stem}", replace(EQUAL, max_states=max_states)
    terms = hashlib.blake2b(repr((program(), equal, theorems)).encode(), digest_size=6).hexdigest()
    rows = [row for row in side.read_result(name) if row.get("terms") != terms or row["arm"] not in arms]
    for arm in arms:
        for seed in range(seeds if ARMS[arm].get("order") == "random" else 1):
            out = work / source.stem / f"{arm} {seed}".replace(", ", "-").replace(" ", "-")
            config = config_of(arm, equal, seed, tactics)
            finished = run(config, theorems, out, fleets=fleets(workers), resume=out.exists())
            rows.append({**row_of(arm, seed, finished), "terms": terms, **side.origin()})
            print(f"{arm}, seed {seed}: {rows[-1]['proved']}", flush=True)
            side.write_result(name, rows, packages=PACKAGES)
    side.print_table(
        f"{source.stem}, {split}: {len(theorems)}, {max_states} states, {equal.max_seconds:g} s",
        paired([row for row in rows if row.get("terms") == terms]),
    )


def row_of(arm: str, seed: int, finished: list[Result]) -> dict[str, Any]:
    """The result of an arm with one seed."""
    return {
        "arm": arm,
        "seed": seed,
        "proved": share(sum(r.proved for r in finished), len(finished)),
        "out of time": sum(r.ended == "out of time" for r in finished),
        "states, median": statistics.median(r.expanded for r in finished),
        "seconds, median": statistics.median(r.seconds for r in finished),
        "which": [r.number for r in finished if r.proved],
    }


def paired(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The arms in order, each compared with "template, best-first" if that arm has been run."""
    best = next((set(row["which"]) for row in rows if row["arm"] == "template, best-first"), None)
    table: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (list(ARMS).index(row["arm"]), row["seed"])):
        shown = {key: value for key, value in row.items() if key not in {"which", "terms", "time", "commit"}}
        if best is not None:
            arm_only, best_only = len(set(row["which"]) - best), len(best - set(row["which"]))
            shown |= {
                "this arm only": arm_only,
                "best-first only": best_only,
                "McNemar p": mcnemar(arm_only, best_only),
            }
        table.append(shown)
    return table


class Recording(LeanServer):
    """A server that records its requests."""

    def __init__(self, *arguments: Any, **fields: Any) -> None:
        self.requests: list[bytes] = []
        super().__init__(*arguments, **fields)

    def request(self, do: str, *, seconds: float = 60.0, **fields: Any) -> dict[str, Any]:
        self.requests.append(json.dumps({"do": do, **fields}).encode() + b"\n")
        return super().request(do, seconds=seconds, **fields)


def bare(lines: list[bytes]) -> float:
    """Seconds that a server takes for these requests if its responses are read and discarded."""
    with LeanServer(embedded_lean()) as server:
        server.hello()
        into, out = server._process.stdin, server._process.stdout
        assert into is not None
        assert out is not None
        start = time.perf_counter()
        for line in lines:
            os.write(into.fileno(), line)
            while not os.read(out.fileno(), 1 << 20).endswith(b"\n"):
                pass
        return time.perf_counter() - start


def steps(rounds: int = 5, max_states: int = 40) -> None:
    """Tactic steps per second, and the overhead of our Python over a bare server (target: at most 15 %).

    Args:
        rounds: Number of rounds, each with both in turn; medians are reported.
        max_states: Number of states expanded in each search.
    """
    theorem = next(e.theorem for e in entries_of(DATA / "naturals.lean") if e.theorem.name == "add_comm")
    settings = replace(EQUAL, max_states=max_states, max_seconds=600.0)
    monge_seconds: list[float] = []
    bare_seconds: list[float] = []
    count = 0
    with Judge(embedded_lean()) as judge:
        for _ in range(rounds):
            servers = Supervisor(lambda: Recording(embedded_lean()))
            server = servers.ready(SEARCH)
            session = Session(theorem, servers, judge, Budget())
            start = time.perf_counter()
            outcome = search(session, Template(Names.of(theorem.header)), settings)
            monge_seconds.append(time.perf_counter() - start)
            assert servers.current(SEARCH) is server, "a server crashed, so the comparison is invalid"
            assert isinstance(server, Recording)
            count = len(outcome.attempts)
            servers.close()
            bare_seconds.append(bare(server.requests))
    ours, theirs = statistics.median(monge_seconds), statistics.median(bare_seconds)
    row = {"steps": count, "monge steps/s": count / ours, "bare steps/s": count / theirs, "overhead": ours / theirs - 1}
    side.print_table("Steps", [row])
    side.write_result("prove_steps", [{**row, "monge s": monge_seconds, "bare s": bare_seconds}], packages=PACKAGES)


def spin(_: int) -> float:
    """Seconds that a purely CPU-bound loop takes."""
    start = time.perf_counter()
    total = 0
    for number in range(30_000_000):
        total += number
    return time.perf_counter() - start


def machine() -> float:
    """Speed-up of two CPU-bound processes over one on this machine: the upper bound for two workers."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        alone = statistics.median(pool.apply(spin, (0,)) for _ in range(3))
        both = statistics.median(max(pool.map(spin, (0, 0), chunksize=1)) for _ in range(3))
    return 2 * alone / both


def workers(rounds: int = 3, max_states: int = 24) -> None:
    """Theorems per minute with two workers and with one (target: 1.6 times), measured twice: from the first result on, and
    including Lean's startup.

    Args:
        rounds: Number of rounds, each with both in turn.
        max_states: Number of states per search, the limit that is meant to be reached, so that both do the same work.
    """
    family = [entry.theorem for entry in entries_of(DATA / "naturals.lean")]
    theorems = [replace(theorem, name=f"{theorem.name}_{copy}") for copy in range(2) for theorem in family]
    random.Random(0).shuffle(
        theorems
    )  # the hard theorems come last, so one worker would be idle while the other finishes
    config = SearchConfig(replace(EQUAL, max_states=max_states, max_seconds=600.0))
    timings: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    cores: list[float] = []
    for _ in range(rounds):
        cores.append(machine())
        for count, spans in timings.items():
            ends: list[float] = []
            with TemporaryDirectory() as folder:
                start = time.perf_counter()
                run(
                    config,
                    theorems,
                    Path(folder),
                    fleets=fleets(count),
                    on_result=lambda _, ends=ends: ends.append(time.perf_counter()),
                )
            spans.append((ends[0] - start, ends[-1] - ends[0]))
            print(
                f"{count} workers: first result after {spans[-1][0]:.0f} s, the others in {spans[-1][1]:.0f} s",
                flush=True,
            )
    first = {count: statistics.median(start for start, _ in spans) for count, spans in timings.items()}
    total = len(theorems)
    with_startup = {count: 60 * total / statistics.median(map(sum, spans)) for count, spans in timings.items()}
    rate = {count: 60 * (total - 1) / statistics.median(rest for _, rest in spans) for count, spans in timings.items()}
    row = {
        "one, theorems/min": rate[1],
        "two, theorems/min": rate[2],
        "two / one": rate[2] / rate[1],
        "one, first result after s": first[1],
        "two, first result after s": first[2],
        "two / one, with startup": with_startup[2] / with_startup[1],
        "two cores / one": statistics.median(cores),
    }
    side.print_table("Workers", [row])
    side.write_result("prove_workers", [{**row, "seconds": {str(k): v for k, v in timings.items()}}], packages=PACKAGES)


def soak(
    work: Path = Path("runs/benchmark-soak"),
    searches: int = 2000,
    every: float = 30.0,
    count: int = 2,
    max_states: int = 4,
) -> None:
    """Many searches while Lean servers of the workers are killed repeatedly: no result is lost, duplicated or a false proof.

    Args:
        work: Directory of the run; an existing run is resumed.
        searches: Number of searches; they cycle through the benchmark's theorems, with every tenth replaced by a false one.
        every: Seconds between kills.
        count: Number of workers.
        max_states: Maximum number of states per search.
    """
    entries = [entry.theorem for entry in entries_of(DATA)]
    entries = [replace(t, name=f"{t.name}_{k}") for k, t in enumerate(entries * (searches // len(entries) + 1))][
        :searches
    ]
    entries = [replace(t, signature=": False") if k % 10 == 9 else t for k, t in enumerate(entries)]
    ended, kills, peak = threading.Event(), [0], [0.0]

    def disturb() -> None:
        draws, next_kill = random.Random(0), time.monotonic() + every
        while not ended.wait(1.0):
            servers = [p for p in psutil.Process().children(recursive=True) if "node" in _name(p)]
            peak[0] = max(peak[0], sum(_resident(p) for p in servers) / 1e9)
            if time.monotonic() > next_kill and servers:
                draws.choice(servers).kill()
                kills[0] += 1
                next_kill = time.monotonic() + every

    threading.Thread(target=disturb, daemon=True).start()
    start = time.monotonic()
    config = SearchConfig(replace(EQUAL, max_states=max_states, max_seconds=30.0))
    finished = run(config, entries, work, fleets=fleets(count), resume=work.exists())
    ended.set()
    rows = attempts(work)
    keys = [key for key in rows.column("state_id").to_pylist() if key]
    row = {
        "searches": len(finished),
        "kills": kills[0],
        "lost": searches - len({r.number for r in finished}),
        "duplicated": len(results(work)) - len({r.number for r in finished}) + len(keys) - len(set(keys)),
        "rows": len(rows),
        "rows missing": sum(r.attempts for r in finished) - len(rows),
        "proved": sum(r.proved for r in finished),
        "false theorems proved": sum(r.proved and r.signature == ": False" for r in finished),
        "peak GB of all Lean processes": peak[0],
        "GB, limit": 4 * count * config.limits.memory_gb,
        "hours": (time.monotonic() - start) / 3600,
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
