"""Texts as sequences of token ids, split into training and held-out documents."""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from monge.math.random import seeded, split_of

DOCUMENTATION = Path("/usr/share/doc/python3.11/html/_sources")
"""The text of the demo: Python's documentation, from Debian's package python3.11-doc."""
SUFFIXES = (".txt", ".md", ".rst")
SHARES = {"training": 0.9, "held_out": 0.1}


class Corpus(NamedTuple):
    """Sequences of one length, cut from the concatenated documents, each followed by an end-of-text token.

    Their order is random but fixed, so any prefix is a random sample.
    """

    training: Int[Tensor, "n length"]
    held_out: Int[Tensor, "m length"]


def corpus(path: Path, tokenizer: Any, length: int) -> Corpus:
    """The sequences of a text file, or of all files with a suffix in SUFFIXES in a folder.

    Documents are files or, in a single file, paragraphs; each is held out or not by a hash of its text. ValueError if a file is
    not UTF-8, or if a split has no full sequence.
    """
    streams = {name: array("i") for name in SHARES}
    for text in documents(path):
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        streams[split_of(text, SHARES)].extend([*ids, tokenizer.eos_token_id])
    cut = {
        name: torch.tensor(ids[: len(ids) // length * length], dtype=torch.long).reshape(-1, length)
        for name, ids in streams.items()
    }
    for name, ids in cut.items():
        if not len(ids):
            raise ValueError(
                f"{path}: {len(streams[name])} {name.replace('_', '-')} tokens are less than one sequence of {length}; "
                "give more text or shorter sequences"
            )
    return Corpus(**{name: ids[torch.randperm(len(ids), generator=seeded(0))] for name, ids in cut.items()})


def ensure_exists(path: Path) -> None:
    """ValueError if `path` does not exist. Called before a model is loaded."""
    if not path.exists():
        raise ValueError(f"--data {path}: no such file or folder; apt install python3.11-doc, or give a text file")


def documents(path: Path) -> Iterator[str]:
    """Yields the texts of files, or the paragraphs of a single file."""
    if path.is_file():
        yield from (text for text in _read(path).split("\n\n") if text.strip())
        return
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not files:
        raise ValueError(f"{path}: no text; give a text file, or a folder with {', '.join(SUFFIXES)} files")
    yield from map(_read, files)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text (byte {error.start}); convert it first") from error
