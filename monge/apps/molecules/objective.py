"""The loss of a molecular flow, and sampling from it: positions and types flow together, and the network predicts x_1."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from monge.apps.molecules.network import centred
from monge.math.coupling import Coupling, identity
from monge.math.times import Times
from monge.math.types import Condition, Pair
from monge.objective.base import Loss, Objective


def probabilities(end: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
    """A prediction of the network with probabilities in place of the logits."""
    return torch.cat([end[..., :3], end[..., 3:].softmax(-1)], -1)


class MoleculeMatching(Objective):
    """Squared error of the predicted positions plus `types` times the cross-entropy of the predicted types.

    The weight of the positions is min(1 / (1 - t)^2, `largest`): that of the velocity's error, up to a limit. In half of the
    batches the network sees its own first prediction (self-conditioning, Chen et al. 2208.04202), without a gradient.
    """

    def __init__(
        self, *, coupling: Coupling = identity, times: Times | None = None, types: float = 0.2, largest: float = 25.0
    ) -> None:
        super().__init__()
        self.coupling, self.times, self.types, self.largest = coupling, times or Times(), types, largest

    def forward(self, model: Any, batch: Pair) -> Loss:
        pair, mask = self.coupling(batch), batch.mask
        assert mask is not None
        t = self.times(pair.x_1)
        x_t = torch.lerp(pair.x_0, pair.x_1, t[:, None, None])
        cond = pair.condition
        if torch.rand(()) < 0.5:
            with torch.no_grad():
                cond = {**cond, "previous": probabilities(model(x_t, t, cond)) * mask[..., None]}
        end = model(x_t, t, cond)
        weight = (1 / (1 - t).square().clamp_min(1e-9)).clamp_max(self.largest)[:, None] * mask
        error = (end[..., :3] - pair.x_1[..., :3]).square().sum(-1)
        position = (weight * error).sum() / mask.sum()
        logits, types = end[..., 3:], pair.x_1[..., 3:].argmax(-1)
        entropy = nn.functional.cross_entropy(logits[mask], types[mask])
        value = position + self.types * entropy
        plain = (error * mask).sum() / mask.sum()
        return Loss(
            value, {"loss": value.detach(), "position error": plain.detach().sqrt(), "type loss": entropy.detach()}
        )


@torch.no_grad()
def states(
    model: Any, x_0: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"], *, steps: int, cond: Condition | None = None
) -> Iterator[Float[Tensor, "B N D"]]:
    """The states of a flow after each Euler step from x_0, each step conditioned on the last prediction.

    The last state holds the predicted positions, and the probabilities of the types.
    """
    x, previous = x_0, torch.zeros_like(x_0)
    grid = torch.linspace(0, 1, steps + 1, device=x.device)
    for t, end in zip(grid[:-1], grid[1:], strict=True):
        time = t.expand(len(x))
        previous = probabilities(model(x, time, {**(cond or {}), "mask": mask, "previous": previous})) * mask[..., None]
        x = x + (previous - x) * (end - t) / (1 - t)
        yield x


def sample(
    model: Any, x_0: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"], *, steps: int, cond: Condition | None = None
) -> Float[Tensor, "B N D"]:
    """Positions and probabilities of the types at t = 1: the last of the `states`."""
    *_, x = states(model, x_0, mask, steps=steps, cond=cond)
    return x


def noise(mask: Bool[Tensor, "B N"], types: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "B N D"]:
    """Sources: normal positions with mean 0 over the atoms, and normal type entries."""
    x = torch.randn(*mask.shape, 3 + types, generator=generator)
    return torch.cat([centred(x[..., :3], mask), x[..., 3:]], -1) * mask[..., None]
