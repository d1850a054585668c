"""The verb `evaluate` of `monge prove`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from monge.apps.prove.arms import Arm
from monge.apps.prove.campaign import run
from monge.apps.prove.config import SearchConfig, Source, read_config
from monge.apps.prove.contamination import overlaps
from monge.apps.prove.dpo import Prefer
from monge.apps.prove.energy import StateEnergy
from monge.apps.prove.evaluation import ORACLE, markdown, oracle, states_until_proof, table
from monge.apps.prove.families import DATA, Entry
from monge.apps.prove.finetune import FineTune
from monge.apps.prove.lean.setup import installed
from monge.apps.prove.pairs import check_splits
from monge.apps.prove.progress import report
from monge.apps.prove.searching import fleets_of
from monge.apps.prove.sources import Split, read
from monge.apps.prove.states import StateVectors
from monge.apps.prove.trajectories import Result, results
from monge.apps.prove.tree import Search
from monge.files import finite_json, read_json, write_json, write_text
from monge.runs import reopen

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets
DEFAULT = SearchConfig(Search(num_tactics=32, batch_size=1, max_seconds=600.0), run="evaluation")


def evaluate(
    theorems: tyro.conf.Positional[Path] = DATA,
    *,
    out: Path = Path("runs/evaluate"),
    policies: tuple[str, ...] = ("template",),
    model: str = "",
    examples: tuple[Path, ...] = (),
    energy: Path | None = None,
    weights: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0),
    budgets: tuple[int, ...] = (16, 64),
    passes: int = 1,
    split: Split = "test",
    limit: int | None = None,
    config: Path | None = None,
    allow_overlap: bool = False,
    workers: int | None = None,
    ray: str = "",
) -> None:
    """Search the same theorems with several policies and orders at equal budgets, and compare them. Run it again to continue.

    Policies, ordered by log-probability, are compared with the first one. With --energy, the last policy is also ordered by
    energy, at several weights. As controls, the estimated remaining depth, energies of other states, or noise take the place
    of the energy, with the weights in the settings; others are breadth-first and random order. An oracle that expands only the
    states of the shortest known proof shows what an order can gain. These are compared with the same policy, ordered by
    log-probability.

    Args:
        theorems: Theorems, as for `search`.
        out: Directory of the runs; created if needed.
        policies: Policies to compare, as --policy of `search`.
        model: Directory of a local model, for policies with local.
        examples: Runs whose proofs the policy copy takes tactics from.
        energy: Run directory of `monge prove energy`.
        weights: Weights of the energy in a state's score; that of the log-probability is 1 minus it.
        budgets: Numbers of states to expand per theorem.
        passes: Number of searches with different seeds, for arms that depend on the seed.
        split: Part of the theorems to search.
        limit: Maximum number of theorems; default: all.
        config: JSON file of settings, as `search --print-config` writes it.
        allow_overlap: Accept a model or an energy trained on, or examples of, theorems that are nearly the same as a theorem to
            search.
        workers: Number of worker processes, each with its own Lean (about 4 GB); default: one, or with --ray one per core.
        ray: Address of a Ray cluster that runs the workers.
    """
    if min(budgets, default=0) < 1 or passes < 1 or (limit is not None and limit < 1) or not policies:
        raise ValueError("--budgets, --passes and --limit must be at least 1, and --policies must name one")
    if not all(0 <= weight <= 1 for weight in weights):
        raise ValueError(f"--weights {' '.join(f'{weight:g}' for weight in weights)}: give numbers between 0 and 1")
    if "written" in policies:
        raise ValueError("--policies written: `monge prove replay` replays written proofs")
    policies = tuple(dict.fromkeys(policies))
    base = DEFAULT if config is None else read_config(config)
    base = replace(base, search=replace(base.search, max_states=max(budgets), batch_size=1))
    reading = read(theorems, split, installed(base.lean), limit=limit)
    report(reading)
    entries = reading.entries
    check_splits(examples)
    for name in policies:
        if "local" in name.split("+") and not model:
            raise ValueError(f"--policies {name} needs --model")
        if "server" in name.split("+") and not base.server.model:
            raise ValueError(f"--policies {name} needs a settings file with server.model; give --config")
        if "copy" in name.split("+") and not examples:
            raise ValueError(f"--policies {name} needs --examples")
    _check_decoding(base, {part for name in policies for part in name.split("+")})
    _check_overlap(entries, model, energy, examples, allow=allow_overlap)
    chosen = [Arm(name) for name in policies] + ([] if energy is None else list(orders(policies[-1], weights)))
    model = str(Path(model).resolve()) if Path(model).is_dir() else model
    given = {
        "model": model,
        "energy": str((energy or Path()).resolve()),
        "examples": [str(path.resolve()) for path in examples],
    }
    runs: dict[str, list[list[Result]]] = {}
    for arm in chosen:
        settings = arm.config(base, **given)
        for seed in range(base.search.seed, base.search.seed + (passes if arm.sampled else 1)):
            path = out / arm.path / f"seed-{seed}"
            one = replace(settings, search=replace(settings.search, seed=seed), run=f"{arm.path}.{seed}")
            done = len(results(path)) if path.is_dir() else 0
            if done < len(entries):
                console.print(f"{arm.name}, seed {seed}: {len(entries) - done} of {len(entries)} theorems to do")
            source = Source(theorems.resolve(), split, limit)
            wanted = [entry.theorem for entry in entries]
            finished = run(one, wanted, path, fleets=fleets_of(workers, ray), source=source, resume=done > 0)
            runs.setdefault(arm.name, []).append(finished)
    measured = {name: [states_until_proof(part) for part in parts] for name, parts in runs.items()}
    last = [part for arm in chosen if arm.policy == policies[-1] for part in runs[arm.name]]
    bases = {arm.name: arm.base(chosen).name for arm in chosen} | {ORACLE: policies[-1]}
    rows = table({**measured, ORACLE: [oracle(last)]}, sorted(set(budgets)), bases=bases)
    title = f"{len(entries)} theorems of {theorems}, split {split}"
    write_json(out / "evaluate.json", finite_json({"title": title, "rows": rows}))
    text = markdown(rows, title)
    write_text(out / "evaluate.md", text)
    console.print(text)


def orders(policy: str, weights: Sequence[float]) -> Iterator[Arm]:
    """Yields the arms of a policy in which a measure of the states, or chance, orders them."""
    for weight in dict.fromkeys(weights):
        yield Arm(policy, "energy", weight)
    yield from (Arm(policy, measure) for measure in ("depth", "shuffled", "noise"))
    yield from (Arm(policy, order=order) for order in ("breadth", "random"))


def _check_decoding(base: SearchConfig, policies: set[str]) -> None:
    """ValueError if both a model server and a local model are among the policies, with unequal settings for sampling."""
    if {"server", "local"} <= policies:
        local, server = base.local.sampling, base.server
        for first, second in (("temperature", "temperature"), ("top_p", "top_p"), ("max_new_tokens", "max_tokens")):
            if (one := getattr(local, first)) != (other := getattr(server, second)):
                raise ValueError(
                    f"local.sampling.{first} is {one:g} and server.{second} {other:g}; set both to the same number in --config"
                )


def _runs_behind(model: str) -> Iterator[Path]:
    """Yields the runs that a policy, and the models that its training started from, were trained on.

    ValueError if a run cannot be read.
    """
    while model and Path(model).is_dir() and (stored := Path(model).parent / "recipe.json").exists():
        kind = Prefer if read_json(stored, "app")["app"] == Prefer.app else FineTune
        recipe: Any = reopen(stored.parent, app=kind.app).rebuilt(kind)
        yield from map(Path, recipe.runs)
        model = recipe.model if isinstance(recipe, Prefer) else recipe.base


def _check_overlap(
    entries: Sequence[Entry], model: str, energy: Path | None, examples: Sequence[Path], *, allow: bool
) -> None:
    """ValueError if the examples have, or the model or the energy was trained on, a theorem that is nearly the same as one of
    `entries`.

    With `allow`, it prints the theorem instead. ValueError if a run cannot be read.
    """
    directories = [*(path.resolve() for path in examples), *_runs_behind(model)]
    if energy is not None:
        recipe = reopen(energy, app=StateEnergy.app).rebuilt(StateEnergy)
        embedded_by = StateVectors(Path(recipe.embeddings)).embedding.model
        directories += [*map(Path, recipe.runs), *_runs_behind(embedded_by)]
    for directory in dict.fromkeys(directories):
        trained = [Entry(one.theorem, "", "", source=directory.name) for one in results(directory)]
        if not trained:
            console.print(f"{directory} is no longer there; overlap with its theorems is not checked.")
        for pair in overlaps(trained, entries):
            near = (
                f"{directory}, used for training or as examples, has {pair.train}, nearly the same as {pair.test} "
                f"(similarity {pair.similarity:.2f})"
            )
            if not allow:
                raise ValueError(f"{near}; leave it out, or pass --allow-overlap")
            console.print(f"{near}.")
