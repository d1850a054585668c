"""The space in which both sides are compared: calibrated vectors, packed into containers, and the cost between slots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from monge.apps.translate.calibrate import Calibration, measured, token_cost
from monge.apps.translate.pair import ENDS, Pairs
from monge.apps.translate.prices import Prices
from monge.math.container import Container
from monge.math.coupling import TokenOT
from monge.math.types import Pair


@dataclass(frozen=True)
class Space:
    """Calibration, container and prices: everything that packing, coupling and unpacking sequences depend on."""

    calibration: Calibration
    container: Container
    prices: Prices = field(default_factory=Prices)

    @staticmethod
    def measured(pairs: Pairs, prices: Prices, *, aux_scale: float = 1.0) -> "Space":
        """The space of these pairs; see `calibrate.measured`."""
        return Space(measured(pairs, prices), Container(pairs.capacity, aux_scale), prices)

    @staticmethod
    def from_constants(constants: Mapping[str, Tensor], prices: Prices, *, aux_scale: float) -> "Space":
        """The space of a run, from the run's constants."""
        return Space(Calibration.of(dict(constants)), Container(int(constants["capacity"]), aux_scale), prices)

    @property
    def note(self) -> str:
        """A sentence that warns of couplings by position; empty if tokens are coupled by content."""
        if not self.calibration.positional(self.prices):
            return ""
        return (
            f"tokens are coupled by position: their matches in true pairs are hardly cheaper than in shuffled pairs "
            f"(separation {self.calibration.separation:.2f}); --prices.rule quantile couples by content nevertheless\n"
        )

    @property
    def width(self) -> int:
        """Number of entries of a vector."""
        return len(self.calibration.rotation)

    def pack(self, end: str, sequences: Sequence[Float[Tensor, "_ D"]]) -> Float[Tensor, "B N channels"]:
        """Sequences of `source` or `target`, in the data's units, as container states. ValueError if one is too long."""
        return self.container.pack([self.calibration.side(end).apply(x) for x in sequences])

    def cost(self, pair: Pair, *, reverse: bool = False) -> Float[Tensor, "B N N"]:
        """The four-block cost between the slots of x_0 and x_1; `reverse` means that x_0 is on the target side."""
        return token_cost(self.container, self.calibration.cost(self.prices, reverse=reverse), pair)

    @property
    def transport(self) -> TokenOT:
        """The exact coupling of the slots of each pair."""
        return TokenOT(self.cost)


@dataclass(frozen=True)
class Packed:
    """Pairs as container states, uncoupled; each batch is read from disk on demand."""

    pairs: Pairs
    space: Space

    def __call__(self, numbers: Sequence[int]) -> Pair:
        states = [self.space.pack(end, [self.pairs.sequence(end, number) for number in numbers]) for end in ENDS]
        return Pair(states[0], states[1])
