"""Sampling molecules from a trained network."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from monge.apps.molecules.atoms import FAKE, elements_of
from monge.apps.molecules.bonds import Perceived, most_probable
from monge.apps.molecules.fakes import num_fakes
from monge.apps.molecules.objective import noise
from monge.apps.molecules.sampling import ETA, states


class Drawn(NamedTuple):
    """Endpoint of a trajectory, or a state on it."""

    probability: Float[np.ndarray, "N K"]
    """Probability of each type, by its column; before the last step, the relaxed one-hot types."""
    types: list[int]
    """Number of the type of each column."""
    positions: Float[np.ndarray, "N 3"]
    """Positions in angstroms."""

    def molecule(self, *, limit: int = 1000) -> Perceived:
        """The most probable types that form a molecule, among the `limit` most probable ones (1: no correction). Atoms whose
        most probable type is fake are removed first."""
        real = [column for column, number in enumerate(self.types) if number != FAKE]
        kept = np.isin(self.probability.argmax(1), real)
        types = [self.types[column] for column in real]
        return most_probable(self.probability[kept][:, real], types, self.positions[kept], limit=limit)


@dataclass(frozen=True)
class Generator:
    """A trained network with the constants that sampling needs."""

    network: nn.Module
    types: list[int]
    """Number of the type of each type column."""
    scale: float
    """Angstroms per unit of length."""
    sizes: Int[Tensor, "S"]
    """Number of training molecules by number of atoms."""
    fake_atoms: float = 0.0
    """Maximum number of fake atoms, as a share of the number of atoms."""
    device: torch.device | str = "cpu"
    pooled: int = 0
    """Number of entries of the network's pooled token; 0 for a network without one."""
    rotation: bool = True
    """True if molecules were rotated onto the noise in training."""

    def mask(
        self, count: int, *, atoms: int | None = None, generator: torch.Generator | None = None
    ) -> Bool[Tensor, "n N"]:
        """The existing atoms of `count` molecules. Each has `atoms` atoms, or a size drawn from the training data; fake atoms
        are added to that."""
        drawn = torch.multinomial(self.sizes.double(), count, replacement=True, generator=generator)
        size = drawn if atoms is None else torch.full((count,), atoms)
        size = size + num_fakes(size, self.fake_atoms, generator=generator)
        return torch.arange(int(size.max())) < size[:, None]

    def draw(
        self,
        mask: Bool[Tensor, "n N"],
        *,
        steps: int,
        eta: float = ETA,
        generator: torch.Generator | None = None,
        size: int = 64,
    ) -> list[Drawn]:
        """A molecule for each row of the mask, by `steps` steps in batches of `size`; `eta` as in `sampling.states`."""
        *_, end = self.film(mask, steps=steps, eta=eta, generator=generator, size=size)
        return end

    def film(
        self,
        mask: Bool[Tensor, "n N"],
        *,
        steps: int,
        eta: float = ETA,
        generator: torch.Generator | None = None,
        size: int = 64,
    ) -> Iterator[list[Drawn]]:
        """The states after each step. Only the last one holds probabilities of the types."""
        x_0 = noise(mask, len(self.types), generator=generator)
        pooled = torch.randn(len(mask), self.pooled, generator=generator) if self.pooled else None
        conditions = repeat({}) if pooled is None else ({"pooled": part.to(self.device)} for part in pooled.split(size))
        names = elements_of(self.types)
        elements = torch.tensor([names.index(name) for name in names])
        parts = [
            states(
                self.network,
                part.to(self.device),
                existing.to(self.device),
                steps=steps,
                eta=eta,
                rotation=self.rotation,
                elements=elements,
                cond=cond,
            )
            for part, existing, cond in zip(x_0.split(size), mask.split(size), conditions, strict=False)
        ]
        counts = mask.sum(1).tolist()
        for step in zip(*parts, strict=True):
            x = torch.cat(step).double().cpu().numpy()
            yield [Drawn(row[:n, 3:], self.types, self.scale * row[:n, :3]) for row, n in zip(x, counts, strict=True)]
