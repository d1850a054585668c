"""Arms of an evaluation: policies, and orders in which a search expands states."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from monge.apps.prove.config import Measure, SearchConfig


@dataclass(frozen=True)
class Arm:
    """A way to search the same theorems as other arms."""

    policy: str
    measure: Measure | None = None
    """Measure of states that counts in their score; None for the log-probability alone."""
    weight: float | None = None
    """Weight of the measure; that of the log-probability is 1 minus it. None leaves both as they are set."""
    order: Literal["best", "breadth", "random", "puct"] = "best"

    @property
    def name(self) -> str:
        """Its name in reports; in paths, - replaces +.

        >>> [Arm("copy").name, Arm("local", "energy", 1.0).name, Arm("template+local", order="random").name]
        ['copy', 'local+energy-1', 'template+local-random']
        """
        measure = "" if self.measure is None else f"+{self.measure}"
        weight = "" if self.measure is None or self.weight is None else f"-{self.weight:g}"
        return self.policy + measure + weight + ("" if self.order == "best" else f"-{self.order}")

    def base(self, arms: Sequence["Arm"]) -> "Arm":
        """The one of `arms` that it is compared with: the same policy ordered by log-probability, or else the first one.

        >>> arms = [Arm("template"), Arm("local"), Arm("local", "energy")]
        >>> [arm.base(arms).name for arm in arms]
        ['template', 'template', 'local']
        """
        plain = Arm(self.policy)
        return plain if self != plain and plain in arms else arms[0]

    @property
    def path(self) -> str:
        """Its name in paths."""
        return self.name.replace("+", "-")

    @property
    def fixed(self) -> bool:
        """True if it depends on neither a trained model nor examples."""
        return not {"local", "copy"} & set(self.policy.split("+")) and self.measure is None

    @property
    def sampled(self) -> bool:
        """True if its searches depend on their seed."""
        return self.order == "random" or bool({"local", "server"} & set(self.policy.split("+")))

    def config(self, base: SearchConfig, *, model: str, energy: str, examples: Sequence[str]) -> SearchConfig:
        """The settings of its searches; of `model`, `energy` and `examples`, only those that it needs are set."""
        search = replace(base.search, order=self.order, harvest=0)
        if self.measure is not None and self.weight is not None:
            search = replace(search, alpha=1 - self.weight, beta=self.weight)
        return replace(
            base,
            search=search,
            policy=self.policy,
            examples=tuple(examples) if "copy" in self.policy.split("+") else (),
            local=replace(base.local, name=model if "local" in self.policy.split("+") else ""),
            energy=energy if self.measure is not None else "",
            energy_measure=self.measure or "energy",
        )
