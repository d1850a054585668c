"""Next-token prediction for language models."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.objective.base import Loss, Objective


@dataclass(frozen=True)
class Tokens:
    """A batch of token sequences. `weight` weights each token as a target; use 0 for prompts and padding.

    >>> tuple(Tokens(torch.zeros(2, 5, dtype=torch.long)).to("cpu").ids.shape)
    (2, 5)
    """

    ids: Int[Tensor, "B N"]
    weight: Float[Tensor, "..."] | None = None  # (B, N)

    def __post_init__(self) -> None:
        if self.weight is not None and self.weight.shape != self.ids.shape:
            raise ValueError(
                f"Tokens: weight has shape {tuple(self.weight.shape)}, ids {tuple(self.ids.shape)}; give one weight per token"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Tokens":
        """The same batch on `device`."""
        return Tokens(self.ids.to(device), None if self.weight is None else self.weight.to(device))


class NextToken(Objective):
    """The mean cross-entropy of each token given those before it, in nats, weighted by `Tokens.weight`.

    >>> from types import SimpleNamespace
    >>> model = lambda input_ids: SimpleNamespace(logits=torch.zeros(*input_ids.shape, 7))
    >>> NextToken()(model, Tokens(torch.zeros(2, 5, dtype=torch.long))).value
    tensor(1.9459)
    """

    def forward(self, model: Any, batch: Tokens) -> Loss:
        logits, targets = model(input_ids=batch.ids).logits[:, :-1].flatten(0, 1).float(), batch.ids[:, 1:].flatten()
        if batch.weight is None:
            value = nn.functional.cross_entropy(logits, targets)
        else:
            weight = batch.weight[:, 1:].flatten().to(logits.dtype)
            losses = nn.functional.cross_entropy(logits, targets, reduction="none")
            value = (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        return Loss(value, {"loss": value.detach()})
