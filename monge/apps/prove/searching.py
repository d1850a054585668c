"""The verbs `search`, `probe` and `replay` of `monge prove`."""

import math
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Literal

import tyro

from monge import fleet
from monge.apps.prove.campaign import ignore_interrupts, run
from monge.apps.prove.config import SearchConfig, Source
from monge.apps.prove.contamination import overlaps
from monge.apps.prove.energy import Scorer
from monge.apps.prove.families import DATA
from monge.apps.prove.lean.server import LeanServer
from monge.apps.prove.lean.setup import installed
from monge.apps.prove.lm.completions import Completions
from monge.apps.prove.lm.endpoint import with_flags
from monge.apps.prove.pairs import check_splits
from monge.apps.prove.policy import PROBES
from monge.apps.prove.progress import console, print_result, report, table_of
from monge.apps.prove.sources import Reading, Split, read
from monge.apps.prove.state import Budget, Goal, State
from monge.apps.prove.trajectories import results
from monge.apps.prove.worker import known

DEFAULT = SearchConfig()


def search(
    theorems: tyro.conf.Positional[Path] = DATA,
    *,
    out: Path = Path("runs/prove"),
    resume: bool = False,
    config: Path | None = None,
    print_config: bool = False,
    split: Split = "all",
    limit: int | None = None,
    policy: str = "template",
    model: str = "",
    examples: tuple[Path, ...] = (),
    url: str = DEFAULT.server.url,
    temperature: float | None = None,
    energy: Path | None = None,
    embeddings_url: str = "",
    embeddings_token_variable: str = "",
    order: Literal["best", "breadth", "random", "puct"] = "best",
    max_states: int = DEFAULT.search.max_states,
    max_seconds: float = DEFAULT.search.max_seconds,
    num_tactics: int = DEFAULT.search.num_tactics,
    batch_size: int = DEFAULT.search.batch_size,
    tactic_seconds: float = DEFAULT.budget.seconds,
    seed: int = 0,
    lean: str = "",
    device: str = "cpu",
    workers: int | None = None,
    ray: str = "",
    base: tyro.conf.Suppress[SearchConfig | None] = None,
) -> None:
    """Search for proofs. Lean's kernel checks each one in a separate process, and every tactic tried is recorded.

    Args:
        theorems: A .lean file, a folder of them, a .jsonl file such as miniF2F, ProofNet, Lean-Workbook or the output of
            `export-library`, or a .txt file with names of library theorems.
        out: Run directory to create.
        resume: Resume the run in the run directory. Flags default to its settings and must agree with them.
        config: JSON file of settings, as --print-config writes it; flags override it.
        print_config: Print the settings as JSON and exit.
        split: Part of the theorems to search.
        limit: Maximum number of theorems; default: all.
        policy: Source of tactics: template (reads the goal), probes (a fixed list), copy (tactics of similar states in
            --examples), server (a model server), local (a local model), or written (the proofs in the files). Several can be
            joined by +, such as template+local, for an equal share of --num-tactics each.
        model: Name of the model on the server (--policy server), or its directory or name on the hub (--policy local).
        examples: Runs whose proofs --policy copy takes tactics from.
        url: Base URL of the model server, up to its version.
        temperature: Sampling temperature of the model; 1 by default.
        energy: Run directory of `monge prove energy`; a state's energy then counts in its score.
        embeddings_url: Base URL of `monge prove serve-embeddings`, up to its version, such as http://localhost:8001/v1. Without
            one, each worker embeds states itself.
        embeddings_token_variable: Name of the environment variable that holds the token of that server.
        order: State to expand next: the one with the best score, the oldest, a random one, or the one selected by PUCT.
        max_states: Maximum number of states to expand per theorem.
        max_seconds: Wall-clock limit per theorem in seconds.
        num_tactics: Number of tactics to try on each state.
        batch_size: Number of states to expand at once.
        tactic_seconds: Time limit per tactic in seconds; a Lean that other processes slow down gets more time.
        seed: Seed of the search order and of sampling.
        lean: Command of an installed Lean; default: the WebAssembly build.
        device: Device of a local model.
        workers: Number of worker processes, each with its own Lean (about 4 GB); default: one, or with --ray one per core.
        ray: Address of a Ray cluster that runs the workers.
    """
    base = base or DEFAULT
    settings = replace(
        base,
        search=replace(
            base.search,
            order=order,
            max_states=max_states,
            max_seconds=max_seconds,
            num_tactics=num_tactics,
            batch_size=batch_size,
            seed=seed,
        ),
        budget=replace(base.budget, seconds=tactic_seconds),
        policy=policy,
        examples=tuple(str(run.resolve()) for run in examples) or base.examples,
        energy=base.energy if energy is None else str(energy.resolve()),
        embeddings=with_flags(base.embeddings, embeddings_url, embeddings_token_variable),
        tactics=(base.tactics or PROBES) if "probes" in policy.split("+") else (),
        server=replace(
            base.server,
            url=url,
            temperature=base.server.temperature if temperature is None else temperature,
            model=model if model and "server" in policy else base.server.model,
        ),
        local=replace(
            base.local,
            device=device,
            name=model if model and "local" in policy else base.local.name,
            sampling=base.local.sampling
            if temperature is None or "local" not in policy.split("+")
            else replace(base.local.sampling, temperature=temperature),
        ),
        lean=lean,
        run=secrets.token_hex(4),
    )
    if print_config:
        print(settings.text())
        return
    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    for name, known_model in (("server", settings.server.model), ("local", settings.local.name)):
        if name in settings.policies and not known_model:
            raise ValueError(f"--policy {policy} needs --model")
    if "copy" in settings.policies and not settings.examples:
        raise ValueError(f"--policy {policy} needs --examples")
    check_splits([Path(run) for run in settings.examples])
    if settings.energy:  # an unusable energy ends the run before it starts
        root = State((Goal("True"),))
        value = Scorer(Path(settings.energy), server=settings.embeddings).towards(root)([root])[0]
        if not math.isfinite(value):
            raise ValueError(f"--energy {settings.energy}: the embedding of a state is zero or not finite")
    reading = read(theorems, split, installed(settings.lean), limit=limit)
    if policy == "written" and split == "train":
        _leave_out_overlaps(reading, read(theorems, "all", installed(settings.lean)))
    source = Source(theorems.resolve(), split, limit)
    _search(settings, reading, source, out, fleets=fleets_of(workers, ray), resume=resume)


