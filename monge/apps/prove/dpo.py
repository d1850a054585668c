"""The recipe of preference training: a tactic policy that prefers tactics of proofs to failing ones on the same state."""

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn
from tyro.conf import OmitArgPrefixes, Suppress

from monge.apps.prove.lm.prompt import Style
from monge.apps.prove.packing import Example, batch_of, example
from monge.apps.prove.pairs import FORBIDDEN, attempts_by_theorem, check_splits
from monge.lm.load import LanguageModel, causal
from monge.lm.lora import MODULES, with_lora
from monge.math.random import split_of
from monge.objective.frozen import Frozen
from monge.objective.preference import DPO, Preferences
from monge.run import fingerprint
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.loop import Run


class Preference(NamedTuple):
    """A state with a tactic of its proof and one that failed on it."""

    state: str
    chosen: str
    rejected: str
    theorem: str
    """Hash that identifies the theorem, as in TacticPair."""


FAILED = ("parse", "tactic", "excluded", "axiom")
"""Outcomes of a tactic that failed by its own fault, unlike a crash of Lean."""


def preferences_of(runs: Sequence[Path], per_tactic: int, seed: int = 0) -> list[Preference]:
    """For each tactic of a proof, up to `per_tactic` tactics that failed on the same state, drawn at random. One that is on
    the path of a proof in another run is not among them.

    FileNotFoundError for a run without results; ValueError if two runs have the same id.
    """
    generator = np.random.default_rng(seed)
    found: dict[Preference, None] = {}
    tables = [rows for _, rows in attempts_by_theorem(runs, ("state_before", "outcome", "tactic", "label"))]
    proved = {(row["state_before"], row["tactic"]) for rows in tables for _, row in rows if row["label"] == "positive"}
    for table in tables:
        by_parent: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for theorem, row in table:
            by_parent[theorem, row["parent_id"]].append(row)
        for (theorem, _), tried in by_parent.items():
            failed = [
                row["tactic"]
                for row in tried
                if row["outcome"] in FAILED and (row["state_before"], row["tactic"]) not in proved
            ]
            for row in tried:
                if row["label"] == "positive" and failed and not FORBIDDEN.search(row["tactic"]):
                    drawn = generator.permutation(len(failed))[:per_tactic].tolist()
                    found |= {Preference(row["state_before"], row["tactic"], failed[k], theorem): None for k in drawn}
    return list(found)


