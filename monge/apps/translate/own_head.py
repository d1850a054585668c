"""Decoding of hidden states by the model that they come from: its remaining blocks and its head."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monge.lm.hidden import hidden_at
from monge.lm.load import causal, encoder
from monge.lm.store import Vectors
from monge.lm.tail import Tail
from monge.math.cost import Whitening

ROWS = 8
"""Number of sequences whose logits are held at a time."""


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
    """The calibrated states of these tokens at the start of a text, where a state depends only on its token and the prefix."""
    positions: int | None = None
    """Maximum length of a text in tokens, with the prefix; None if the model does not specify it."""

    @staticmethod
    @torch.no_grad()
    def of(fingerprint: Mapping[str, str], side: Whitening, texts: Sequence[str], *, device: torch.device) -> "OwnHead":
        """The head of the model with the fingerprint of a file of vectors; `texts` are known texts of this side.

        ValueError if the vectors do not record their model, or if it has changed or has no head.
        """
        if not {"model", "layer", "weights"} <= fingerprint.keys():
            raise ValueError("the vectors do not record the model that made them; decode without --own-head")
        name, layer = fingerprint["model"], int(fingerprint["layer"])
        if fingerprint.get("pooling", "none") != "none" or fingerprint.get("keep", "start") != "start":
            raise ValueError(
                "the vectors are not the states of whole texts from their start; decode without --own-head"
            )
        now = encoder(name).fingerprint()
        if any(now[key] != fingerprint.get(key, now[key]) for key in ("weights", "tokenizer")):
            raise ValueError(f"{name}: not the model that made the vectors; its weights or its tokenizer have changed")
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
        tail = Tail(model.model, layer)
        check_causal(tail, states, name)
        first_states = side.apply(states[:, -1].cpu())
        return OwnHead(tail, model.tokenizer, side, states[0, :-1], ids[:, -1], first_states, model.positions)

    def check_lengths(self, file: Vectors) -> None:
        """ValueError if a sequence of the file is longer than the model's context."""
        longest = math.inf if self.positions is None else self.positions - len(self.prefix)
        for _, rows in file.portions():
            if long := next((key for key, row in rows if len(row) > longest), None):
                raise ValueError(
                    f"{file.path}: {long!r} has more than {longest} vectors, the context length of the model; leave it out, or "
                    "decode without --own-head"
                )

    @torch.no_grad()
    def texts(
        self, sequences: Sequence[Float[Tensor, "_ D"]], *, samples: int = 0, temperature: float = 1.0
    ) -> list[tuple[str, float]]:
        """The greedy text of each calibrated sequence, or `samples` random ones per sequence, with its mean log-probability per
        token after the first, in nats (0 for a single token).

        The first token is the one whose state at the start of a text is nearest, by the cosine of centred states; the others
        come from the logits.
        """
        found: list[tuple[str, float]] = []
        for start in range(0, len(sequences), ROWS):
            part = sequences[start : start + ROWS]
            for x, odds in zip(part, self._odds(part), strict=True):
                first = self._first(x)
                for _ in range(max(1, samples)):
                    chosen = (
                        torch.multinomial((odds / temperature).softmax(-1), 1)[:, 0] if samples else odds.argmax(-1)
                    )
                    score = float(odds.gather(1, chosen[:, None]).mean()) if len(odds) else 0.0
                    text = self.tokenizer.decode([first, *chosen.tolist()], skip_special_tokens=True)
                    found.append((text.strip(), score))
        return found

    def _first(self, x: Float[Tensor, "_ D"]) -> int:
        """The first token of a calibrated sequence."""
        centre = self.first_states.mean(0) if len(self.first_states) > 1 else torch.zeros(x.shape[1])
        cosine = nn.functional.cosine_similarity(x[:1] - centre, self.first_states - centre)
        return int(self.firsts[cosine.argmax()])

    def _odds(self, sequences: Sequence[Float[Tensor, "_ D"]]) -> list[Float[Tensor, "_ V"]]:
        """The log-probabilities of each sequence's tokens after the first, on the CPU."""
        device = self.prefix.device
        states = [torch.cat([self.prefix, self.side.undo(x).to(device)]) for x in sequences]
        longest = max(map(len, states))
        mask = torch.arange(longest, device=device) < torch.tensor([len(x) for x in states], device=device)[:, None]
        padded = torch.stack([nn.functional.pad(x, (0, 0, 0, longest - len(x))) for x in states])
        logits = self.tail(padded, mask)[:, len(self.prefix) :]
        return [row[: len(x) - 1].float().log_softmax(-1).cpu() for row, x in zip(logits, sequences, strict=True)]


def check_causal(tail: Tail, states: Float[Tensor, "F N D"], name: str) -> None:
    """ValueError if the logits of a token depend on the tokens after it, as in BERT."""
    pair = torch.cat([states[:1], states[:1]], 1)
    other = pair.clone()
    other[:, -1] += 1.0
    before, after = (tail(x)[:, : pair.shape[1] - 1] for x in (pair, other))
    if not torch.allclose(before, after, atol=1e-4, rtol=1e-3):
        raise ValueError(f"{name}: not a causal language model; decode without --own-head")