def _leave_out_overlaps(reading: Reading, everything: Reading) -> None:
    """Leave out the theorems that are nearly the same as one of the test split, and print them."""
    test = [entry for entry in everything.entries if entry.split == "test"]
    found = {pair.train: pair for pair in overlaps(reading.entries, test)}
    for pair in found.values():
        console.print(
            f"Left out: {pair.train} is nearly the same as the test theorem {pair.test} (similarity {pair.similarity:.2f})."
        )
    reading.entries[:] = [entry for entry in reading.entries if entry.key not in found]
    if not reading.entries:
        raise ValueError("every training theorem is nearly the same as a test theorem; check the splits")


def _search(
    config: SearchConfig,
    reading: Reading,
    source: Source,
    out: Path,
    *,
    fleets: Callable[[], fleet.Fleet],
    resume: bool,
) -> None:
    """Search for proofs of the theorems that were read, and print the results."""
    entries = reading.entries
    report(reading)
    if "server" in config.policies:  # an unusable server ends the run before it starts
        Completions(replace(config.server, breaker_failures=1, cache_file=None))([State((Goal("True"),))], 1)
    toolchain = config.toolchain()
    fleets()  # fails here if Ray is not installed, before anything is written
    if "probes" in config.policies:
        with LeanServer(toolchain, entries[0].theorem.imports) as server:
            tactics = tuple(known(server, config.tactics))
        if not tactics:
            raise ValueError(f"this Lean knows none of the tactics {', '.join(config.tactics)}; list others")
        if absent := [tactic for tactic in config.tactics if tactic not in tactics]:
            console.print(f"Left out, since this Lean does not know them: {', '.join(absent)}.")
        config = replace(config, tactics=tactics)
    try:
        finished = run(
            config,
            [entry.theorem for entry in entries],
            out,
            fleets=fleets,
            source=source,
            proofs=[entry.tactics for entry in entries] if config.policy == "written" else (),
            resume=resume,
            on_result=partial(print_result, len(entries), set()),
        )
    except KeyboardInterrupt:
        console.print(f"Interrupted: {len(results(out))} of {len(entries)} theorems are done; --resume continues.")
        raise SystemExit(130) from None
    console.print(table_of(finished))
    if reading.skipped:
        console.print(f"{len(reading.skipped)} more could not be read; they are listed above.")
    console.print(f"The run is in {out}; next: monge prove view {quote(str(out))}")


