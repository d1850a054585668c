"""Pictures for the documentation: curved and straight flows, a proof search, and students of a language model.

python benchmarks/pictures.py flows
python benchmarks/pictures.py proof    # after `monge prove setup`; tokens.png is plan.png of `monge translate demo`
python benchmarks/pictures.py students # from the results of benchmarks/compress.py
"""

import json
import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib.pyplot as plt
import side_by_side as side
import torch
from matplotlib.patches import Patch
from torch import Tensor

from monge import MLP, FlowMatching, MinibatchOT, Pair, integrate, trajectory
from monge.apps.generate.toys import gaussians, moons
from monge.apps.prove.trajectories import attempts
from monge.cli import main
from monge.math.coupling import Coupling, identity
from monge.math.random import seeded

DOCS = Path(__file__).parent.parent / "docs"
BLACK, BLUE, GREY = "#1c1d21", "#2f62c9", "#9aa0ab"


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
    """Trajectories of 50 steps, their endpoints, and the endpoints of a single Euler step."""
    states = torch.stack(list(trajectory(net, x_0, 50)))
    one = integrate(net, x_0, steps=1, step="euler")
    axis.plot(*states[:, :160].unbind(-1), color="#9aa0ab", linewidth=0.6, zorder=1)
    axis.scatter(*x_0.T, s=4, color="#1c1d21", label="source", zorder=2)
    axis.scatter(*states[-1].T, s=4, color="#2f62c9", label="50 steps", zorder=3)
    axis.scatter(*one.T, s=4, color="#c2571a", label="1 step", zorder=4, alpha=0.8)
    axis.set_title(title)
    axis.set_aspect("equal")
    axis.axis("off")


def flows() -> Path:
    """8 Gaussians to moons, with independent and with OT-coupled pairs."""
    torch.set_num_threads(1)
    nets = {"independent pairs": trained(identity), "OT-coupled pairs": trained(MinibatchOT())}
    figure, axes = plt.subplots(1, 2, figsize=(10, 5), dpi=110)
    x_0 = gaussians(600, seeded(1))
    with torch.no_grad():
        for axis, (title, net) in zip(axes, nets.items(), strict=True):
            draw(axis, net, x_0, title)
    axes[1].legend(loc="lower right", frameon=False, markerscale=3)
    figure.tight_layout()
    figure.savefig(DOCS / "flows.png", bbox_inches="tight")
    return DOCS / "flows.png"


GOAL = "p ∧ (q ∨ r) → (p ∧ q) ∨ (p ∧ r)"
TACTICS = ("intro h", "rcases h with ⟨hp, hq | hr⟩", "left", "right", "exact ⟨hp, hq⟩", "exact ⟨hp, hr⟩")


def proof() -> Path:
    """A best-first search with six tactics: every distinct state, and the proof that it finds."""
    with TemporaryDirectory() as folder:
        theorem, config, out = (Path(folder, name) for name in ("and_or.lean", "config.json", "run"))
        theorem.write_text(f"theorem and_or (p q r : Prop) : {GOAL} := by sorry\n", encoding="utf-8")
        config.write_text(json.dumps({"policy": "probes", "tactics": TACTICS}), encoding="utf-8")
        if main(["prove", "search", str(theorem), "--config", str(config), "--out", str(out)]):
            raise SystemExit("the search failed")
        rows = [row for row in attempts(out).to_pylist() if row["outcome"] in ("state", "proof")]
    root = {
        "state_id": rows[0]["parent_id"],
        "state_after": f"⊢ {GOAL}",
        "tactic": "",
        "label": "positive",
        "depth": -1,
    }
    states = {row["state_id"]: row for row in (root, *rows)}
    left = [1.0]  # x of the states at each depth, in characters of the goals' font
    for depth in range(-1, max(row["depth"] for row in rows)):
        longest = max(
            max(len(_goal(row)), 0.85 * len(row["tactic"])) for row in states.values() if row["depth"] == depth
        )
        left.append(left[-1] + longest + 5)
    height: dict[str, float] = {}
    leaves = count()
    for row in reversed(_preorder(root, rows)):  # leaves from the bottom up, parents after their children
        below = [height[child["state_id"]] for child in rows if child["parent_id"] == row["state_id"]]
        height[row["state_id"]] = sum(below) / len(below) if below else float(next(leaves))
    wide, high = left[-1] + 17, next(leaves)
    figure = plt.figure(figsize=(wide * 0.602 * 9 / 72, 0.5 * high), dpi=110)  # DejaVu Sans Mono, 9 points
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, wide), ylim=(-0.4, high - 0.3))
    for row in states.values():
        x, y, found = left[row["depth"] + 1], height[row["state_id"]], row["label"] == "positive"
        axis.text(x, y, _goal(row), fontsize=9, color=BLUE if found else BLACK, va="center", family="monospace")
        axis.text(
            x, y + 0.36, row["tactic"], fontsize=7.5, color=BLUE if found else GREY, va="center", family="monospace"
        )
        if row is not root:
            parent = states[row["parent_id"]]
            start = left[parent["depth"] + 1] + len(_goal(parent)) + 0.7
            axis.plot(
                [start, x - 3.5, x - 0.7],
                [height[parent["state_id"]], height[parent["state_id"]], y],
                color=BLUE if found else GREY,
                linewidth=1.8 if found else 0.9,
            )
    axis.axis("off")
    figure.savefig(DOCS / "proof.png")
    return DOCS / "proof.png"