@dataclass(frozen=True)
class Prefer:
    """Preference training of a tactic policy. ValueError if a setting is out of range."""

    app: ClassVar[str] = "preferences"
    relocatable: ClassVar[frozenset[str]] = frozenset({"runs", "model"})

    runs: Annotated[tuple[str, ...], Suppress] = ()
    """Directories of runs of `monge prove search`."""
    model: Annotated[str, Suppress] = ""
    """Directory of the policy to start from, which is also the reference model."""
    beta: float = 0.1
    """Strength of the pull towards the reference model."""
    per_tactic: int = 2
    """Maximum number of failing tactics for each tactic of a proof."""
    validation_share: float = 0.1
    """Share of the theorems that are held out."""
    rank: int | None = None
    """Rank of LoRA; None trains all weights."""
    alpha: float = 64.0
    """Scale of LoRA: its update is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Dropout of LoRA's input."""
    modules: tuple[str, ...] = MODULES
    """Linear layers that get LoRA."""
    length: int = 512
    """Maximum length of prompt and tactic in tokens; longer prompts are cut at their start."""
    batch_size: int = 8
    """Number of preferences per batch."""
    any_split: bool = False
    """Accept runs that may hold theorems of the test split."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(
            steps=200, lr=1e-5, warmup_steps=20, save_every=50, log_every=10, threads=0, ema_width=0.0
        )
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(dict.fromkeys(str(Path(run).resolve()) for run in self.runs)))
        if self.model and Path(self.model).is_dir():
            object.__setattr__(self, "model", str(Path(self.model).resolve()))
        check_at_least(self, per_tactic=1, length=2, batch_size=1)
        if not self.beta > 0 or not 0 < self.validation_share < 1:
            raise ValueError(
                f"beta must be above 0 and validation_share between 0 and 1, got {self.beta}, {self.validation_share}"
            )

    def build(self) -> Run[Preferences]:
        """Read the runs, load the policy, and assemble the run. ValueError if a split has no preferences."""
        if not self.runs:
            raise ValueError("no training data; give directories of runs of `monge prove search`")
        if not self.any_split:
            check_splits([Path(run) for run in self.runs])
        loaded = self.policy()
        parts, pad = self.examples(loaded), loaded.tokenizer.pad_token_id
        training, held_out = parts["training"], parts["validation"]
        objective = DPO(Frozen(copy.deepcopy(loaded.model)), beta=self.beta)

        def batches(number: int) -> Preferences:
            chosen = shuffled(number, self.batch_size, len(training), self.train.seed).tolist()
            return collated([training[k] for k in chosen], pad)

        def evaluate(model: nn.Module) -> dict[str, float]:
            device, totals = next(model.parameters()).device, dict[str, float]()
            for first in range(0, len(held_out), self.batch_size):
                batch = collated(held_out[first : first + self.batch_size], pad).to(device)
                with torch.no_grad():
                    metrics = objective(model, batch).metrics
                for name, value in metrics.items():
                    totals[name] = totals.get(name, 0.0) + float(value) * len(batch) / len(held_out)
            return {f"held-out {name}": value for name, value in totals.items()}

        stream = torch.tensor([token for pair in [*training, *held_out] for one in pair for token in one.ids])
        start = fingerprint(*loaded.model.state_dict().values())
        constants = {"examples": fingerprint(stream), "model": start}
        return Run(self.network(loaded.model), objective, batches, self.train, evaluate, constants)

    def policy(self) -> LanguageModel:
        """The policy to start from. ValueError without one, or if it has fewer positions than `length`."""
        if not self.model:
            raise ValueError("no policy to start from; give --model")
        loaded = causal(self.model)
        if loaded.positions is not None and loaded.positions < self.length:
            raise ValueError(
                f"--length {self.length}: {self.model} has {loaded.positions} positions; give at most that many"
            )
        return loaded

    def network(self, model: nn.Module) -> nn.Module:
        """The policy with new adapters, or with all weights to be trained."""
        return with_lora(model, self.rank, alpha=self.alpha, dropout=self.dropout, modules=self.modules)

    def examples(self, loaded: LanguageModel) -> dict[str, list[tuple[Example, Example]]]:
        """The tokens of the chosen and the rejected answer to each prompt, split by theorem.

        ValueError if a split is empty.
        """
        shares = {"validation": self.validation_share, "training": 1 - self.validation_share}
        parts: dict[str, list[tuple[Example, Example]]] = {"training": [], "validation": []}
        style = Style.of(loaded.model)
        if style.retrieved:
            raise ValueError(f"--model {self.model}: prompts with tactics of similar states are not supported")
        found = preferences_of([Path(run) for run in self.runs], self.per_tactic, self.train.seed)
        for one in found:
            chosen, rejected = (
                example(loaded.tokenizer, one.state, tactic, self.length, style)
                for tactic in (one.chosen, one.rejected)
            )
            if chosen is not None and rejected is not None:
                shorter = min(chosen, rejected, key=lambda one: one.prompt)  # both must continue the same prompt
                before = shorter.ids[: shorter.prompt]
                chosen, rejected = (
                    Example((*before, *one.ids[one.prompt :]), len(before)) for one in (chosen, rejected)
                )
                parts[split_of(one.theorem, shares)].append((chosen, rejected))
        for name, part in parts.items():
            if not part:
                raise ValueError(
                    f"no preferences for {name} among {len(found)}; give more runs or another --validation-share"
                )
        return parts


def collated(pairs: Sequence[tuple[Example, Example]], pad: int) -> Preferences:
    """A batch of chosen and rejected answers, padded to the longest of each."""
    chosen, rejected = (
        batch_of([[pair[k]] for pair in pairs], max(len(pair[k].ids) for pair in pairs), pad) for k in (0, 1)
    )
    return Preferences(chosen, rejected)
