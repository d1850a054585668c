"""Rounds of search and training on the 520 theorems: policies and energies next to the template and to copying, over seeds.

    python benchmarks/iterate.py [--work runs/benchmark-iterate] [--rounds 3] [--seeds 3] [--bases scratch smollm2-135m]
        [--steps 800] [--variants written searched] [--workers 2]

`searched` trains on the proofs that searches found, `written` on the written proofs too. A seed sets the training of the
policy and of the energy; searches with the template and replayed proofs are the same for all seeds, and done once. Copying
has the data that the policy is trained on, and the policy reranks its tactics. Every search expands 16 states of 32
tactics. Results are saved in --work, so that an interrupted command resumes. Several hours per seed, base and variant, most
of them for Lean.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import side_by_side as side
import tyro
from over_seeds import interval, shown

from monge.apps.prove.energy import StateEnergy
from monge.apps.prove.families import DATA
from monge.apps.prove.finetune import PRESETS, FineTune
from monge.apps.prove.iterating import iterate
from monge.apps.prove.iteration import Iteration
from monge.apps.prove.lm.causal import Sampling
from monge.apps.prove.report import mcnemar
from monge.apps.prove.sources import read
from monge.files import read_json

Base = Literal["scratch", "smollm2-135m"]
Variant = Literal["written", "searched"]
ARMS = ("template", "copy", "template+copy", "local", "template+local", "template+copy+local", "template+local+energy")
SHARED = ("written", "fixed/template", "round-0/search-normal", "round-0/search-warm")
"""Parts of an iteration that neither a trained model nor copying takes part in."""
SIBLINGS = f"{StateEnergy().negatives} siblings"
"""The held-out sets of true siblings in which the positive state is ranked among seven others."""
SETTINGS: dict[Base, dict[str, Any]] = {
    "scratch": {"renamed_copies": 7},
    "smollm2-135m": {**PRESETS["smollm2-135m"], "retrieved": 8, "length": 512, "batch_size": 2},
}
"""Settings of the policy that differ from the defaults."""
SAMPLING: dict[Base, Sampling] = {
    "scratch": Sampling(reranked=64, replacement=False),
    "smollm2-135m": Sampling(reranked=64, answers=False),  # an answer takes this model longer than many known tactics
}


class Runs(NamedTuple):
    """The reports of all seeds of a base and a variant."""

    base: Base
    variant: Variant
    reports: list[dict[str, Any]]

    def proved(self, round: int, arm: str) -> list[set[int]]:
        """The test theorems that an arm proves, for each seed."""
        return [set(report["rounds"][round]["arms"][arm]["which"]) for report in self.reports]


def settings(base: Base, variant: Variant, seed: int, rounds: int, steps: int, cache: Path) -> Iteration:
    """The settings of an iteration; all of them share the cache of tactics."""
    policy = FineTune(**SETTINGS[base])
    policy = replace(policy, train=replace(policy.train, steps=steps, seed=seed, threads=1))
    search = Iteration().search
    dtype: Any = "float32" if base == "scratch" else "bfloat16"
    local = replace(search.local, dtype=dtype, sampling=SAMPLING[base])
    return Iteration(
        rounds=rounds,
        written=variant == "written",
        search=replace(search, cache=str(cache.resolve()), local=local),
        finetune=policy,
        energy={"train": {"seed": seed, "threads": 1}},
        arms=ARMS,
    )


def share(source: Path, out: Path) -> None:
    """Copy the parts that all iterations have in common, where they are missing."""
    for part in SHARED:
        if (source / part).exists() and not (out / part).exists():
            shutil.copytree(source / part, out / part)


def differences(first: Sequence[set[int]], second: Sequence[set[int]]) -> dict[str, Any]:
    """Theorems that only the first of two arms proves, and only the second, summed over seeds, with McNemar's p-value; and the
    p-value of a sign test over theorems, for which seeds need not be independent."""
    more = sum(len(one - other) for one, other in zip(first, second, strict=True))
    fewer = sum(len(other - one) for one, other in zip(first, second, strict=True))
    balance: Counter[int] = Counter()
    for one, other in zip(first, second, strict=True):
        balance.update(one - other)
        balance.subtract(other - one)
    signs = np.sign(list(balance.values()))
    by_theorem = mcnemar(int((signs > 0).sum()), int((signs < 0).sum()))
    return {"more": more, "fewer": fewer, "p": mcnemar(more, fewer), "p by theorem": by_theorem}


def arms_of(runs: Runs, families: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields a row for each round and arm: theorems proved, compared with the template, copying and the same arm in round 0."""
    for number in range(len(runs.reports[0]["rounds"])):
        template = runs.proved(number, "template")
        known = {families[k] for proved in template for k in proved}
        for arm in ARMS:
            if not all(arm in report["rounds"][k]["arms"] for report in runs.reports for k in (0, number)):
                continue  # a round without an energy
            proved = runs.proved(number, arm)
            new = [len([k for k in part if families[k] not in known]) for part in proved]
            yield {
                "base": runs.base,
                "variant": runs.variant,
                "round": number,
                "arm": arm,
                "proved": interval([len(part) for part in proved]),
                "in families without proofs of the template": interval(new),
                **{f"{key}, template": value for key, value in differences(proved, template).items()},
                **{f"{key}, copy": value for key, value in differences(proved, runs.proved(number, "copy")).items()},
                **{f"{key}, round 0": value for key, value in differences(proved, runs.proved(0, arm)).items()},
            }


