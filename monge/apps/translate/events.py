"""Branching flows: n tokens become m by splits and deaths at random times. Billera et al. 2511.09465.

With uniform times and uniformly random merges of neighbours, the paper's forest is equivalent to the following process. Each
gap between neighbouring descendants of one source token opens at an independent time, uniform on (0, 1), and a particle is a
run of descendants whose gaps are closed. A particle of w descendants then splits at rate (w - 1) / (1 - t), and a token that
will die does so at rate 1 / (1 - t).

Here source tokens have contents, so the cheapest assignment chooses the roots of the forest, and tokens without a target die.
Siblings have equal contents right after a split, so the field distinguishes them by their rank within the family.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from monge.apps.translate.field import FieldShape, Mean
from monge.math.container import Container
from monge.math.coupling import Coupling, identity, in_full_precision
from monge.math.times import Times
from monge.math.types import Condition, Pair, pad_like
from monge.objective.base import Loss, Objective
from monge.objective.flow_matching import masked_mean


@dataclass(frozen=True)
class Branching:
    """Coupling of container states: matches slots by `tokens` and arranges them as the leaves of a forest.

    A leaf is a target token, with its ancestor in x_0, or a source token that dies, which stays in place in x_1 with existence
    0. A target token without a match shares the ancestor of the nearest matched one (the later one if two are equally near); if
    nothing is matched, it descends from the source token nearest by position. Families are contiguous, in the order of their
    ancestors, and numbered by cond["family"]; leaves of a family are in the target's order. Rows with cond["reverse"] go from
    x_1 to x_0. The mask marks the leaves, and the slots are cut to the longest row. ValueError for an empty source of a
    non-empty target.
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
            raise ValueError("branching: an empty source has no token to split; leave out pairs with an empty side")
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


def _ancestors(position_0: Tensor, position_1: Tensor, is_0: Tensor, is_1: Tensor) -> Int[Tensor, "B N"]:
    """The slot of the source token that each target token descends from."""
    matched = is_0 & is_1
    rank = torch.where(is_1, position_1, torch.inf).argsort(1).argsort(1)
    ahead = rank[:, None, :] - rank[:, :, None]
    # ties go to the later one: positions are i / n, so the last of two copies has its
    # ancestor's position and is the matched one; the unmatched copy comes before it
    rank_distance = torch.where(ahead > 0, ahead - 0.5, -ahead)
    position_distance = (position_1[:, :, None] - position_0[:, None, :]).abs()
    any_matched = matched.any(1)[:, None, None]
    distance = torch.where(any_matched, rank_distance, position_distance)
    allowed = torch.where(any_matched, matched[:, None], is_0[:, None])
    return distance.masked_fill(~allowed, torch.inf).argmin(-1)


class Particles(NamedTuple):
    """Particles alive at time t. Each leaf has a slot; a particle occupies that of its first leaf; other slots are not live."""

    x_t: Float[Tensor, "B N channels"]
    live: Bool[Tensor, "B N"]
    anchor: Float[Tensor, "B N channels"]  # destination: the mean of the descendants
    splits: Float[Tensor, "B N"]  # remaining splits of the particle and its descendants
    dies: Bool[Tensor, "B N"]  # True for source tokens that will die


@in_full_precision
def particles(pair: Pair, t: Float[Tensor, "B"], *, generator: torch.Generator | None = None) -> Particles:
    """The particles of a forest at time t, with random event times. A particle has the velocity (anchor - x_t) / (1 - t).

    ValueError if the pair was not coupled by `Branching`.
    """
    if pair.mask is None or "family" not in pair.cond:
        raise ValueError("particles: the pair is not a forest; couple it with Branching")
    family, leaf, x_0, x_1 = pair.cond["family"], pair.mask, pair.x_0[..., :-1], pair.x_1[..., :-1]
    t, count = t[:, None, None], leaf.shape[1]
    dies = leaf & ~(pair.x_1[..., -1] > 0)
    u = torch.rand(leaf.shape, generator=generator, dtype=t.dtype, device=t.device)
    first = torch.cat([leaf[:, :1], family.diff(dim=1) != 0], 1) | ~leaf
    opens = u.masked_fill(first, 0)  # time at which a leaf separates from the one before it
    # time at which two leaves separate: the first of the gaps between them to open
    later = torch.ones(count, count, dtype=torch.bool, device=t.device).triu(1)
    separates = torch.where(later, opens[:, None, :], torch.inf).cummin(2).values
    separates = torch.minimum(separates, separates.mT)
    # x_t of leaf i weights leaf j by (1 - t) times the integral of 1 / (size (1 - s)^2) over the times s at which they share a
    # run; the size of the run is constant between openings
    ends, index = separates.sort(-1)
    ratio = torch.where(ends < t, (1 - t) / (1 - ends), 1.0)
    sizes = torch.arange(count, 0, -1, dtype=t.dtype, device=t.device)
    pull = (ratio.diff(dim=-1, prepend=(1 - t).expand(-1, count, 1)) / sizes).cumsum(-1)
    weights = torch.zeros_like(pull).scatter(-1, index, pull).to(x_1.dtype)
    x_t = (1 - t).to(x_0.dtype) * x_0 + weights @ x_1
    run = separates > t
    size = run.sum(-1)
    anchor = run.to(x_1.dtype) @ x_1 / size[..., None]
    live = leaf & (opens <= t[..., 0]) & ~(dies & (u <= t[..., 0]))
    return Particles(x_t, live, anchor, (size - 1).to(t.dtype), dies)


