"""Toy distributions in the plane, as functions that draw n points."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def gaussians(n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
    """Eight Gaussians of variance sqrt(0.1) on a circle of radius 5: the task of Tong et al. 2302.00482, sec. 5.1."""
    angle = torch.randint(0, 8, (n,), generator=generator) * (math.pi / 4)
    return 5 * torch.stack([angle.cos(), angle.sin()], 1) + 0.1**0.25 * torch.randn(n, 2, generator=generator)


def moons(n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
    """Two interleaved half circles: torchcfm.utils.sample_moons, as in the OT-CFM tutorial.

    As in torchdyn's generate_moons(noise=0.2), points are evenly spaced along the upper arc, then along the lower one, and
    both coordinates of a point are shifted by the same uniform draw from [0, 0.2]. The result is mapped to 3 x - 1.
    """
    upper, lower = (torch.linspace(0, math.pi, count) for count in (n // 2, n - n // 2))
    x = torch.cat([upper.cos(), 1 - lower.cos()])
    y = torch.cat([upper.sin(), 0.5 - lower.sin()])
    return 3 * (torch.stack([x, y], 1) + 0.2 * torch.rand(n, 1, generator=generator)) - 1


def checkerboard(n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
    """Uniform on the black squares of a 4 x 4 board on [-4, 4]^2."""
    column = torch.randint(0, 4, (n,), generator=generator)
    row = 2 * torch.randint(0, 2, (n,), generator=generator) + column % 2
    return 2 * (torch.stack([column, row], 1) + torch.rand(n, 2, generator=generator)) - 4


def circles(n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
    """Two concentric circles of radius 2 and 4, with Gaussian noise of width 0.15."""
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    radius = torch.where(torch.randint(0, 2, (n,), generator=generator).bool(), 4.0, 2.0)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1) + 0.15 * torch.randn(n, 2, generator=generator)


def spirals(n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n 2"]:
    """Two spiral arms of one and a half turns around the origin, with Gaussian noise of width 0.1."""
    angle = 3 * math.pi * torch.rand(n, generator=generator).sqrt()
    arm = 2.0 * torch.randint(0, 2, (n,), generator=generator) - 1
    radius = arm * angle * 4 / (3 * math.pi)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(n, 2, generator=generator)


TOYS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "gaussians": gaussians,
    "moons": moons,
    "checkerboard": checkerboard,
    "circles": circles,
    "spirals": spirals,
}
