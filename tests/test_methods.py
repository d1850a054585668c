"""Every method in the table of docs/concepts.md trains through `fit`, is saved, reopened and used."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import monge
from monge import DiT, DiTShape, Pair, TrainConfig, integrate
from monge.math.random import seeded
from monge.run import fit
from monge.runs import reopen
from monge.training.loop import Run

CONCEPTS = (Path(__file__).parents[1] / "docs/concepts.md").read_text()
DATA = torch.randn(64, 2, generator=seeded(1)) + 3
LABELS = torch.arange(64) % 2
SMALL = DiTShape(monge.BlockShape(16, 2), depth=2)


def noise_and_data(number: int, *, coupling: monge.Coupling = monge.identity) -> Pair:
    """16 points with fresh noise, and their indices and labels."""
    index = torch.randperm(64, generator=seeded(2, number))[:16]
    x_0 = torch.randn(16, 2, generator=seeded(3, number))
    return coupling(Pair(x_0, DATA[index], cond={"index": index, "label": LABELS[index]}), generator=seeded(4, number))


def hidden_pairs(number: int) -> Pair:
    """Hidden states of two layers; the second is the first, rotated cyclically and shifted."""
    x = torch.randn(8, 5, 6, generator=seeded(5, number))
    return Pair(x, x.roll(1, -1) + 0.1)


def sequences(number: int) -> Pair:
    """Containers of sequences with different lengths."""
    lengths = torch.randint(1, 5, (2, 8), generator=seeded(6, number)).tolist()
    sides = [
        [torch.randn(n, 3, generator=seeded(7, number, n)) + 4 * k for n in side] for k, side in enumerate(lengths)
    ]
    return Pair(*(monge.Container(6).pack(side) for side in sides))


def token_cost(pair: Pair) -> Tensor:
    """The four-block cost of two containers."""
    slots = [monge.Container(6).split(x) for x in (pair.x_0, pair.x_1)]
    parts = zip(*((s.content, s.existence > 0.5, s.position) for s in slots), strict=True)
    (x_0, x_1), (active_0, active_1), (position_0, position_1) = parts
    return monge.FourBlock()(x_0, x_1, active_0, active_1, position_0, position_1)


def masked(number: int) -> Pair:
    """Sequences with padding."""
    mask = torch.arange(5) < 2 + torch.arange(8)[:, None] % 4
    x = torch.randn(8, 5, 6, generator=seeded(8, number)) + 2
    return monge.MinibatchOT()(Pair(torch.randn(8, 5, 6, generator=seeded(9, number)), x, mask=mask))


def candidates(number: int) -> monge.Candidates:
    """Four candidates per row; the first has the largest sum."""
    x = torch.randn(8, 4, 3, generator=seeded(10, number))
    best = x.sum(-1).argmax(1, keepdim=True)
    order = (torch.arange(4) + best) % 4
    return monge.Candidates(x.gather(1, order[..., None].expand_as(x)))


class Quadratic(nn.Module):
    """An energy: a small network with a scalar output."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).squeeze(-1)


