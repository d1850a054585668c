"""Optimal rotations between sets of points, and the coupling of a batch by them."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from monge.math.cost import squared_euclidean
from monge.math.coupling import in_full_precision
from monge.math.ot import assignment
from monge.math.types import Pair


def kabsch(
    x: Float[Tensor, "B N 3"], y: Float[Tensor, "B N 3"], mask: Bool[Tensor, "B N"] | None = None
) -> Float[Tensor, "B 3 3"]:
    """The rotations R that minimise the squared distances of x R^T and y, without reflections. Kabsch 1976. Only
    points where the mask is True count, and the origin stays fixed.

    >>> x = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]])
    >>> turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    >>> bool((kabsch(x, x @ turn.mT) - turn).abs().max() < 1e-5)
    True
    """
    weight = x.new_ones(x.shape[:2]) if mask is None else mask.to(x.dtype)
    covariance = (x * weight[..., None]).mT @ y
    u, _, vh = torch.linalg.svd(covariance)
    sign = torch.ones_like(covariance[:, 0])
    sign[:, 2] = torch.linalg.det(u @ vh).sign()
    return (u @ torch.diag_embed(sign) @ vh).mT


@dataclass(frozen=True)
class RotationOT:
    """Rotates each target onto its source: the first three entries of each token are its position, with mean 0 over the tokens.

    For data whose law does not change under rotations, such as molecules, this is the optimal coupling within the orbit of
    each target (Klein et al. 2306.15030, sec. 4). With `permute`, tokens have no order, and those of the source, which must
    be exchangeable, are matched to those of the target: `rounds` times, assignment and rotation take turns.
    """

    permute: bool = False
    rounds: int = 2

    @in_full_precision
    def __call__(self, pair: Pair, *, generator: torch.Generator | None = None) -> Pair:
        x_0, x_1 = pair.x_0, pair.x_1
        x_1 = rotated(x_1, kabsch(x_1[..., :3], x_0[..., :3], pair.mask))
        for _ in range(self.rounds if self.permute else 0):
            x_0 = _matched(x_0, x_1, pair.mask)
            x_1 = rotated(x_1, kabsch(x_1[..., :3], x_0[..., :3], pair.mask))
        return replace(pair, x_0=x_0, x_1=x_1)


def random_rotations(count: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "count 3 3"]:
    """Rotations from the uniform distribution, by QR with the signs of R's diagonal (Mezzadri 2007).

    >>> r = random_rotations(4)
    >>> bool(torch.allclose(r @ r.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5))
    True
    """
    q, r = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]
    return q * torch.linalg.det(q)[:, None, None]


def rotated(x: Float[Tensor, "B N D"], rotation: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B N D"]:
    """Tokens whose first three entries are rotated.

    >>> turn = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    >>> rotated(torch.tensor([[[1.0, 0.0, 0.0, 7.0]]]), turn)
    tensor([[[0., 1., 0., 7.]]])
    """
    return torch.cat([x[..., :3] @ rotation.mT, x[..., 3:]], -1)


def _matched(x_0: Tensor, x_1: Tensor, mask: Tensor | None) -> Tensor:
    """The source, its existing tokens permuted by the optimal assignment of their positions to those of the target."""
    result = x_0.clone()
    for row in range(len(x_0)):
        tokens = slice(None) if mask is None else mask[row]
        source, target = x_0[row][tokens], x_1[row][tokens]
        result[row, tokens] = source[assignment(squared_euclidean(target[:, :3], source[:, :3]))]
    return result
