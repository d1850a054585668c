"""Transport prices between slots, in units that the calibration measures."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Prices:
    """Transport prices in calibrated units: lambda_pos, alpha_delete, alpha_create and beta_create of HERMES.

    A match that costs more than a deletion plus a creation is undone.
    """

    position: float = 1.0
    """Price per squared displacement; positions lie in (0, 1]."""
    delete: float = 1.0
    """Price of deleting a token, relative to the calibrated price."""
    create: float = 1.0
    """Price of creating a token, relative to the calibrated price."""
    create_norm: float = 0.0
    """Additional price of creating a token, relative to the calibrated price, per mean square of its entries (with
    --prices.raw, per squared norm)."""
    priority: float = 1.0
    """Average surcharge of a deletion or creation, in units of a typical match. It grows with the void slot's rank in a fixed
    order. With --prices.rule shuffled, it is at most an eighth of the cost that separates true pairs from shuffled ones,
    if one does. 0 breaks ties arbitrarily."""
    rule: Literal["shuffled", "quantile"] = "shuffled"
    """Rule that sets the calibrated price. quantile: half the 90 % quantile of match costs in true pairs. shuffled: half the
    cost that best separates matches in true pairs from those in shuffled pairs, minus `priority`, or like quantile if they
    overlap too much; if they hardly differ, tokens are coupled by position."""
    raw: bool = False
    """Use neither units nor calibration, as in the original HERMES implementation. With vectors of a real model, every token
    is then deleted and created again."""

    def __post_init__(self) -> None:
        for name in ("position", "delete", "create", "create_norm", "priority"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"prices.{name} must be finite and not negative, got {getattr(self, name)}")
