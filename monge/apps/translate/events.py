"""Branching flows: n tokens become m by splits and deaths at random times. Billera et al. 2511.09465.

Their forest, with uniform times and neighbours merged uniformly at random, comes to this: every gap between neighbouring
descendants of one source token opens at a time of its own, uniform on (0, 1), and a particle is a run of descendants whose
gaps are closed. A particle of w descendants then splits at (w - 1) / (1 - t), and a token that will die dies at 1 / (1 - t).
Here source tokens have contents, so the cheapest assignment roots the forest and a token that no target claims is what dies;
and what a split leaves are told apart by their place among their kin, since their contents are the same until the flow parts
them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from monge.apps.translate.field import FieldShape, Mean
from monge.math.container import Container
from monge.math.coupling import Coupling, identity
from monge.math.times import Times
from monge.math.types import Condition, Pair, pad_like
from monge.objective.base import Loss, Objective
from monge.objective.flow_matching import masked_mean


@dataclass(frozen=True)
class Branching:
    """Ancestry of tokens: container states whose slots are matched by `tokens`, arranged as the leaves of a forest.

    A leaf is a target token, with its ancestor in x_0, or a source token that dies, which x_1 leaves in its place without
    existence. A target token without a match descends from the source of the matched one next to it, the later of two as
    near; where nothing is matched, from the source token nearest by position. Families are contiguous, in the order of their
    ancestors, and cond["family"] counts them; inside, leaves are in the target's order. Rows where cond["back"] go from
    x_1 to x_0. The mask says where there are leaves, as many slots as the longest row needs.
    """

    tokens: Coupling = identity

    def __call__(self, pair: Pair, *, generator: torch.Generator | None = None) -> Pair:
        pair = self.tokens(pair, generator=generator)
        reverse = pair.cond.get("reverse", torch.zeros(len(pair), dtype=torch.bool, device=pair.x_0.device))
        x_0, x_1 = (
            torch.where(pad_like(reverse, pair.x_0), *ends) for ends in ((pair.x_1, pair.x_0), (pair.x_0, pair.x_1))
        )
        is_0, is_1 = x_0[..., -1] > 0, x_1[..., -1] > 0
        if bool((is_1.any(1) & ~is_0.any(1)).any()):
            raise ValueError("branching: an empty source has no token to split; leave pairs with an empty side out")
        ancestor = _ancestors(x_0[..., -2], x_1[..., -2], is_0, is_1)
        dies = is_0 & (torch.zeros_like(ancestor).scatter_add(1, ancestor, is_1.long()) == 0)
        leaf = is_1 | dies
        ancestor = torch.where(is_1, ancestor, torch.arange(leaf.shape[1], device=leaf.device))
        x_1 = torch.where(is_1[..., None], x_1, torch.cat([x_0[..., :-1], torch.zeros_like(x_0[..., -1:])], -1))
        order = x_1[..., -2].argsort(dim=1, stable=True)
        root = x_0[..., -2].gather(1, ancestor).masked_fill(~leaf, torch.inf)
        order = order.gather(1, root.gather(1, order).argsort(dim=1, stable=True))
        order = order[:, : max(1, int(leaf.sum(1).max()))]
        ancestor, leaf = ancestor.gather(1, order), leaf.gather(1, order)
        first = torch.cat([leaf[:, :1], leaf[:, 1:] & (ancestor.diff(dim=1) != 0)], 1)
        cond = {**pair.cond, "family": first.cumsum(1) - 1}
        return Pair(_rows(x_0, ancestor), _rows(x_1, order), leaf, cond)


def _ancestors(place_0: Tensor, place_1: Tensor, is_0: Tensor, is_1: Tensor) -> Int[Tensor, "B N"]:
    """The slot of the source token that each target token descends from."""
    matched = is_0 & is_1
    rank = torch.where(is_1, place_1, torch.inf).argsort(1).argsort(1)
    ahead = rank[:, None, :] - rank[:, :, None]
    # of two as near the later: positions are i / n, so that of two copies the last has its ancestor's
    near = torch.where(ahead > 0, ahead - 0.5, -ahead)
    far = (place_1[:, :, None] - place_0[:, None, :]).abs()
    any_matched = matched.any(1)[:, None, None]
    distance = torch.where(any_matched, near, far)
    allowed = torch.where(any_matched, matched[:, None], is_0[:, None])
    return distance.masked_fill(~allowed, torch.inf).argmin(-1)


class Particles(NamedTuple):
    """Particles alive at time t, a slot for each leaf: a particle in the slot of its first leaf, the other slots empty."""

    x_t: Float[Tensor, "B N channels"]
    live: Bool[Tensor, "B N"]
    anchor: Float[Tensor, "B N channels"]  # its destination: the mean of its descendants
    splits: Float[Tensor, "B N"]  # left for it and its descendants
    dies: Bool[Tensor, "B N"]


def particles(pair: Pair, t: Float[Tensor, "B"], *, generator: torch.Generator | None = None) -> Particles:
    """The forest of a Branching at time t. A particle moves at (anchor - x_t) / (1 - t); event times are drawn here."""
    if pair.mask is None or "family" not in pair.cond:
        raise ValueError("particles: the pair is no forest; couple it by Branching")
    family, leaf, x_0, x_1 = pair.cond["family"], pair.mask, pair.x_0[..., :-1], pair.x_1[..., :-1]
    t, count = t[:, None, None], leaf.shape[1]
    dies = leaf & ~(pair.x_1[..., -1] > 0)
    u = torch.rand(leaf.shape, generator=generator, dtype=t.dtype, device=t.device)
    first = torch.cat([leaf[:, :1], family.diff(dim=1) != 0], 1) | ~leaf
    opens = u.masked_fill(first, 0)  # when a leaf parts from the one before it
    # when two leaves part: the first of the gaps between them to open
    later = torch.ones(count, count, dtype=torch.bool, device=t.device).triu(1)
    parts = torch.where(later, opens[:, None, :], torch.inf).cummin(2).values
    parts = torch.minimum(parts, parts.mT)
    # leaf j is drawn to leaf i, while together, at 1 / (1 - s)^2 over the size of their run; integrated from gap to gap
    ends, index = parts.sort(-1)
    ratio = torch.where(ends < t, (1 - t) / (1 - ends), 1.0)
    sizes = torch.arange(count, 0, -1, dtype=t.dtype, device=t.device)
    drawn = (ratio.diff(dim=-1, prepend=(1 - t).expand(-1, count, 1)) / sizes).cumsum(-1)
    weights = torch.zeros_like(drawn).scatter(-1, index, drawn).to(x_1.dtype)
    x_t = (1 - t).to(x_0.dtype) * x_0 + weights @ x_1
    run = parts > t
    size = run.sum(-1)
    anchor = run.to(x_1.dtype) @ x_1 / size[..., None]
    live = leaf & (opens <= t[..., 0]) & ~(dies & (u <= t[..., 0]))
    return Particles(x_t, live, anchor, (size - 1).to(t.dtype), dies)


def kin(live: Bool[Tensor, "B N"], family: Int[Tensor, "B N"]) -> Float[Tensor, "B N 2"]:
    """A particle's place among the living of its family, in (-1/2, 1/2), and the binary logarithm of their number."""
    alike = live[:, None, :] & (family[:, :, None] == family[:, None, :])
    count = alike.sum(-1).clamp_min(1)
    return torch.stack([(alike.tril().sum(-1) - 0.5) / count - 0.5, count.log2()], -1)


