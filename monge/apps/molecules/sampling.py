"""Sampling from a molecular flow: its states from noise to molecules, and the types at the end."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from monge.apps.molecules.network import centred
from monge.apps.molecules.objective import Recorded, probabilities
from monge.math.random import seeded_by
from monge.math.rotation import kabsch
from monge.math.types import Condition

OTHER_ELEMENT = 0.05
"""Weight of the elements that the flow has not chosen, relative to the chosen one, at the end of sampling."""
LEAD = 2.0
"""Types reach time 1 - (1 - t)^LEAD at time t of the positions: they settle first."""
POWER = 2.0
"""Positions reach time 1 - (1 - s)^POWER after a share s of the steps: the steps are shorter near the data."""
ETA = 2.0
"""Fresh noise in each step, as in `fresh_share`."""


class FreshNoise:
    """Centred Gaussian noise of the positions, new in each call. A row's noise depends on its x_0 alone."""

    def __init__(self, x_0: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> None:
        self.like, self.mask, self.exists, self.generators = x_0, mask, mask.cpu(), list[torch.Generator]()
        for row, exists in zip(x_0.cpu(), self.exists, strict=True):
            self.generators.append(seeded_by(row[exists]))

    def __call__(self) -> Float[Tensor, "B N 3"]:
        x = torch.zeros(*self.exists.shape, 3)
        for row, exists, generator in zip(x, self.exists, self.generators, strict=True):
            row[exists] = torch.randn(int(exists.sum()), 3, generator=generator)
        return centred(x.to(self.like), self.mask)


def times(steps: int) -> Float[Tensor, "steps+1"]:
    """The times of the states, from 0 to 1: 1 - (1 - s)^POWER on a uniform grid of s.

    >>> times(4)
    tensor([0.0000, 0.4375, 0.7500, 0.9375, 1.0000], dtype=torch.float64)
    """
    return 1 - (1 - torch.linspace(0, 1, steps + 1, dtype=torch.float64)) ** POWER


def fresh_share(t: float, later: float, eta: float) -> float:
    """The part of the noise that a step from t to `later` replaces, in units of its standard deviation.

    With eta = 1 it is that of the posterior of the state at `later`, given those at t and 1 (ancestral sampling); with 0, steps
    are those of Euler. DDIM, 2010.02502, eq. 16, for the linear path. More than 1, up to replacing all noise, no longer keeps
    the marginals of the flow: steps at nearly the same t then denoise again what they have denoised, towards likelier states.

    >>> [round(fresh_share(0.5, 0.52, eta), 2) for eta in (0.0, 1.0, 2.0, 3.0)]
    [0.0, 0.38, 0.77, 1.0]
    """
    kept = t * (1 - later) / (later * (1 - t))
    return min(1.0, eta * math.sqrt(1 - kept**2))


@torch.no_grad()
def states(
    model: Any,
    x_0: Float[Tensor, "B N D"],
    mask: Bool[Tensor, "B N"],
    *,
    steps: int,
    lead: float = LEAD,
    eta: float = ETA,
    rotation: bool = True,
    elements: Int[Tensor, "K"] | None = None,
    cond: Condition | None = None,
) -> Iterator[Float[Tensor, "B N D"]]:
    """The states of a flow after each step from x_0, each conditioned on the last prediction. ValueError unless 0 <= eta < inf.

    Each step replaces a part of the noise of the positions by fresh noise, see `fresh_share`; with `rotation`, for a network
    that was trained with RotationOT, it also rotates the noise onto the prediction. The times are those of `times`. The fresh
    noise of a row depends on its x_0 alone.

    Types reach time 1 - (1 - t)^lead at time t of the positions. The last state holds the predicted positions and the
    probabilities of the types that `retyped` gives. `elements` is the number of the element of each type. For a network with a
    pooled token, cond["pooled"] is the token's noise; it flows with the positions.
    """
    x, previous, cond = x_0, torch.zeros_like(x_0), dict(cond or {})
    model = Recorded(model) if "pooled" in cond else model
    grid = times(steps)
    if not 0 <= eta < math.inf:
        raise ValueError(f"eta must be finite and not negative, got {eta}")
    fresh = FreshNoise(x_0, mask) if eta else None
    type_grid = 1 - (1 - grid) ** lead
    for k in range(steps):
        t, t_types = (part[k].to(x).expand(len(x)) for part in (grid, type_grid))
        given = {**cond, "mask": mask, "previous": previous, "type_time": t_types}
        previous = probabilities(model(x, t, given)) * mask[..., None]
        position, types = ((part[k + 1] - part[k]) / (1 - part[k]) for part in (grid, type_grid))
        share = torch.cat([position.expand(3), types.expand(x.shape[-1] - 3)]).to(x)
        if fresh is not None and k + 1 < steps:  # the last step keeps no noise
            now, part = float(grid[k]), fresh_share(float(grid[k]), float(grid[k + 1]), eta)
            clean = now * previous[..., :3]
            left = math.sqrt(1 - part**2) * (x[..., :3] - clean) + part * (1 - now) * fresh()
            left = left @ kabsch(left, previous[..., :3], mask).mT if rotation else left
            x = torch.cat([clean + left, x[..., 3:]], -1)
        x = x + (previous - x) * share
        if "pooled" in cond:
            cond["pooled"] = torch.lerp(cond["pooled"], model.prediction.pooled, float(position))
        yield x if k + 1 < steps else retyped(model, x, x_0, mask, elements=elements, cond=cond)


@torch.no_grad()
def retyped(
    model: Any,
    x: Float[Tensor, "B N D"],
    x_0: Float[Tensor, "B N D"],
    mask: Bool[Tensor, "B N"],
    *,
    elements: Int[Tensor, "K"] | None = None,
    cond: Condition | None = None,
) -> Float[Tensor, "B N D"]:
    """The positions of x with probabilities of the types: elements from the flow, hydrogens and valences from the geometry.

    Types are decided early in the flow, and often disagree with the final geometry. The network therefore predicts them again
    from the positions, near t = 1. It sees the types of x_0 at time 0 instead of those of x, once as drawn and once negated; p
    is the mean of both predictions. The result is proportional to p (q + OTHER_ELEMENT), where q is the probability of the
    type's element in x: p alone prefers the most frequent element where the geometry allows several.
    """
    unseen = {**(cond or {}), "mask": mask, "previous": _with_types(x, torch.zeros_like(x_0))}
    given = {**unseen, "type_time": torch.zeros(len(x), device=x.device)}
    t = torch.full_like(given["type_time"], 1 - 1e-3)
    first, second = (probabilities(model(_with_types(x, sign * x_0), t, given))[..., 3:] for sign in (1, -1))
    flow = x[..., 3:].clamp_min(0)
    numbers = torch.arange(flow.shape[-1], device=x.device) if elements is None else elements.to(x.device)
    element = flow @ (numbers[:, None] == numbers).to(flow)
    product = (first + second) * (element + OTHER_ELEMENT)
    return torch.cat([x[..., :3], product / product.sum(-1, keepdim=True)], -1) * mask[..., None]


def _with_types(x: Float[Tensor, "B N D"], other: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
    """The positions of x with the types of `other`."""
    return torch.cat([x[..., :3], other[..., 3:]], -1)
