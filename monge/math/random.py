"""Reproducible randomness: generators seeded by tuples of numbers, and splits of a data set by a hash of its keys."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import TypeVar

import torch
from torch import Tensor

S = TypeVar("S", bound=str)


def forked_rng() -> AbstractContextManager[None]:
    """A context that restores torch's global generators at its end: the CPU's, and that of the current GPU if one is in use.

    >>> before = torch.get_rng_state()
    >>> with forked_rng():
    ...     x = torch.rand(3)
    >>> torch.equal(torch.get_rng_state(), before)
    True
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    return torch.random.fork_rng(devices)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def seeded(*numbers: int) -> torch.Generator:
    """A separate generator for each tuple of numbers. SplitMix64 mixes them, so that neighbouring tuples are uncorrelated.

    >>> seeded(0, 1).initial_seed() == seeded(0, 1).initial_seed()
    True
    >>> seeded(0, 1).initial_seed() == seeded(1, 0).initial_seed()
    False
    """
    state = 0
    for number in numbers:
        state = (state ^ (number & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state >> 1)


def seeded_by(x: Tensor, *numbers: int) -> torch.Generator:
    """A separate generator for each content of `x`, bit by bit, and each tuple of numbers.

    >>> x = torch.tensor([1.0, 2.0])
    >>> seeded_by(x, 3).initial_seed() == seeded_by(x.clone(), 3).initial_seed()
    True
    >>> seeded_by(x, 3).initial_seed() == seeded_by(x + 1, 3).initial_seed()
    False
    """
    digest = sha256(x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).digest()
    return seeded(int.from_bytes(digest[:8], "big"), *numbers)


def hashed(key: str) -> float:
    """A number in [0, 1) that depends only on `key`: the first 64 bits of its SHA-256.

    >>> round(hashed("monge"), 3)
    0.963
    """
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64


def split_of(key: str, shares: Mapping[S, float], *, uniform: Callable[[str], float] = hashed) -> S:
    """The split, one of the names in `shares`, of the item named `key`: the same in every process and on every machine.

    `shares` are the expected fractions of the splits and add up to 1; `uniform` maps a key to [0, 1).

    >>> split_of("monge", {"train": 0.9, "test": 0.1})
    'test'
    """
    position, total = uniform(key), 0.0
    for name, share in shares.items():
        total += share
        if position < total - 1e-12:
            return name
    return next(reversed(list(shares)))
