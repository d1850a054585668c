"""Alignment of hidden states: quality by training steps and CPU time, on images and on molecules, with paired seeds.

    python benchmarks/repa.py digits [--steps 2000] [--seeds 5] [--workers 2]
    monge molecules prepare small --out runs/molecules-data
    python benchmarks/repa.py molecules [--data runs/molecules-data] [--steps 600]

The networks have 4 blocks of 64 channels, on molecules half the width of the recipe's default.

Arms with the same seed start from the same weights, and see the same data and noise; those of SRA and REG draw further
random numbers, so from the second step on their times t differ. The encoders of the digits are trained first, once for all
seeds. The Frechet distance uses a classifier of another architecture than the encoders, but "REPA, classes" and "head on
classes" learn from the labels that it was trained on, so this metric favours them. Results of finished arms are kept in
benchmarks/results, so an interrupted benchmark resumes. After each table, a sentence for each arm with an encoder compares
it with no alignment and, for the encoder of these controls, with random weights and shuffled targets.

The learning rate falls to 0 over the training steps, so values before the end, and with them comparisons at equal CPU time,
favour an arm that trains faster.
"""

import side_by_side as side  # sets one thread

# isort: split

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from curves import INTERVALS, report, report_by_time
from torch import Tensor, nn

from monge.apps.generate.data import digits as load_digits
from monge.apps.generate.encoders import Encoder, Pretrain, encoder_of
from monge.apps.generate.evaluate import Evaluator
from monge.apps.generate.prepared import data_fingerprint
from monge.apps.generate.recipes import PATHS, Generate
from monge.apps.generate.sample import Generator, Sampling
from monge.apps.molecules.generator import Generator as MoleculeGenerator
from monge.apps.molecules.message_passing import Pretrain as PretrainMolecules
from monge.apps.molecules.objective import MoleculeMatching, noise
from monge.apps.molecules.recipes import COUPLINGS, Molecular
from monge.apps.molecules.scores import scores
from monge.fleet import processes
from monge.math.cost import Units
from monge.math.random import seeded
from monge.math.times import Times
from monge.math.types import Pair
from monge.objective.alignment import Alignment, CachedTargets, pooled
from monge.run import fit
from monge.training.config import TrainConfig
from monge.training.distributed import Ranks
from monge.training.loop import Run, prepare, train

WIDTH, DEPTH, LAYER, WEIGHT = 64, 4, 2, 0.5
IMAGES = (
    "plain",
    "REPA, contrastive",
    "REPA, classes",
    "REPA, random weights",
    "REPA, shuffled",
    "REPA, contrastive, spatial",
)
IMAGES += ("MSE without projector", "REPA, first quarter", "SRA", "dispersive", "head on classes")
MOLECULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "REPA, ANI-2xt": {"align": "ani"},
    "REPA, espaloma": {"align": "espaloma"},
    "REPA, own": {"align": "own"},
    "REPA, descriptors": {"align": "descriptors"},
    "REPA, random weights": {"align": "ani-random"},
    "REPA, shuffled": {"align": "ani", "align_shuffled": True},
    "REPA, ANI-2xt, spatial": {"align": "ani", "align_spatial": True},
    "REPA, first quarter": {"align": "ani", "align_until": -1},
    "MSE without projector": {"align": "ani"},
    "head on descriptors": {"align": "descriptors"},
    "REG": {"align": "ani", "align_pooled_weight": 0.03},
    "SRA": {"align": "self"},
    "dispersive": {"align": "dispersive"},
}
"""Settings of the recipe by arm; align_until -1 stands for a quarter of the steps, own for the encoder of `monge molecules
pretrain` in WORK."""
Measure = Callable[[nn.Module, bool], dict[str, float]]