def training_of(runs: Runs) -> Iterator[dict[str, Any]]:
    """Yields a row for each round: its pairs, the policy's held-out loss, and the energy's ranks on held-out sibling sets."""
    for number in range(len(runs.reports[0]["rounds"])):
        parts = [report["rounds"][number] for report in runs.reports]
        new = sum(part["new pairs"] for part in parts)
        tactics = sum(part["new pairs with a new tactic"] for part in parts)
        losses = [
            sum(row["loss"] * row["examples"] for row in part["policy"]["held-out loss"].values())
            / sum(row["examples"] for row in part["policy"]["held-out loss"].values())
            for part in parts
        ]
        ranks: list[Mapping[str, float]] = [part["energy"].get("quality", {}).get(SIBLINGS, {}) for part in parts]
        yield {
            "base": runs.base,
            "variant": runs.variant,
            "round": number,
            "pairs": interval([part["pairs"] for part in parts]),
            "new pairs with a new tactic": tactics / new if new else 0.0,
            "held-out loss": interval(losses),
            "positive ranked first": interval([rank.get("top-1", float("nan")) for rank in ranks]),
            "chance": interval([rank.get("chance", float("nan")) for rank in ranks]),
        }


def main(
    *,
    work: Path = Path("runs/benchmark-iterate"),
    rounds: int = 3,
    seeds: int = 3,
    bases: tuple[Base, ...] = ("scratch", "smollm2-135m"),
    variants: tuple[Variant, ...] = ("written", "searched"),
    steps: int = 800,
    workers: int = 2,
) -> None:
    """Run the iterations that are missing, and print what each round proves.

    Args:
        work: Directory of the iterations; finished parts are read back.
        rounds: Number of rounds.
        seeds: Number of seeds.
        bases: Models that the policies start from.
        variants: Data that the policies are trained on.
        steps: Training steps of a policy.
        workers: Number of worker processes of the searches.
    """
    families = [entry.source for entry in read(DATA, "test").entries]
    arms: list[dict[str, Any]] = []
    training: list[dict[str, Any]] = []
    first: Path | None = None
    for base in bases:
        for variant in variants:
            outs = [work / f"{base}-{variant}-{seed}" for seed in range(seeds)]
            for seed, out in enumerate(outs):
                if first is not None:
                    share(first, out)
                iterate(
                    out=out, base=settings(base, variant, seed, rounds, steps, work / "steps.sqlite"), workers=workers
                )
                first = first or out
            runs = Runs(base, variant, [read_json(out / "report.json") for out in outs])
            arms += arms_of(runs, families)
            training += training_of(runs)
            side.write_result("iterate", [*arms, *training], packages=("torch", "transformers"))
    side.print_table(f"{len(families)} test theorems, {seeds} seeds", shown(arms))
    side.print_table("Training", shown(training))


if __name__ == "__main__":
    tyro.cli(main)
