"""Means with bootstrap intervals."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from monge.math.random import seeded


@dataclass(frozen=True)
class Interval:
    """A statistic, such as a mean, and its 95 % bootstrap interval over the items."""

    value: float
    low: float
    high: float

    @staticmethod
    def of(values: Float[Tensor, "n"], *, draws: int = 1000, seed: int = 0) -> "Interval":
        """The mean and interval of the values that are not nan; nan if there are none.

        >>> Interval.of(torch.tensor([1.0, 1.0, float("nan")]))
        Interval(value=1.0, low=1.0, high=1.0)
        """
        values = values[~torch.isnan(values)].double()
        if not len(values):
            return Interval(float("nan"), float("nan"), float("nan"))
        rows = torch.randint(len(values), (draws, len(values)), generator=seeded(seed, 17))
        means = values[rows].mean(1)
        return Interval(float(values.mean()), float(means.quantile(0.025)), float(means.quantile(0.975)))
