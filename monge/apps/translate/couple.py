"""Which slot of the source goes to which slot of the target: the four-block OT of every pair, kept as indices."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from monge.apps.translate.calibrate import Calibration, Prices, token_cost
from monge.apps.translate.pair import ENDS, Pairs
from monge.files import atomic_write, locked, read_json, write_json
from monge.fleet import Fleet
from monge.math.container import Container, Slots
from monge.math.coupling import converged
from monge.math.ot import assignment
from monge.math.types import Pair
from monge.runs import check_same

SHARD = 512


@dataclass(frozen=True)
class Packed:
    """Pairs as container states, uncoupled; a batch is read from disk when it is asked for."""

    pairs: Pairs
    calibration: Calibration
    container: Container

    def __call__(self, numbers: Sequence[int]) -> Pair:
        states = {
            end: self.container.pack(
                [self.calibration.side(end).apply(self.pairs.sequence(end, number)) for number in numbers]
            )
            for end in ENDS
        }
        return Pair(states["source"], states["target"])


def matches(packed: Packed, prices: Prices, pair: Pair) -> Int[Tensor, "B N"]:
    """The exact assignment of each pair of states: slot i of the source goes to slot j[i] of the target."""
    return assignment(token_cost(packed.container, packed.calibration.cost(prices), pair))


def reordered(pair: Pair, order: Int[Tensor, "B N"]) -> Pair:
    """The pair with slot order[i] of the target in place i."""
    return replace(pair, x_1=pair.x_1.gather(1, order[..., None].expand_as(pair.x_1)))


def softened(packed: Packed, prices: Prices, pair: Pair, epsilon: float, *, tolerance: float = 1e-3) -> Pair:
    """Each slot with the barycentre of where the entropic plan sends it; epsilon in units of cost.

    Existence is rounded by mass: where the target holds n tokens, the n slots that receive most of them exist. Barycentres are
    taken among tokens alone, or among voids. ArithmeticError if the plan does not come within `tolerance`.
    """
    container = packed.container
    plan = converged(token_cost(container, packed.calibration.cost(prices), pair), epsilon, tolerance)
    target = container.split(pair.x_1)
    mass = (plan.matrix @ target.existence[..., None]).squeeze(-1)
    rank = mass.argsort(dim=1, descending=True).argsort(dim=1)
    exists = rank < target.existence.sum(1, keepdim=True).round()
    same = exists[:, :, None] == (target.existence > 0.5)[:, None]
    weights = torch.where(same, plan.matrix, 0.0)
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    turn, position = (weights @ torch.stack([target.turn, target.position], -1)).unbind(-1)
    found = Slots(weights @ target.content, turn, position, exists.to(mass.dtype))
    return replace(pair, x_1=container.join(found))


def couple(packed: Packed, prices: Prices, out: Path, fleet: Fleet, *, size: int = SHARD) -> Iterator[tuple[int, int]]:
    """Solve all pairs in shards of `size` under `out`, those that are there left as they are; yields (shard, shards).

    couplings.json says of what they are; shard-00000.npy holds int16 (pairs, N). A shard is written aside and renamed, so one
    that is there is whole. ValueError if `out` holds couplings of other pairs or at other prices, or another process is there.
    """
    about = described(packed, prices, size)
    with locked(out):
        path = out / "couplings.json"
        if path.exists():
            check_same(path, read_json(path), about)
        else:
            write_json(path, about)
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


def described(packed: Packed, prices: Prices, size: int = SHARD) -> dict[str, object]:
    """What couplings depend on."""
    return {
        "pairs": packed.pairs.fingerprint,
        "capacity": packed.pairs.capacity,
        "prices": asdict(prices),
        "shard": size,
    }


@dataclass(frozen=True)
class Couplings:
    """A directory that `couple` filled."""

    directory: Path
    size: int

    @staticmethod
    def open(directory: Path, packed: Packed, prices: Prices) -> "Couplings":
        """ValueError unless all couplings of these pairs at these prices are there."""
        path = directory / "couplings.json"
        if not path.exists():
            raise ValueError(f"{directory}: no couplings here; make them with `monge translate couple`")
        about, count = read_json(path, "pairs", "shard"), len(packed.pairs.ids)
        size = about["shard"] if isinstance(about["shard"], int) and about["shard"] > 0 else SHARD
        check_same(path, about, described(packed, prices, size))
        starts = range(0, count, size)
        missing = [number for number in range(len(starts)) if not shard_path(directory, number).exists()]
        if missing:
            raise ValueError(
                f"{directory}: {len(missing)} of {len(starts)} shards are missing; run `monge translate couple` again"
            )
        for number, start in enumerate(starts):
            _check_shard(shard_path(directory, number), (min(size, count - start), packed.pairs.capacity))
        return Couplings(directory, size)

    def __call__(self, numbers: Sequence[int] | np.ndarray) -> Int[Tensor, "B N"]:
        """The couplings of these pairs. ValueError if one is no permutation."""
        paths = [shard_path(self.directory, n // self.size) for n in map(int, numbers)]
        rows = [np.load(path, mmap_mode="r")[n % self.size] for path, n in zip(paths, map(int, numbers), strict=True)]
        found = torch.from_numpy(np.stack(rows).astype(np.int64))
        bad = (found.sort(dim=1).values != torch.arange(found.shape[1])).any(1).nonzero()
        if len(bad):
            path, n = paths[k := int(bad[0])], int(numbers[k])
            raise ValueError(
                f"{path}: the coupling of pair {n} is no permutation; remove the shard and run couple again"
            )
        return found


def shard_path(out: Path, number: int) -> Path:
    """Where a shard of couplings lies."""
    return out / f"shard-{number:05d}.npy"


def _check_shard(path: Path, shape: tuple[int, int]) -> None:
    try:
        found = np.lib.format.open_memmap(path, mode="r")
        whole = found.shape == shape and found.dtype == np.int16
    except (ValueError, EOFError):  # no header, another kind of file, fewer bytes than the header says
        whole = False
    if not whole:
        raise ValueError(f"{path}: not a whole shard of {shape[0]} x {shape[1]}; remove it and run couple again")


def _solve(packed: Packed, prices: Prices, out: Path, shard: tuple[int, range]) -> int:
    torch.set_num_threads(1)
    number, rows = shard
    found = [matches(packed, prices, packed(rows[k : k + 32])) for k in range(0, len(rows), 32)]
    with atomic_write(shard_path(out, number)) as place:
        np.save(place, torch.cat(found).to(torch.int16).numpy())
    return number
