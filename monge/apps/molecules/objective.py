"""The loss of a molecular flow: positions and types flow together, and the network predicts x_1."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from monge.apps.molecules.atoms import elements_of
from monge.apps.molecules.network import Prediction, centred
from monge.math.coupling import Coupling, identity
from monge.math.times import Times
from monge.math.types import Condition, Pair
from monge.objective.alignment import HiddenLoss, WithTargets
from monge.objective.base import Loss, Objective
from monge.objective.weighting import EqualTimes

DISTORTED = 0.1
"""Share of the atoms that `distortion` displaces."""
MAX_WEIGHT = 100.0
"""Maximum weight of the squared error of the positions in evaluation."""


def probabilities(end: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
    """A prediction of the network with probabilities in place of the logits."""
    return torch.cat([end[..., :3], end[..., 3:].softmax(-1)], -1)


class MoleculeMatching(Objective):
    """Squared error of the predicted positions plus `type_weight` times the cross-entropy of the predicted types.

    In training, the weight of the positions is one over their mean squared error at the same time (`EqualTimes`), so that the
    small errors near t = 1, which decide bond lengths, count as much as those before. In evaluation it is that of the
    velocity's error up to a limit, min(1 / (1 - t)^2, 100). For half of the molecules the network sees its own first
    prediction, without a gradient (self-conditioning, Chen et al. 2208.04202). `align` adds a loss on a hidden state, such as
    Alignment (REPA), for batches with cond["target"]. `distortion` is the standard deviation of Gaussian noise added to a tenth
    of the atoms of x_t in half of the molecules, so that the network learns to correct its own errors (FlowMol3, 2508.12629);
    distorted molecules have the weight of evaluation.

    With cond["pooled target"], (B, F), the network also denoises these vectors, as a token next to the atoms (REG, Wu et al.
    2507.01467). Their squared error, per entry and with the weight that positions have in evaluation, counts `pooled_weight`
    times; vectors that are all zero do not count.
    """

    def __init__(
        self,
        *,
        coupling: Coupling = identity,
        times: Times | None = None,
        type_weight: float = 1.0,
        self_conditioning: bool = True,
        distortion: float = 0.0,
        align: HiddenLoss | None = None,
        pooled_weight: float = 0.03,
    ) -> None:
        super().__init__()
        self.coupling, self.times = coupling, times or Times()
        self.type_weight, self.weights = type_weight, EqualTimes()
        self.self_conditioning, self.distortion = self_conditioning, distortion
        self.align = None if align is None else WithTargets(align, "target")
        self.pooled_weight = pooled_weight

    def forward(self, model: Any, batch: Pair) -> Loss:
        pair, mask = self.coupling(batch), batch.mask
        assert mask is not None
        t = self.times(pair.x_1)
        t_types = type_times(t)
        x_t = mixed(pair.x_0, pair.x_1, t, t_types)
        cond = {**pair.condition, "type_time": t_types}
        pooled = cond.pop("pooled target", None)
        if pooled is not None:
            cond["pooled"] = torch.lerp(torch.randn_like(pooled), pooled, t[:, None])
            model = Recorded(model)
        distorted = torch.zeros_like(mask[:, 0])
        if self.distortion:
            distorted = torch.rand_like(t) < 0.5
            chosen = distorted[:, None, None] & (torch.rand_like(x_t[..., :1]) < DISTORTED)
            moved = x_t[..., :3] + chosen * self.distortion * torch.randn_like(x_t[..., :3])
            x_t = torch.cat([centred(moved, mask), x_t[..., 3:]], -1)
        if self.self_conditioning:
            cond["previous"] = self._previous(model, x_t, t, cond)
        end, alignment = (
            (model(x_t, t, cond), None) if self.align is None else self.align(model, x_t, t, replace(pair, cond=cond))
        )
        error = (end[..., :3] - pair.x_1[..., :3]).square().sum(-1)
        fixed = scale = (1 / (1 - t).square().clamp_min(1e-9)).clamp_max(MAX_WEIGHT)
        if self.training and torch.is_grad_enabled():
            equal = self.weights(t, (error.detach() * mask).sum(1) / mask.sum(1), (~distorted).to(t))
            scale = torch.where(distorted, fixed, equal)
        position = (scale[:, None] * mask * error).sum() / mask.sum()
        logits, types = end[..., 3:], pair.x_1[..., 3:].argmax(-1)
        entropy = nn.functional.cross_entropy(logits[mask], types[mask])
        value = position + self.type_weight * entropy
        plain = (error * mask).sum() / mask.sum()
        metrics = {"position error": plain.detach().sqrt(), "type loss": entropy.detach()}
        if pooled is not None:
            metrics["flow loss"] = value.detach()
            known, off = (pooled != 0).any(-1), (model.prediction.pooled - pooled).square().mean(-1)
            value = value + self.pooled_weight * (fixed * off * known).sum() / known.sum().clamp_min(1)
            metrics["pooled error"] = ((off * known).sum() / known.sum().clamp_min(1)).detach().sqrt()
        if self.align is not None and alignment is not None:
            value = value + self.align.weight * alignment
            metrics["alignment"] = alignment.detach()
        return Loss(value, {"loss": value.detach(), **metrics})

    @torch.no_grad()
    def _previous(self, model: Any, x_t: Tensor, t: Tensor, cond: Condition) -> Float[Tensor, "B N D"]:
        """The network's predictions for a random half of the batch, and 0 for the other half.

        The network is called once whatever the half is, since all ranks must call it equally often under FSDP.
        """
        count = (len(t) + int(torch.rand(()) < 0.5)) // 2
        rows = torch.randperm(len(t), device=t.device)[: max(1, count)]
        first = probabilities(model(x_t[rows], t[rows], {name: value[rows] for name, value in cond.items()}))
        previous = torch.zeros_like(x_t)
        previous[rows[:count]] = (first * cond["mask"][rows][..., None])[:count]
        return previous


class Recorded:
    """A network that keeps its last prediction, with that of the pooled token."""

    prediction: Prediction

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition) -> Tensor:
        return self.with_features(x_t, t, cond, 1)[0]

    def with_features(self, x_t: Tensor, t: Tensor, cond: Condition, layer: int) -> tuple[Tensor, Tensor]:
        """The prediction and the hidden state of the atoms after the first `layer` blocks."""
        self.prediction = self.network.predict(x_t, t, cond, layer)
        return self.prediction.end, self.prediction.features


def mixed(
    x_0: Float[Tensor, "B N D"], x_1: Float[Tensor, "B N D"], t: Float[Tensor, "B"], t_types: Float[Tensor, "B"]
) -> Float[Tensor, "B N D"]:
    """The state with positions at time t and types at time t_types."""
    weight = torch.cat([t[:, None].expand(-1, 3), t_types[:, None].expand(-1, x_0.shape[-1] - 3)], 1)
    return torch.lerp(x_0, x_1, weight[:, None])


def later_state(pair: Pair, t: Float[Tensor, "B"]) -> tuple[Float[Tensor, "B N D"], Condition]:
    """The state of a pair with positions at time t and types at time max(type_time, t), and its conditions."""
    t_types = torch.maximum(pair.condition["type_time"], t)
    return mixed(pair.x_0, pair.x_1, t, t_types), {**pair.condition, "type_time": t_types}


def by_element(types: Sequence[int]) -> dict[str, Any]:
    """Settings of an alignment whose projector has a last layer for each element. `types` are the types of atoms in the order
    of their logits."""
    names = elements_of(types)
    known = sorted(set(names))
    element = torch.tensor([known.index(name) for name in names])

    def kind(pair: Pair) -> Int[Tensor, "B N"]:
        return element.to(pair.x_1.device)[pair.x_1[..., 3:].argmax(-1)]

    return {"kind": kind, "kinds": len(known)}


def square_root(u: Tensor) -> Tensor:
    """The square root: t has the density 2 t, so more draws are near the data, where bond lengths are decided."""
    return u.sqrt()


def type_times(t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Random times of the types: 1 - (1 - t)^lead for leads from 1/4 to 4, and in a quarter of the cases uniform ones."""
    lead = 4 ** (2 * torch.rand_like(t) - 1)
    return torch.where(torch.rand_like(t) < 0.25, torch.rand_like(t), 1 - (1 - t) ** lead)


def noise(mask: Bool[Tensor, "B N"], types: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "B N D"]:
    """Sources: normal positions with mean 0 over the atoms, and normal type entries."""
    x = torch.randn(*mask.shape, 3 + types, generator=generator)
    return torch.cat([centred(x[..., :3], mask), x[..., 3:]], -1) * mask[..., None]