def kin(live: Bool[Tensor, "B N"], family: Int[Tensor, "B N"]) -> Float[Tensor, "B N 2"]:
    """The rank of each particle among the live members of its family, scaled to (-1/2, 1/2), and log2 of their number."""
    siblings = live[:, None, :] & (family[:, :, None] == family[:, None, :])
    count = siblings.sum(-1).clamp_min(1)
    return torch.stack([(siblings.tril().sum(-1) - 0.5) / count - 0.5, count.log2()], -1)


class EventField(nn.Module):
    """Velocity, log of the expected remaining splits, and logit of death of each particle: `channels` + 2 outputs per slot.

    Particles are container states without existence. cond holds "mask" (the live particles), "kin" (see `kin`) and, if the
    field was trained in both directions, "reverse", (B,). Equivariant to permutations of slots.
    """

    def __init__(self, container: Container, channels: int, shape: FieldShape) -> None:
        super().__init__()
        self.container = container
        self.dit = shape.dit(channels + 2, classes=2)
        self.mean = Mean(channels - 2) if shape.mean_skip else None

    def forward(
        self, x_t: Float[Tensor, "B N channels"], t: Float[Tensor, "B"], cond: Condition
    ) -> Float[Tensor, "B N more"]:
        aux_scale = self.container.aux_scale
        inputs = {"mask": cond["mask"], "positions": self.container.capacity / aux_scale * x_t[..., -1]}
        inputs["label"] = cond["reverse"].long() if "reverse" in cond else torch.zeros_like(t, dtype=torch.long)
        out = self.dit(torch.cat([x_t, aux_scale * cond["kin"].to(x_t.dtype)], -1), t, inputs)
        # that a particle is alive and unsplit at t is evidence against events: by a Poisson law and Bayes' rule, it scales the
        # expected splits and the odds of death by 1 - t
        evidence = pad_like((1 - t).clamp_min(1 / 64).log(), out).expand_as(out[..., -2:])
        shift = torch.zeros_like(x_t[:, :1, :-2])
        if self.mean is not None:
            # each side has one matrix for both directions
            forward_t = torch.where(inputs["label"] == 1, 1 - t, t)
            shift = self.mean(x_t[..., :-2], cond["mask"].to(x_t.dtype), forward_t)
        return out + torch.cat([shift.expand_as(x_t[..., :-2]), torch.zeros_like(x_t[..., -2:]), evidence], -1)


def favour_zero(u: Tensor) -> Tensor:
    """Uniform times, but an eighth of them 0: `simulate` plans lengths at t = 0, which uniform times alone never contain."""
    return (8 * u - 1).clamp_min(0) / 7


class EventMatching(Objective):
    """Squared error of the velocity, Poisson likelihood of the remaining splits, cross-entropy of death, as in 2511.09465.

    The velocity (anchor - x_t) / (1 - t) has an infinite second moment, since splits may come late, so its squared error is
    weighted by 1 - t. `weight` multiplies the other two terms.
    """

    def __init__(self, *, coupling: Coupling = identity, times: Times | None = None, weight: float = 1.0) -> None:
        super().__init__()
        self.coupling, self.times, self.weight = coupling, times or Times(favour_zero, stratified=True), weight

    def forward(self, model: Any, batch: Pair) -> Loss:
        pair = self.coupling(batch)
        return self.loss_at(model, pair, self.times(pair.x_0))

    def loss_at(
        self, model: Any, pair: Pair, t: Float[Tensor, "B"], *, generator: torch.Generator | None = None
    ) -> Loss:
        """The loss of a coupled pair at these times."""
        x_t, live, anchor, splits, dies = particles(pair, t, generator=generator)
        out = model(x_t, t, {**pair.cond, "mask": live, "kin": kin(live, pair.cond["family"])}).float()
        remaining = pad_like(1 - t, x_t)
        error = (x_t + remaining * out[..., :-2] - anchor).square() / remaining.clamp_min(1 / 64)
        velocity = masked_mean(error, live)
        births = masked_mean(nn.functional.poisson_nll_loss(out[..., -2], splits, reduction="none"), live)
        odds = nn.functional.binary_cross_entropy_with_logits(out[..., -1], dies.to(out.dtype), reduction="none")
        deaths = masked_mean(odds, live)
        value = velocity + self.weight * (births + deaths)
        terms = {"loss": value, "velocity": velocity, "splits": births, "deaths": deaths}
        return Loss(value, {name: term.detach() for name, term in terms.items()})


