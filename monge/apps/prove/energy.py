"""The recipe of an energy over proof states, and its use in a search."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes, Suppress

from monge.apps.prove.config import Measure
from monge.apps.prove.contrast import ContrastBatch, Counts, NoContrast, Sampler, groups_of
from monge.apps.prove.energy_measures import quality
from monge.apps.prove.lm.embeddings import EmbeddingClient
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.pairs import check_splits, digest
from monge.apps.prove.state import State
from monge.apps.prove.states import StateVectors, check_same_model
from monge.lm.embed import pooled
from monge.math.random import seeded
from monge.nets.energy import EnergyMLP
from monge.objective.base import Loss, Objective
from monge.objective.contrastive import InfoNCE, Margin
from monge.run import fingerprint
from monge.runs import reopen
from monge.training.config import TrainConfig, check_at_least
from monge.training.loop import Run


class EnergyLoss(Objective):
    """A contrastive loss of the energies, plus `weight` times the smooth L1 error of log(1 + remaining depth).

    Each distinct state goes through the model once.
    """

    def __init__(self, contrast: Objective, *, weight: float = 0.3) -> None:
        super().__init__()
        self.contrast, self.weight = contrast, weight

    def forward(self, model: Any, batch: ContrastBatch) -> Loss:
        energy, depth = model.both(batch.candidates.x)
        loss = self.contrast(lambda _: energy, batch.candidates)
        predicted = depth[batch.candidates.index[:, 0]]
        error = nn.functional.smooth_l1_loss(predicted, batch.remaining.log1p())
        value = loss.value + self.weight * error
        return Loss(value, {**loss.metrics, "loss": value.detach(), "depth error": error.detach()})


@dataclass(frozen=True)
class StateEnergy:
    """An energy over embeddings of proof states, low on the paths of proofs. ValueError if a setting is out of range."""

    app: ClassVar[str] = "energy"
    relocatable: ClassVar[frozenset[str]] = frozenset({"runs", "embeddings"})

    runs: Annotated[tuple[str, ...], Suppress] = ()
    """Directories of runs of `monge prove search` and `monge prove replay`."""
    embeddings: Annotated[str, Suppress] = ""
    """Directory of `monge prove embed`."""
    hidden: tuple[int, ...] = (2048, 1024, 512)
    """Widths of the hidden layers."""
    dropout: float = 0.1
    """Dropout after each hidden layer."""
    spectral_norm: bool = False
    """Give each hidden layer a spectral norm of 1."""
    goal: bool = False
    """Condition the energy on the theorem: the network also sees the embedding of its first state."""
    loss: Literal["infonce", "margin"] = "infonce"
    """Contrastive loss: cross-entropy of the positive state against its negatives (infonce), or a hinge loss (margin)."""
    negatives: int = 7
    """Number of negative states for each positive one."""
    mix: tuple[float, float, float] = (0.3, 0.4, 0.3)
    """Shares of negative states: true siblings, same theorem, other theorems."""
    depth_weight: float = 0.3
    """Weight of the regression of the remaining depth."""
    validation_share: float = 0.1
    """Share of the theorems that are held out."""
    any_split: bool = False
    """Accept runs that may hold theorems of the test split."""
    batch_size: int = 256
    """Number of positive states per batch."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(
            steps=2000, lr=3e-4, warmup_steps=100, weight_decay=0.01, save_every=250, log_every=50, ema_width=0.05
        )
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "runs", tuple(dict.fromkeys(str(Path(run).resolve()) for run in self.runs)))
        if self.embeddings:
            object.__setattr__(self, "embeddings", str(Path(self.embeddings).resolve()))
        check_at_least(self, negatives=1, batch_size=1)
        if self.train.compile:
            raise ValueError("--compile has no effect on an energy; leave it out")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be widths of at least 1, got {self.hidden}")
        if min(self.mix) < 0 or not sum(self.mix) > 0:
            raise ValueError(f"mix must be three shares, not all zero, got {self.mix}")
        if not 0 <= self.dropout < 1 or not 0 < self.validation_share < 1:
            raise ValueError(
                f"dropout must be at least 0 and below 1, and validation_share between 0 and 1, got {self.dropout}, "
                f"{self.validation_share}"
            )

    def build(self) -> Run[ContrastBatch]:
        """Read the runs and the embeddings, and assemble the run. ValueError without proofs or negative states."""
        training, held_out, vectors, _ = self.data()
        contrast = InfoNCE() if self.loss == "infonce" else Margin()

        def batches(number: int) -> ContrastBatch:
            return training.batch(self.batch_size, _generator(self.train.seed, number))

        fixed = [held_out.batch(256, _generator(self.train.seed, 1, k)) for k in range(4)]
        siblings = held_out.sibling_sets(_generator(self.train.seed, 2))
        objective = EnergyLoss(contrast, weight=self.depth_weight)

        def evaluate(model: nn.Module) -> dict[str, float]:
            device = next(model.parameters()).device
            losses = [objective(model, part.to(device)).value.item() for part in fixed]
            first = {"sibling top-1": quality(model, siblings)["top-1"]} if siblings else {}
            return {"held-out loss": float(np.mean(losses)), **quality(model, fixed), **first}

        rows = [
            value
            for sampler in (training, held_out)
            for group in sampler.groups
            for one in group.positives
            for value in (one.state, one.remaining, *one.siblings, *group.negatives)
        ]
        constants = {"vectors": torch.tensor(_hash(vectors)), "states": fingerprint(torch.tensor(rows))}
        return Run(self.network(vectors.width), objective, batches, self.train, evaluate, constants)

    def data(self) -> tuple[Sampler, Sampler, StateVectors, dict[str, Counts]]:
        """The samplers for training and validation, the embeddings, and the counts by split. NoContrast if a split lacks
        positive or negative states."""
        if not self.runs or not self.embeddings:
            raise ValueError("an energy needs directories of runs, and --embeddings DIR of `monge prove embed`")
        if not self.any_split:
            check_splits([Path(run) for run in self.runs])
        vectors = StateVectors(Path(self.embeddings))
        groups, counts = groups_of([Path(r) for r in self.runs], vectors, validation_share=self.validation_share)
        options: dict[str, Any] = {"negatives": self.negatives, "mix": self.mix, "goal": self.goal}
        samplers: list[Sampler] = []
        for split in ("training", "validation"):
            try:
                samplers.append(Sampler(groups[split], vectors, **options))
            except NoContrast as error:
                shared = (
                    f" ({count} held-out states occur in training theorems)" if (count := counts[split].shared) else ""
                )
                raise NoContrast(f"{split}{shared}: {error}") from None
        return samplers[0], samplers[1], vectors, counts

    def network(self, width: int) -> EnergyMLP:
        """The network for vectors of this width."""
        return EnergyMLP(width * (1 + self.goal), self.hidden, dropout=self.dropout, spectral=self.spectral_norm)


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(seeded(*numbers).initial_seed())


