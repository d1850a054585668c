"""Contrastive losses: InfoNCE for embeddings and for energies, and a margin loss for energies."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from monge.math.types import Energy, at_least_single
from monge.objective.base import Loss, Objective


@dataclass(frozen=True)
class IndexedCandidates:
    """K candidates per row, the first of them correct, as indices into distinct inputs x. Each goes through the model once.

    `mask` is False for the padding of rows with fewer candidates.

    >>> x, index = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0, 1], [0, 2]])
    >>> IndexedCandidates(x, index).energies(lambda x: x.square().sum(1))
    tensor([[0., 1.],
            [0., 4.]])
    """

    x: Shaped[Tensor, "n *s"]
    index: Int[Tensor, "B K"]
    mask: Bool[Tensor, "B K"] | None = None

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> "IndexedCandidates":
        """The same batch on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return replace(self, x=self.x.to(device), index=self.index.to(device), mask=mask)

    def energies(self, model: Energy) -> Float[Tensor, "B K"]:
        """The energy of each candidate; infinite for padding."""
        energy = model(self.x)[self.index]
        return energy if self.mask is None else energy.masked_fill(~self.mask, torch.inf)


@dataclass(frozen=True)
class Candidates:
    """K candidates per row; the first is the correct one. `mask` is False for the padding of rows with fewer candidates.

    Entries of `cond` describe each candidate, (B, K, ...), and are passed to the energy model by name; cond["mask"],
    (B, K, N), is True for the tokens of a candidate that exist.

    >>> Candidates(torch.tensor([[[0.0], [1.0], [2.0]]])).energies(lambda x: x.square().sum(1))
    tensor([[0., 1., 4.]])
    """

    x: Float[Tensor, "B K *s"]
    mask: Bool[Tensor, "B K"] | None = None
    cond: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        shape = self.x.shape[:2]
        parts = {f"cond[{name!r}]": value for name, value in self.cond.items()}
        parts |= {} if self.mask is None else {"mask": self.mask}
        for name, value in parts.items():
            if value.shape[:2] != shape:
                raise ValueError(
                    f"contrast: {name} has shape {tuple(value.shape)} for {tuple(shape)} candidates; "
                    "give one entry per row and candidate"
                )
        if self.mask is not None and not bool(self.mask[:, 0].all()):
            row = int((~self.mask[:, 0]).nonzero()[0])
            raise ValueError(f"contrast: row {row} has no correct candidate; the first of each row must not be masked")

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> "Candidates":
        """The same batch on `device`."""
        mask = None if self.mask is None else self.mask.to(device)
        return Candidates(self.x.to(device), mask, {name: value.to(device) for name, value in self.cond.items()})

    def energies(self, model: Energy) -> Float[Tensor, "B K"]:
        """The energy of each candidate: model(x), or model(x, cond) if there are conditions; infinite for padding."""
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
    """Cross-entropy of each query's own key against the batch's keys and `others`, by cosine similarity. 1807.03748, eq. 4.

    Negatives identical to the positive key are masked, since `others` may contain the batch's own keys.

    >>> float(info_nce(torch.eye(3), torch.eye(3))) < 1e-3
    True
    """
    candidates = keys if others is None else torch.cat([keys, others.to(keys.dtype)])
    positive = torch.arange(len(keys), device=keys.device)
    with torch.autocast(keys.device.type, enabled=False):  # half precision would blur the comparison below
        queries, keys, candidates = (
            nn.functional.normalize(x.to(at_least_single(x.dtype)), dim=-1) for x in (queries, keys, candidates)
        )
        duplicate = keys @ candidates.mT > 1 - 1e-4
        duplicate[positive, positive] = False
        return nn.functional.cross_entropy(
            (queries @ candidates.mT / temperature).masked_fill(duplicate, -torch.inf), positive
        )


def _metrics(value: Tensor, energy: Tensor) -> dict[str, Tensor]:
    accuracy = (energy[:, :1] < energy[:, 1:]).all(1).float().mean()
    return {"loss": value.detach(), "accuracy": accuracy}


class InfoNCE(Objective):
    """Cross-entropy of the correct candidate under softmax(-energy / temperature). van den Oord et al. 1807.03748, eq. 4.

    >>> InfoNCE()(lambda x: x.sum(1), Candidates(torch.zeros(1, 2, 3))).value
    tensor(0.6931)
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, model: Energy, batch: Candidates | IndexedCandidates) -> Loss:
        energy = batch.energies(model)
        value = -nn.functional.log_softmax(-energy / self.temperature, 1)[:, 0].mean()
        return Loss(value, _metrics(value, energy))


class Margin(Objective):
    """Hinge loss: each wrong candidate's energy should exceed the correct one's by `margin`. LeCun et al. 2006, eq. 11.

    >>> Margin()(lambda x: x.sum(1), Candidates(torch.tensor([[[0.0], [0.25]]]))).value
    tensor(0.7500)
    """

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, model: Energy, batch: Candidates | IndexedCandidates) -> Loss:
        energy = batch.energies(model)
        shortfall = torch.relu(self.margin + energy[:, :1] - energy[:, 1:])
        exists = torch.isfinite(energy[:, 1:])
        value = shortfall[exists].sum() / exists.sum().clamp_min(1)
        return Loss(value, _metrics(value, energy))