def fleets_of(workers: int | None, ray: str) -> Callable[[], fleet.Fleet]:
    """A function that starts a fleet of worker processes, or of the workers of the Ray cluster at `ray`."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    if ray:
        return lambda: fleet.ray(ray, workers=workers)
    if workers is None or workers == 1:
        return lambda: fleet.sequential
    return lambda: fleet.processes(workers, start=ignore_interrupts)


def probe(
    theorems: tyro.conf.Positional[Path] = DATA,
    *,
    out: Path = Path("runs/probe"),
    split: Split = "all",
    limit: int | None = None,
    lean: str = "",
    workers: int = 1,
    resume: bool = False,
    base: tyro.conf.Suppress[SearchConfig | None] = None,
) -> None:
    """Try the probe tactics in turn on each theorem until one proves it, to find the theorems that a single tactic proves.

    Args:
        theorems: Theorems, as for `search`.
        out: Run directory to create.
        split: Part of the theorems to search.
        limit: Maximum number of theorems; default: all.
        lean: Command of an installed Lean; default: the WebAssembly build.
        workers: Number of worker processes, each with its own Lean.
        resume: Resume the run in the run directory, with its settings.
    """
    search(
        theorems,
        out=out,
        split=split,
        limit=limit,
        policy="probes",
        max_states=1,
        num_tactics=64,
        lean=lean,
        workers=workers,
        resume=resume,
        base=base,
    )


def replay(
    theorems: tyro.conf.Positional[Path] = DATA,
    *,
    out: Path = Path("runs/replay"),
    split: Split = "train",
    limit: int | None = None,
    tactic_seconds: float = 60.0,
    lean: str = "",
    workers: int = 1,
    resume: bool = False,
    base: tyro.conf.Suppress[SearchConfig | None] = None,
) -> None:
    """Replay the written proofs step by step, and record them like searches, as training data.

    With --split train, theorems that are nearly the same as a test theorem are left out.

    Args:
        theorems: Theorems with proofs: a .lean file, a folder of them, or a .jsonl file.
        out: Run directory to create.
        split: Part of the theorems to replay.
        limit: Maximum number of theorems; default: all.
        tactic_seconds: Time limit per tactic in seconds; a Lean that other processes slow down gets more time.
        lean: Command of an installed Lean; default: the WebAssembly build.
        workers: Number of worker processes, each with its own Lean.
        resume: Resume the run in the run directory, with its settings.
    """
    search(
        theorems,
        out=out,
        split=split,
        limit=limit,
        policy="written",
        tactic_seconds=tactic_seconds,
        lean=lean,
        workers=workers,
        resume=resume,
        base=base or replace(DEFAULT, budget=Budget(heartbeats=20_000, goals=64)),
    )
