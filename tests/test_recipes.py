"""A refactor leaves the loss of every recipe unchanged: 20 steps, fixed seed, against golden/losses.json.

`python tests/test_recipes.py` rewrites the file; explain in the commit message what changed the losses and why.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monge.apps.generate import couplings
from monge.apps.generate.recipes import Generate
from monge.run import fingerprint
from monge.training.config import TrainConfig
from monge.training.distributed import Ranks
from monge.training.loop import prepare, train

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
SMALL = Generate(width=32, depth=2, batch_size=32, train=TrainConfig(steps=20, warmup_steps=5, loader_threads=0))
RECIPES = {
    "default": SMALL,
    "independent": replace(SMALL, coupling="independent"),
    "across": replace(SMALL, coupling="ot-across"),
    "entropic": replace(SMALL, coupling="entropic"),
    "warm": replace(SMALL, ot_warm=True),
    "semidiscrete": replace(SMALL, coupling="semidiscrete"),
    "large": replace(SMALL, ot_factor=4, ot_after=4),
    "dit": replace(SMALL, network="dit", width=64),
    "trigonometric target": replace(SMALL, path="trigonometric", predicts="target", times="logit-normal"),
    "source": replace(SMALL, predicts="source"),
    "toy": replace(SMALL, data="checkerboard", coupling="independent", batch_size=256),
    "muon": replace(SMALL, network="dit", width=64, train=replace(SMALL.train, optimizer="muon")),
    "bfloat16": replace(SMALL, network="dit", width=64, train=replace(SMALL.train, precision="bfloat16")),
}


def losses(recipe: Generate) -> list[float]:
    torch.manual_seed(recipe.train.seed)
    here, run = Ranks(0, 1, torch.device("cpu")), recipe.build()
    state, step = prepare(run, here)
    return [float(metrics["loss"]) for _, metrics in train(run, state, step, here)]


@pytest.fixture(autouse=True, scope="module")
def potentials_once():
    """Fit semidiscrete potentials once: they take twenty seconds and depend only on the data and the seed."""
    fitted, fit = {}, couplings._potentials

    def once(x, groups, seed):
        key = int(fingerprint(x, *([] if groups is None else [groups]))), seed
        if key not in fitted:
            fitted[key] = fit(x, groups, seed)
        return fitted[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(couplings, "_potentials", once)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_losses_equal_the_golden_ones(name):
    # bit-identical on one machine; other processors round products differently, and training amplifies the difference,
    # above all if semidiscrete OT assigns a noise point near a cell boundary to the other data point
    tolerance = 1e-2 if name == "semidiscrete" else 1e-3
    assert losses(RECIPES[name]) == pytest.approx(json.loads(GOLDEN.read_text())[name], rel=tolerance)


@pytest.mark.slow
def test_a_warm_start_changes_no_pair():
    warm, cold = (RECIPES[name].build().batches(3) for name in ("warm", "default"))
    assert torch.equal(warm.cond["index"], cold.cond["index"])
    assert torch.equal(warm.x_0, cold.x_0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.write_text(json.dumps({name: losses(recipe) for name, recipe in RECIPES.items()}, indent=1) + "\n")
