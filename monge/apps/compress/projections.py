"""Linear maps merged into the output projections of attention and feed-forward modules."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

NAMES = ("o_proj", "down_proj", "dense_4h_to_h", "dense", "c_proj")
"""Output projections in transformers' implementations of Llama and Qwen, GPT-NeoX, and GPT-2."""


def output_projection(module: nn.Module) -> nn.Module:
    """The last projection of an attention or feed-forward module. ValueError if it has no such attribute."""
    for name in NAMES:
        if isinstance(part := getattr(module, name, None), nn.Module):
            return part
    raise ValueError(f"{type(module).__name__}: no output projection that a map can be merged into")


@torch.no_grad()
def merge(projection: nn.Module, matrix: Float[Tensor, "D D"]) -> None:
    """Apply the matrix to the projection's output, by changing its weights in place."""
    weight: Tensor = projection.weight  # pyright: ignore[reportAssignmentType]
    merged = matrix @ weight if isinstance(projection, nn.Linear) else weight @ matrix.mT  # GPT-2 stores the transpose
    weight.copy_(merged)
    if isinstance(bias := getattr(projection, "bias", None), Tensor):
        bias.copy_(matrix @ bias)
