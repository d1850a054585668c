"""The verb `decode`: the nearest known texts to translated sequences, and their overlap with the true texts."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.calibrate import means
from monge.apps.translate.data import read_texts
from monge.apps.translate.decoder_recipe import FIELDS, OpenedDecoder, opened_decoder
from monge.apps.translate.grammar import Grammar
from monge.apps.translate.metrics import pooled, pooled_scores
from monge.apps.translate.output import EMPTY, console
from monge.apps.translate.own_head import OwnHead
from monge.apps.translate.pair import ENDS, Pairs, check_texts, same_pairs
from monge.apps.translate.recipes import stored_recipe
from monge.apps.translate.space import Space
from monge.files import atomic_write, ensure_new
from monge.flags import at_least_one
from monge.lm.store import Vectors
from monge.math.cost import Whitening
from monge.math.random import forked_rng, seeded
from monge.runs import reopen
from monge.training.distributed import device_named

OTHER = ", against another row"
"""Suffix of the scores against the true text of another row."""


class Candidate(NamedTuple):
    """A text for a translated sequence."""

    id: str | None
    """Id of a known text; None for a generated one."""
    text: str
    score: float | None
    """Cosine of the centred means of the calibrated sequences, from -1 to 1, or the mean log-probability per token; None for an
    empty translation."""
    well_formed: bool | None = None
    """True if the grammar of a Metamath database produces the text; None if it was not checked."""
    exact: bool | None = None
    """True if it equals the true text; None if that is unknown, or was used in training or validation."""

    def row(self) -> dict[str, Any]:
        """The fields, without `well_formed` if it was not checked."""
        return {name: value for name, value in self._asdict().items() if name != "well_formed" or value is not None}


@dataclass(frozen=True)
class Bank:
    """Known sequences of one side, represented by the means of their calibrated vectors."""

    ids: list[str]
    means: Float[Tensor, "n D"]
    space: Space
    end: str

    @staticmethod
    def of(pairs: Pairs, space: Space, end: str, numbers: Sequence[int]) -> "Bank":
        """The sequences of these pairs on the side `end`, which is `source` or `target`."""
        rows = means(pairs, end, numbers, entries=len(numbers) * pairs.width)
        return Bank([pairs.ids[number] for number in numbers], space.calibration.side(end).apply(rows), space, end)

    def nearest(self, sequences: Sequence[Float[Tensor, "_ D"]], count: int) -> list[list[tuple[str, float]]]:
        """For each sequence, in the units of the data, the ids of the `count` nearest known sequences with their scores, best
        first. ValueError if a sequence is empty."""
        if not all(map(len, sequences)):
            raise ValueError("an empty sequence has no nearest text")
        side, centre = self.space.calibration.side(self.end), self.means.mean(0)
        queries = pooled([side.apply(x) for x in sequences], len(centre))
        scores = pooled_scores(queries - centre, self.means - centre)
        best = scores.topk(min(count, len(self.ids)))
        return [
            [(self.ids[number], score) for score, number in zip(values, numbers, strict=True)]
            for values, numbers in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def token_f1(text: str, true: str) -> float:
    """The F1 score of the tokens, separated by spaces, as multisets.

    >>> token_f1("( a + b )", "( a + c )")
    0.8
    """
    ours, theirs = Counter(text.split()), Counter(true.split())
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


def overlap(texts: Sequence[str], true: Sequence[str]) -> dict[str, float]:
    """The share of texts that equal the true ones and the mean F1 score of tokens, also against the true text of another row.

    >>> overlap(["a b", "c"], ["a b", "d"])["exact"]
    0.5
    """
    scores = {"": true, OTHER: [*true[1:], true[0]] if len(true) > 1 else []}
    return {
        f"{name}{label}": sum(map(function, texts, other)) / len(other) if other else float("nan")
        for label, other in scores.items()
        for name, function in (("exact", lambda a, b: float(a == b)), ("token F1", token_f1))
    }


def decode(
    run: tyro.conf.Positional[Path],
    vectors: tyro.conf.Positional[Path],
    *,
    texts: Path,
    out: Path,
    decoder: Path | None = None,
    own_head: bool = False,
    num_candidates: int = 5,
    temperature: float = 1.0,
    bank: Literal["train", "all"] = "train",
    grammar: Path | None = None,
    pairs: Path | None = None,
    decoder_checkpoint: str = "best",
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Find texts for translated sequences: the nearest known ones or, with --decoder or --own-head, generated ones.

    Known texts are those of the run's pairs; sequences are compared by the cosine of their mean vectors, as in the retrieval
    scores of `evaluate`. If the true texts are known, the share of exact matches and the F1 score of the tokens are printed.

    Args:
        run: Directory of the trained run.
        vectors: Parquet file written by `monge translate run` with this run, or with another one on the same pairs.
        texts: File written by `monge translate data`, with the texts of the pairs.
        out: File to write, .jsonl or .parquet: a row {id, text, score, candidates} for each sequence. A candidate's field exact
            is true if it equals the true text, null if that is unknown, among the known texts, or was used in training or
            validation; with --grammar, well_formed is another field. An empty translation has an empty text.
        decoder: Directory of a decoder trained by `monge translate train-decoder` for this run.
        own_head: Generate each token with the remaining blocks and the head of the causal model that made the vectors.
        num_candidates: Number of texts per sequence. If they are generated, the first one is greedy, the others are sampled.
        temperature: Temperature of samples.
        bank: Known texts: those of the training pairs, or of all pairs.
        grammar: Metamath database, such as set.mm; its syntax axioms decide which formal texts are well-formed.
        pairs: Directory of the pairs that the run was trained on, if it has moved.
        decoder_checkpoint: Checkpoint of the decoder: best, last, or a step number.
        seed: Random seed of samples.
        device: Device of the decoder or the model: cpu, cuda, or auto for a GPU if there is one.
    """
    at_least_one(num_candidates=num_candidates)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"--temperature {temperature}: give a positive number")
    if out.suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"--out {out}: give a .jsonl or .parquet file")
    ensure_new(out)
    generated = own_head or decoder is not None
    if own_head and decoder is not None:
        raise ValueError("--own-head and --decoder exclude each other; give one of them")
    if decoder is None and decoder_checkpoint != "best":
        raise ValueError("--decoder-checkpoint has no effect without --decoder; omit it")
    for name, given in {"temperature": temperature != 1.0, "seed": seed != 0}.items():
        if given and not generated:
            raise ValueError(f"--{name} has no effect without --decoder or --own-head; omit it")
    if generated and bank != "train":
        raise ValueError("--bank has no effect on generated texts; omit it")
    opened, file = reopen(run, app="translate"), Vectors(vectors)
    recipe, constants = stored_recipe(opened), opened.constants
    paired = same_pairs(pairs or Path(recipe.pairs), constants, run)
    if file.fingerprint.get("pairs") != paired.fingerprint:
        raise ValueError(f"{vectors}: not translations by a run on these pairs; create them with monge translate run")
    end = ENDS[not file.fingerprint["reverse"]]
    if grammar is not None and FIELDS[end] != "formal":
        raise ValueError(f"--grammar: {vectors} holds translations to English, which no grammar describes; omit it")
    rules = None if grammar is None else Grammar.of(grammar)
    space = Space.from_constants(constants, recipe.prices, aux_scale=recipe.aux_scale)
    side = space.calibration.side(end)
    numbers = list(range(len(paired.ids))) if bank == "all" else paired.split("train").tolist()
    rows_of_texts = read_texts(texts, dropped=[])  # unusable ones are in no pair
    known = {text.id: getattr(text, FIELDS[end]) for text in rows_of_texts}
    check_texts(paired, rows_of_texts, texts)
    if decoder is None:
        if not any(paired.ids[number] in known for number in numbers):
            raise ValueError(f"{texts}: no usable text of {paired.directory}; pass the texts that were embedded")
        if count := sum(paired.ids[number] not in known for number in numbers):
            console.print(f"{texts} has no text for {count} of {len(numbers)} known sequences; they are no candidates")
            numbers = [number for number in numbers if paired.ids[number] in known]
    empty = empty_translations(vectors)
    in_bank, in_pairs = set(numbers), set(paired.ids)
    scored = {paired.ids[number] for number in paired.split("test").tolist() if number not in in_bank}
    # the model of the formal texts was trained on the groups of the training split, also on texts that are in no pair
    scored |= {one.id for one in rows_of_texts if one.id not in in_pairs and one.split == "test"}
    if own_head:
        known_here = [known[paired.ids[number]] for number in numbers]
        head = OwnHead.of(paired.metadata["fingerprint"][end], side, known_here, device=device_named(device))
        head.check_lengths(file)
        find = partial(generated_texts, head, side, count=num_candidates, temperature=temperature)
    elif decoder is None:
        find = partial(from_bank, Bank.of(paired, space, end, numbers), known, count=num_candidates)
    else:
        trained = opened_decoder(decoder, which=decoder_checkpoint, device=device_named(device))
        if trained.recipe.end != end or not trained.reads(paired.fingerprint, side):
            raise ValueError(
                f"{decoder}: decodes {trained.recipe.end} vectors of {trained.recipe.run}, not these {end} vectors; train one "
                f"for {run}"
            )
        find = partial(generated_texts, trained, side, count=num_candidates, temperature=temperature)
    decoded: dict[str, list[Candidate]] = {}
    with forked_rng():
        torch.manual_seed(seed)
        for _, part in file.portions():
            for start in range(0, len(part), 64):
                rows = part[start : start + 64]
                found = find([row.float() for _, row in rows])
                if rules is not None:
                    found = [[one._replace(well_formed=rules.well_formed(one.text)) for one in best] for best in found]
                decoded |= {key: best for (key, _), best in zip(rows, found, strict=True)}
    decoded |= {key: [Candidate(None, "", None, rules and rules.well_formed(""))] for key in empty}
    for key in scored & decoded.keys() & known.keys():
        decoded[key] = [one._replace(exact=one.text == known[key]) for one in decoded[key]]
    write_decoded(out, decoded)
    report(decoded, known, out, scored=scored)


