"""All steps from a Metamath database to pairs of vectors, for the demo and the benchmarks."""

from dataclasses import asdict
from pathlib import Path

from monge.apps.translate.metamath import INSTALLED
from monge.apps.translate.prepare import SMALL, data, embed, pair, pretrain
from monge.pretrain import Pretrain
from monge.runs import record_settings


def prepare_all(
    out: Path,
    *,
    input: Path | None = None,
    limit: int | None = None,
    citations: bool = False,
    recipe: Pretrain = SMALL,
) -> Path:
    """Run all steps that precede training, in `out`, for set.mm or `input`, except completed ones; return the directory of
    pairs. `citations` as in `data`. ValueError if `out` was begun with other settings."""
    texts, formal, pairs, settings = (out / name for name in ("texts.jsonl", "formal", "pairs", "prepared.json"))
    database = str((input or INSTALLED).resolve())
    given = {"input": database, "limit": limit, "citations": citations, "lm": asdict(recipe)}
    if settings.exists():
        record_settings(settings, given)
    if not texts.exists():
        data("metamath", out=texts, input=input, limit=limit, citations=citations)
    record_settings(settings, given)
    if not (out / "nl.parquet").exists():
        embed(texts, model="all-MiniLM-L6-v2", layer=6, out=out / "nl.parquet", field="nl")
    if not (formal / "model").exists():
        pretrain(texts, out=formal, recipe=recipe, resume=(formal / "recipe.json").exists())
    if not (out / "formal.parquet").exists():
        embed(texts, model=str(formal / "model"), layer=3, out=out / "formal.parquet", field="formal")
    if not (pairs / "pairs.json").exists():
        pair(out / "nl.parquet", out / "formal.parquet", out=pairs, texts=texts, on_long_rows="drop")
    return pairs
