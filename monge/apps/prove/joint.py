"""Joint training of a tactic policy and an energy on the mean of its last hidden states."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.apps.prove.contrast import ContrastBatch, NoContrast, Sampler, groups_of
from monge.apps.prove.energy import EnergyLoss
from monge.apps.prove.states import states_of
from monge.nets.energy import EnergyMLP
from monge.objective.base import Loss, Objective
from monge.objective.contrastive import InfoNCE
from monge.objective.next_token import NextToken, Tokens

PADDING = -1
HIDDEN = (512,)
"""Widths of the hidden layers of the energy."""


class TokenizedStates:
    """The distinct states of runs as token ids; a state longer than `length` is cut at its start."""

    def __init__(self, runs: Sequence[Path], tokenizer: Any, length: int) -> None:
        texts = list(states_of(runs).values())
        self._numbers = {text: k for k, text in enumerate(texts)}
        self._ids = [tokenizer(text, verbose=False)["input_ids"][-length:] for text in texts]

    def __len__(self) -> int:
        return len(self._ids)

    def number(self, state: str) -> int | None:
        """The row of a state's text in `rows`; None if no run has it."""
        return self._numbers.get(state)

    def rows(self, numbers: Int[Tensor, "n"]) -> Int[Tensor, "n N"]:
        """The token ids of these states, padded on the right with -1."""
        rows = [self._ids[k] for k in numbers.tolist()]
        longest = max(map(len, rows))
        return torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])


def samplers(
    runs: Sequence[Path], tokenizer: Any, length: int, *, validation_share: float, negatives: int
) -> dict[str, Sampler]:
    """Samplers of states for training and validation. NoContrast if a split has no proof or no negative state."""
    states = TokenizedStates(runs, tokenizer, length)
    groups, counts = groups_of(runs, states, validation_share=validation_share)
    try:
        return {split: Sampler(part, states, negatives=negatives) for split, part in groups.items()}
    except NoContrast as error:
        shared = counts["validation"].shared
        note = f" ({shared} held-out states occur in training theorems)" if shared else ""
        raise NoContrast(f"--energy-weight{note}: {error}") from None


@dataclass(frozen=True)
class JointBatch:
    """Tokens to predict, and states to contrast."""

    tokens: Tokens
    contrast: ContrastBatch

    def __len__(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device | str) -> "JointBatch":
        """The same batch on `device`."""
        return JointBatch(self.tokens.to(device), self.contrast.to(device))


class Joint(nn.Module):
    """A causal language model with an energy of the mean of its last hidden states; called like the language model."""

    def __init__(self, language_model: nn.Module, width: int) -> None:
        super().__init__()
        self.language_model, self.energy = language_model, EnergyMLP(width, HIDDEN)

    def forward(self, **inputs: Any) -> Any:
        return self.language_model(**inputs)

    def both(self, ids: Int[Tensor, "n N"]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """The energies of states, and the outputs of the energy's second head."""
        mask = ids != PADDING
        output = self.language_model(input_ids=ids.clamp_min(0), attention_mask=mask.long(), output_hidden_states=True)
        states = output.hidden_states[-1].float() * mask[:, :, None]
        return self.energy.both(states.sum(1) / mask.sum(1, keepdim=True))


class JointLoss(Objective):
    """The cross-entropy of the tokens plus `weight` times the contrastive loss of the states (see EnergyLoss)."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.next_token, self.energy, self.weight = NextToken(), EnergyLoss(InfoNCE()), weight

    def forward(self, model: Joint, batch: JointBatch) -> Loss:
        tokens, energy = self.next_token(model, batch.tokens), self.energy(model, batch.contrast)
        value = tokens.value + self.weight * energy.value
        return Loss(value, {"loss": tokens.value.detach(), "energy loss": energy.value.detach()})


def contrast_of(sampler: Sampler, size: int, *seeds: int) -> ContrastBatch:
    """A batch of `size` positive states with their negatives, which depends on the seeds alone."""
    return sampler.batch(size, np.random.default_rng(seeds))
