"""The verbs of `monge translate`."""

from dataclasses import asdict, replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import tyro

from monge.apps.translate import decode, pictures, prepare
from monge.apps.translate.apply import run
from monge.apps.translate.calibrate import Calibration
from monge.apps.translate.data import read_texts
from monge.apps.translate.decoder import DecoderShape
from monge.apps.translate.decoder_recipe import TrainDecoder
from monge.apps.translate.evaluate import evaluate as evaluate_run
from monge.apps.translate.examples import show
from monge.apps.translate.hermes import Original
from monge.apps.translate.metamath import INSTALLED
from monge.apps.translate.output import console
from monge.apps.translate.pair import ENDS, Pairs, check_texts, same_pairs
from monge.apps.translate.prepared import prepare_all
from monge.apps.translate.recipes import HERMES, Translate, Translator, stored_recipe, translator_of
from monge.apps.translate.space import Packed, Space
from monge.apps.translate.tables import table as _table
from monge.files import ensure_writable, finite_json, write_json
from monge.lm.load import causal, encoder
from monge.lm.store import Vectors, write
from monge.pretrain import Pretrain
from monge.run import fit, same_constant
from monge.runs import Opened, reopen
from monge.training.distributed import device_named, is_first
from monge.training.log import read_records


def train(
    recipe: Annotated[Translate, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/translate"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train a flow between the two sides of a set of pairs.

    Args:
        out: Run directory to create.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if is_first():
        opened = reopen(out, app="translate")
        recipe = stored_recipe(opened)  # with --resume, the flags are those of the command
        console.print(Space.from_constants(opened.constants, recipe.prices, aux_scale=recipe.aux_scale).note, end="")
        console.print(f"Training finished; the best checkpoint is selected by held-out {recipe.best_by.upper()}.")
        console.print(f"The run is in {out}; next: monge translate evaluate {quote(str(out))}")


def hermes(
    recipe: Annotated[Translate, tyro.conf.arg(name="")] = HERMES,
    *,
    config: Path | None = None,
    out: Path = Path("runs/hermes"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train the configuration of the original HERMES implementation with calibrated prices: 318 M parameters, for a GPU.

    Args:
        config: Configuration file of the original (project_config.yaml, section neural_ot). Its two files are paired in
            OUT-pairs; flags that differ from their defaults take precedence.
        out: Run directory to create.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    if config is not None:
        original = Original.read(config)
        if out == Path("runs/hermes") and "output_dir" in original.settings:
            out = Path(original.settings["output_dir"])
        recipe = original.recipe(original.pairs(out.with_name(f"{out.name}-pairs")), recipe)
        for note in original.notes if is_first() else ():
            console.print(f"{config}: {note}")
    train(recipe, out=out, resume=resume, tensorboard=tensorboard)


def evaluate(
    run: tyro.conf.Positional[Path],
    *,
    pairs: Path | None = None,
    solver_steps: int | None = None,
    sweep_steps: tuple[int, ...] | None = None,
    compare_with: tuple[Path, ...] = (),
    texts: Path | None = None,
    limit: int = 1000,
    pool: int = 1000,
    checkpoint: str = "last",
    device: str = "auto",
) -> None:
    """Translate the test pairs in both directions and score them against the true targets, next to baselines without a flow.

    Args:
        run: Directory of a trained run.
        pairs: Directory of the pairs that the run was trained on, if it has moved.
        solver_steps: Number of solver steps (default: as in training, else 16 with `--method conditional` and 8 otherwise).
        sweep_steps: Additional numbers of solver steps to evaluate (default: 1, 2, 4 and 16; none if training used one step).
        compare_with: Directories of other runs on the same pairs; each adds a row to the tables.
        texts: File written by `monge translate data`; if given, plan.png shows couplings between the words of a few pairs, with
            nl as the source and formal as the target.
        limit: Maximum number of test pairs.
        pool: Number of candidates per retrieval query.
        checkpoint: Checkpoint to load: last, best, or a step number.
        device: Device: cpu, cuda, or auto for a GPU if there is one.
    """
    opened = reopen(run, app="translate")
    ensure_writable(run / "evaluation.json")
    translator = translator_of(opened, which=checkpoint, device=device_named(device))
    steps = translator.steps if solver_steps is None else solver_steps
    if sweep_steps is None:
        sweep_steps = () if translator.steps == 1 else (1, 2, 4, 16)
    if pool < 2:
        raise ValueError(f"--pool must be at least 2, got {pool}")
    if len({path.name for path in compare_with} | {run.name}) <= len(compare_with):
        raise ValueError("--compare-with: two runs have the same directory name; rename one of them")
    paired = same_pairs(pairs or Path(stored_recipe(opened).pairs), opened.constants, run)
    others = {path.name: translator_of(_open_same(path, opened), device=device_named(device)) for path in compare_with}
    tables = {
        name: evaluate_run(
            paired,
            translator,
            reverse=reverse,
            limit=limit,
            steps=steps,
            sweep_steps=sweep_steps,
            compare_with=others,
            pool=pool,
        )
        for name, reverse in (("source to target", False), ("target to source", True))
    }
    for name, table in tables.items():
        console.print(_table(table.rows, f"{run.resolve().name}: {name}"))
    rows = {
        name: {row: {k: asdict(v) for k, v in cells.items()} for row, cells in t.rows.items()}
        for name, t in tables.items()
    }
    write_json(run / "evaluation.json", finite_json({"steps": steps, "checkpoint": checkpoint, "tables": rows}))
    lengths = {name: (table.true, table.predicted) for name, table in tables.items()}
    figures = [pictures.curves(run / "curves.png", read_records(run / "metrics.jsonl"), lengths)]
    if texts is not None:
        figures.append(pictures.plan(run / "plan.png", _arcs(paired, translator, texts)))
    console.print(
        f"All metrics with their intervals: {run / 'evaluation.json'}; figures: {', '.join(map(str, figures))}"
    )


def train_decoder(
    recipe: Annotated[TrainDecoder, tyro.conf.arg(name="")],
    *,
    out: Path = Path("runs/decoder"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train a decoder from the vectors of one side to its texts: a small causal language model whose prompt is the vectors,
    with noise of the size of a run's translation errors.

    Args:
        out: Run directory to create.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if is_first():
        words = (recipe.run, "TRANSLATED.parquet", "--texts", recipe.texts, "--decoder", out, "--out", "decoded.jsonl")
        console.print(
            f"The decoder is in {out}; next: monge translate run, then: "
            f"monge translate decode {' '.join(quote(str(word)) for word in words)}"
        )


def _arcs(pairs: Pairs, translator: Translator, texts: Path, *, count: int = 3) -> list[pictures.Arcs]:
    """The couplings of a few test pairs, with the texts of their tokens."""
    space = translator.space
    packed = Packed(pairs, space)
    rows = {text.id: text for text in read_texts(texts, dropped=[])}
    check_texts(pairs, rows.values(), texts)
    fingerprints = pairs.metadata["fingerprint"]
    if not all({"model", "max_length"} <= fingerprints[end].keys() for end in ENDS):
        raise ValueError(f"{pairs.directory}: the vectors do not record the model that made them; omit --texts")
    encoders = {end: encoder(fingerprints[end]["model"]) for end in ENDS}
    arcs: list[pictures.Arcs] = []
    for number in pairs.split("test")[:count].tolist():
        key, pair = pairs.ids[number], packed([number])
        if key not in rows:
            raise ValueError(
                f"{texts}: no text with id {key!r} of {pairs.directory}; pass the texts that were embedded"
            )
        words = [
            pictures.token_texts(encoders[end], text, int(fingerprints[end]["max_length"]))
            for end, text in zip(ENDS, (rows[key].nl, rows[key].formal), strict=True)
        ]
        arcs.append(pictures.Arcs.of(key, pair, space.container, space.transport.permutation(pair)[0], words))
    return arcs


def _open_same(path: Path, opened: Opened) -> Opened:
    """The run in `path`. ValueError unless it was trained on the same pairs in the same units."""
    other = reopen(path, app="translate")
    names = {"pairs", *Calibration.of(opened.constants).tensors()} & (opened.constants.keys() | other.constants.keys())
    for name in sorted(names):
        one, two = (run.constants.get(name) for run in (other, opened))
        if one is None or two is None or not same_constant(one, two):
            raise ValueError(
                f"{path}: {name} differs from that of {opened.directory}; compare runs on the same pairs, with the same prices"
            )
    return other


def demo(
    *,
    out: Path = Path("runs/demo-translate"),
    input: Path | None = None,
    limit: int = 2000,
    steps: int = 400,
    lm_steps: int = 200,
    decoder_steps: int = 200,
    model: str = "",
    layer: int | None = None,
) -> None:
    """Translate English to Metamath and back: prepare vectors of theorems, train a flow, evaluate it, decode its translations.
    Resumes if interrupted.

    Args:
        out: Directory for all results.
        input: Metamath database (default: set.mm of the installed package metamath-databases).
        limit: Maximum number of theorems.
        steps: Number of training steps of the flow.
        lm_steps: Number of training steps of the formal side's language model.
        decoder_steps: Number of training steps of the decoder from vectors to Metamath.
        model: Causal language model that embeds both sides and also decodes its own states, such as smollm2-135m. By default,
            all-MiniLM-L6-v2 embeds the English, and a small model, trained first, the Metamath.
        layer: Number of blocks of --model after which hidden states are read (default: all, before the final norm).
    """
    if layer is not None and not model:
        raise ValueError("--layer needs --model")
    if model:
        causal(model)  # without a head, it is an error before the work begins
    console.print("monge: training a flow from English comments to Metamath statements")
    lm = Pretrain(
        train=replace(Pretrain().train, steps=lm_steps, save_every=max(1, lm_steps // 2), warmup_steps=lm_steps // 10)
    )
    recipe = Translate(pairs=str(prepare_all(out, input=input, limit=limit, recipe=lm, model=model, layer=layer)))
    recipe = replace(recipe, train=replace(recipe.train, steps=steps, save_every=max(1, steps // 2)))
    train(recipe, out=out / "run", resume=(out / "run" / "recipe.json").exists())
    evaluate(out / "run", texts=out / "texts.jsonl")
    texts, decoder = out / "texts.jsonl", out / "decoder"
    shape = DecoderShape(width=192, depth=3, positions=512 if model else 256)
    plan = TrainDecoder(run=str(out / "run"), texts=str(texts), shape=shape, pairs=recipe.pairs)
    plan = replace(plan, train=replace(plan.train, steps=decoder_steps, save_every=max(1, decoder_steps // 2)))
    train_decoder(plan, out=decoder, resume=(decoder / "recipe.json").exists())
    test = {text.id for text in read_texts(texts) if text.split == "test"}
    vectors, translated = out / "test.parquet", out / "translated.parquet"
    files = {"nearest": out / "nearest.jsonl", "decoded": out / "decoded.jsonl"}
    files |= {"own head": out / "own-head.jsonl"} if model else {}
    for path in (vectors, translated, translated.with_name(f"{translated.name}.dropped.jsonl"), *files.values()):
        path.unlink(missing_ok=True)  # of an earlier run
    source = Vectors(out / "nl.parquet")
    rows = ([row for row in part if row[0] in test] for _, part in source.portions())
    write(vectors, filter(None, rows), dtype=source.dtype, fingerprint=source.fingerprint)
    run(out / "run", vectors, out=translated, forward=True, on_long_rows="drop")
    for name, path in files.items():
        console.print(f"{name}:", end=" ")
        decode.decode(
            out / "run",
            translated,
            texts=texts,
            out=path,
            decoder=decoder if name == "decoded" else None,
            own_head=name == "own head",
            grammar=None if name == "nearest" else input or INSTALLED,
        )
    show(texts, files)


VERBS = {
    "data": prepare.data,
    "pretrain": prepare.pretrain,
    "embed": prepare.embed,
    "pair": prepare.pair,
    "calibrate": prepare.calibrate,
    "couple": prepare.couple,
    "train": train,
    "hermes": hermes,
    "run": run,
    "train-decoder": train_decoder,
    "decode": decode.decode,
    "evaluate": evaluate,
    "demo": demo,
}