class SquaredError(nn.Module):
    """Mean squared difference between the targets and a linear map of the hidden state; if `features` is 0, its first entries.
    Tokens that are masked out, or whose targets are all 0, do not count."""

    def __init__(self, targets: CachedTargets, width: int = 0, features: int = 0) -> None:
        super().__init__()
        self.targets, self.weight = targets, WEIGHT
        self.head = nn.Linear(width, features) if features else nn.Identity()

    def forward(self, model: Any, x_t: Tensor, t: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
        v, hidden = model.with_features(x_t, t, pair.condition, LAYER)
        target = self.targets(pair.x_1, pair.condition)
        error = (self.head(hidden)[..., : target.shape[-1]] - target).square().mean(-1)
        known = (target != 0).any(-1)
        return v, error[known if pair.mask is None else known & pair.mask].mean()


class HeadOnClasses(nn.Module):
    """Cross-entropy of the classes, from the mean hidden state."""

    def __init__(self, labels: Tensor) -> None:
        super().__init__()
        self.labels, self.weight = labels, WEIGHT
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, model: Any, x_t: Tensor, t: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
        v, hidden = model.with_features(x_t, t, pair.condition, LAYER)
        return v, nn.functional.cross_entropy(self.head(pooled(hidden, None)), self.labels[pair.condition["index"]])


class FirstSteps(nn.Module):
    """Wrapper that switches a loss off after `steps` training steps."""

    def __init__(self, term: Any, steps: int) -> None:
        super().__init__()
        self.term, self.weight, self.left = term, term.weight, steps

    def forward(self, model: Any, x_t: Tensor, t: Tensor, pair: Pair) -> tuple[Tensor, Tensor]:
        self.left -= self.training
        if self.left < 0:
            return model(x_t, t, pair.condition), x_t.new_zeros(())
        return self.term(model, x_t, t, pair)


def curve(run: Run[Any], measure: Measure) -> list[dict[str, float]]:
    """Metrics of the EMA weights after 1/8, 1/4, 1/2 and all of the steps, with the CPU time of training so far."""
    where = Ranks(0, 1, torch.device("cpu"))
    state, step = prepare(run, where)
    steps, rows, spent, began = run.train.steps, [], 0.0, time.process_time()
    for number, _ in train(run, state, step, where):
        if number in (steps // 8, steps // 4, steps // 2, steps):
            spent += time.process_time() - began
            assert state.ema
            parameters = dict(state.model.named_parameters())
            trained = {name: parameters[name].detach().clone() for name in state.ema.weights}
            with torch.no_grad(), torch.random.fork_rng():
                for name, value in state.ema.weights.items():
                    parameters[name].copy_(value)
                rows.append({"steps": number, "CPU s": spent, **measure(state.model.eval(), number == steps)})
                for name, value in trained.items():
                    parameters[name].copy_(value)
            state.model.train()
            began = time.process_time()
    return rows


def train_encoders(work: Path) -> None:
    """Train the encoders of the digits, in WORK/METHOD, if they do not exist."""
    for method in ("contrastive", "classes"):
        config = TrainConfig(steps=400, save_every=200, warmup_steps=50, weight_decay=0.05, threads=1, device="cpu")
        recipe = Pretrain(method=method, width=WIDTH, depth=2, train=config)  # pyright: ignore[reportArgumentType]
        fit(recipe, work / method, resume=True)


@cache
def evaluator() -> Evaluator:
    """The evaluator of all arms: another architecture than the encoders."""
    return Evaluator.of(load_digits())


def images(work: Path, steps: int, task: tuple[str, int]) -> dict[str, Any]:
    """The curve of an arm on unconditional digits."""
    arm, seed = task
    config = TrainConfig(steps=steps, seed=seed, loader_threads=0, device="cpu")
    recipe = Generate(
        network="dit",
        width=WIDTH,
        depth=DEPTH,
        conditional=False,
        coupling="independent",
        align_layer=LAYER,
        train=config,
    )
    align = {"SRA": "self", "dispersive": "dispersive"}.get(arm, "none")
    torch.manual_seed(seed)
    run = replace(recipe, align=align).build()
    if align == "none" and arm != "plain":
        run.objective.align = image_term(arm, work, recipe, seed)  # pyright: ignore[reportAttributeAccessIssue]
    data, units = load_digits(), Units(run.constants["centre"], run.constants["scale"])
    held_out = replace(recipe, align="none").build().evaluate
    assert held_out is not None
    judge = evaluator()

    def measure(model: nn.Module, last: bool) -> dict[str, float]:
        sampler = Generator(model, PATHS["linear"], units, data.shape, 0, data.levels or 0.0)
        x = sampler.end(sampler.noise(len(data.x), generator=seeded(seed, 3)), None, Sampling(20, "euler"))
        rows = judge.rows(units.apply(sampler.restore(x).flatten(1)), None)
        by_time = image_losses(model, recipe) if last else {}
        return {"frechet": rows["frechet"].value, "recall": rows["recall"].value, **held_out(model), **by_time}

    return {"arm": arm, "seed": seed, "curve": curve(run, measure)}


def image_term(arm: str, work: Path, recipe: Generate, seed: int) -> Any:
    """The loss on the hidden state of an arm that the recipe does not offer."""
    prepared, everything = recipe.prepared(), load_digits()
    x = prepared.normalised()[0]
    if arm == "head on classes":
        labels = everything.split()[0].labels
        assert labels is not None
        return HeadOnClasses(labels)
    kind = "classes" if arm == "REPA, classes" else "contrastive"
    encoder = encoder_of(work / kind, data_fingerprint(everything))
    if arm == "REPA, random weights":
        torch.manual_seed(1000 + seed)
        encoder = Encoder(1, width=WIDTH, depth=2, outputs=64).eval()
    tokens = encoder.tokens(x, recipe.patch)
    if arm == "REPA, shuffled":
        tokens = tokens[torch.randperm(len(tokens), generator=seeded(seed, 9))]
    if arm == "MSE without projector":
        return SquaredError(CachedTargets((tokens - tokens.mean((0, 1))) / tokens.std((0, 1))))
    spatial = arm == "REPA, contrastive, spatial"
    term = Alignment(
        CachedTargets(tokens),
        layer=LAYER,
        width=WIDTH,
        features=WIDTH,
        weight=WEIGHT,
        hidden=2 * WIDTH,
        spatial=spatial,
    )
    return FirstSteps(term, recipe.train.steps // 4) if arm == "REPA, first quarter" else term


def image_losses(model: nn.Module, recipe: Generate) -> dict[str, float]:
    """The held-out loss of images in four intervals of t."""
    x = recipe.prepared().normalised()[1]
    x_0 = torch.randn(x.shape, generator=seeded(1781))
    result = {}
    for low in INTERVALS:
        t = low + 0.25 * (torch.arange(len(x)) + 0.5) / len(x)
        _, x_t, u_t = PATHS["linear"](x_0, x, t)
        result[f"loss, t from {low}"] = float((model(x_t, t) - u_t).square().mean())
    return result


def molecular(data: Path, work: Path, steps: int, samples: int, task: tuple[str, int]) -> dict[str, Any]:
    """The curve of an arm on molecules."""
    from molecules import reference

    arm, seed = task
    recipe = Molecular(str(data), width=WIDTH, depth=DEPTH, heads=4, align_layer=LAYER, solver_steps=50)
    settings = dict(MOLECULES[arm])
    if settings.get("align") == "own":
        settings["align"] = str(work / f"encoder-{data.name}")
    if settings.get("align_until") == -1:
        settings["align_until"] = steps // 4
    recipe = replace(recipe, **settings, train=replace(recipe.train, steps=steps, seed=seed, threads=1, device="cpu"))
    torch.manual_seed(seed)
    run = recipe.build()
    if arm in ("MSE without projector", "head on descriptors"):
        head = arm == "head on descriptors"
        run.objective.align = molecule_term(run, recipe.width, head=head)  # pyright: ignore[reportAttributeAccessIssue]
    constants, known = run.constants, reference(recipe)

    def measure(model: nn.Module, last: bool) -> dict[str, float]:
        types, scale, pooled = constants["types"].tolist(), float(constants["scale"]), int(constants.get("pooled", 0))
        sampler = MoleculeGenerator(model, types, scale, constants["sizes"], pooled=pooled)
        random = seeded(seed, 7)
        drawn = sampler.draw(sampler.mask(samples, generator=random), steps=recipe.solver_steps, generator=random)
        values = scores([one.molecule() for one in drawn], known)
        names = ("valid", "connected", "bond lengths, divergence (bits)", "strain, median (kcal/mol)")
        uncorrected = sum(one.molecule(limit=1).valid for one in drawn) / samples
        by_time = molecular_losses(model, recipe) if last else {}
        return {"uncorrected": uncorrected, **{name: values[name] for name in names}, **by_time}

    return {"arm": arm, "seed": seed, "curve": curve(run, measure)}


def molecule_term(run: Run[Pair], width: int, *, head: bool) -> SquaredError:
    """The squared error of a linear head's prediction of the targets, or of the hidden state itself next to the principal
    components of the targets, divided by their root mean square."""
    rows = torch.cat([run.batches(number).condition["target"].flatten(0, 1) for number in range(20)])
    rows = rows[(rows != 0).any(-1)]
    if head:
        return SquaredError(CachedTargets(lambda x: x, key="target"), width, rows.shape[1])
    axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh[:width].T
    axes = axes / (rows @ axes).square().mean().sqrt()
    return SquaredError(CachedTargets(lambda x: x @ axes, key="target"))


def molecular_losses(model: nn.Module, recipe: Molecular) -> dict[str, float]:
    """The held-out loss of molecules in four intervals of t, without self-conditioning and distortion."""
    held_out = recipe.encoded("validation")
    pooled = recipe.pooled(recipe.encoded(), held_out)[1] if recipe.align_pooled_weight else None
    random = seeded(1781)
    pair = Pair(
        noise(held_out.mask, len(held_out.types), generator=random),
        held_out.x,
        held_out.mask,
        {} if pooled is None else {"pooled target": pooled},
    )
    result = {}
    for low in INTERVALS:
        times = Times(lambda u, low=low: low + 0.25 * u, stratified=True)
        matching = MoleculeMatching(
            coupling=COUPLINGS[recipe.coupling],
            times=times,
            type_weight=recipe.type_weight,
            self_conditioning=False,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            metrics = matching(model, pair).metrics
        result[f"loss, t from {low}"] = float(metrics.get("flow loss", metrics["loss"]))
    return result


def measured(
    name: str,
    arms: Sequence[str],
    seeds: int,
    settings: Mapping[str, Any],
    call: Callable[..., dict[str, Any]],
    workers: int,
) -> list[dict[str, Any]]:
    """A row for each arm and seed; those in the results `name` with the same settings are read, the others are trained."""
    rows = side.read_result(name)
    same = [row for row in rows if settings.items() <= row.items()]
    done = {(row["arm"], row["seed"]) for row in same}
    tasks = [(arm, seed) for seed in range(seeds) for arm in arms if (arm, seed) not in done]
    for _, row in processes(workers, start=partial(torch.set_num_threads, 1))(call, tasks):
        same.append({**row, **settings, **side.origin()})
        rows.append(same[-1])
        side.write_result(name, rows, packages=("torch",))
    return [row for row in same if row["arm"] in arms and row["seed"] < seeds]


def main(
    task: tyro.conf.Positional[Literal["digits", "molecules"]],
    *,
    data: Path = Path("runs/molecules-data"),
    work: Path = Path("runs/benchmark-repa"),
    steps: int = 0,
    seeds: int = 5,
    samples: int = 300,
    arms: tuple[str, ...] = (),
    workers: int = 2,
) -> None:
    """Train the arms and print quality by steps.

    Args:
        task: Data to train on.
        data: Directory of prepared molecules.
        work: Directory of the encoders that are trained here.
        steps: Number of training steps; 0 means 2,000 on digits and 600 on molecules.
        seeds: Number of seeds per arm.
        samples: Number of molecules in each measurement.
        arms: Arms to train besides "plain"; all by default.
        workers: Number of worker processes, one thread each.
    """
    known = IMAGES if task == "digits" else tuple(MOLECULES)
    if unknown := set(arms) - set(known):
        raise SystemExit(f"--arms {', '.join(unknown)}: choose from {', '.join(known)}")
    chosen = ["plain", *(arm for arm in arms or known if arm != "plain")]
    steps = steps or {"digits": 2000, "molecules": 600}[task]
    if task == "digits":
        train_encoders(work)
        rows = measured("repa_digits", chosen, seeds, {"steps": steps}, partial(images, work, steps), workers)
        for metric in ("frechet", "held-out loss"):
            report(rows, metric)
        report_by_time(rows)
        return
    settings = {"steps": steps, "samples": samples, "data": data.name}
    if "REPA, own" in chosen:
        made = PretrainMolecules(str(data))
        fit(replace(made, train=replace(made.train, threads=1)), work / f"encoder-{data.name}", resume=True)
    call = partial(molecular, data.resolve(), work.resolve(), steps, samples)
    rows = measured("repa_molecules", chosen, seeds, settings, call, workers)
    report(rows, "valid", higher=True)
    report(rows, "uncorrected", higher=True)
    for metric in ("bond lengths, divergence (bits)", "strain, median (kcal/mol)"):
        report(rows, metric)
    report_by_time(rows)


if __name__ == "__main__":
    tyro.cli(main)
