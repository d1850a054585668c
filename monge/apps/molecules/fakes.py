"""Fake atoms, which are added to molecules in training and removed from samples (FlowMol3, Dunn and Koes 2508.12629)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from monge.apps.molecules.network import centred

SPREAD = 1.0
"""Standard deviation, per axis and in angstroms, of a fake atom's offset from the atom next to it."""


def num_fakes(atoms: Int[Tensor, "B"], share: float, *, generator: torch.Generator | None = None) -> Int[Tensor, "B"]:
    """Numbers of fake atoms for molecules of these sizes: uniform from 0 to `share` times the size, rounded down."""
    if not share:
        return torch.zeros_like(atoms)
    most = (share * atoms).floor() + 1
    return (torch.rand(len(atoms), generator=generator) * most).long()


def with_fakes(
    x: Float[Tensor, "B N D"],
    mask: Bool[Tensor, "B N"],
    target: Float[Tensor, "B N F"] | None,
    *,
    share: float,
    spread: float,
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "B M D"], Bool[Tensor, "B M"], Float[Tensor, "B M F"] | None]:
    """Add fake atoms to molecules. x holds positions, then one-hot types, of which the last is the fake type. Returns x, the
    mask and the alignment targets.

    A fake atom is at a random atom's position plus Gaussian noise of standard deviation `spread`, and at a random place in the
    order of the atoms. Its targets are zero. The positions are centred again.
    """
    size = mask.sum(1)
    counts = num_fakes(size, share, generator=generator)
    shape = len(x), int(counts.max())
    anchor, place = (torch.rand(shape, generator=generator) * size[:, None] for _ in range(2))
    near = x[..., :3].gather(1, anchor.long()[..., None].expand(-1, -1, 3))
    fake = torch.zeros(*shape, x.shape[-1])
    fake[..., :3] = near + spread * torch.randn(near.shape, generator=generator)
    fake[..., -1] = 1.0
    added = torch.arange(shape[1]) < counts[:, None]
    order = torch.cat([torch.arange(x.shape[1]) + 0.5 + 0 * size[:, None], place], 1)
    exists = torch.cat([mask, added], 1)
    order = order.masked_fill(~exists, torch.inf).argsort(stable=True, dim=1)[:, : int(exists.sum(1).max())]

    def ordered(rows: Tensor) -> Tensor:
        return rows.gather(1, order[..., None].expand(-1, -1, rows.shape[-1]))

    exists = exists.gather(1, order)
    x = ordered(torch.cat([x, fake], 1)) * exists[..., None]
    if target is not None:
        target = ordered(torch.cat([target, target.new_zeros(*shape, target.shape[-1])], 1))
    return torch.cat([centred(x[..., :3], exists), x[..., 3:]], -1), exists, target
