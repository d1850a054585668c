"""monge learns a flow that carries one set of vectors onto another, and uses it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monge.math.container import Container
    from monge.math.cost import FourBlock, Units
    from monge.math.coupling import MinibatchOT, SemidiscreteOT, TokenOT, given
    from monge.math.density import log_likelihood
    from monge.math.dopri5 import dopri5
    from monge.math.ot import Plan, assignment, semidiscrete, sinkhorn
    from monge.math.path import Affine
    from monge.math.solve import grid, integrate, solve, trajectory
    from monge.math.times import Times
    from monge.math.types import Pair
    from monge.nets.dit import DiT, Patches
    from monge.nets.mlp import MLP
    from monge.objective.alignment import Alignment
    from monge.objective.base import Weighted
    from monge.objective.contrastive import InfoNCE, Margin
    from monge.objective.flow_matching import FlowMatching
    from monge.objective.flow_walking import FlowWalking
    from monge.run import fit
    from monge.train.loop import Run

__version__ = "0.1.0"

# imported when first asked for: `import monge` and the command line stay light
_HOMES = {
    "monge.math.container": ("Container",),
    "monge.math.cost": ("FourBlock", "Units"),
    "monge.math.coupling": ("MinibatchOT", "SemidiscreteOT", "TokenOT", "given"),
    "monge.math.density": ("log_likelihood",),
    "monge.math.dopri5": ("dopri5",),
    "monge.math.ot": ("Plan", "assignment", "semidiscrete", "sinkhorn"),
    "monge.math.path": ("Affine",),
    "monge.math.solve": ("grid", "integrate", "solve", "trajectory"),
    "monge.math.times": ("Times",),
    "monge.math.types": ("Pair",),
    "monge.nets.dit": ("DiT", "Patches"),
    "monge.nets.mlp": ("MLP",),
    "monge.objective.alignment": ("Alignment",),
    "monge.objective.base": ("Weighted",),
    "monge.objective.contrastive": ("InfoNCE", "Margin"),
    "monge.objective.flow_matching": ("FlowMatching",),
    "monge.objective.flow_walking": ("FlowWalking",),
    "monge.run": ("fit",),
    "monge.train.loop": ("Run",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of the seven nouns
    "Pair", "Units", "Container", "FourBlock",
    "Affine", "Times",
    "given", "MinibatchOT", "SemidiscreteOT", "TokenOT", "assignment", "sinkhorn", "semidiscrete", "Plan",
    "integrate", "trajectory", "solve", "grid", "dopri5", "log_likelihood",
    "MLP", "DiT", "Patches",
    "FlowMatching", "FlowWalking", "Weighted", "Alignment", "InfoNCE", "Margin",
    "Run", "fit",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'monge' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
