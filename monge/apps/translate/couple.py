"""Couplings of slots: the four-block transport of every pair, solved before training and stored as permutations."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from monge.apps.translate.space import Packed, Space
from monge.files import atomic_write, locked, read_json, tensor_hash
from monge.fleet import Fleet
from monge.math.container import Slots
from monge.math.coupling import converged_plan
from monge.math.types import Pair
from monge.runs import check_same, record_settings

SHARD = 512


def soft_targets(space: Space, pair: Pair, epsilon: float, *, tolerance: float = 1e-3) -> Pair:
    """The pair with its targets replaced by barycentres of the entropic plan; epsilon in units of cost.

    Existence is rounded by mass: if the target holds n tokens, the n slots that receive the most mass exist. A barycentre
    averages either tokens or voids. ArithmeticError if the plan's marginal error stays above `tolerance`.
    """
    container = space.container
    plan = converged_plan(space.cost(pair), epsilon, tolerance)
    target = container.split(pair.x_1)
    mass = (plan.matrix @ target.existence[..., None]).squeeze(-1)
    rank = mass.argsort(dim=1, descending=True).argsort(dim=1)
    exists = rank < target.existence.sum(1, keepdim=True).round()
    same_kind = exists[:, :, None] == (target.existence > 0.5)[:, None]
    weights = torch.where(same_kind, plan.matrix, 0.0)
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    priority, position = (weights @ torch.stack([target.priority, target.position], -1)).unbind(-1)
    soft = Slots(weights @ target.content, priority, position, exists.to(mass.dtype))
    return replace(pair, x_1=container.join(soft))


def couple(packed: Packed, out: Path, fleet: Fleet, *, size: int = SHARD) -> Iterator[tuple[int, int]]:
    """Solve all pairs in shards of `size` under `out`, skipping existing shards; yield (shards done, all shards).

    couplings.json records the pairs, their calibration and the prices; shard-00000.npy holds int16 (pairs, N). Shards are
    written atomically, so an existing one is complete. ValueError if `out` holds couplings of another calibration or of other
    pairs or prices, or is in use.
    """
    description = settings_of(packed, size)
    with locked(out):
        record_settings(out / "couplings.json", description)
        starts = range(0, len(packed.pairs.ids), size)
        remaining = [
            (number, range(start, min(start + size, len(packed.pairs.ids))))
            for number, start in enumerate(starts)
            if not shard_path(out, number).exists()
        ]
        done = len(starts) - len(remaining)
        for _ in fleet(partial(_solve, packed, out), remaining):
            done += 1
            yield done, len(starts)


def settings_of(packed: Packed, size: int = SHARD) -> dict[str, object]:
    """Values that determine the couplings, as recorded in couplings.json."""
    positional = packed.space.calibration.positional(packed.space.prices)
    return {
        **({"positional": True} if positional else {}),
        "pairs": packed.pairs.fingerprint,
        "calibration": tensor_hash(sorted(packed.space.calibration.tensors().items())).hex()[:16],
        "capacity": packed.pairs.capacity,
        "prices": asdict(packed.space.prices),
        "shard": size,
    }


@dataclass(frozen=True)
class Couplings:
    """A directory written by `couple`."""

    directory: Path
    size: int

    @staticmethod
    def open(directory: Path, packed: Packed) -> "Couplings":
        """Open a directory of couplings. ValueError unless it holds all of them, for these pairs, calibration and prices."""
        path = directory / "couplings.json"
        if not path.exists():
            raise ValueError(f"{directory}: no couplings here; create them with `monge translate couple`")
        description, count = read_json(path, "pairs", "shard"), len(packed.pairs.ids)
        size = description["shard"] if isinstance(description["shard"], int) and description["shard"] > 0 else SHARD
        wanted = settings_of(packed, size)
        check_same(
            path, {"calibration": wanted["calibration"], **description}, wanted
        )  # earlier versions recorded none
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
        """The target slot matched with each source slot of these pairs. ValueError if a row is not a permutation."""
        paths = [shard_path(self.directory, n // self.size) for n in map(int, numbers)]
        rows = [np.load(path, mmap_mode="r")[n % self.size] for path, n in zip(paths, map(int, numbers), strict=True)]
        permutations = torch.from_numpy(np.stack(rows).astype(np.int64))
        invalid = (permutations.sort(dim=1).values != torch.arange(permutations.shape[1])).any(1).nonzero()
        if len(invalid):
            path, n = paths[k := int(invalid[0])], int(numbers[k])
            raise ValueError(
                f"{path}: the coupling of pair {n} is not a permutation; remove the shard and run couple again"
            )
        return permutations


def shard_path(out: Path, number: int) -> Path:
    """The path of a shard of couplings."""
    return out / f"shard-{number:05d}.npy"


def _check_shard(path: Path, shape: tuple[int, int]) -> None:
    try:
        shard = np.lib.format.open_memmap(path, mode="r")
        valid = shard.shape == shape and shard.dtype == np.int16
    except (ValueError, EOFError):  # no header, a different type of file, or fewer bytes than the header states
        valid = False
    if not valid:
        raise ValueError(f"{path}: not a complete shard of {shape[0]} x {shape[1]}; remove it and run couple again")


def _solve(packed: Packed, out: Path, shard: tuple[int, range]) -> int:
    torch.set_num_threads(1)
    number, rows = shard
    permutations = [packed.space.transport.permutation(packed(rows[k : k + 32])) for k in range(0, len(rows), 32)]
    with atomic_write(shard_path(out, number)) as tmp_path:
        np.save(tmp_path, torch.cat(permutations).to(torch.int16).numpy())
    return number
