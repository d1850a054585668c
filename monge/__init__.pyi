# The public names of monge, each listed once. `monge/__init__.py` imports them from here when they are first used.
# ruff: noqa: I001 - in the order of docs/concepts.md

__version__: str

from .math.types import Batch as Batch, Condition as Condition, Energy as Energy, Pair as Pair
from .math.types import Velocity as Velocity, VelocityModel as VelocityModel
from .math.cost import FourBlock as FourBlock, Units as Units, Whitening as Whitening
from .math.cost import cosine as cosine, inner_product as inner_product, squared_euclidean as squared_euclidean
from .math.container import Container as Container
from .math.path import Affine as Affine, Path as Path, PathPoint as PathPoint, conditional_ot as conditional_ot
from .math.path import constant as constant
from .math.path import decreasing as decreasing, linear as linear, trigonometric as trigonometric
from .math.times import Times as Times, logit_normal as logit_normal, shifted as shifted, uniform as uniform
from .math.coupling import Coupling as Coupling, MinibatchOT as MinibatchOT, SemidiscreteOT as SemidiscreteOT
from .math.coupling import TokenOT as TokenOT, identity as identity
from .math.ot import (
    Plan as Plan,
    assignment as assignment,
    optimal_permutation as optimal_permutation,
    sinkhorn as sinkhorn,
)
from .math.semidiscrete import semidiscrete as semidiscrete
from .math.solve import Solution as Solution, integrate as integrate, solve as solve, time_grid as time_grid
from .math.solve import trajectory as trajectory
from .math.steps import Step as Step, adams_bashforth_2 as adams_bashforth_2, adams_bashforth_3 as adams_bashforth_3
from .math.steps import (
    dpm_solver_2m as dpm_solver_2m,
    euler as euler,
    heun as heun,
    midpoint as midpoint,
    rk4 as rk4,
)
from .math.dopri5 import dopri5 as dopri5
from .math.density import divergence as divergence, log_likelihood as log_likelihood
from .math.metrics import frechet as frechet, mmd as mmd, sliced_w2 as sliced_w2, squared_w2 as squared_w2
from .math.metrics import nmse as nmse, recoupling_ratio as recoupling_ratio, straightness as straightness
from .nets.mlp import MLP as MLP
from .nets.blocks import BlockShape as BlockShape, ParallelBlock as ParallelBlock, SequentialBlock as SequentialBlock
from .nets.condition import Categorical as Categorical, Continuous as Continuous
from .nets.dit import DiT as DiT, DiTShape as DiTShape, Patches as Patches
from .nets.prediction import PredictsSource as PredictsSource, PredictsTarget as PredictsTarget
from .objective.base import Loss as Loss, Objective as Objective, Weighted as Weighted
from .objective.flow_matching import FlowMatching as FlowMatching
from .objective.flow_walking import FlowWalking as FlowWalking
from .objective.mean_flow import MeanFlow as MeanFlow, average_velocity as average_velocity
from .objective.alignment import Alignment as Alignment, CachedTargets as CachedTargets, Unconditional as Unconditional
from .objective.alignment import HiddenLoss as HiddenLoss
from .objective.self_supervised import Dispersive as Dispersive, SelfAlignment as SelfAlignment
from .objective.frozen import Frozen as Frozen
from .objective.contrastive import Candidates as Candidates, InfoNCE as InfoNCE, Margin as Margin
from .objective.next_token import NextToken as NextToken, Tokens as Tokens
from .objective.preference import DPO as DPO, Preferences as Preferences
from .training.config import TrainConfig as TrainConfig
from .training.distributed import Ranks as Ranks, ranks as ranks
from .training.loop import Run as Run, prepare as prepare, train as train
from .training.optim import EMA as EMA
from .training.state import State as State
from .run import Interrupted as Interrupted, Recipe as Recipe, fit as fit
from .runs import reopen as reopen