def empty_translations(vectors: Path) -> list[str]:
    """The ids of the sequences whose translations by `monge translate run` are empty. ValueError if the list of dropped rows is
    damaged."""
    listing = vectors.with_name(f"{vectors.name}.dropped.jsonl")
    lines = listing.read_text(encoding="utf-8").split("\n") if listing.exists() else ()
    try:
        return [row["id"] for row in map(json.loads, filter(None, lines)) if row["reason"] == EMPTY]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{listing}: not a list of dropped rows; run `monge translate run` again") from error


def from_bank(
    bank: Bank, known: Mapping[str, str], sequences: Sequence[Float[Tensor, "_ D"]], *, count: int
) -> list[list[Candidate]]:
    """The nearest known texts of each sequence, best first."""
    return [[Candidate(name, known[name], score) for name, score in row] for row in bank.nearest(sequences, count)]


def generated_texts(
    decoder: OpenedDecoder | OwnHead,
    side: Whitening,
    sequences: Sequence[Float[Tensor, "_ D"]],
    *,
    count: int,
    temperature: float,
) -> list[list[Candidate]]:
    """A greedy text and count - 1 sampled ones for each sequence."""
    calibrated = [side.apply(x) for x in sequences]
    rows = [[one] for one in decoder.texts(calibrated)]
    if count > 1:
        samples = decoder.texts(calibrated, samples=count - 1, temperature=temperature)
        rows = [first + samples[k * (count - 1) : (k + 1) * (count - 1)] for k, first in enumerate(rows)]
    return [[Candidate(None, *one) for one in row] for row in rows]


