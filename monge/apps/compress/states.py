"""Hidden states of a teacher on disk: computed once, by any number of workers, and read by any number of training runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.fleet import Fleet
from monge.lm.blocks import blocks_of
from monge.lm.hidden import hidden_at
from monge.lm.load import LanguageModel, causal
from monge.lm.ragged import Ragged
from monge.lm.store import Row
from monge.run import fingerprint

SEQUENCES = 64
"""Number of sequences per part."""


@dataclass(frozen=True)
class States:
    """The states of a teacher at several depths, for the first sequences of a text, in a directory written by `write`."""

    vectors: Ragged
    """For each sequence, one vector per token: its states at all depths, concatenated."""

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The depths: state k is taken after k layers."""
        return tuple(self.vectors.fingerprint["layers"])

    def read(self, rows: Sequence[int]) -> dict[int, Float[Tensor, "B N D"]]:
        """The states of sequences, by depth."""
        parts = torch.stack([self.vectors[row] for row in rows]).chunk(len(self.layers), -1)
        return dict(zip(self.layers, parts, strict=True))

    @staticmethod
    def open(directory: Path, teacher: LanguageModel, ids: Int[Tensor, "n length"], layers: Sequence[int]) -> "States":
        """The states in `directory`. ValueError if they are of another teacher, of other text, or lack one of `layers`."""
        states = States(Ragged(directory))
        expected = _origin(teacher, ids[: len(states)], states.vectors.fingerprint.get("layers", []))
        for name, reason in (
            ("weights", f"of another teacher than {teacher.name}"),
            ("tokenizer", f"of another tokenizer than that of {teacher.name}"),
            ("texts", "of other text, or of sequences of another length"),
        ):
            if states.vectors.fingerprint.get(name) != expected[name]:
                raise ValueError(f"{directory}: states {reason}; run `monge compress states` again")
        if missing := sorted(set(layers) - set(states.layers)):
            depths = ", ".join(map(str, states.layers))
            raise ValueError(
                f"{directory}: states at layers {depths}, but not at {missing[0]}; "
                "store them with `monge compress states --layers`"
            )
        return states


def write(
    directory: Path,
    teacher: str,
    ids: Int[Tensor, "n length"],
    layers: Sequence[int],
    fleet: Fleet,
    *,
    dtype: str = "bfloat16",
    batch_size: int = 4,
) -> Iterator[tuple[int, int]]:
    """Store the states of the model called `teacher` at `layers` for all sequences; yield (parts done, all parts).

    Parts are saved in `directory`.parts until all are done, so that an interrupted call resumes. ValueError if they are of
    another teacher, of other text or other depths, and if the model lacks one of `layers`.
    """
    depth = len(blocks_of(loaded(teacher).model))
    if outside := [layer for layer in layers if not 0 <= layer <= depth]:
        raise ValueError(f"--layers {outside[0]}: {teacher} has {depth} layers; give 0 to {depth}")
    origin = _origin(loaded(teacher), ids, layers) | {"dtype": dtype}
    parts = directory.with_name(f"{directory.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    shards = [Shard(n, part, parts / f"{n:06d}") for n, part in enumerate(ids.split(SEQUENCES))]
    remaining = [shard for shard in shards if not shard.finished(origin)]
    done = len(shards) - len(remaining)
    for _ in fleet(partial(_compute, teacher, origin, batch_size), remaining):
        done += 1
        yield done, len(shards)
    rows = (row for shard in shards for row in shard.rows())
    Ragged.write(directory, rows, dtype=dtype, fingerprint=origin)
    rmtree(parts)


@dataclass(frozen=True)
class Shard:
    """Consecutive sequences whose states one worker computes."""

    number: int
    ids: Int[Tensor, "n length"]
    path: Path

    def finished(self, origin: Mapping[str, Any]) -> bool:
        """True if an earlier call wrote this part. ValueError if it is of another origin."""
        if not self.path.exists():
            return False
        stored = Ragged(self.path).fingerprint
        if any(stored.get(name) != origin[name] for name in origin if name != "model"):
            raise ValueError(
                f"{self.path}: of another teacher, text, depth or dtype; remove {self.path.parent} or choose another --out"
            )
        return True

    def rows(self) -> Iterator[Row]:
        """Yields the number of each sequence, as its id, with its states."""
        part = Ragged(self.path)
        return ((key, part[number]) for number, key in enumerate(part.ids))


def _origin(teacher: LanguageModel, ids: Int[Tensor, "n length"], layers: Sequence[int]) -> dict[str, Any]:
    return {**teacher.fingerprint(), "texts": int(fingerprint(ids)), "layers": list(layers)}


@torch.no_grad()
def _compute(name: str, origin: Mapping[str, Any], batch_size: int, shard: Shard) -> None:
    def rows() -> Iterator[Row]:
        for first in range(0, len(shard.ids), batch_size):
            states = hidden_at(loaded(name).model, shard.ids[first : first + batch_size], origin["layers"])
            for number, row in enumerate(torch.cat(states, -1), SEQUENCES * shard.number + first):
                yield str(number), row

    Ragged.write(shard.path, rows(), dtype=origin["dtype"], fingerprint=origin)


@lru_cache(maxsize=1)
def loaded(name: str) -> LanguageModel:
    """The language model called `name`, loaded once per process, on a GPU if there is one."""
    return causal(name, device="cuda" if torch.cuda.is_available() else "cpu")
