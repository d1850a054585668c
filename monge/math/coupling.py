"""Couplings: each takes a Pair and returns a Pair whose rows are matched, so labels and masks follow their targets."""

# torch's own annotations are partial
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.math.cost import Cost, inner_product, squared_euclidean
from monge.math.ot import Plan, assignment, magnitude, optimal_permutation, sinkhorn
from monge.math.semidiscrete import semidiscrete_assign
from monge.math.types import Pair, floating

P = ParamSpec("P")
R = TypeVar("R")


@runtime_checkable
class Coupling(Protocol):
    """(pair) -> Pair. Random couplings draw from `generator`; None means torch's global generator.

    >>> isinstance(MinibatchOT(), Coupling)
    True
    """

    def __call__(self, pair: Pair, /, *, generator: torch.Generator | None = None) -> Pair: ...


def identity(pair: Pair, *, generator: torch.Generator | None = None) -> Pair:
    """The pair unchanged, for independent draws or for pairs that belong together and must not be re-coupled.

    >>> pair = Pair(torch.zeros(2, 3), torch.ones(2, 3))
    >>> identity(pair) is pair
    True
    """
    return pair


def in_full_precision(method: Callable[P, R]) -> Callable[P, R]:
    """The function with autocast disabled: products in bfloat16 would round positions and costs.

    >>> x, square = torch.eye(2), in_full_precision(lambda x: x @ x)
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     (x @ x).dtype, square(x).dtype
    (torch.bfloat16, torch.float32)
    """

    @wraps(method)
    def without_autocast(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return method(*args, **kwargs)

    return without_autocast


@dataclass(frozen=True)
class MinibatchOT:
    """Re-pairs a batch by optimal transport across it. Tong et al. 2302.00482, sec. 3.2; Pooladian et al. 2304.14772.

    epsilon 0 gives the exact permutation, which uses every row once; epsilon > 0, in units of the mean cost, samples each
    source's target from the entropic plan. `condition` names an entry of cond (2503.10636). For classes, a mismatch adds
    `weight` times the mean cost; vectors add `weight` times the mean cost times their squared distance, in units of its mean.
    With the default weight, infinity, noise is only re-paired within its class and stays independent of the class.

    Rows of a pair with a mask are coupled only if their masks are equal, and only existing tokens count in the cost, so
    noise never moves to a sequence of another length. `potentials` of the semidiscrete plan warm-start the exact search;
    cond["index"] must then hold the row of each target in the data set.

    >>> pair = Pair(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.5], [-0.5]]))
    >>> MinibatchOT()(pair).x_1.flatten()
    tensor([-0.5000,  1.5000])
    """

    epsilon: float = 0.0
    # default: squared Euclidean; without epsilon or a finite weight, optimal_permutation solves it
    cost: Cost | None = None
    condition: str | None = None
    weight: float = math.inf
    potentials: Float[Tensor, "N"] | None = None
    tolerance: float = 1e-3  # maximum marginal error of the entropic plan; ArithmeticError if exceeded
    max_iterations: int = 10_000

    def __call__(self, pair: Pair, *, generator: torch.Generator | None = None) -> Pair:
        i = torch.arange(len(pair), device=pair.x_1.device)
        keys = self._keys(pair)
        if not keys or not len(pair):
            return pair.take(i, self._match(pair, generator))
        j = i.clone()
        group = torch.cat(keys, 1).unique(dim=0, return_inverse=True)[1]
        for number in range(int(group.max()) + 1):
            rows = (group == number).nonzero().squeeze(-1)
            j[rows] = rows[self._match(pair.take(rows, rows), generator)]
        return pair.take(i, j)

    def _keys(self, pair: Pair) -> list[Tensor]:
        """Grouping keys, each (B, k): rows are coupled only if they agree in all of them."""
        keys: list[Tensor] = []
        if self.condition is not None and not self.weight < math.inf:
            label = _entry(pair, self.condition).reshape(len(pair), -1)
            if label.is_floating_point() and bool((label != label.round()).any()):
                raise ValueError(f"coupling: cond[{self.condition!r}] holds vectors, not classes; give a finite weight")
            keys.append(label.long())
        if pair.mask is not None and bool((pair.mask != pair.mask[:1]).any()):
            keys.append(pair.mask.long())
        return keys

    @in_full_precision
    def _match(self, pair: Pair, generator: torch.Generator | None) -> Tensor:
        """The index of the target assigned to each source. All rows must have the same mask."""
        x_0, x_1 = _existing(pair.x_0, pair.mask), _existing(pair.x_1, pair.mask)
        label = None if self.condition is None or not self.weight < math.inf else _entry(pair, self.condition)
        if not x_0.numel():
            return torch.arange(len(pair), device=x_1.device)
        if self.cost is None and not self.epsilon and label is None:
            return optimal_permutation(x_0, x_1, prices=self._prices(pair))
        cost = self._cost(x_0, x_1)
        if not bool(cost.any()) or (len(pair) == 1 and float(cost) < 0):  # every coupling is optimal
            return torch.arange(len(pair), device=x_1.device)
        if label is not None:
            cost = cost + self.weight * _mean(cost, "weight") * _distance(label)
        if self.epsilon:
            unit = _mean(cost, "epsilon")
            plan = converged_plan(cost, self.epsilon * unit, self.tolerance, self.max_iterations)
            return plan.sample(generator=generator)
        return assignment(cost, prices=self._prices(pair))

    def _cost(self, x_0: Tensor, x_1: Tensor) -> Tensor:
        """The cost matrix. Points whose squares over- or underflow float32 are rescaled, which does not change the plan."""
        x_0, x_1 = floating(x_0, x_1)
        unit = max(magnitude("coupling: x_0", x_0), magnitude("coupling: x_1", x_1))
        fits = 1e-15 < unit < 1e15
        if self.cost is None or self.cost in (squared_euclidean, inner_product):
            x_0, x_1 = (x_0, x_1) if fits else (x_0.double() / unit, x_1.double() / unit)
            return (self.cost or squared_euclidean)(x_0, x_1)
        cost = self.cost(x_0, x_1)
        if not fits and (not bool(torch.isfinite(cost).all()) or not bool(cost.any())):
            raise ValueError(
                f"coupling: the cost of points of size {unit:.0e} overflows or vanishes; rescale the points"
            )
        return cost

    def _prices(self, pair: Pair) -> Tensor | None:
        """The duals of -x_0 . x_1 that correspond to the potentials."""
        if self.potentials is None:
            return None
        return self.potentials[_entry(pair, "index")] - pair.x_1.flatten(1).square().sum(-1) / 2


@dataclass(frozen=True)
class SemidiscreteOT:
    """Pairs each source with a point of the full data set, using one dual potential per point. 2509.25519, alg. 1.

    The targets and conditions of the incoming pair are replaced by those of the assigned points. With `condition`, each
    source is assigned to a point whose entry of that name equals its own. `potentials` come from semidiscrete.semidiscrete.

    >>> data = Pair(torch.zeros(2, 1), torch.tensor([[-1.0], [1.0]]))
    >>> pair = Pair(torch.tensor([[0.5], [-2.0]]), torch.zeros(2, 1))
    >>> SemidiscreteOT(data, potentials=torch.zeros(2))(pair).x_1.flatten()
    tensor([ 1., -1.])
    """

    data: Pair  # x_1, mask and cond of the full data set; x_0 is not used
    potentials: Float[Tensor, "N"]
    condition: str | None = None

    @in_full_precision
    def __call__(self, pair: Pair, *, generator: torch.Generator | None = None) -> Pair:
        group = None if self.condition is None else _entry(pair, self.condition)
        groups = None if self.condition is None else _entry(self.data, self.condition)
        x_0, x_1 = pair.x_0.flatten(1), self.data.x_1.flatten(1)
        j = semidiscrete_assign(x_0, x_1, self.potentials, groups=groups, group=group)
        chosen = self.data.take(j, j)
        return replace(chosen, x_0=pair.x_0)


@dataclass(frozen=True)
class TokenOT:
    """Re-pairs the tokens within each sample: B problems of size N x N.

    `cost` takes the Pair and returns (B, N, N). epsilon 0 permutes the target tokens and their mask; epsilon > 0, in units
    of cost, gives each source token the barycentre of its row of the plan, which blurs existence; a mask that hides tokens
    is then a ValueError. Entries of cond describe the sequence, not its tokens, and are left unchanged.

    >>> pair = Pair(torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[1.5], [-0.5]]]))
    >>> TokenOT(lambda pair: squared_euclidean(pair.x_0, pair.x_1)).permutation(pair)
    tensor([[1, 0]])
    """

    cost: Callable[[Pair], Tensor]
    epsilon: float = 0.0
    tolerance: float = 1e-3  # as in MinibatchOT
    max_iterations: int = 10_000

    @in_full_precision
    def __call__(self, pair: Pair, *, generator: torch.Generator | None = None) -> Pair:
        if not self.epsilon:
            return self.apply(pair, self.permutation(pair))
        if pair.mask is not None and not bool(pair.mask.all()):
            raise ValueError(
                "TokenOT: barycentres would include padding; set epsilon to 0, or pack the sequences in a Container"
            )
        plan = converged_plan(self.cost(pair), self.epsilon, self.tolerance, self.max_iterations)
        return replace(pair, x_1=plan.barycentre(pair.x_1))

    @in_full_precision
    def permutation(self, pair: Pair) -> Int[Tensor, "B N"]:
        """The target slot matched with each source slot. ValueError for epsilon > 0, whose plan is not a permutation."""
        if self.epsilon:
            raise ValueError(
                f"TokenOT: epsilon is {self.epsilon}; only the exact coupling is a permutation; set epsilon to 0"
            )
        return assignment(self.cost(pair))

    @staticmethod
    def apply(pair: Pair, permutation: Int[Tensor, "B N"]) -> Pair:
        """The pair with its target tokens and their mask in the order of `permutation`."""
        mask = None if pair.mask is None else pair.mask.gather(1, permutation)
        index = permutation.reshape(*permutation.shape, *[1] * (pair.x_1.ndim - 2)).expand_as(pair.x_1)
        return replace(pair, x_1=pair.x_1.gather(1, index), mask=mask)


def converged_plan(
    cost: Float[Tensor, "*b n m"], epsilon: float, tolerance: float, max_iterations: int = 10_000
) -> Plan:
    """The entropic plan, epsilon in units of cost. ArithmeticError if its marginal error stays above `tolerance`.

    >>> converged_plan(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), epsilon=1.0, tolerance=1e-6).matrix.sum(-1)
    tensor([0.5000, 0.5000])
    """
    plan = sinkhorn(cost, epsilon, tolerance=tolerance, max_iterations=max_iterations)
    error = float(plan.marginal_error.max())
    if not error <= tolerance:
        raise ArithmeticError(
            f"coupling: the plan's marginal error is {error:.2g} after {int(plan.iterations.max())} iterations, "
            f"above {tolerance:g}; raise epsilon, tolerance or max_iterations"
        )
    return plan


def _entry(pair: Pair, name: str) -> Tensor:
    if name not in pair.cond:
        raise ValueError(f"coupling: the batch has no cond[{name!r}], only {sorted(pair.cond)}; add it to the data")
    return pair.cond[name]


def _existing(x: Tensor, mask: Tensor | None) -> Float[Tensor, "B D"]:
    """Rows as points: all entries or, with a mask that all rows share, those of existing tokens."""
    return x.flatten(1) if mask is None or not len(x) else x[:, mask[0]].flatten(1)


def _mean(cost: Tensor, name: str) -> float:
    """The mean cost, which is the unit of `name`."""
    unit = float(cost.mean())
    if unit <= 1e-6 * float(cost.abs().max()):
        raise ValueError(
            f"coupling: {name} is in units of the mean cost, {unit:g} here; use a positive cost, such as squared_euclidean"
        )
    return unit


def _distance(label: Int[Tensor, "B *s"] | Float[Tensor, "B *s"]) -> Float[Tensor, "B B"]:
    """Distance between labels: 0 or 1 for classes; for vectors, the squared distance in units of its mean."""
    rows = label.reshape(len(label), -1)
    if not label.is_floating_point():
        return (rows[:, None] != rows[None, :]).any(-1).float()
    cost = squared_euclidean(rows, rows)
    return cost / cost.mean().clamp_min(torch.finfo(cost.dtype).tiny)