class EventField(nn.Module):
    """Velocity, log expected splits to come and logit of dying, for particles (B, N, channels): 2 channels more.

    Particles are container states without existence. cond holds "mask", the live particles, "kin", and "back", (B,), if the
    field was trained in both directions. Equivariant to the order of slots.
    """

    def __init__(self, container: Container, channels: int, shape: FieldShape) -> None:
        super().__init__()
        self.container = container
        self.dit = shape.dit(channels + 2, classes=2)
        self.mean = Mean(channels - 2) if shape.mean else None

    def forward(
        self, x_t: Float[Tensor, "B N channels"], t: Float[Tensor, "B"], cond: Condition
    ) -> Float[Tensor, "B N more"]:
        aux_scale = self.container.aux_scale
        told = {"mask": cond["mask"], "positions": self.container.capacity / aux_scale * x_t[..., -1]}
        told["label"] = cond["reverse"].long() if "reverse" in cond else torch.zeros_like(t, dtype=torch.long)
        found = self.dit(torch.cat([x_t, aux_scale * cond["kin"].to(x_t.dtype)], -1), t, told)
        # to be alive, and whole, at t is evidence: by a Poisson law and by Bayes' rule it divides expectation and odds by this
        evidence = pad_like((1 - t).clamp_min(1 / 64).log(), found).expand_as(found[..., -2:])
        moved = torch.zeros_like(x_t[:, :1, :-2])
        if self.mean is not None:
            start = torch.where(told["label"] == 1, 1 - t, t)  # each end has its matrix, wherever the walk begins
            moved = self.mean(x_t[..., :-2], cond["mask"].to(x_t.dtype), start)
        return found + torch.cat([moved.expand_as(x_t[..., :-2]), torch.zeros_like(x_t[..., -2:]), evidence], -1)


