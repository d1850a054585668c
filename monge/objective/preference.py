"""Training of a language model on preferences between two continuations of the same prompt."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.objective.base import Loss, Objective
from monge.objective.frozen import Frozen
from monge.objective.next_token import Tokens, dtype_of


@dataclass(frozen=True)
class Preferences:
    """Continuations that are preferred, and others of the same prompts. `Tokens.weight` is 1 on the continuations alone."""

    chosen: Tokens
    rejected: Tokens

    def __post_init__(self) -> None:
        if len(self.chosen) != len(self.rejected):
            raise ValueError(
                f"Preferences: {len(self.chosen)} chosen and {len(self.rejected)} rejected; give one of each per row"
            )

    def __len__(self) -> int:
        return len(self.chosen)

    def to(self, device: torch.device | str) -> "Preferences":
        """The same batch on `device`."""
        return Preferences(self.chosen.to(device), self.rejected.to(device))


def log_probabilities(model: Any, batch: Tokens) -> Float[Tensor, "B"]:
    """log p of each row of tokens under a Hugging Face model, summed with `Tokens.weight`; the first token is no target.

    >>> from types import SimpleNamespace
    >>> model = lambda input_ids: SimpleNamespace(logits=torch.zeros(*input_ids.shape, 7))
    >>> log_probabilities(model, Tokens(torch.zeros(1, 3, dtype=torch.long), torch.tensor([[0.0, 0.0, 1.0]])))
    tensor([-1.9459])
    """
    logits = model(**batch.inputs(dtype_of(model))).logits[:, :-1].float()
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none")
    return -(losses if batch.weight is None else losses * batch.weight[:, 1:]).sum(1)


class DPO(Objective):
    """Direct preference optimisation: -log sigmoid of `beta` times the margin. Rafailov et al. 2305.18290, eq. 7.

    The margin is the gain of the chosen continuation's log-probability over the reference model, minus that of the rejected
    one. ValueError if `beta` is not above 0.

    >>> from types import SimpleNamespace
    >>> class Uniform(nn.Module):
    ...     def forward(self, input_ids):
    ...         return SimpleNamespace(logits=torch.zeros(*input_ids.shape, 7))
    >>> tokens = Tokens(torch.zeros(1, 3, dtype=torch.long))
    >>> DPO(Frozen(Uniform()))(Uniform(), Preferences(tokens, tokens)).value
    tensor(0.6931)
    """

    def __init__(self, reference: Frozen, *, beta: float = 0.1) -> None:
        super().__init__()
        if not beta > 0:
            raise ValueError(f"beta must be above 0, got {beta}")
        self.reference, self.beta = reference, beta

    def forward(self, model: Any, batch: Preferences) -> Loss:
        with torch.no_grad():
            known = _advantage(self.reference.module, batch)
        margin = _advantage(model, batch) - known
        value = -nn.functional.logsigmoid(self.beta * margin).mean()
        metrics = {"loss": value, "margin": margin.mean(), "accuracy": (margin > 0).float().mean()}
        return Loss(value, {name: one.detach() for name, one in metrics.items()})


def _advantage(model: Any, batch: Preferences) -> Float[Tensor, "B"]:
    """The log-probability of the chosen continuation minus that of the rejected one."""
    return log_probabilities(model, batch.chosen) - log_probabilities(model, batch.rejected)
