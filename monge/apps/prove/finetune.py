"""The recipe of a tactic policy: a causal language model, fine-tuned on states and the tactics that led to proofs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import nn
from tyro.conf import OmitArgPrefixes, Suppress

from monge.apps.prove.energy_measures import quality
from monge.apps.prove.examples import Data
from monge.apps.prove.joint import Joint, JointBatch, JointLoss, contrast_of, samplers
from monge.apps.prove.lm.prompt import Goals, Names, Style
from monge.apps.prove.packing import Example, batch_of, packed
from monge.apps.prove.pairs import check_splits
from monge.apps.prove.separation import probe_states, separation
from monge.lm.lora import MODULES, merged, with_lora
from monge.lm.store import Dtype
from monge.math.random import seeded
from monge.objective.next_token import NextToken, Tokens
from monge.run import fingerprint
from monge.runs import Opened
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.loop import Run
from monge.training.state import trained as parameters_of


@dataclass(frozen=True)
class FineTune:
    """A tactic policy, trained from a pretrained base or from scratch. ValueError if a setting is out of range."""

    app: ClassVar[str] = "policy"
    relocatable: ClassVar[frozenset[str]] = frozenset({"runs", "pairs", "base", "scored_by"})

    runs: Annotated[tuple[str, ...], Suppress] = ()
    """Directories of runs of `monge prove search` and `monge prove replay`."""
    pairs: Annotated[tuple[str, ...], Suppress] = ()
    """Files of published pairs (.jsonl or .parquet)."""
    base: str = ""
    """Causal language model to start from: a directory, a packaged model such as smollm2-135m, or a name on the hub; a new,
    small GPT-NeoX by default."""
    pair_share: float = 0.4
    """Share of the examples that are drawn from --pairs, if there are runs too; less if --pairs has too few."""
    validation_share: float = 0.1
    """Share of the theorems whose pairs are held out."""
    goals: Goals = "first"
    """Goals of a state in the prompt: all, or the first, on which most tactics act. The model's config.json records it."""
    names: Names = "given"
    """Names of hypotheses in the prompt: those of the state, or numbers, which a small model need not learn to copy."""
    retrieved: int = 0
    """Number of tactics of similar states in the prompt, found as by the policy copy."""
    renamed_copies: int = 0
    """Copies of each training pair in which hypotheses and variables are renamed at random, in addition to the pair itself."""
    rank: int | None = None
    """Rank of LoRA; None trains all weights."""
    alpha: float = 64.0
    """Scale of LoRA: its update is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout of LoRA's input."""
    modules: tuple[str, ...] = MODULES
    """Linear layers that get LoRA."""
    scored_by: str = ""
    """Directory of an earlier policy. Pairs whose tactics it finds the least or the most likely get a smaller weight."""
    tails: tuple[float, float] = (0.1, 0.1)
    """Shares of these pairs: the least and the most likely, by log-probability per token."""
    tail_weight: float = 0.3
    """Weight of the loss of these pairs; that of the others is 1."""
    vocabulary: int = 1536
    """Maximum vocabulary size of a model from scratch."""
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
    energy_weight: float = 0.0
    """Weight of a contrastive loss on the mean last hidden states, which are trained to tell states on the paths of proofs from
    others; 0 for none. It needs runs of searches."""
    energy_batch: int = 8
    """Number of positive states in this loss per batch, with three negative ones each."""
    probe_states: int = 0
    """Maximum number of states on the paths of held-out proofs, and of states off them, whose embeddings each evaluation
    compares (separation); 0 for none."""
    dtype: Dtype = "float32"
    """Dtype of the base's weights; half precision needs LoRA, whose own weights stay in float32."""
    quantize: bool = False
    """Store the linear layers of the base in 4 bits during training (QLoRA), which needs --rank and bitsandbytes. The adapters
    are then merged into the weights in `dtype`."""
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
        for name in ("base", "scored_by"):
            if getattr(self, name) and Path(getattr(self, name)).is_dir():
                object.__setattr__(self, name, str(Path(getattr(self, name)).resolve()))
        check_at_least(self, length=2, batch_size=1, eval_examples=1, vocabulary=1, depth=1, heads=1, renamed_copies=0)
        check_at_least(self, retrieved=0, energy_weight=0, energy_batch=1)
        if self.width < 1 or self.width % (2 * self.heads):
            raise ValueError(
                f"width {self.width} does not divide into {self.heads} heads of even width; use a multiple of {2 * self.heads}"
            )
        if self.quantize and self.rank is None:
            raise ValueError("--quantize needs --rank: only the weights of LoRA can be trained on a base in 4 bits")
        if self.dtype != "float32" and self.rank is None:
            raise ValueError(f"--dtype {self.dtype} rounds small updates away unless --rank is given; train in float32")
        if min(self.tails) < 0 or sum(self.tails) > 1 or self.tail_weight < 0:
            raise ValueError(
                f"tails must be two shares with a sum of at most 1, and tail_weight at least 0, got {self.tails}, "
                f"{self.tail_weight}"
            )
        for name in ("pair_share", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.probe_states != 0 and self.probe_states < 4:
            raise ValueError(f"probe_states must be 0 or at least 4, got {self.probe_states}")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share must be between 0 and 1, got {self.validation_share}")
        if self.rank is not None and (self.rank < 1 or not self.base):
            raise ValueError(f"--rank {self.rank}: LoRA needs a rank of at least 1 and a pretrained --base")

    @property
    def style(self) -> Style:
        """The form of prompts and tactics."""
        return Style(self.goals, self.names, self.retrieved)

    def build(self) -> Run[Tokens] | Run[JointBatch]:
        """Read the pairs, load the base, and assemble the run. ValueError if there are neither runs nor pairs."""
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

        def tokens(number: int) -> Tokens:
            chosen = shuffled(number, self.batch_size, len(rows), self.train.seed).tolist()
            return batch_of([[training[k] for k in rows[row]] for row in chosen], self.length, pad)

        quick = torch.randperm(len(held_out), generator=seeded(self.train.seed, 2))[: self.eval_examples].tolist()
        runs, share, seed = [Path(run) for run in self.runs], self.validation_share, self.train.seed
        probed = probe_states(runs, self.probe_states, validation_share=share, seed=seed) if self.probe_states else None

        def evaluate(model: nn.Module) -> dict[str, float]:
            loss = {"held-out loss": loss_of(model, [held_out[k] for k in quick], self.length, pad)}
            return loss | (separation(model, data.tokenizer, *probed, length=self.length) if probed else {})

        constants = {
            "examples": fingerprint(torch.tensor([token for one in [*training, *held_out] for token in one.ids]))
        }
        if self.scored_by:
            constants["weights"] = fingerprint(torch.tensor([one.weight for one in training]))
        if not self.energy_weight:
            return Run(model, NextToken(), tokens, self.train, evaluate, constants)
        parts = samplers(runs, data.tokenizer, self.length, validation_share=share, negatives=3)
        fixed = [contrast_of(parts["validation"], 32, seed, 1, k) for k in range(4)]

        def batches(number: int) -> JointBatch:
            return JointBatch(tokens(number), contrast_of(parts["training"], self.energy_batch, seed, 0, number))

        def evaluate_both(model: nn.Module) -> dict[str, float]:
            return evaluate(model) | {f"energy {name}": value for name, value in quality(model, fixed).items()}

        return Run(model, JointLoss(self.energy_weight), batches, self.train, evaluate_both, constants)

    def network(self, model: Any) -> nn.Module:
        """The base with new adapters, or with all weights to be trained; with an energy, if that is trained too."""
        width = model.config.hidden_size
        network = with_lora(model, self.rank, alpha=self.alpha, dropout=self.dropout, modules=self.modules)
        return Joint(network, width) if self.energy_weight else network


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
    """The data of a run, and its trained model with the adapters merged into its weights, none of which is quantised."""
    data = Data(recipe)
    network: Any = opened.weights(recipe.network(data.model), which=which)
    if recipe.quantize:
        adapters = parameters_of(network)
        recipe = replace(recipe, quantize=False)
        data = Data(recipe)
        network = recipe.network(data.model)
        network.load_state_dict(adapters, strict=False)
    return data, merged(network.language_model if recipe.energy_weight else network)


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