class Encoder(nn.Module):
    """A frozen encoder of tokens that receives the padding mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 12)

    def forward(self, x: Tensor, cond: dict[str, Tensor]) -> Tensor:
        return self.layer(x * cond["mask"][..., None])


def points() -> nn.Module:
    return monge.MLP((2,), 16, 1, classes=2)


def durations() -> nn.Module:
    return monge.MLP((2,), 16, 1, classes=2, conditions={"duration": monge.Continuous(1)})


def tokens(channels: int = 6) -> nn.Module:
    return DiT(channels, SMALL)


def potentials() -> Tensor:
    values, _ = monge.semidiscrete(
        lambda n: torch.randn(n, 2, generator=seeded(11)), DATA, steps=10, generator=seeded(12)
    )
    return values


def reflow_pairs(number: int) -> Pair:
    """Noise and the samples to which a flow maps it."""
    x_0 = torch.randn(16, 2, generator=seeded(3, number))
    return Pair(x_0, integrate(lambda x, t: 3 - x, x_0, 4))


def data_set() -> Pair:
    return Pair(DATA, DATA, cond={"index": torch.arange(64), "label": LABELS})


Method = tuple[Callable[[], nn.Module], Callable[[], monge.Objective], Callable[[int], Any]]
METHODS: dict[str, Method] = {
    "flow matching, rectified flow": (points, monge.FlowMatching, noise_and_data),
    "OT-CFM": (
        points,
        lambda: monge.FlowMatching(path=monge.Affine(spread=monge.constant(0.1)), coupling=monge.MinibatchOT()),
        noise_and_data,
    ),
    "class-aware OT-CFM": (
        points,
        lambda: monge.FlowMatching(coupling=monge.MinibatchOT(condition="label")),
        noise_and_data,
    ),
    "semidiscrete OT": (
        points,
        lambda: monge.FlowMatching(coupling=monge.SemidiscreteOT(data_set(), potentials())),
        noise_and_data,
    ),
    "variance-preserving path with OT": (
        points,
        lambda: monge.FlowMatching(path=monge.Affine(monge.trigonometric), coupling=monge.MinibatchOT()),
        noise_and_data,
    ),
    "reflow": (points, monge.FlowMatching, reflow_pairs),
    "MeanFlow": (durations, monge.MeanFlow, noise_and_data),
    "flow walking": (tokens, lambda: monge.FlowWalking(steps=3), hidden_pairs),
    "hybrid": (
        tokens,
        lambda: monge.Weighted(walk=(1.0, monge.FlowWalking(steps=2)), match=(0.01, monge.FlowMatching())),
        hidden_pairs,
    ),
    "augmented OT with voids": (
        lambda: tokens(6),
        lambda: monge.FlowMatching(coupling=monge.TokenOT(token_cost)),
        sequences,
    ),
    "REPA": (
        tokens,
        lambda: monge.FlowMatching(align=monge.Alignment(Encoder(), layer=1, width=16, features=12, hidden=8)),
        masked,
    ),
    "energy": (Quadratic, monge.InfoNCE, candidates),
    "energy, margin": (Quadratic, monge.Margin, candidates),
}


@dataclass(frozen=True)
class Recipe:
    """The recipe of one method."""

    app: ClassVar[str] = "method"
    name: str
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=30, lr=5e-3, warmup_steps=0, save_every=15, device="cpu", log_every=30
        )
    )

    def build(self) -> Run[Any]:
        network, objective, batches = METHODS[self.name]
        return Run(network(), objective(), batches, self.train)


def used(name: str, model: nn.Module) -> Tensor:
    """The output of the trained model: energies of candidates, or the end of the flow."""
    batch = METHODS[name][2](1000)
    with torch.no_grad():
        if isinstance(batch, monge.Candidates):
            return batch.energies(model)
        return integrate(lambda x, t: model(x, t, batch.condition), batch.x_0, 4)


def loss(name: str, model: nn.Module) -> float:
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        objective = METHODS[name][1]()
        losses = [objective(model, METHODS[name][2](2000 + k)) for k in range(8)]
        return sum(float(loss.metrics.get("velocity", loss.value)) for loss in losses)


def test_the_documented_table_lists_these_methods() -> None:
    table = CONCEPTS.split("| method |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([^|`-][^|]*?) \|", table, re.MULTILINE)
    assert [*dict.fromkeys(name.partition(", margin")[0] for name in METHODS)] == rows


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_is_saved_reopened_and_used(tmp_path: Path, name: str) -> None:
    state = fit(Recipe(name), tmp_path)
    opened = reopen(tmp_path, app="method")
    reopened = opened.weights(METHODS[name][0](), averaged=False)
    assert_close(used(name, reopened), used(name, state.model.eval()), rtol=0, atol=0)
    torch.manual_seed(1)
    assert loss(name, reopened) < loss(name, METHODS[name][0]())
    resumed = fit(Recipe(name), tmp_path, resume=True)
    assert resumed.step == 30