def _hash(vectors: StateVectors) -> int:
    return int(vectors.sha256[:15], 16)


class Scorer:
    """The energy of states in a search, from a run of StateEnergy. States without a usable embedding have infinite energy.

    `measure` may replace the energy, as in SearchConfig, and `server` embeds the states. ValueError if the embedding model, of
    the run or of the server, or the stored embeddings are not those that the energy was trained on.
    """

    goal: Tensor | None = None
    """Embedding of the theorem's first state, (1, D), if the energy is conditioned on it."""

    def __init__(self, run: Path, measure: Measure = "energy", server: Endpoint | None = None) -> None:
        self.measure = measure
        opened = reopen(run, app=StateEnergy.app)
        recipe = opened.rebuilt(StateEnergy)
        vectors = StateVectors(Path(recipe.embeddings))
        if int(opened.constants["vectors"]) != _hash(vectors):
            raise ValueError(
                f"{run}: trained on other embeddings than those now in {recipe.embeddings}; train it again"
            )
        self.embed: Callable[[Sequence[str]], Tensor]
        if server is None:
            check_same_model(vectors, vectors.embedding.fingerprint())
            self.embed = partial(pooled, embedding=vectors.embedding)
        else:
            self.embed = EmbeddingClient(server, vectors.width, partial(check_same_model, vectors))
        self.model: Any = opened.weights(recipe.network(vectors.width), which="best")
        self.conditioned = recipe.goal
        sample = vectors.rows(torch.linspace(0, len(vectors) - 1, min(len(vectors), 1024)).long())
        self.known = self._measured(torch.cat([sample, sample], 1) if self.conditioned else sample)
        self.median = float(self.known.median())  # a contrastive energy is defined up to a constant

    @torch.no_grad()
    def _measured(self, x: Float[Tensor, "n D"]) -> Float[Tensor, "n"]:
        energy, depth = self.model.both(x)
        return (depth if self.measure == "depth" else energy).float()

    def __call__(self, states: Sequence[State]) -> list[float]:
        texts = [str(state) for state in states]
        if self.measure in ("shuffled", "noise"):
            return [self._control(int(digest(text), 16)) for text in texts]
        x = self.embed(texts)
        usable = x.isfinite().all(1) & x.any(1)
        energy = torch.full((len(x),), torch.inf)
        if self.goal is not None:
            x = torch.cat([x, self.goal.expand_as(x)], 1)
            usable &= x.isfinite().all(1)
        if usable.any():
            energy[usable] = self._measured(x[usable]) - self.median
        return energy.tolist()

    def towards(self, root: State) -> "Scorer":
        """The energy for the theorem with this first state; the same one if it is not conditioned on the theorem."""
        if not self.conditioned:
            return self
        scorer = copy.copy(self)
        scorer.goal = self.embed([str(root)])
        return scorer

    def _control(self, seed: int) -> float:
        """The energy of a random other state, or a sample of a standard normal distribution. It depends on the state alone."""
        generator = np.random.default_rng(seed)
        if self.measure == "noise":
            return float(generator.normal())
        return float(self.known[generator.integers(len(self.known))]) - self.median
