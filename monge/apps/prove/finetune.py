"""The recipe of a tactic policy: a causal language model, fine-tuned on states and the tactics that led to proofs."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import nn
from tyro.conf import OmitArgPrefixes, Suppress

from monge.apps.prove.lm.prompt import completion, prompt
from monge.apps.prove.packing import Example, batch_of, example, packed
from monge.apps.prove.pairs import Counts, TacticPair, check_splits, pairs_of
from monge.lm.load import causal
from monge.lm.store import DTYPES, Dtype
from monge.math.random import seeded, split_of
from monge.objective.next_token import NextToken, Tokens
from monge.pretrain import END, neox, tokenizer_of
from monge.run import fingerprint
from monge.runs import Opened
from monge.training.batches import shuffled
from monge.training.config import TrainConfig
from monge.training.loop import Run

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block of Llama and its relatives."""


@dataclass(frozen=True)
class FineTune:
    """A tactic policy, trained from a pretrained base or from scratch. ValueError if a setting is out of range."""

    app: ClassVar[str] = "policy"
    relocatable: ClassVar[frozenset[str]] = frozenset({"runs", "pairs", "base"})

    runs: Annotated[tuple[str, ...], Suppress] = ()
    """Directories of runs of `monge prove search` and `monge prove replay`."""
    pairs: Annotated[tuple[str, ...], Suppress] = ()
    """Files of published pairs (.jsonl or .parquet)."""
    base: str = ""
    """Causal language model to start from: a directory, a packaged model such as smollm2-135m, or a name on the hub; a new,
    small GPT-NeoX by default."""
    pair_share: float = 0.4
    """Share of the training examples that come from --pairs, drawn at random."""
    validation_share: float = 0.1
    """Share of the theorems whose pairs are held out."""
    rank: int | None = None
    """Rank of LoRA; None trains all weights."""
    alpha: float = 64.0
    """Scale of LoRA: its update is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout of LoRA's input."""
    modules: tuple[str, ...] = MODULES
    """Linear layers that get LoRA."""
    vocabulary: int = 2048
    """Number of tokens of a model from scratch."""
    width: int = 256
    """Hidden size of a model from scratch."""
    depth: int = 4
    """Number of transformer blocks of a model from scratch."""
    heads: int = 4
    """Number of attention heads of a model from scratch."""
    length: int = 1024
    """Length of a training sequence in tokens, which holds several examples. Longer prompts are cut at their start."""
    batch_size: int = 4
    """Number of sequences per batch."""
    eval_examples: int = 500
    """Number of held-out examples in each evaluation during training."""
    dtype: Dtype = "float32"
    """Dtype of the base's weights; half precision needs LoRA, whose own weights stay in float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory for a third more time."""
    any_split: bool = False
    """Accept runs that may hold theorems of the test split."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(
            steps=600, warmup_steps=50, save_every=100, weight_decay=0.1, threads=0, ema_width=0.0
        )
    )

    def __post_init__(self) -> None:
        for name in ("runs", "pairs"):
            paths = dict.fromkeys(str(Path(path).resolve()) for path in getattr(self, name))
            object.__setattr__(self, name, tuple(paths))
        if self.base and Path(self.base).is_dir():
            object.__setattr__(self, "base", str(Path(self.base).resolve()))
        for name, least in (
            *(("length", 2), ("batch_size", 1), ("eval_examples", 1)),
            *(("vocabulary", 1), ("depth", 1), ("heads", 1)),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.width < 1 or self.width % (2 * self.heads):
            raise ValueError(
                f"width {self.width} does not divide into {self.heads} heads of even width; use a multiple of {2 * self.heads}"
            )
        if self.dtype != "float32" and self.rank is None:
            raise ValueError(f"--dtype {self.dtype} rounds small updates away unless --rank is given; train in float32")
        for name in ("pair_share", "validation_share", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.rank is not None and (self.rank < 1 or not self.base):
            raise ValueError(f"--rank {self.rank}: LoRA needs a rank of at least 1 and a pretrained --base")

    def build(self) -> Run[Tokens]:
        """Read the pairs, load the base, and assemble the run. ValueError without runs and pairs."""
        if not self.runs and not self.pairs:
            raise ValueError("no training data; give directories of runs, or --pairs FILE")
        data = Data(self)
        if not self.any_split:
            check_splits([Path(run) for run in self.runs])
        training, held_out = data.training, data.held_out
        rows, pad = packed(training, self.length, seed=self.train.seed), data.pad
        model = self.network(data.model)
        if self.gradient_checkpointing:
            data.model.gradient_checkpointing_enable({"use_reentrant": False})

        def batches(number: int) -> Tokens:
            chosen = shuffled(number, self.batch_size, len(rows), self.train.seed).tolist()
            return batch_of([[training[k] for k in rows[row]] for row in chosen], self.length, pad)

        quick = torch.randperm(len(held_out), generator=seeded(self.train.seed, 2))[: self.eval_examples].tolist()

        def evaluate(model: nn.Module) -> dict[str, float]:
            return {"held-out loss": loss_of(model, [held_out[k] for k in quick], self.length, pad)}

        stream = torch.tensor([token for one in [*training, *held_out] for token in one.ids])
        return Run(model, NextToken(), batches, self.train, evaluate, {"examples": fingerprint(stream)})

    def network(self, model: nn.Module) -> nn.Module:
        """The base with new adapters, or with all weights to be trained."""
        if self.rank is None:
            return model.requires_grad_(True)
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError:
            raise ValueError("--rank: LoRA needs peft; pip install 'monge[lm]', or leave out --rank") from None
        adapted = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,
            target_modules=list(self.modules),
            task_type="CAUSAL_LM",
        )
        try:
            return get_peft_model(model.requires_grad_(False), adapted)  # pyright: ignore[reportReturnType, reportArgumentType]
        except ValueError as error:
            raise ValueError(f"--modules: {error}") from None


@dataclass
class Data:
    """The pairs of a recipe as examples, and the model that learns them."""

    recipe: FineTune

    @cached_property
    def _read(self) -> tuple[list[TacticPair], dict[str, Counts]]:
        recipe = self.recipe
        return pairs_of([Path(run) for run in recipe.runs], [Path(file) for file in recipe.pairs])

    @property
    def counts(self) -> dict[str, Counts]:
        """The number of rows read, left out and kept, by source."""
        return self._read[1]

    @cached_property
    def split(self) -> dict[str, list[TacticPair]]:
        """The pairs for training and for validation, split by theorem; those of --pairs are a random sample of their share.

        ValueError if a split is empty.
        """
        recipe, (pairs, _) = self.recipe, self._read
        shares = {"validation": recipe.validation_share, "training": 1 - recipe.validation_share}
        published = [pair for pair in pairs if pair.source in recipe.pairs]
        own = [pair for pair in pairs if pair.source not in recipe.pairs]
        if own and published:
            count = min(len(published), round(recipe.pair_share / (1 - recipe.pair_share) * len(own)))
            chosen = torch.randperm(len(published), generator=seeded(recipe.train.seed, 3))[:count]
            published = [published[k] for k in sorted(chosen.tolist())]
        parts: dict[str, list[TacticPair]] = {"training": [], "validation": []}
        for pair in [*own, *published]:
            parts[split_of(pair.theorem, shares)].append(pair)
        for name, part in parts.items():
            if not part:
                raise ValueError(
                    f"no pairs for {name} among {len(pairs)}; give more runs or another --validation-share"
                )
        return parts

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer: the base, or a new GPT-NeoX whose tokenizer is trained on the training pairs."""
        recipe = self.recipe
        if recipe.base:
            base = causal(recipe.base, dtype=DTYPES[recipe.dtype])
            if base.positions is not None and base.positions < recipe.length:
                raise ValueError(
                    f"--length {recipe.length}: {recipe.base} has {base.positions} positions; give at most that many"
                )
            return base.model, base.tokenizer
        from transformers import PreTrainedTokenizerFast

        texts = [text for pair in self.split["training"] for text in (prompt(pair.state), completion(pair.tactic))]
        tokenizer = tokenizer_of(texts, recipe.vocabulary)
        end = tokenizer.token_to_id(END)
        model = neox(tokenizer.get_vocab_size(), recipe.width, recipe.depth, recipe.heads, recipe.length, end)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=recipe.length
        )
        return model, fast

    @property
    def model(self) -> Any:
        """The model without adapters."""
        return self.loaded[0]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model."""
        return self.loaded[1]

    @property
    def pad(self) -> int:
        """The token id of padding."""
        return self.tokenizer.pad_token_id

    @cached_property
    def training(self) -> list[Example]:
        """The training examples, without pairs whose tactic alone is too long."""
        return [one for _, one in self._examples("training")]

    @cached_property
    def held_out(self) -> list[Example]:
        """The held-out examples."""
        return [one for _, one in self._examples("validation")]

    def held_out_by_source(self) -> dict[str, list[Example]]:
        """The held-out examples of each source."""
        parts: dict[str, list[Example]] = defaultdict(list)
        for pair, one in self._examples("validation"):
            parts[pair.source].append(one)
        return parts

    def _examples(self, split: str) -> list[tuple[TacticPair, Example]]:
        pairs = self.split[split]
        tokenized = [example(self.tokenizer, pair.state, pair.tactic, self.recipe.length) for pair in pairs]
        kept = [(pair, one) for pair, one in zip(pairs, tokenized, strict=True) if one is not None]
        if not kept:
            raise ValueError(f"--length {self.recipe.length}: every tactic for {split} is longer; give more tokens")
        return kept


@torch.no_grad()
def loss_of(model: nn.Module, examples: Sequence[Example], length: int, pad: int, *, size: int = 4) -> float:
    """The mean cross-entropy of the completions in nats per token."""
    rows, device = packed(examples, length), next(model.parameters()).device
    total, count = 0.0, 0.0
    for first in range(0, len(rows), size):
        batch = batch_of([[examples[k] for k in row] for row in rows[first : first + size]], length, pad).to(device)
        assert batch.weight is not None
        weight = float(batch.weight.sum())
        total, count = total + weight * float(NextToken()(model, batch).value), count + weight
    return total / count if count else math.nan


def trained(recipe: FineTune, opened: Opened, *, which: str = "best") -> tuple[Data, Any]:
    """The data of a run, and its trained model with the adapters merged into its weights."""
    data = Data(recipe)
    network: Any = opened.weights(recipe.network(data.model), which=which)
    return data, network.merge_and_unload() if recipe.rank is not None else network


_SMALL = TrainConfig(steps=600, warmup_steps=50, save_every=100, threads=0, ema_width=0.0)
PRESETS: dict[str, dict[str, Any]] = {
    "scratch": {},
    "smollm2-135m": {
        "base": "smollm2-135m",
        "rank": 32,
        "batch_size": 1,
        "train": replace(_SMALL, lr=5e-4),
    },
    "deepseek-prover-7b": {
        "base": "deepseek-ai/DeepSeek-Prover-V2-7B",
        "rank": 32,
        "length": 2048,
        "batch_size": 1,
        "dtype": "bfloat16",
        "gradient_checkpointing": True,
        "train": replace(_SMALL, steps=12_000, lr=3e-5, gradient_accumulation=20, precision="bfloat16"),
    },
}
"""Settings by name: a small model from scratch, and two bases with LoRA (rank 32, alpha 64, seven modules, dropout 0.05)."""