class Simulation(NamedTuple):
    """Final container states of a simulation, and each row's number of splits that were rejected because no slot was free."""

    x: Float[Tensor, "B N more"]
    rejected: Int[Tensor, "B"]


def simulate(
    model: EventField,
    x: Float[Tensor, "B N more"],
    *,
    steps: int = 8,
    reverse: bool = False,
    generator: torch.Generator | None = None,
) -> Simulation:
    """Integrate packed sequences to the other side by Euler steps, with steps + 1 evaluations of the field.

    With a generator, events are drawn at random. Without one, their number is the rounded expectation at t = 0 (see `_plan`),
    they are evenly spaced in time, and the particles with the highest expectations receive them. Splits beyond N particles are
    rejected. ValueError if `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"simulate: steps must be at least 1, got {steps}")
    capacity, dtype = x.shape[1], x.dtype
    live, x = model.container.active(x), x[..., :-1]
    family = torch.arange(capacity, device=x.device).expand(live.shape)
    rejected = torch.zeros(len(x), dtype=torch.long, device=x.device)
    label = torch.full((len(x),), reverse, device=x.device)
    plan = None

    def predict(t: float) -> Tensor:
        cond = {"mask": live, "kin": kin(live, family), "reverse": label}
        return model(x, torch.full((len(x),), t, dtype=x.dtype, device=x.device), cond)

    for step in range(steps):
        out = predict(step / steps)
        births, deaths = out[..., -2].exp().clamp_max(capacity) * live, out[..., -1].sigmoid() * live
        if generator is not None:
            share = 1 / (steps - step)  # this step's share of the remaining time
            deaths = _sample_counts(share * deaths, generator)
            births = _sample_counts(share * births, generator)
        else:
            plan = _plan(births, deaths) if plan is None else plan
            due = [(n * (step + 1) / steps + 0.5).floor() - (n * step / steps + 0.5).floor() for n in plan]
            deaths = _assign_events(due[1], deaths, live)
            births = _assign_events(due[0], births, live & (deaths == 0))
        stays = live & (deaths == 0)
        total = (births * stays).cumsum(1)
        allowed = torch.minimum(total, capacity - stays.sum(1, keepdim=True))
        rejected += total[:, -1] - allowed[:, -1]
        source, live = _repeat_slots(stays + allowed.diff(dim=1, prepend=torch.zeros_like(total[:, :1])))
        x, v, family = _rows(x, source), _rows(out[..., :-2], source), family.gather(1, source)
        if step == steps - 1:
            v = predict(step / steps)[..., :-2]  # at the new siblings, which still coincide
        x = x + v / steps
    existence = live[..., None].to(dtype) * model.container.aux_scale
    x = torch.cat([x * live[..., None], existence], -1)
    return Simulation(nn.functional.pad(x, (0, 0, 0, capacity - x.shape[1])), rejected)


def _plan(births: Float[Tensor, "B N"], deaths: Float[Tensor, "B N"]) -> tuple[Tensor, Tensor]:
    """(splits, deaths) of each row: expectations at t = 0, rounded so that their difference is the rounded change of length.

    Later expectations are biased: they take an event's absence so far as evidence against it, but here events are scheduled.
    """
    born, change = births.sum(1), births.sum(1) - deaths.sum(1)
    born = (born + 0.5).floor()
    return born, (born - (change + 0.5).floor()).clamp_min(0)


def _sample_counts(rate: Float[Tensor, "B N"], generator: torch.Generator) -> Int[Tensor, "B N"]:
    """Random integer counts with these means and the smallest possible variance."""
    u = torch.rand(rate.shape, generator=generator, dtype=rate.dtype, device=rate.device)
    return (rate + u).floor().long()


def _assign_events(
    due: Float[Tensor, "B"], rate: Float[Tensor, "B N"], live: Bool[Tensor, "B N"]
) -> Int[Tensor, "B N"]:
    """The number of events per slot: each of a row's `due` events goes to the highest expectation, which it lowers by 1."""
    repeats = torch.arange(int(rate.max()) + 2, device=rate.device)
    claims = (rate[..., None] - repeats).masked_fill(~live[..., None], -torch.inf).flatten(1)
    rank = claims.argsort(dim=1, descending=True, stable=True).argsort(1)
    assigned = (rank < due[:, None]) & (claims > -torch.inf)
    return assigned.unflatten(1, (rate.shape[1], -1)).sum(-1)


def _repeat_slots(counts: Int[Tensor, "B N"]) -> tuple[Int[Tensor, "B M"], Bool[Tensor, "B M"]]:
    """(source of each slot, mask of filled slots) after slot i is repeated counts[i] times, in order."""
    ends = counts.cumsum(1)
    slots = torch.arange(max(1, int(ends[:, -1].max())), device=counts.device).expand(len(counts), -1).contiguous()
    return torch.searchsorted(ends, slots, right=True).clamp_max(counts.shape[1] - 1), slots < ends[:, -1:]


def _rows(x: Float[Tensor, "B N D"], index: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))
