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

    `segment` numbers the texts that a sequence packs: a token attends only within its own text, whose positions start at 0.

    >>> tuple(Tokens(torch.zeros(2, 5, dtype=torch.long)).to("cpu").ids.shape)
    (2, 5)
    """

    ids: Int[Tensor, "B N"]
    weight: Float[Tensor, "..."] | None = None  # (B, N)
    segment: Int[Tensor, "..."] | None = None  # (B, N)

    def __post_init__(self) -> None:
        for name in ("weight", "segment"):
            value: Tensor | None = getattr(self, name)
            if value is not None and value.shape != self.ids.shape:
                raise ValueError(
                    f"Tokens: {name} has shape {tuple(value.shape)}, ids {tuple(self.ids.shape)}; give one {name} per token"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Tokens":
        """The same batch on `device`."""
        weight, segment = (None if part is None else part.to(device) for part in (self.weight, self.segment))
        return Tokens(self.ids.to(device), weight, segment)

    def inputs(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """The arguments of a Hugging Face model: token ids and, for packed texts, an additive mask of shape (B, 1, N, N) and
        the position of each token in its text.

        >>> Tokens(torch.zeros(1, 3, dtype=torch.long), segment=torch.tensor([[0, 0, 1]])).inputs()["position_ids"]
        tensor([[0, 1, 0]])
        """
        if self.segment is None:
            return {"input_ids": self.ids}
        same = self.segment[:, :, None] == self.segment[:, None, :]
        seen = same & torch.ones_like(same).tril()
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
        return {"input_ids": self.ids, "attention_mask": mask[:, None], "position_ids": seen.sum(-1) - 1}


def dtype_of(model: Any) -> torch.dtype:
    """The dtype of a model's first floating-point parameter, which its attention masks must have; float32 without parameters.

    >>> dtype_of(nn.Linear(1, 1).bfloat16()), dtype_of(lambda input_ids: None)
    (torch.bfloat16, torch.float32)
    """
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)


class NextToken(Objective):
    """The mean cross-entropy of each token given those before it, in nats, weighted by `Tokens.weight`.

    The first token of each packed text is no target. With weights or packed texts, the model must accept `logits_to_keep`,
    the positions whose logits are needed, as those of Hugging Face do.

    >>> from types import SimpleNamespace
    >>> model = lambda input_ids: SimpleNamespace(logits=torch.zeros(*input_ids.shape, 7))
    >>> NextToken()(model, Tokens(torch.zeros(2, 5, dtype=torch.long))).value
    tensor(1.9459)
    """

    def forward(self, model: Any, batch: Tokens) -> Loss:
        inputs, targets, weight = batch.inputs(dtype_of(model)), batch.ids[:, 1:], batch.weight
        if batch.segment is not None:
            inner = batch.segment[:, 1:] == batch.segment[:, :-1]
            weight = nn.functional.pad(inner, (1, 0)) * (1.0 if weight is None else weight)
        if weight is None:
            logits = model(**inputs).logits[:, :-1].flatten(0, 1).float()
            value = nn.functional.cross_entropy(logits, targets.flatten())
        else:
            kept = (weight[:, 1:] != 0).any(0).nonzero()[:, 0]  # the head, often half of the work, skips prompts
            logits = model(**inputs, logits_to_keep=kept).logits.flatten(0, 1).float()
            weight = weight[:, kept + 1].flatten().to(logits.dtype)
            losses = nn.functional.cross_entropy(logits, targets[:, kept].flatten(), reduction="none")
            value = (weight * losses).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)
        return Loss(value, {"loss": value.detach()})
