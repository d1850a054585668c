"""A network for energies of embeddings."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class EnergyMLP(nn.Module):
    """E(x) of embeddings (B, D), low for good ones: an MLP with SiLU and dropout, and a second head for a regression.

    A learned temperature divides the energy. With `spectral`, each hidden layer has spectral norm 1 (Miyato et al.
    1802.05957).
    """

    def __init__(
        self, width: int, hidden: Sequence[int] = (2048, 1024, 512), *, dropout: float = 0.1, spectral: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.LayerNorm(width)]
        for size in hidden:
            linear = nn.Linear(width, size)
            layers += [spectral_norm(linear) if spectral else linear, nn.SiLU(), nn.Dropout(dropout)]
            width = size
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.Linear(width, 2)
        self.log_temperature = nn.Parameter(torch.zeros(1))  # FSDP2 shards no scalars

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
        return self.both(x)[0]

    def both(self, x: Float[Tensor, "B D"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """The energies and the outputs of the second head."""
        energy, other = self.heads(self.trunk(x)).unbind(-1)
        return energy / self.log_temperature.exp(), other
