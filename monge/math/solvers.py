"""Solvers by name."""

from collections.abc import Callable
from typing import Literal, TypeAlias

from monge.math.dopri5 import dopri5
from monge.math.path import Affine
from monge.math.steps import Step, adams_bashforth_2, adams_bashforth_3, dpm_solver_2m, euler, heun, midpoint, rk4

SolverName: TypeAlias = Literal["euler", "midpoint", "heun", "rk4", "ab2", "ab3", "dpm2m", "dopri5"]

# name -> (the step for a path, evaluations per step; for ab3 after the first one, for dopri5 per attempted one)
SOLVERS: dict[str, tuple[Callable[[Affine], Step], int]] = {
    "euler": (lambda _: euler, 1),
    "midpoint": (lambda _: midpoint, 2),
    "heun": (lambda _: heun, 2),
    "rk4": (lambda _: rk4, 4),
    "ab2": (lambda _: adams_bashforth_2, 1),
    "ab3": (lambda _: adams_bashforth_3, 1),
    "dpm2m": (dpm_solver_2m, 1),
    "dopri5": (lambda _: dopri5(), 6),
}


def solver(name: str, path: Affine | None = None) -> Step:
    """The solver with the given name. ValueError if it needs a path and none is given, KeyError if it is unknown.

    >>> solver("heun").__name__
    'heun'
    """
    if name == "dpm2m" and path is None:
        raise ValueError("solver: dpm2m depends on the path; give step=dpm_solver_2m(path)")
    return SOLVERS[name][0](path or Affine())
