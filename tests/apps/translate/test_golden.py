"""Golden losses of every translate recipe: 20 steps on generated vectors, and a translation by the trained field.

`PYTHONPATH=. python tests/apps/translate/test_golden.py` rewrites golden.json; state in the commit what changed them and why.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monge.apps.translate.field import FieldShape
from monge.apps.translate.pair import pair
from monge.apps.translate.prices import Prices
from monge.apps.translate.recipes import HERMES, Translate, Translator
from monge.apps.translate.space import Space
from monge.lm.store import Row, write
from monge.training.config import TrainConfig
from monge.training.distributed import Ranks
from monge.training.loop import prepare, train

GOLDEN = Path(__file__).with_name("golden.json")
WIDTH, CAPACITY = 16, 12
TRAIN = TrainConfig(steps=20, warmup_steps=5, lr=3e-3, optimizer="muon", device="cpu", loader_threads=0)
SMALL = Translate(prices=Prices(rule="quantile"), shape=FieldShape(64, 2), batch_size=8, train=TRAIN)
RECIPES = {
    "walk": SMALL,
    "walk 3": replace(SMALL, walking_steps=3),
    "walk, two output layers": replace(SMALL, shape=FieldShape(64, 2, separate_reverse=True)),
    "regression": replace(SMALL, contrast=0.0, shape=FieldShape(64, 2, mean_skip=False)),
    "walk, entropic": replace(SMALL, epsilon=0.3),
    "walk, additive": replace(SMALL, additive=True, contrast=0.0),
    "match": replace(SMALL, method="flow-matching", contrast=0.0),
    "match, noise": replace(SMALL, method="flow-matching", contrast=0.0, sigma=0.5),
    "match, two output layers": replace(
        SMALL, method="flow-matching", contrast=0.0, shape=FieldShape(64, 2, separate_reverse=True)
    ),
    "match, additive and entropic": replace(SMALL, method="flow-matching", contrast=0.0, additive=True, epsilon=0.3),
    "shuffled prices": replace(SMALL, prices=Prices()),
    "events": replace(SMALL, method="branching-flows", prices=Prices(priority=0.0, rule="quantile"), aux_scale=4.0),
    "HERMES": replace(
        HERMES,
        shape=FieldShape(64, 2, rank=8, mean_skip=False, recompute=True),
        batch_size=8,
        train=replace(TRAIN, precision="bfloat16"),
    ),
}


def write_pairs(directory: Path) -> Path:
    """240 sequences of 3 to 12 vectors; the target is the source rotated, with noise, without every third token."""
    draws = torch.Generator().manual_seed(3)
    q, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draws))
    source, target = list[Row](), list[Row]()
    for number, length in enumerate(torch.randint(3, CAPACITY + 1, (240,), generator=draws).tolist()):
        x = torch.randn(length, WIDTH, generator=draws)
        y = (x @ q)[torch.arange(length) % 3 != 2]
        source.append((f"row-{number}", x))
        target.append((f"row-{number}", y + 0.2 * torch.randn(y.shape, generator=draws)))
    for name, rows in (("a.parquet", source), ("b.parquet", target)):
        write(directory / name, [rows], dtype="float16", fingerprint={"model": name})
    pair(directory / "a.parquet", directory / "b.parquet", directory / "pairs", capacity=CAPACITY)
    return directory / "pairs"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("golden"))


def golden(recipe: Translate, pairs: Path) -> dict[str, list[float]]:
    """The losses of the steps, the held-out loss, and the norm of the translations of two sequences in each direction."""
    torch.manual_seed(recipe.train.seed)
    here, run = Ranks(0, 1, torch.device("cpu")), replace(recipe, pairs=str(pairs)).build()
    state, step = prepare(run, here)
    losses = [float(metrics["loss"]) for _, metrics in train(run, state, step, here)]
    assert run.evaluate is not None
    space = Space.from_constants(run.constants, recipe.prices, aux_scale=recipe.aux_scale)
    flow = Translator(run.model.eval(), space, recipe)
    draws = torch.Generator().manual_seed(4)
    sequences = [torch.randn(n, WIDTH, generator=draws) for n in (5, 9)]
    with torch.no_grad():
        held_out = float(run.evaluate(run.model)["held-out loss"])
        sizes = [float(flow.integrate(sequences, reverse=reverse).norm()) for reverse in (False, True)]
    return {"losses": losses, "held-out loss": [held_out], "translations": sizes}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_losses_of_a_recipe_are_the_golden_ones(name: str, pairs: Path) -> None:
    """Bit-identical on one machine; another processor rounds products differently, and training amplifies it."""
    actual, expected = golden(RECIPES[name], pairs), json.loads(GOLDEN.read_text())[name]
    for key, numbers in expected.items():
        assert actual[key] == pytest.approx(numbers, rel=1e-2 if key == "translations" else 1e-3), key


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        stored = write_pairs(Path(directory))
        GOLDEN.write_text(
            json.dumps({name: golden(recipe, stored) for name, recipe in RECIPES.items()}, indent=1) + "\n"
        )