def _goal(row: dict[str, Any]) -> str:
    goals = [line for line in row["state_after"].splitlines() if line.startswith("⊢")]
    return goals[0] + (f"  +{len(goals) - 1} goal" if len(goals) > 1 else "") if goals else "no goals"


def _preorder(row: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    children = [child for child in rows if child["parent_id"] == row["state_id"]]
    return [row, *(below for child in children for below in _preorder(child, rows))]


TRAINED = {
    "joint flow, KL": "flow (joint least-squares start)",
    "flow, KL": "flow (start from the map)",
    "map, KL": "map, trained",
    "LoRA, KL": "skip and heal with LoRA",
    "one layer, KL": "one layer, KL",
    "one layer, MSE": "one layer, MSE (LLM-Streamline)",
}
UNTRAINED = {
    "least-squares map [9, 19)": "least-squares map",
    "ReplaceMe, squared [9, 19)": "ReplaceMe",
    "SLEB": "SLEB",
    "ShortGPT": "ShortGPT",
    "skip, best range": "skip the layers (UIDL)",
}


def students() -> Path:
    """The KL of students of SmolLM2 without ten of 30 layers, next to that of skipping two, three and four layers."""
    rows, untrained = (
        json.loads((side.RESULTS / f"compress_{name}.json").read_text())["rows"] for name in ("students", "untrained")
    )
    rows = [row for row in rows if (row["start"], row["end"]) == (9, 19)]
    values = {label: [row["kl"] for row in rows if row["arm"] == arm] for arm, label in TRAINED.items()}
    values |= {
        label: [row["kl"] for row in untrained if row["removed"] == 10 and row["arm"].startswith(arm)]
        for arm, label in UNTRAINED.items()
    }
    order = sorted(values, key=lambda label: -sum(values[label]) / len(values[label]))
    figure, axis = plt.subplots(figsize=(9, 3.9), dpi=110)
    for place, label in enumerate(order):
        mean = sum(values[label]) / len(values[label])
        color = BLUE if label.startswith("flow") else GREY if label in UNTRAINED.values() else BLACK
        axis.barh(place, mean, color=color, height=0.62)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axis.text(mean + 0.04, place, f"{mean:.2f}", va="center", fontsize=9, color=color, bbox=box)
    for removed in (2, 3, 4):
        skipped = next(row for row in untrained if row["removed"] == removed and row["arm"].startswith("skip, best"))
        axis.axvline(skipped["kl"], color="#c2571a", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        axis.text(skipped["kl"], len(order) + 0.1, str(removed), ha="center", fontsize=8, color="#c2571a")
    axis.text(0.66, len(order) + 0.1, "layers skipped, for comparison", fontsize=8, color="#c2571a")
    kinds = {"flow, 150,000 tokens": BLUE, "rival, 150,000 tokens": BLACK, "no training": GREY}
    axis.legend([Patch(color=color) for color in kinds.values()], kinds, frameon=False, fontsize=9, loc="center right")
    axis.set_ylim(-0.6, len(order))
    axis.set_yticks(range(len(order)), order, fontsize=9)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(
        "KL divergence from the teacher (nats per token): SmolLM2-135M without ten of its 30 layers", fontsize=9
    )
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(DOCS / "students.png", bbox_inches="tight")
    return DOCS / "students.png"


if __name__ == "__main__":
    print({"flows": flows, "proof": proof, "students": students}[sys.argv[1]]())
