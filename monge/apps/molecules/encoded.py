"""Molecules as tensors."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from monge.apps.molecules.conformers import Molecule


class Encoded(NamedTuple):
    """Molecules as tensors: scaled positions and one-hot types, padded to the largest."""

    x: Float[Tensor, "n N D"]
    mask: Bool[Tensor, "n N"]
    types: list[int]
    """Number of the type of each type column."""
    scale: float
    """Angstroms per unit of length."""
    molecules: list[Molecule]

    @staticmethod
    def of(molecules: list[Molecule], types: list[int], scale: float) -> "Encoded":
        """The tensors of molecules with these types."""
        longest = max(len(one.types) for one in molecules)
        x = torch.zeros(len(molecules), longest, 3 + len(types))
        mask = torch.zeros(len(molecules), longest, dtype=torch.bool)
        column = {number: 3 + k for k, number in enumerate(types)}
        for row, one in enumerate(molecules):
            count = len(one.types)
            mask[row, :count] = True
            x[row, :count, :3] = torch.from_numpy(one.positions) / scale
            x[row, range(count), [column[int(number)] for number in one.types]] = 1.0
        return Encoded(x, mask, types, scale, molecules)

    def batch(self, rows: Int[Tensor, "B"]) -> tuple[Float[Tensor, "B N D"], Bool[Tensor, "B N"]]:
        """The rows, padded to the largest of them."""
        mask = self.mask[rows]
        longest = int(mask.sum(1).max())
        return self.x[rows, :longest], mask[:, :longest]
