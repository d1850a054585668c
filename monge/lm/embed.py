"""Embedding of texts as hidden states. Parts are distributed over workers, saved as they finish, and merged at the end."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from monge.files import write_json
from monge.fleet import Fleet
from monge.lm.hidden import check_limits, count_truncated, hidden_states
from monge.lm.load import Encoder, encoder
from monge.lm.store import DTYPES, Dropped, Row, Vectors, merge, usable, write


@dataclass(frozen=True)
class Embedding:
    """The model and the settings that turn a text into vectors."""

    model: str
    layer: int
    max_length: int = 512
    dtype: str = "float16"
    tokens: int = 4096
    """Tokens per batch, including padding."""
    pooling: Literal["none", "mean", "last"] = "none"
    """A vector for each token (none), or one for the text: their mean, or that of the last token."""
    keep: Literal["start", "end"] = "start"
    """The part of a text that is kept if it exceeds `max_length` tokens."""

    def fingerprint(self) -> dict[str, str]:
        """The model and all settings that determine the vectors. ValueError if the model does not support them."""
        check_limits(_encoder(self.model), self.layer, self.max_length)
        extra = {
            "layer": str(self.layer),
            "pooling": self.pooling,
            "max_length": str(self.max_length),
            "dtype": self.dtype,
        }
        kept = {} if self.keep == "start" else {"keep": self.keep}
        return {**_encoder(self.model).fingerprint(), **extra, **kept}


def num_truncated(texts: Sequence[str], embedding: Embedding) -> int:
    """The number of texts that exceed the maximum length of the embedding."""
    return count_truncated(_encoder(embedding.model), texts, embedding.max_length)


def embed(
    keys: Sequence[str],
    texts: Sequence[str],
    embedding: Embedding,
    out: Path,
    fleet: Fleet,
    *,
    size: int = 1024,
    dropped: list[Dropped] | None = None,
) -> Iterator[tuple[int, int]]:
    """Write the hidden states of all texts to `out`, computed in parts of `size` texts; yield (parts done, all parts).

    Texts with unusable vectors are appended to `dropped`, or are a ValueError if it is None. Parts are saved in the directory
    `out`.parts until all are done. ValueError if it holds parts of another embedding, or if no text is usable.
    """
    parts, fingerprint = out.with_name(f"{out.name}.parts"), embedding.fingerprint()
    parts.mkdir(parents=True, exist_ok=True)
    shards = [Shard(n, keys[k : k + size], texts[k : k + size]) for n, k in enumerate(range(0, len(keys), size))]
    remaining = [shard for shard in shards if not shard.finished(parts, fingerprint, drop=dropped is not None)]
    done = len(shards) - len(remaining)
    for _ in fleet(partial(_embed, embedding, fingerprint, parts, dropped is not None), remaining):
        done += 1
        yield done, len(shards)
    files = [shard.path(parts) for shard in shards if shard.path(parts).exists()]
    if not files:
        raise ValueError(f"{out}: no usable texts ({shards[0].dropped(parts)[0][1]})")
    if dropped is not None:
        dropped.extend(row for shard in shards for row in shard.dropped(parts))
    merge(out, files)
    for path in parts.iterdir():
        path.unlink()
    parts.rmdir()


@dataclass(frozen=True)
class Shard:
    """Consecutive texts that one worker embeds into one part."""

    number: int
    keys: Sequence[str]
    texts: Sequence[str]

    @cached_property
    def name(self) -> str:
        """The name of its files, which depends on the ids and the texts."""
        content = json.dumps([self.keys, self.texts]).encode()
        return f"{self.number:06d}-{blake2b(content, digest_size=8).hexdigest()}"

    def path(self, parts: Path) -> Path:
        """The file of the vectors."""
        return parts / f"{self.name}.parquet"

    def note(self, parts: Path) -> Path:
        """The file that lists unusable texts, if there are any."""
        return parts / f"{self.name}.json"

    def dropped(self, parts: Path) -> list[Dropped]:
        """(id, reason) of the unusable texts, as the worker recorded them."""
        path = self.note(parts)
        return [(key, reason) for key, reason in json.loads(path.read_text())] if path.exists() else []

    def finished(self, parts: Path, fingerprint: dict[str, str], *, drop: bool) -> bool:
        """True if an earlier command embedded these texts. ValueError if it used another model or other settings."""
        path, unusable = self.path(parts), {key for key, _ in self.dropped(parts)}
        if not path.exists():
            return drop and len(unusable) == len(self.keys)
        if Vectors(path).fingerprint != fingerprint:
            raise ValueError(
                f"{path}: made with another model or other settings; remove {parts} or choose another --out"
            )
        return drop or not unusable


def _embed(embedding: Embedding, fingerprint: dict[str, str], parts: Path, drop: bool, shard: Shard) -> int:
    rows = vectors_of(embedding, shard.texts)
    group: list[Row] = [(key, row.to(DTYPES[embedding.dtype])) for key, row in zip(shard.keys, rows, strict=True)]
    if drop:
        dropped: list[Dropped] = []
        width = next((row.shape[-1] for row in rows if len(row)), 0)
        group = usable(group, dtype=embedding.dtype, width=width, dropped=dropped)
        if dropped:
            write_json(shard.note(parts), dropped)
    return write(shard.path(parts), [group], dtype=embedding.dtype, fingerprint=fingerprint) if group else 0


def vectors_of(embedding: Embedding, texts: Sequence[str]) -> list[Float[Tensor, "n D"]]:
    """The vectors of each text on the CPU; an empty tensor for a text without tokens, which a model cannot process."""
    model, rows = _encoder(embedding.model), [torch.empty(0, 0)] * len(texts)
    model.tokenizer.truncation_side = "right" if embedding.keep == "start" else "left"
    tokens = model.tokenizer(list(texts), truncation=True, max_length=embedding.max_length)["input_ids"]
    nonempty = [number for number, ids in enumerate(tokens) if len(ids)]
    states = (
        []
        if not nonempty
        else hidden_states(
            model,
            [texts[number] for number in nonempty],
            layer=embedding.layer,
            max_length=embedding.max_length,
            tokens=embedding.tokens,
        )
    )
    for number, state in zip(nonempty, states, strict=True):
        match embedding.pooling:
            case "none":
                rows[number] = state
            case "mean":
                rows[number] = state.float().mean(0, keepdim=True)
            case "last":
                rows[number] = state[-1:]
    return rows


def pooled(texts: Sequence[str], embedding: Embedding) -> Float[Tensor, "n D"]:
    """The pooled vector of each text; not finite for a text without tokens."""
    rows = vectors_of(embedding, texts)
    width = next((row.shape[1] for row in rows if row.numel()), 1)
    return torch.cat([row.float() if row.numel() else torch.full((1, width), torch.nan) for row in rows])


@lru_cache(maxsize=1)
def _encoder(name: str) -> Encoder:
    """The model, loaded once per process."""
    return encoder(name, device="cuda" if torch.cuda.is_available() else "cpu")
