"""Which slot of the source goes to which slot of the target: the four-block OT of every pair, kept as indices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from monge.apps.translate.calibrate import Calibration, Prices, token_cost
from monge.apps.translate.pair import ENDS, Pairs
from monge.fleet import Fleet
from monge.math.container import Container
from monge.math.ot import assignment
from monge.math.types import Pair
from monge.train.checkpoint import writing


@dataclass(frozen=True)
class Packed:
    """Pairs as container states, uncoupled; a batch is read from disk when it is asked for."""

    pairs: Pairs
    calibration: Calibration
    container: Container

    def __call__(self, numbers: Sequence[int]) -> Pair:
        states = {
            end: self.container.pack(
                [self.calibration.units(end).apply(self.pairs.sequence(end, number)) for number in numbers]
            )
            for end in ENDS
        }
        return Pair(states["source"], states["target"])


def matches(packed: Packed, prices: Prices, numbers: Sequence[int]) -> Int[Tensor, "B N"]:
    """The exact assignment of each pair: slot i of the source goes to slot j[i] of the target."""
    pair = packed(numbers)
    return assignment(token_cost(packed.container, packed.calibration.cost(prices), pair))


def couple(packed: Packed, prices: Prices, out: Path, fleet: Fleet, *, size: int = 512) -> Iterator[tuple[int, int]]:
    """Solve all pairs in shards of `size` under `out`, those that are there left as they are; yields (shard, shards).

    shard-00000.npy holds int16 (pairs, N). A shard is written aside and renamed, so one that is there is whole.
    """
    out.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(packed.pairs.ids), size)
    left = [
        (number, range(start, min(start + size, len(packed.pairs.ids))))
        for number, start in enumerate(starts)
        if not shard_path(out, number).exists()
    ]
    done = len(starts) - len(left)
    for _ in fleet(partial(_solve, packed, prices, out), left):
        done += 1
        yield done, len(starts)


def shard_path(out: Path, number: int) -> Path:
    """Where a shard of couplings lies."""
    return out / f"shard-{number:05d}.npy"


def _solve(packed: Packed, prices: Prices, out: Path, shard: tuple[int, range]) -> int:
    torch.set_num_threads(1)
    number, rows = shard
    found = [matches(packed, prices, rows[k : k + 32]) for k in range(0, len(rows), 32)]
    path = shard_path(out, number)
    aside = path.with_name(f".writing-{path.name}")
    with writing(path):
        np.save(aside, torch.cat(found).to(torch.int16).numpy())
        aside.replace(path)
    return number
