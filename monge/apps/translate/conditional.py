"""Flow matching from noise to the translation, with the source as a condition: one source has many possible translations."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.apps.translate.base import Options, States, contrast_of, direction_condition, half_reversed, solve
from monge.apps.translate.contrast import EndpointInfoNCE, mean_info_nce
from monge.apps.translate.field import FieldShape, Mean, snap_existence
from monge.apps.translate.pair import ENDS
from monge.apps.translate.space import Packed
from monge.math.container import Container
from monge.math.random import seeded_by
from monge.math.steps import Step
from monge.math.times import Times
from monge.math.types import Condition, Pair
from monge.nets.condition import Categorical
from monge.objective.base import Objective
from monge.objective.flow_matching import FlowMatching


class ConditionalField(nn.Module):
    """Velocity of a state given a source, cond["source"], of the same shape: a transformer on the slots of both.

    cond["reverse"], (B,), marks rows whose source is on the target side.
    The last three channels of a slot are priority, position and existence; attention uses positions multiplied by `span`. With
    `shape.mean_skip`, the mean of the source's tokens has a skip path for each direction.
    """

    def __init__(self, channels: int, shape: FieldShape, *, span: float) -> None:
        super().__init__()
        self.span = span
        self.dit = shape.dit(channels, conditions={"reverse": Categorical(2), "side": Categorical(2, per_token=True)})
        self.means = nn.ModuleList(Mean(channels - 3) for _ in range(2)) if shape.mean_skip else None

    def forward(
        self, x_t: Float[Tensor, "B N channels"], t: Float[Tensor, "B"], cond: Condition | None = None
    ) -> Float[Tensor, "B N channels"]:
        if cond is None or not {"reverse", "source"} <= cond.keys():
            raise ValueError(
                'ConditionalField: cond lacks "reverse" or "source"; give the direction and the source state'
            )
        slots = torch.cat([x_t, cond["source"]], 1)
        side = torch.zeros(slots.shape[:2], dtype=torch.long, device=x_t.device)
        side[:, x_t.shape[1] :] = 1
        given = {"positions": self.span * slots[..., -2], "side": side, "reverse": cond["reverse"].long()}
        v = self.dit(slots, t, given)[:, : x_t.shape[1]]
        if self.means is None:
            return v
        content, exists = cond["source"][..., :-3], cond["source"][..., -1].clamp_min(0)
        forward, reverse = (mean(content, exists, t) for mean in self.means)
        return v + nn.functional.pad(torch.where(cond["reverse"].bool()[:, None, None], reverse, forward), (0, 3))


@dataclass(frozen=True)
class ConditionalMethod:
    """Flow matching from Gaussian noise to the target, which the source conditions; in both directions."""

    shape: FieldShape
    contrast: float = 0.0
    seed: int = 0
    """Seed of the noise of translations; other seeds give other translations."""

    options: ClassVar[frozenset[str]] = frozenset({"contrast"})
    keeps_slots: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.shape.separate_reverse:
            raise ValueError(
                "separate_reverse has no effect with --method conditional, whose field always sees the direction; omit it"
            )

    @staticmethod
    def of(options: Options) -> "ConditionalMethod":
        """The method with the recipe's options."""
        return ConditionalMethod(options.shape, contrast_of(options))

    @property
    def solver_steps(self) -> int:
        """16; training fixes no number."""
        return 16

    def network(self, container: Container, width: int) -> nn.Module:
        return ConditionalField(width + 3, self.shape, span=container.capacity / container.aux_scale)

    def objective(self, packed: Packed) -> Objective:
        contrast = None
        if self.contrast:
            to_target, to_source = (mean_info_nce(packed, end, self.contrast) for end in reversed(ENDS))
            contrast = EndpointInfoNCE(to_target, to_source, swapped=True)
        return FlowMatching(times=Times(stratified=True), velocity_loss=contrast)

    def prepare(self, pair: Pair, generator: torch.Generator) -> Pair:
        """Noise and the ends of a random direction, with the start in cond["source"]."""
        pair = half_reversed(pair, generator)
        reverse = pair.condition["reverse"][:, None, None]
        start, end = torch.where(reverse, pair.x_1, pair.x_0), torch.where(reverse, pair.x_0, pair.x_1)
        noise = torch.randn(pair.x_0.shape, generator=generator, dtype=pair.x_0.dtype)
        return replace(pair, x_0=noise, x_1=end, cond={**pair.cond, "source": start})

    def transport(
        self, model: Any, container: Container, x: States, *, reverse: bool, steps: int, step: Step
    ) -> States:
        """The translation of each row, from noise that depends on the row and on `seed`, but not on the batch."""
        rows = [torch.randn(row.shape, generator=seeded_by(row, self.seed, 31), dtype=row.dtype) for row in x.cpu()]
        noise = torch.stack(rows).to(x.device)
        cond = direction_condition(x, reverse) | {"source": x}
        v = snap_existence(partial(model, cond=cond), 1.0, container.aux_scale)
        return solve(v, noise, reverse=False, steps=steps, step=step)
