"""A decoder from sequences of vectors to text: a small causal language model with the projected vectors as its prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from monge.objective.base import Loss, Objective
from monge.pretrain import neox


@dataclass(frozen=True)
class Prompted:
    """Sequences of vectors, right-aligned, and the token ids of their texts, which start and end with the end-of-text token."""

    vectors: Float[Tensor, "B N D"]
    exists: Bool[Tensor, "B N"]
    ids: Int[Tensor, "B L"]
    known: Bool[Tensor, "B L"]
    """False for padding."""

    @staticmethod
    def of(sequences: Sequence[Float[Tensor, "_ D"]], texts: Sequence[Sequence[int]], end: int) -> "Prompted":
        """A batch of calibrated sequences with the token ids of their texts; `end` is the id of the end-of-text token."""
        longest, length = max(map(len, sequences)), max(map(len, texts)) + 2
        vectors = torch.stack([nn.functional.pad(x, (0, 0, longest - len(x), 0)) for x in sequences])
        exists = torch.arange(longest) >= longest - torch.tensor([len(x) for x in sequences])[:, None]
        ids = torch.full((len(texts), length), end)
        for row, text in enumerate(texts):
            ids[row, 1 : 1 + len(text)] = torch.tensor(text)
        known = torch.arange(length) < torch.tensor([len(text) + 2 for text in texts])[:, None]
        return Prompted(vectors, exists, ids, known)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Prompted":
        """The same batch on `device`."""
        return Prompted(*(part.to(device) for part in (self.vectors, self.exists, self.ids, self.known)))


class Decoder(nn.Module):
    """A GPT-NeoX whose prompt is the projected vectors, followed by the end-of-text token and the text."""

    def __init__(self, vectors: int, vocabulary: int, shape: "DecoderShape", end: int) -> None:
        super().__init__()
        self.project = nn.Linear(vectors, shape.width)
        self.lm = neox(vocabulary, shape.width, shape.depth, shape.heads, shape.positions, end)

    def prompt(self, batch: Prompted) -> tuple[Float[Tensor, "B M width"], Bool[Tensor, "B M"]]:
        """(embeddings of the vectors, then of all tokens except the last; their mask)."""
        tokens = self.lm.get_input_embeddings()(batch.ids[:, :-1])
        inputs = torch.cat([self.project(batch.vectors) * batch.exists[..., None], tokens], 1)
        return inputs, torch.cat([batch.exists, batch.known[:, :-1]], 1)

    def forward(self, batch: Prompted) -> Float[Tensor, "B L-1 V"]:
        """Logits of each token of the text but the first."""
        inputs, mask = self.prompt(batch)
        count = batch.ids.shape[1] - 1
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        output = self.lm(inputs_embeds=inputs, attention_mask=mask.long(), position_ids=positions, logits_to_keep=count)
        return output.logits

    @torch.no_grad()
    def generate(self, batch: Prompted, *, length: int, samples: int = 0, temperature: float = 1.0) -> list[list[int]]:
        """The greedy continuation of each prompt as token ids, or `samples` random ones per prompt, without the end-of-text
        token. The texts of `batch` must be empty."""
        inputs, mask = self.prompt(batch)
        options: dict[str, Any] = {"do_sample": False}
        if samples:
            options = {"do_sample": True, "num_return_sequences": samples, "temperature": temperature, "top_k": 0}
        end = int(self.lm.config.eos_token_id)
        ids = self.lm.generate(
            inputs_embeds=inputs, attention_mask=mask.long(), max_new_tokens=length, use_cache=True, **options
        )
        return [row[: row.index(end)] if end in row else row for row in ids.tolist()]

    @torch.no_grad()
    def log_likelihood(self, batch: Prompted) -> Float[Tensor, "B"]:
        """The mean log-probability per known token of each text, in nats."""
        losses = token_losses(self(batch), batch)
        return -losses.sum(1) / batch.known[:, 1:].sum(1)


@dataclass(frozen=True)
class DecoderShape:
    """Size of a decoder."""

    width: int = 256
    """Number of hidden channels, a multiple of twice the number of heads."""
    depth: int = 4
    """Number of transformer blocks."""
    heads: int = 4
    """Number of attention heads."""
    positions: int = 256
    """Maximum number of vectors and tokens together."""


def token_losses(logits: Float[Tensor, "B L V"], batch: Prompted) -> Float[Tensor, "B L"]:
    """The cross-entropy of each token but the first; 0 for padding."""
    losses = nn.functional.cross_entropy(logits.mT.float(), batch.ids[:, 1:], reduction="none")
    return losses * batch.known[:, 1:]


class NoisyPrompt(Objective):
    """Cross-entropy of the text, for vectors with Gaussian noise of standard deviation `noise`."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, model: Any, batch: Prompted) -> Loss:
        noisy = batch.vectors + self.noise * torch.randn_like(batch.vectors)
        batch = Prompted(noisy, batch.exists, batch.ids, batch.known)
        value = token_losses(model(batch), batch).sum() / batch.known[:, 1:].sum()
        return Loss(value, {"loss": value.detach()})