def write_decoded(out: Path, decoded: Mapping[str, Sequence[Candidate]]) -> None:
    """Write a row per sequence, as JSON lines or parquet by the suffix, atomically."""
    rows: list[dict[str, Any]] = [
        {"id": key, "text": best[0].text, "score": best[0].score, "candidates": [one.row() for one in best]}
        for key, best in decoded.items()
    ]
    with atomic_write(out) as path:
        if out.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def report(
    decoded: Mapping[str, Sequence[Candidate]], known: Mapping[str, str], out: Path, *, scored: set[str]
) -> None:
    """Print the overlap with the true texts of the sequences whose ids are in `scored`."""
    keys = [key for key in decoded if key in known and key in scored]
    keys = [keys[k] for k in torch.randperm(len(keys), generator=seeded(0)).tolist()]  # neighbours in a file are alike
    console.print(f"{len(decoded)} sequences decoded: {out}")
    checked = [best[0].well_formed for best in decoded.values() if best[0].well_formed is not None]
    if checked:
        console.print(
            f"First text is well-formed: {sum(checked)} of {len(checked)} ({sum(checked) / len(checked):.1%})"
        )
    if keys:
        scores = overlap([decoded[key][0].text for key in keys], [known[key] for key in keys])
        shown = ", ".join(
            f"{name} {value:.3f} ({scores[name + OTHER]:.3f})" for name, value in scores.items() if OTHER not in name
        )
        console.print(
            f"Scores of the {len(keys)} sequences whose texts are known and were used neither in training nor in validation "
            f"(in brackets: against another row's text): {shown}"
        )
