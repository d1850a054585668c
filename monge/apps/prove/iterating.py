"""The verb `iterate` of `monge prove`."""

from dataclasses import replace
from pathlib import Path
from shlex import quote

import tyro
from rich.console import Console

from monge.apps.prove.config import SearchConfig
from monge.apps.prove.contrast import NoContrast
from monge.apps.prove.families import DATA
from monge.apps.prove.finetune import FineTune
from monge.apps.prove.iteration import Iteration, Pipeline, Round, read_settings, text
from monge.apps.prove.lean.setup import setup_embedded
from monge.apps.prove.learning import embed, energy, finetune
from monge.apps.prove.round_report import markdown, plot, report
from monge.apps.prove.searching import fleets_of
from monge.apps.prove.tree import Search
from monge.files import locked, write_json, write_text
from monge.runs import reopen
from monge.training.config import TrainConfig

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets
SMALL = TrainConfig(steps=300, lr=2e-3, warmup_steps=20, save_every=100, weight_decay=0.1, threads=0, ema_width=0.0)
DEMO = Iteration(
    theorems=DATA / "lists.lean",
    rounds=1,
    search=SearchConfig(Search(num_tactics=24, max_states=8, batch_size=1, max_seconds=30.0, harvest=2), run="demo"),
    finetune=FineTune(
        width=128, depth=3, vocabulary=1024, length=256, renamed_copies=1, validation_share=0.2, train=SMALL
    ),
    energy={
        "hidden": [256, 128],
        "validation_share": 0.2,
        "train": {"steps": 300, "save_every": 100, "warmup_steps": 20},
    },
    arms=("template", "copy", "template+local", "template+local+energy"),
)
"""One small round on one family of theorems."""


def iterate(
    *,
    out: Path = Path("runs/iterate"),
    config: Path | None = None,
    demo: bool = False,
    print_config: bool = False,
    rounds: int | None = None,
    workers: int | None = None,
    ray: str = "",
    base: tyro.conf.Suppress[Iteration | None] = None,
) -> None:
    """Alternate search and training: each round searches the training theorems, trains a policy and an energy on all data so
    far, and searches the test theorems with each arm. Run it again to continue after an interruption.

    Args:
        out: Directory of the iteration; created if needed.
        config: TOML file of settings, as --print-config writes it; it may be partial.
        demo: Use small settings: one round on one family of theorems, from scratch.
        print_config: Print the settings as TOML and exit.
        rounds: Number of rounds; that of the settings by default.
        workers: Number of worker processes of the searches, each with its own Lean (about 4 GB); default: one, or with --ray
            one per core.
        ray: Address of a Ray cluster that runs the searches.
    """
    if demo and config is not None:
        raise ValueError("--demo has its own settings; give it or --config")
    settings = base or (DEMO if demo else Iteration() if config is None else read_settings(config))
    settings = settings if rounds is None else replace(settings, rounds=rounds)
    if print_config:
        print(text(settings), end="")
        return
    if demo:
        setup_embedded()
    pipeline = Pipeline(settings, out, fleets_of(workers, ray), say=console.print)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        pipeline.open()
        if settings.written:
            pipeline.replay()
        for number in range(settings.rounds):
            one = Round(settings, out, number)
            pipeline.explore(one)
            train(one)
            found = pipeline.evaluate(one)
            proved = ", ".join(f"{name} {sum(r.proved for r in rows)}" for name, rows in found.items())
            console.print(f"round {number}: proved of {len(pipeline.test)} test theorems: {proved}")
            content = report(settings, out, number + 1)
            write_json(out / "report.json", content)
            write_text(out / "report.md", markdown(content))
            plot(content, settings, out)
    last = Round(settings, out, settings.rounds - 1).model
    console.print(f"The report is in {out / 'report.md'}; the last policy: {quote(str(last))}")


def train(one: Round) -> None:
    """Train the policy and the energy of a round; complete steps are skipped. Without states to contrast, the policy is trained
    alone, and the round has no energy."""
    settings, runs = one.settings, tuple(one.data())
    policy, states, trained = (one.directory / name for name in ("policy", "states", "energy"))
    if not (policy / "policy.json").exists():
        _train_policy(one, runs, policy)
    if not states.exists():
        embed(runs, model=str(one.model), out=states, pooling=settings.pooling, max_length=settings.max_length)
    if not (trained / "energy.json").exists():
        resume = (trained / "recipe.json").exists()
        try:
            energy(runs, settings.energy_recipe, embeddings=states, out=trained, resume=resume)
        except NoContrast as error:
            write_json(trained / "energy.json", {"skipped": str(error)})
            console.print(f"round {one.number} has no energy: {error}")


def _train_policy(one: Round, runs: tuple[Path, ...], out: Path) -> None:
    """Train the policy, together with an energy if the settings say so and there are states to contrast."""
    if (out / "recipe.json").exists():
        weight = reopen(out, app=FineTune.app).rebuilt(FineTune).energy_weight
        finetune(runs, replace(one.finetune, energy_weight=weight), out=out, resume=True)
        return
    try:
        finetune(runs, one.finetune, out=out)
    except NoContrast as error:
        console.print(f"round {one.number}: the policy is trained without an energy: {error}")
        finetune(runs, replace(one.finetune, energy_weight=0.0), out=out)
