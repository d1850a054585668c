"""Decoding of hidden states by the model that they come from: its remaining blocks and its head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.lm.hidden import hidden_at
from monge.lm.load import causal, encoder
from monge.lm.tail import Tail
from monge.math.cost import Whitening


@dataclass(frozen=True)
class OwnHead:
    """The upper part of the causal model that the vectors of one side come from."""

    tail: Tail
    tokenizer: Any
    side: Whitening
    """Calibration of that side."""
    prefix: Float[Tensor, "P D"]
    """The states of the special tokens that the tokenizer puts before a text."""
    firsts: Int[Tensor, "F"]
    """Tokens that known texts start with."""
    first_states: Float[Tensor, "F D"]
    """The calibrated states of these tokens at the start of a text, where they depend on nothing else."""

    @staticmethod
    @torch.no_grad()
    def of(fingerprint: Mapping[str, str], side: Whitening, texts: Sequence[str], *, device: torch.device) -> "OwnHead":
        """The head of the model with the fingerprint of a file of vectors; `texts` are known texts of this side.

        ValueError if the vectors do not record their model, or if it has changed or has no head.
        """
        if not {"model", "layer", "weights"} <= fingerprint.keys():
            raise ValueError("the vectors do not record the model that made them; decode without --own-head")
        name, layer = fingerprint["model"], int(fingerprint["layer"])
        if encoder(name).fingerprint()["weights"] != fingerprint["weights"]:
            raise ValueError(f"{name}: not the model that made the vectors; its weights have changed")
        model = causal(name, device=device)
        rows = model.tokenizer(list(texts), return_special_tokens_mask=True)
        starts = {
            tuple(ids[: special.index(0) + 1])
            for ids, special in zip(rows["input_ids"], rows["special_tokens_mask"], strict=True)
            if 0 in special
        }
        if not starts:
            raise ValueError(f"{name}: the known texts have no tokens")
        ids = torch.tensor(sorted(starts))  # all special tokens at the start of a text are the same
        (states,) = hidden_at(model.model, ids, [layer])
        return OwnHead(
            Tail(model.model, layer), model.tokenizer, side, states[0, :-1], ids[:, -1], side.apply(states[:, -1].cpu())
        )

    @torch.no_grad()
    def texts(
        self, sequences: Sequence[Float[Tensor, "_ D"]], *, samples: int = 0, temperature: float = 1.0
    ) -> list[tuple[str, float]]:
        """The greedy text of each calibrated sequence, or `samples` random ones per sequence, with its mean log-probability per
        token after the first, in nats (0 for a single token).

        The first token is the one whose state at the start of a text is nearest by cosine; the others come from the logits.
        """
        device = self.prefix.device
        states = [torch.cat([self.prefix, self.side.undo(x).to(device)]) for x in sequences]
        longest = max(map(len, states))
        mask = torch.arange(longest, device=device) < torch.tensor([len(x) for x in states], device=device)[:, None]
        padded = torch.stack([nn.functional.pad(x, (0, 0, 0, longest - len(x))) for x in states])
        logits = self.tail(padded, mask)[:, len(self.prefix) :].float().log_softmax(-1).cpu()
        found: list[tuple[str, float]] = []
        for row, x in zip(logits, sequences, strict=True):
            first = nn.functional.cosine_similarity(x[:1], self.first_states).argmax()
            odds = row[: len(x) - 1]
            for _ in range(max(1, samples)):
                if samples:
                    following = (
                        torch.multinomial((odds / temperature).softmax(-1), 1)[:, 0] if len(odds) else odds.new_zeros(0)
                    )
                else:
                    following = odds.argmax(-1)
                ids = [int(self.firsts[first]), *map(int, following)]
                score = odds.gather(1, following.long()[:, None]).mean() if len(odds) else torch.tensor(0.0)
                found.append((self.tokenizer.decode(ids, skip_special_tokens=True).strip(), float(score)))
        return found
