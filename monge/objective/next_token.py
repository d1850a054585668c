"""Next-token prediction for language models."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from monge.objective.base import Loss, Objective


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences."""

    ids: Int[Tensor, "B N"]

    def to(self, device: torch.device | str) -> "Tokens":
        """The same on `device`."""
        return Tokens(self.ids.to(device))


class NextToken(Objective):
    """The mean cross-entropy of each token given those before it, in nats."""

    def forward(self, model: nn.Module, batch: Tokens) -> Loss:
        logits = model(input_ids=batch.ids).logits[:, :-1]
        value = nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.ids[:, 1:].flatten())
        return Loss(value, {"loss": value.detach()})
