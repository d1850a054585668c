"""Contrastive losses: InfoNCE for embeddings and for energies, and a margin loss."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from monge.math.types import Energy, at_least_single
from monge.objective.base import Loss, Objective


@dataclass(frozen=True)
class Candidates:
    """K candidates per row, of which the first is right. `mask` is False where a row has fewer.

    Entries of `cond` describe each candidate, (B, K, ...), and are given to the energy model by name; cond["mask"],
    (B, K, N), says which tokens of a candidate exist.
    """

    x: Float[Tensor, "B K *s"]
    mask: Bool[Tensor, "B K"] | None = None
    cond: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        shape = self.x.shape[:2]
        described = self.cond if self.mask is None else {**self.cond, "candidates": self.mask}
        for name, value in described.items():
            if value.shape[:2] != shape:
                raise ValueError(
                    f"contrast: {name} has shape {tuple(value.shape)} for {tuple(shape)} candidates; "
                    "give one entry per row and candidate"
                )
        if self.mask is not None and not bool(self.mask[:, 0].all()):
            row = int((~self.mask[:, 0]).nonzero()[0])
            raise ValueError(f"contrast: row {row} has no right candidate; the first of each row must be real")

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> "Candidates":
        """The same batch on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return Candidates(self.x.to(device), mask, {name: value.to(device) for name, value in self.cond.items()})

    def energies(self, model: Energy) -> Float[Tensor, "B K"]:
        """Each candidate's energy, model(x) or, with conditions, model(x, cond); infinite where there is no candidate."""
        x, shape = self.x.flatten(0, 1), self.x.shape[:2]
        energy = model(x, {name: value.flatten(0, 1) for name, value in self.cond.items()}) if self.cond else model(x)
        if energy.numel() != shape.numel():
            raise ValueError(
                f"contrast: the model returned {tuple(energy.shape)} for {len(x)} candidates; return one energy each, (B,)"
            )
        energy = energy.reshape(shape)
        return energy if self.mask is None else energy.masked_fill(~self.mask, torch.inf)


def info_nce(
    queries: Float[Tensor, "B D"],
    keys: Float[Tensor, "B D"],
    others: Float[Tensor, "n D"] | None = None,
    *,
    temperature: float = 0.05,
) -> Float[Tensor, ""]:
    """Cross-entropy of each query's own key among those of the batch and `others`, by their cosines. 1807.03748, eq. 4.

    Negatives identical to the positive key are masked, since `others` may contain the batch's own keys.
    """
    among = keys if others is None else torch.cat([keys, others.to(keys.dtype)])
    own = torch.arange(len(keys), device=keys.device)
    with torch.autocast(keys.device.type, enabled=False):  # in half precision nothing points quite the same way
        queries, keys, among = (
            nn.functional.normalize(x.to(at_least_single(x.dtype)), dim=-1) for x in (queries, keys, among)
        )
        same = keys @ among.mT > 1 - 1e-4
        same[own, own] = False
        return nn.functional.cross_entropy((queries @ among.mT / temperature).masked_fill(same, -torch.inf), own)


def _metrics(value: Tensor, energy: Tensor) -> dict[str, Tensor]:
    right = (energy[:, :1] < energy[:, 1:]).all(1).float().mean()
    return {"loss": value.detach(), "accuracy": right}


class InfoNCE(Objective):
    """Cross-entropy of the right candidate under exp(-energy / temperature). van den Oord et al. 1807.03748, eq. 4."""

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, model: Energy, batch: Candidates) -> Loss:
        energy = batch.energies(model)
        value = -nn.functional.log_softmax(-energy / self.temperature, 1)[:, 0].mean()
        return Loss(value, _metrics(value, energy))


class Margin(Objective):
    """Wrong candidates should lie `margin` above the right one; the mean of what is missing. LeCun et al. 2006, eq. 11."""

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, model: Energy, batch: Candidates) -> Loss:
        energy = batch.energies(model)
        missing = torch.relu(self.margin + energy[:, :1] - energy[:, 1:])
        there = torch.isfinite(energy[:, 1:])
        value = missing[there].sum() / there.sum().clamp_min(1)
        return Loss(value, _metrics(value, energy))
