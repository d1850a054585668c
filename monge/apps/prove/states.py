"""Pooled embeddings of proof states: the distinct states of runs, stored once each by a hash of their text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from monge.apps.prove.pairs import digest
from monge.apps.prove.state import State
from monge.apps.prove.trajectories import attempts
from monge.fleet import Fleet
from monge.lm.embed import Embedding, embed
from monge.lm.ragged import Ragged
from monge.lm.store import Dropped, Row, Vectors

DONE = str(State(()))
"""The text of a state without goals, which needs no embedding."""


def states_of(runs: Sequence[Path]) -> dict[str, str]:
    """The distinct states of runs by id, except the one without goals. FileNotFoundError for a run without results."""
    states: dict[str, str] = {}
    for run in runs:
        table = attempts(run)
        for column in ("state_before", "state_after"):
            for text in table.column(column).unique().to_pylist():
                if text is not None and text != DONE:
                    states.setdefault(digest(text), text)
    return states


def write(
    out: Path, states: dict[str, str], embedding: Embedding, fleet: Fleet, *, dropped: list[Dropped]
) -> Iterator[tuple[int, int]]:
    """Embed states and store them in the directory `out`; yield (parts done, all parts).

    States whose vectors are zero or not finite are appended to `dropped`. Parts are saved in `out`.parquet.parts until all
    are done, so that an interrupted call resumes.
    """
    merged = out.with_name(f"{out.name}.parquet")
    yield from embed(list(states), list(states.values()), embedding, merged, fleet, size=256, dropped=dropped)
    vectors = Vectors(merged)
    rows: Iterator[Row] = (row for _, group in vectors.portions() for row in group)
    Ragged.write(out, rows, dtype=embedding.dtype, fingerprint=vectors.fingerprint)
    merged.unlink()


@dataclass(frozen=True)
class StateVectors:
    """The embeddings in a directory that `write` created."""

    directory: Path

    @cached_property
    def _stored(self) -> Ragged:
        return Ragged(self.directory)

    @property
    def width(self) -> int:
        """Number of entries of a vector."""
        return self._stored.width

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The model and the settings of the embedding."""
        return self._stored.fingerprint

    @property
    def sha256(self) -> str:
        """A hash of all vectors."""
        return self._stored.sha256

    @property
    def embedding(self) -> Embedding:
        """The model and the settings, to embed further states with."""
        f = self.fingerprint
        keep: Any = f.get("keep", "start")
        return Embedding(f["model"], int(f["layer"]), int(f["max_length"]), f["dtype"], pooling=f["pooling"], keep=keep)

    def __len__(self) -> int:
        return len(self._stored)

    def number(self, state: str) -> int | None:
        """The number of a state's vector, for `rows`; None if it is not stored."""
        key = digest(state)
        return self._stored.number(key) if key in self._stored else None

    def rows(self, numbers: Int[Tensor, "n"]) -> Float[Tensor, "n D"]:
        """The vectors of these rows, read from disk."""
        return self._stored.matrix[numbers].float()


def check_same_model(vectors: StateVectors, fingerprint: Mapping[str, Any]) -> None:
    """ValueError if the vectors are not of the embedding with this fingerprint."""
    for name in ("weights", "tokenizer", "layer", "pooling", "max_length", "keep"):
        if vectors.fingerprint.get(name, "start") != fingerprint.get(name, "start"):
            raise ValueError(
                f"{vectors.directory}: the embeddings differ in {name} ({vectors.fingerprint.get(name)}, "
                f"not {fingerprint.get(name)}); embed the states again"
            )
