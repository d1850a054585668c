"""Texts to files of hidden states: in parts that a fleet shares, that are kept when it stops, and that make one file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch

from monge.fleet import Fleet
from monge.lm.hidden import check, hidden_states, longer
from monge.lm.load import Encoder, encoder
from monge.lm.store import DTYPES, Row, Vectors, merge, write


@dataclass(frozen=True)
class Embedding:
    """Which vectors stand for a text."""

    model: str
    layer: int
    max_length: int = 512
    dtype: str = "float16"
    tokens: int = 4096
    """Tokens of a batch, padding included."""

    def fingerprint(self) -> dict[str, str]:
        """What the vectors depend on. ValueError if the model cannot give them."""
        check(_encoder(self.model), self.layer, self.max_length)
        own = {"layer": str(self.layer), "pooling": "none", "max_length": str(self.max_length), "dtype": self.dtype}
        return {**_encoder(self.model).fingerprint(), **own}


def cut(texts: Sequence[str], embedding: Embedding) -> int:
    """How many texts are longer than an embedding takes."""
    return longer(_encoder(embedding.model), texts, embedding.max_length)


def embed(
    keys: Sequence[str], texts: Sequence[str], embedding: Embedding, out: Path, fleet: Fleet, *, size: int = 1024
) -> Iterator[tuple[int, int]]:
    """Write the hidden states of all texts to `out`, a row group for every `size`; yields (parts done, parts).

    Parts lie in `out`.parts until all are there. ValueError if parts of another embedding or of other texts lie there.
    """
    parts, print_ = out.with_name(f"{out.name}.parts"), embedding.fingerprint()
    parts.mkdir(parents=True, exist_ok=True)
    shards = [(number, keys[k : k + size], texts[k : k + size]) for number, k in enumerate(range(0, len(keys), size))]
    left = []
    for shard in shards:
        path = parts / f"{shard[0]:06d}.parquet"
        if not path.exists():
            left.append(shard)
        elif (part := Vectors(path)).fingerprint != print_ or part.ids() != list(shard[1]):
            raise ValueError(
                f"{path}: made from other texts or by another model; remove {parts}, or name another --out"
            )
    done = len(shards) - len(left)
    for _ in fleet(partial(_embed, embedding, print_, parts), left):
        done += 1
        yield done, len(shards)
    found = [parts / f"{number:06d}.parquet" for number, *_ in shards]
    merge(out, found)
    for path in found:
        path.unlink()
    parts.rmdir()


def _embed(
    embedding: Embedding, fingerprint: dict[str, str], parts: Path, shard: tuple[int, Sequence[str], Sequence[str]]
) -> int:
    number, keys, texts = shard
    rows = hidden_states(
        _encoder(embedding.model),
        texts,
        layer=embedding.layer,
        max_length=embedding.max_length,
        tokens=embedding.tokens,
    )
    group: list[Row] = [(key, row.to(DTYPES[embedding.dtype])) for key, row in zip(keys, rows, strict=True)]
    return write(parts / f"{number:06d}.parquet", [group], dtype=embedding.dtype, fingerprint=fingerprint)


@lru_cache(maxsize=1)
def _encoder(name: str) -> Encoder:
    """The model, loaded once in each process."""
    return encoder(name, device="cuda" if torch.cuda.is_available() else "cpu")
