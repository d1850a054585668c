"""The recipe of a decoder of a run's translations, and the trained decoder with its tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from monge.apps.translate.data import read_texts
from monge.apps.translate.decoder import Decoder, DecoderShape, NoisyPrompt, Prompted
from monge.apps.translate.pair import ENDS, Pairs, check_texts, json_hash, same_pairs
from monge.apps.translate.recipes import Translator, stored_recipe, translator_of
from monge.math.cost import Whitening
from monge.math.ot import assignment
from monge.math.random import forked_rng
from monge.pretrain import END, tokenizer_of
from monge.run import same_constant
from monge.runs import reopen
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.loop import Run

FIELDS = {"source": "nl", "target": "formal"}
"""Text of each side."""


@dataclass(frozen=True)
class TrainDecoder:
    """Recipe of a decoder of a run's translations. ValueError if a setting is out of range."""

    app: ClassVar[str] = "decoder"
    relocatable: ClassVar[frozenset[str]] = frozenset({"run", "texts", "pairs"})

    run: str = "runs/translate"
    """Directory of the run whose translations are to be decoded."""
    texts: str = "texts.jsonl"
    """File written by `monge translate data`, with the texts of the pairs."""
    pairs: str = ""
    """Directory of the pairs that the run was trained on, if it has moved."""
    reverse: bool = False
    """Decode the source side's texts (nl) instead of the target side's (formal)."""
    noise: float | None = None
    """Standard deviation of the noise on the vectors in training, in calibrated units (default: that of the run's translation
    errors on validation pairs)."""
    checkpoint: str = "last"
    """Checkpoint of the run whose errors are measured: last, best, or a step number."""
    use_vectors: bool = True
    """Show the vectors to the decoder; without them it is a language model of the texts, a control."""
    vocabulary: int = 2048
    """Maximum number of tokens in the vocabulary of the texts."""
    length: int = 128
    """Maximum number of tokens of a text; longer ones are left out of training."""
    shape: OmitArgPrefixes[DecoderShape] = field(default_factory=DecoderShape)
    batch_size: int = 16
    """Number of texts per batch."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(
            steps=2000, warmup_steps=50, save_every=500, weight_decay=0.1, threads=0, ema_width=0.0
        )
    )

    def __post_init__(self) -> None:
        for name in self.relocatable:
            if path := getattr(self, name):
                object.__setattr__(self, name, str(Path(path).resolve()))
        check_at_least(self, vocabulary=1, length=1, batch_size=1)
        check_at_least(self.shape, width=1, depth=1, heads=1, positions=1)
        if self.noise is not None and not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise must be finite and not negative, got {self.noise}")
        if self.shape.width % (2 * self.shape.heads):
            raise ValueError(f"width {self.shape.width} must be a multiple of {2 * self.shape.heads}, twice the heads")

    @property
    def end(self) -> str:
        """The side whose texts are decoded."""
        return ENDS[not self.reverse]

    def build(self) -> Run[Prompted]:
        """Read the pairs and the texts, train the tokenizer, measure the noise, and assemble the run.

        ValueError if texts are missing or too long for the model.
        """
        translator, pairs = self.opened()
        texts = read_texts(Path(self.texts), dropped=[])
        known = {text.id: getattr(text, FIELDS[self.end]) for text in texts}
        parts = {name: pairs.split(name).tolist() for name in ("train", "validation")}
        missing = [pairs.ids[n] for part in parts.values() for n in part if pairs.ids[n] not in known]
        if missing:
            raise ValueError(f"{self.texts}: no text with id {missing[0]!r} of {pairs.directory}")
        check_texts(pairs, texts, Path(self.texts))
        if pairs.capacity + self.length + 1 > self.shape.positions:
            raise ValueError(
                f"positions {self.shape.positions}: {pairs.capacity} vectors and {self.length} tokens need "
                f"{pairs.capacity + self.length + 1}; raise --positions or lower --length"
            )
        lines = [known[pairs.ids[n]] for n in parts["train"]]
        tokenizer = tokenizer_of(lines, self.vocabulary)
        end = tokenizer.token_to_id(END)
        side = translator.space.calibration.side(self.end)

        def examples(numbers: Sequence[int]) -> list[tuple[int, list[int]]]:
            rows = tokenizer.encode_batch([known[pairs.ids[n]] for n in numbers])
            return [(n, row.ids) for n, row in zip(numbers, rows, strict=True) if len(row.ids) <= self.length]

        def batch(rows: Sequence[tuple[int, list[int]]]) -> Prompted:
            sequences = [side.apply(pairs.sequence(self.end, n)) for n, _ in rows]
            return Prompted.of([x if self.use_vectors else 0 * x[:1] for x in sequences], [ids for _, ids in rows], end)

        training, held_out = examples(parts["train"]), examples(parts["validation"][:256])
        if not training or not held_out:
            raise ValueError(f"{self.texts}: too few texts of at most {self.length} tokens; raise --length")
        noise = self._noise(translator, pairs)
        objective = NoisyPrompt(noise)

        def batches(number: int) -> Prompted:
            chosen = shuffled(number, self.batch_size, len(training), self.train.seed).tolist()
            return batch([training[k] for k in chosen])

        @torch.no_grad()
        def evaluate(model: nn.Module) -> dict[str, float]:
            device, total = next(model.parameters()).device, 0.0
            with forked_rng():
                torch.manual_seed(0)
                for start in range(0, len(held_out), self.batch_size):
                    rows = held_out[start : start + self.batch_size]
                    total += len(rows) * float(objective(model, batch(rows).to(device)).value)
            return {"held-out loss": total / len(held_out)}

        constants = {
            "pairs": torch.tensor(pairs.fingerprint),
            "texts": torch.tensor(json_hash([known[pairs.ids[n]] for part in parts.values() for n in part])),
            "centre": side.centre,
            "matrix": side.matrix,
            "tokenizer": torch.tensor(list(tokenizer.to_str().encode()), dtype=torch.uint8),
            "noise": torch.tensor(noise),
            "width": torch.tensor(pairs.width),
        }
        model = Decoder(pairs.width, tokenizer.get_vocab_size(), self.shape, end)
        return Run(model, objective, batches, self.train, evaluate, constants)

    def opened(self) -> tuple[Translator, Pairs]:
        """The translator of the run and its pairs. ValueError if the pairs are others."""
        opened = reopen(Path(self.run), app="translate")
        pairs = same_pairs(Path(self.pairs or stored_recipe(opened).pairs), opened.constants, Path(self.run))
        return translator_of(opened, which=self.checkpoint), pairs

    def _noise(self, translator: Translator, pairs: Pairs) -> float:
        """The standard deviation of the noise; 0 without vectors."""
        if not self.use_vectors:
            return 0.0
        if self.noise is not None:
            return self.noise
        return measured_noise(translator, pairs, pairs.split("validation")[:128].tolist(), self.reverse)


def measured_noise(translator: Translator, pairs: Pairs, numbers: Sequence[int], reverse: bool) -> float:
    """The root mean square error per entry of translated tokens, matched to the true ones by an exact assignment, in calibrated
    units. ValueError without pairs, or if all translations are empty."""
    if not numbers:
        raise ValueError(f"{pairs.directory}: no validation pairs to measure the noise on; give --noise")
    sides = [translator.space.calibration.side(end) for end in (ENDS[reverse], ENDS[not reverse])]
    sources, targets = (
        [side.apply(pairs.sequence(end, n)) for n in numbers]
        for side, end in zip(sides, (ENDS[reverse], ENDS[not reverse]), strict=True)
    )
    ends = translator.carry(sources, reverse=reverse)
    errors: list[Tensor] = []
    for x, y in zip(ends, targets, strict=True):
        if len(x):
            match = assignment(torch.cdist(x, y).square())
            errors.append((x[match >= 0] - y[match[match >= 0]]).square().mean(1))
    if not errors:
        raise ValueError(f"{pairs.directory}: all translations of validation pairs are empty; train the run for longer")
    return float(torch.cat(errors).mean().sqrt())


@dataclass(frozen=True)
class OpenedDecoder:
    """A trained decoder with its tokenizer."""

    recipe: TrainDecoder
    model: Decoder
    tokenizer: Any
    constants: dict[str, Tensor]

    def reads(self, pairs: int, side: Whitening) -> bool:
        """True if it was trained on pairs with this fingerprint, calibrated by `side`."""
        if not {"centre", "matrix"} <= self.constants.keys():
            raise ValueError("the decoder was made by an earlier version of monge; train it again")
        same = same_constant(self.constants["centre"], side.centre) and same_constant(
            self.constants["matrix"], side.matrix
        )
        return same and int(self.constants["pairs"]) == pairs

    def texts(
        self, sequences: Sequence[Float[Tensor, "_ D"]], *, samples: int = 0, temperature: float = 1.0
    ) -> list[tuple[str, float]]:
        """The greedy text of each calibrated sequence, or `samples` random ones per sequence, and its score (see `scores`)."""
        rows = self._batch(sequences, [[]] * len(sequences))
        ids = self.model.generate(rows, length=self.recipe.length, samples=samples, temperature=temperature)
        repeated = [x for x in sequences for _ in range(max(1, samples))]
        scores = self.scores(repeated, ids)
        return [(text.strip(), score) for text, score in zip(self.tokenizer.decode_batch(ids), scores, strict=True)]

    def scores(self, sequences: Sequence[Float[Tensor, "_ D"]], ids: Sequence[Sequence[int]]) -> list[float]:
        """The mean log-probability per token of token ids for each calibrated sequence, in nats. The end-of-text token counts,
        unless the text has the maximum length."""
        batch = self._batch(sequences, ids)
        for row, text in enumerate(ids):
            batch.known[row, len(text) + 1] = len(text) < self.recipe.length
        return self.model.log_likelihood(batch).tolist()

    def _batch(self, sequences: Sequence[Float[Tensor, "_ D"]], ids: Sequence[Sequence[int]]) -> Prompted:
        shown = [x if self.recipe.use_vectors else 0 * x[:1] for x in sequences]
        batch = Prompted.of(shown, ids, self.tokenizer.token_to_id(END))
        return batch.to(next(self.model.parameters()).device)


def opened_decoder(directory: Path, *, which: str = "best", device: torch.device | str = "cpu") -> OpenedDecoder:
    """The decoder of a trained run. ValueError if there is none."""
    from tokenizers import Tokenizer

    opened = reopen(directory, app=TrainDecoder.app)
    recipe, constants = opened.rebuilt(TrainDecoder), opened.constants
    tokenizer: Any = Tokenizer.from_str(bytes(constants["tokenizer"].tolist()).decode())
    model = Decoder(int(constants["width"]), tokenizer.get_vocab_size(), recipe.shape, tokenizer.token_to_id(END))
    trained = opened.weights(model, which=which).to(device)
    assert isinstance(trained, Decoder)
    return OpenedDecoder(recipe, trained, tokenizer, constants)
