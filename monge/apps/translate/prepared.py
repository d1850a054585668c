"""All steps from a Metamath database to pairs of vectors, for the demo and the benchmarks."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from monge.apps.translate.metamath import INSTALLED
from monge.apps.translate.prepare import SMALL, data, embed, pair, pretrain
from monge.lm.load import encoder
from monge.pretrain import Pretrain
from monge.runs import record_settings

CAPACITY = 128
"""Maximum number of tokens of a text for a general language model, whose tokenizer splits Metamath's symbols."""


def prepare_all(
    out: Path,
    *,
    input: Path | None = None,
    limit: int | None = None,
    citations: bool = False,
    recipe: Pretrain = SMALL,
    model: str = "",
    layer: int | None = None,
) -> Path:
    """Run all steps that precede training, in `out`, for set.mm or `input`, except completed ones; return the directory of
    pairs.

    `model` embeds both sides, after `layer` blocks (default: all). Without it, all-MiniLM-L6-v2 embeds the comments, and a
    model pretrained with `recipe` the statements. `citations` as in `data`. ValueError if `out` was begun with other settings.
    """
    if layer is not None and not model:
        raise ValueError(f"layer {layer} needs a model for both sides")
    texts, formal, pairs, settings = (out / name for name in ("texts.jsonl", "formal", "pairs", "prepared.json"))
    database = str((input or INSTALLED).resolve())
    given = {"input": database, "limit": limit, "citations": citations}
    given |= {"model": model, "layer": layer} if model else {"lm": asdict(recipe)}
    if settings.exists():
        record_settings(settings, given)
    if not texts.exists():
        data("metamath", out=texts, input=input, limit=limit, citations=citations)
    record_settings(settings, given)
    if not model and not (formal / "model").exists():
        pretrain(texts, out=formal, recipe=recipe, resume=(formal / "recipe.json").exists())
    if model:
        layer = encoder(model).depth if layer is None else layer
        sides: dict[Literal["nl", "formal"], tuple[str, int]] = {"nl": (model, layer), "formal": (model, layer)}
    else:
        sides = {"nl": ("all-MiniLM-L6-v2", 6), "formal": (str(formal / "model"), 3)}
    for field, (name, number) in sides.items():
        if not (out / f"{field}.parquet").exists():
            embed(texts, model=name, layer=number, out=out / f"{field}.parquet", field=field)
    if not (pairs / "pairs.json").exists():
        capacity = CAPACITY if model else 64
        pair(
            out / "nl.parquet",
            out / "formal.parquet",
            out=pairs,
            texts=texts,
            capacity=capacity,
            on_long_rows="drop",
        )
    return pairs
