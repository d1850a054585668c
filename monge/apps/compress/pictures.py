"""Heat maps over layer ranges."""

from collections.abc import Mapping
from pathlib import Path

from jaxtyping import Float
from torch import Tensor


def heat_maps(values: Mapping[str, Float[Tensor, "L L"]], path: Path) -> Path:
    """Plot each matrix over the first layer (rows) and the end (columns) of a range; nan stays white. Returns `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(values), 4.0), layout="constrained")
    for number, (name, matrix) in enumerate(values.items(), 1):
        axis = figure.add_subplot(1, len(values), number)
        image = axis.imshow(matrix.numpy(), cmap="viridis", origin="upper")
        axis.set(title=name, xlabel="end", ylabel="start")
        figure.colorbar(image, ax=axis, shrink=0.85)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
