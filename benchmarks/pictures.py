"""The picture of curved and straight flows in the README: 8 Gaussians to moons, independent and OT-coupled pairs.

python benchmarks/pictures.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from monge import MLP, FlowMatching, MinibatchOT, Pair, integrate, trajectory
from monge.apps.generate.toys import gaussians, moons
from monge.math.coupling import Coupling, identity
from monge.math.random import seeded

PICTURE = Path(__file__).parent.parent / "docs" / "flows.png"


def trained(coupling: Coupling, steps: int = 4000) -> MLP:
    """A field from 8 Gaussians to moons."""
    torch.manual_seed(0)
    net, draws = MLP(2, 128, 3, octaves=4), seeded(0)
    objective = FlowMatching(coupling=coupling)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        objective(net, Pair(gaussians(256, draws), moons(256, draws))).value.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return net.eval()


def draw(axis: plt.Axes, net: MLP, x_0: Tensor, title: str) -> None:
    """Trajectories of 50 steps, their ends, and the ends of a single Euler step."""
    states = torch.stack(list(trajectory(net, x_0, 50)))
    one = integrate(net, x_0, steps=1, step="euler")
    axis.plot(*states[:, :160].unbind(-1), color="#9aa0ab", linewidth=0.6, zorder=1)
    axis.scatter(*x_0.T, s=4, color="#1c1d21", label="source", zorder=2)
    axis.scatter(*states[-1].T, s=4, color="#2f62c9", label="50 steps", zorder=3)
    axis.scatter(*one.T, s=4, color="#c2571a", label="1 step", zorder=4, alpha=0.8)
    axis.set_title(title)
    axis.set_aspect("equal")
    axis.axis("off")


def main() -> None:
    torch.set_num_threads(1)
    nets = {"independent pairs": trained(identity), "OT-coupled pairs": trained(MinibatchOT())}
    figure, axes = plt.subplots(1, 2, figsize=(10, 5), dpi=110)
    x_0 = gaussians(600, seeded(1))
    with torch.no_grad():
        for axis, (title, net) in zip(axes, nets.items(), strict=True):
            draw(axis, net, x_0, title)
    axes[1].legend(loc="lower right", frameon=False, markerscale=3)
    figure.tight_layout()
    figure.savefig(PICTURE, bbox_inches="tight")
    print(PICTURE)


if __name__ == "__main__":
    main()
