"""The couplings of a recipe: one for training, and one for held-out data."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from monge.math.coupling import Coupling, MinibatchOT, SemidiscreteOT, identity
from monge.math.random import seeded
from monge.math.semidiscrete import semidiscrete
from monge.math.types import Pair


@dataclass(frozen=True)
class Couplings:
    """The couplings of training batches and of held-out data, and the training coupling's constants, which the run stores."""

    training: Coupling
    held_out: Coupling
    constants: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


def couplings(
    name: str, x: Float[Tensor, "n *s"], labels: Int[Tensor, "n"] | None, *, warm: bool, seed: int
) -> Couplings:
    """The couplings called `name` for normalised training data.

    OT is within each class if there are labels, except for ot-across. `warm` starts exact OT from semidiscrete potentials,
    which exist for the training data only. So for semidiscrete, held-out data are coupled by exact OT in batches.
    """
    label = "label" if labels is not None and name != "ot-across" else None
    if name == "independent":
        return Couplings(identity, identity)
    if name == "entropic":
        entropic = MinibatchOT(epsilon=0.05, condition=label)
        return Couplings(entropic, entropic)
    exact = MinibatchOT(condition=label)
    if name != "semidiscrete" and not warm:
        return Couplings(exact, exact)
    potentials, error = _potentials(x, None if label is None else labels, seed)
    constants = {"potentials": potentials, "potentials_error": torch.tensor(error)}
    if name != "semidiscrete":
        return Couplings(MinibatchOT(condition=label, potentials=potentials), exact, constants)
    cond = {"index": torch.arange(len(x))} | ({} if labels is None else {"label": labels})
    return Couplings(SemidiscreteOT(Pair(x, x, cond=cond), potentials, condition=label), exact, constants)


def _potentials(
    x: Float[Tensor, "n *s"], groups: Int[Tensor, "n"] | None, seed: int
) -> tuple[Float[Tensor, "n"], float]:
    """(potentials, L1 marginal error) of the semidiscrete plan from Gaussian noise to x, within each group."""
    generator = seeded(seed, 2)
    return semidiscrete(
        lambda n: torch.randn(n, x[0].numel(), generator=generator), x.flatten(1), groups=groups, generator=generator
    )