def from_the_start(u: Tensor) -> Tensor:
    """Uniform times, an eighth of them 0: there a walk plans its length, and a law without atoms would not teach it."""
    return (8 * u - 1).clamp_min(0) / 7


class EventMatching(Objective):
    """Squared error of the velocity, Poisson likelihood of the splits to come, cross-entropy of dying, as in 2511.09465.

    The velocity (anchor - x_t) / (1 - t) has no second moment, since splits may come late; weighted by 1 - t it has.
    """

    def __init__(self, *, coupling: Coupling = identity, times: Times | None = None, weight: float = 1.0) -> None:
        super().__init__()
        self.coupling, self.times, self.weight = coupling, times or Times(from_the_start, stratified=True), weight

    def forward(self, model: Any, batch: Pair) -> Loss:
        pair = self.coupling(batch)
        return self.at(model, pair, self.times(pair.x_0))

    def at(self, model: Any, pair: Pair, t: Float[Tensor, "B"], *, generator: torch.Generator | None = None) -> Loss:
        """The loss of a coupled pair at these times."""
        x_t, live, anchor, splits, dies = particles(pair, t, generator=generator)
        found = model(x_t, t, {**pair.cond, "mask": live, "kin": kin(live, pair.cond["family"])}).float()
        left = pad_like(1 - t, x_t)
        error = (x_t + left * found[..., :-2] - anchor).square() / left.clamp_min(1 / 64)
        velocity = masked_mean(error, live)
        births = masked_mean(nn.functional.poisson_nll_loss(found[..., -2], splits, reduction="none"), live)
        odds = nn.functional.binary_cross_entropy_with_logits(found[..., -1], dies.to(found.dtype), reduction="none")
        deaths = masked_mean(odds, live)
        value = velocity + self.weight * (births + deaths)
        terms = {"loss": value, "velocity": velocity, "splits": births, "deaths": deaths}
        return Loss(value, {name: term.detach() for name, term in terms.items()})


class Simulation(NamedTuple):
    """The end of a simulation, as container states, and the number of splits that found no free slot."""

    x: Float[Tensor, "B N more"]
    refused: Int[Tensor, "B"]


