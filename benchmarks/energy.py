"""Training an energy from 200,000 embeddings on disk: resident memory, and step time next to data in memory.

    python benchmarks/energy.py --work DIRECTORY [--states 200000] [--width 4096]        # 1.6 GB of disk

Targets: under 3 GB beyond the store; at least 0.8 of the steps per second of the same network on random tensors in memory,
and at least 0.5 of what its matrix products alone allow. Each distinct state of a batch goes through the network once. The
embeddings are random, and the theorems have 5 positive and 95 negative states each.
"""

import side_by_side as side  # sets one thread

# isort: split

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import tyro
from torch import Tensor

from monge.apps.prove.contrast import ContrastBatch, Group, Positive, Sampler
from monge.apps.prove.energy import EnergyLoss, StateEnergy
from monge.apps.prove.states import StateVectors
from monge.lm.ragged import Ragged
from monge.objective.contrastive import IndexedCandidates, InfoNCE

GB, PER_THEOREM, POSITIVE = 1e9, 100, 5


def ensure_store(work: Path, states: int, width: int) -> StateVectors:
    """Random embeddings in `work`, written if they do not exist."""
    out = work / f"states-{states}-{width}"
    if not out.exists():
        generator = torch.Generator().manual_seed(0)
        rows = ((str(k), torch.randn(1, width, generator=generator)) for k in range(states))
        Ragged.write(out, rows, dtype="float16", fingerprint={"model": "random"})
    return StateVectors(out)


def groups_of(states: int) -> list[Group]:
    """Theorems whose negative states are divided equally among the positive ones as their siblings."""
    groups: list[Group] = []
    for first in range(0, states - PER_THEOREM + 1, PER_THEOREM):
        negatives = list(range(first + POSITIVE, first + PER_THEOREM))
        positives = [Positive(first + k, POSITIVE - k, tuple(negatives[k::POSITIVE])) for k in range(POSITIVE)]
        groups.append(Group(positives, negatives, first))
    return groups


def anonymous() -> float:
    """Resident memory of this process without the pages of files, in GB."""
    memory: Any = psutil.Process().memory_info()
    return (memory.rss - memory.shared) / GB


def main(*, work: Path, states: int = 200_000, width: int = 4096, rounds: int = 15) -> None:
    """Train on batches of 256 positive states with seven negatives each.

    Args:
        work: Working directory; the embeddings stay in it for the next run.
        states: Number of states.
        width: Width of the embeddings.
        rounds: Number of rounds; each times one step of every kind.
    """
    work.mkdir(parents=True, exist_ok=True)
    vectors, recipe = ensure_store(work, states, width), StateEnergy()
    sampler, draws = Sampler(groups_of(states), vectors, negatives=recipe.negatives), np.random.default_rng(0)
    model = recipe.network(width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    objective = EnergyLoss(InfoNCE(), weight=recipe.depth_weight)

    def step(batch: ContrastBatch) -> None:
        optimizer.zero_grad()
        objective(model, batch).value.backward()
        optimizer.step()

    first = sampler.batch(recipe.batch_size, draws)
    held = ContrastBatch(
        IndexedCandidates(torch.randn_like(first.candidates.x), first.candidates.index, first.candidates.mask),
        first.remaining,
    )
    calls: dict[str, Callable[[], object]] = {
        "disk": lambda: step(sampler.batch(recipe.batch_size, draws)),
        "memory": lambda: step(held),
        "products": products(len(first.candidates.x), [width, *recipe.hidden]),
    }
    times = side.interleave(calls, rounds=rounds, seconds=600.0)
    compared = side.compare(times, ours="disk")
    row = {
        "states": states,
        "width": width,
        "distinct states per batch": len(first.candidates.x),
        "candidates per batch": first.candidates.index.numel(),
        **compared,
        "memory GB": anonymous(),
        "store GB": sum(file.stat().st_size for file in vectors.directory.iterdir()) / GB,
    }
    side.print_table("A step from disk, from memory, and its matrix products", [row])
    side.write_result("energy", [row], ("torch",))


def products(rows: int, widths: list[int]) -> Callable[[], Tensor]:
    """A function that computes the matrix products of a step: one forward and two backward per layer, but only one backward in
    the first."""
    x = [torch.randn(rows, width) for width in widths]
    weights = [torch.randn(a, b) for a, b in zip(widths, widths[1:], strict=False)]

    def compute() -> Tensor:
        result = torch.zeros(())
        for k, weight in enumerate(weights):
            result = x[k] @ weight
            x[k].T @ x[k + 1]  # the gradient of the weight
            if k:
                x[k + 1] @ weight.T  # the gradient of the input
        return result

    return compute


if __name__ == "__main__":
    tyro.cli(main)
