"""monge learns a flow that carries one set of vectors onto another, and uses it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monge.math.container import Container
    from monge.math.cost import FourBlock, Units
    from monge.math.coupling import MinibatchOT, SemidiscreteOT, TokenOT, given
    from monge.math.density import log_likelihood
    from monge.math.dopri5 import dopri5
    from monge.math.ot import Plan, assignment, match, sinkhorn
    from monge.math.path import Affine, conditional_ot, constant, decreasing, linear, trigonometric
    from monge.math.semidiscrete import semidiscrete
    from monge.math.solve import (
        adams_bashforth_2,
        adams_bashforth_3,
        dpm_solver_2m,
        euler,
        grid,
        heun,
        integrate,
        midpoint,
        rk4,
        solve,
        trajectory,
    )
    from monge.math.times import Times, logit_normal, shifted, uniform
    from monge.math.types import Pair
    from monge.nets.blocks import BlockShape, ParallelBlock, SequentialBlock
    from monge.nets.dit import DiT, DiTShape, Patches
    from monge.nets.mlp import MLP
    from monge.nets.prediction import PredictsSource, PredictsTarget
    from monge.objective.alignment import Alignment
    from monge.objective.base import Weighted
    from monge.objective.contrastive import Contrast, InfoNCE, Margin
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
    "monge.math.ot": ("Plan", "assignment", "match", "sinkhorn"),
    "monge.math.semidiscrete": ("semidiscrete",),
    "monge.math.path": ("Affine", "conditional_ot", "constant", "decreasing", "linear", "trigonometric"),
    "monge.math.solve": (
        "adams_bashforth_2",
        "adams_bashforth_3",
        "dpm_solver_2m",
        "euler",
        "grid",
        "heun",
        "integrate",
        "midpoint",
        "rk4",
        "solve",
        "trajectory",
    ),
    "monge.math.times": ("Times", "logit_normal", "shifted", "uniform"),
    "monge.math.types": ("Pair",),
    "monge.nets.blocks": ("BlockShape", "ParallelBlock", "SequentialBlock"),
    "monge.nets.dit": ("DiT", "DiTShape", "Patches"),
    "monge.nets.mlp": ("MLP",),
    "monge.nets.prediction": ("PredictsSource", "PredictsTarget"),
    "monge.objective.alignment": ("Alignment",),
    "monge.objective.base": ("Weighted",),
    "monge.objective.contrastive": ("Contrast", "InfoNCE", "Margin"),
    "monge.objective.flow_matching": ("FlowMatching",),
    "monge.objective.flow_walking": ("FlowWalking",),
    "monge.run": ("fit",),
    "monge.train.loop": ("Run",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of the seven nouns
    "Pair", "Units", "Container", "FourBlock",
    "Affine", "linear", "trigonometric", "conditional_ot", "constant", "decreasing",
    "Times", "uniform", "logit_normal", "shifted",
    "given", "MinibatchOT", "SemidiscreteOT", "TokenOT", "assignment", "match", "sinkhorn", "semidiscrete", "Plan",
    "integrate", "trajectory", "solve", "grid", "log_likelihood",
    "euler", "midpoint", "heun", "rk4", "adams_bashforth_2", "adams_bashforth_3", "dpm_solver_2m", "dopri5",
    "MLP", "DiT", "DiTShape", "BlockShape", "SequentialBlock", "ParallelBlock", "Patches", "PredictsTarget", "PredictsSource",
    "FlowMatching", "FlowWalking", "Weighted", "Alignment", "Contrast", "InfoNCE", "Margin",
    "Run", "fit",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'monge' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