def simulate(
    model: EventField,
    x: Float[Tensor, "B N more"],
    *,
    steps: int = 8,
    reverse: bool = False,
    generator: torch.Generator | None = None,
) -> Simulation:
    """Carry packed sequences to the other side by Euler steps, steps + 1 evaluations of the field.

    With a generator, events are drawn; without, their number is the expectation at t = 0, rounded (see `_planned`), they come
    evenly in time, and the particles with the highest expectations get them. A split beyond N particles is rejected.
    """
    if steps < 1:
        raise ValueError(f"simulate: at least one step, got {steps}")
    capacity, dtype = x.shape[1], x.dtype
    live, x = model.container.active(x), x[..., :-1]
    family = torch.arange(capacity, device=x.device).expand(live.shape)
    refused = torch.zeros(len(x), dtype=torch.long, device=x.device)
    label = torch.full((len(x),), reverse, device=x.device)
    plan = None

    def predict(t: float) -> Tensor:
        cond = {"mask": live, "kin": kin(live, family), "reverse": label}
        return model(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device), cond)

    for step in range(steps):
        found = predict(step / steps)
        births, deaths = found[..., -2].exp().clamp_max(capacity) * live, found[..., -1].sigmoid() * live
        if generator is not None:
            share = 1 / (steps - step)  # this step's, of the time that is left
            deaths = _drawn(share * deaths, generator)
            births = _drawn(share * births, generator)
        else:
            plan = _planned(births, deaths) if plan is None else plan
            due = [(n * (step + 1) / steps + 0.5).floor() - (n * step / steps + 0.5).floor() for n in plan]
            deaths = _awarded(due[1], deaths, live)
            births = _awarded(due[0], births, live & (deaths == 0))
        stays = live & (deaths == 0)
        total = (births * stays).cumsum(1)
        allowed = torch.minimum(total, capacity - stays.sum(1, keepdim=True))
        refused += total[:, -1] - allowed[:, -1]
        source, live = _laid_out(stays + allowed.diff(dim=1, prepend=torch.zeros_like(total[:, :1])))
        x, v, family = _rows(x, source), _rows(found[..., :-2], source), family.gather(1, source)
        if step == steps - 1:
            v = predict(step / steps)[..., :-2]  # those born last have yet to part
        x = x + v / steps
    existence = live[..., None].to(dtype) * model.container.aux_scale
    x = torch.cat([x * live[..., None], existence], -1)
    return Simulation(nn.functional.pad(x, (0, 0, 0, capacity - x.shape[1])), refused)


def _planned(births: Float[Tensor, "B N"], deaths: Float[Tensor, "B N"]) -> tuple[Tensor, Tensor]:
    """(splits, deaths) of each row: their numbers expected at t = 0, so rounded that the change of length is the nearest.

    Later expectations count it as evidence against an event that it has not happened yet, though here that was not chance.
    """
    born, change = births.sum(1), births.sum(1) - deaths.sum(1)
    born = (born + 0.5).floor()
    return born, (born - (change + 0.5).floor()).clamp_min(0)


def _drawn(rate: Float[Tensor, "B N"], generator: torch.Generator) -> Int[Tensor, "B N"]:
    """Integer counts with these means and the least variance."""
    u = torch.rand(rate.shape, generator=generator, dtype=rate.dtype, device=rate.device)
    return (rate + u).floor().long()


def _awarded(due: Float[Tensor, "B"], rate: Float[Tensor, "B N"], live: Bool[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """The due number of events of each row, awarded to the highest expectations; each award lowers one by 1."""
    again = torch.arange(int(rate.max()) + 2, device=rate.device)
    claims = (rate[..., None] - again).masked_fill(~live[..., None], -torch.inf).flatten(1)
    rank = claims.argsort(dim=1, descending=True, stable=True).argsort(1)
    won = (rank < due[:, None]) & (claims > -torch.inf)
    return won.unflatten(1, (rate.shape[1], -1)).sum(-1)


def _laid_out(counts: Int[Tensor, "B N"]) -> tuple[Int[Tensor, "B M"], Bool[Tensor, "B M"]]:
    """(source of each slot, True where there is one) when slot i is repeated counts[i] times, side by side."""
    ends = counts.cumsum(1)
    slots = torch.arange(max(1, int(ends[:, -1].max())), device=counts.device).expand(len(counts), -1).contiguous()
    return torch.searchsorted(ends, slots, right=True).clamp_max(counts.shape[1] - 1), slots < ends[:, -1:]


def _rows(x: Float[Tensor, "B N D"], index: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
