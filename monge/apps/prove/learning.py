"""The verbs `finetune`, `dpo`, `embed`, `serve-embeddings` and `energy` of `monge prove`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from monge.apps.prove.dpo import Prefer
from monge.apps.prove.energy import StateEnergy
from monge.apps.prove.energy_measures import alarms, calibration, quality
from monge.apps.prove.finetune import PRESETS, FineTune, loss_of, trained
from monge.apps.prove.pairs import as_rows, write_examples
from monge.apps.prove.states import StateVectors, check_same_model, states_of, write
from monge.files import ensure_new, write_json
from monge.flags import bind
from monge.fleet import of
from monge.lm.embed import Embedding
from monge.lm.load import encoder
from monge.lm.lora import merged
from monge.lm.serve import EmbeddingServer, token_in
from monge.lm.store import Dropped, Dtype
from monge.run import fit
from monge.runs import reopen, with_stored_recipe
from monge.training.distributed import device_named, is_first
from monge.training.log import read_records

console = Console(soft_wrap=True, markup=False)  # paths may hold brackets
EMPTY = FineTune()
NO_ENERGY = StateEnergy()
NO_PREFERENCE = Prefer()


def finetune(
    runs: tyro.conf.Positional[tuple[Path, ...]] = (),
    recipe: Annotated[FineTune, tyro.conf.arg(name="")] = EMPTY,
    *,
    pairs: tuple[Path, ...] = (),
    out: Path = Path("runs/policy"),
    preset: Literal["scratch", "smollm2-135m", "deepseek-prover-7b"] = "scratch",
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Fine-tune a language model on states and the tactics that led to proofs, for `monge prove search --policy local`.

    Args:
        runs: Run directories of `monge prove replay` and `monge prove search`; with --resume, those of the run by default.
        pairs: Files of published pairs (.jsonl or .parquet) with fields state_before (or state, or goal) and tactic, to mix in.
        out: Run directory; created if needed. The model is saved in OUT/model.
        preset: Settings that flags override: a small model from scratch, or LoRA on SmolLM2-135M or DeepSeek-Prover-V2-7B.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    given = {"runs": runs or recipe.runs, "pairs": pairs or recipe.pairs}
    recipe = replace(recipe, **{name: tuple(map(str, paths)) for name, paths in given.items()})
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if not is_first():  # the other ranks have nothing to evaluate
        return
    data, model = trained(recipe, reopen(out, app=FineTune.app))
    model.to(device_named(recipe.train.device))
    losses = {
        source: {"examples": len(part), "loss": loss_of(model, part, recipe.length, data.pad)}
        for source, part in data.held_out_by_source().items()
    }
    model.save_pretrained(out / "model")
    data.tokenizer.save_pretrained(out / "model")
    write_examples(out / "model", data.split["training"])
    rows = as_rows(data.counts)
    sizes = {"training": len(data.training) - data.num_renamed, "held-out": len(data.held_out)}
    used = sum(map(len, data.split.values()))
    sizes |= {"too long": used - sum(sizes.values()), "not sampled": sum(row["kept"] for row in rows) - used}
    sizes["renamed"] = data.num_renamed
    write_json(out / "policy.json", {"sources": rows, "examples": sizes, "held-out loss": losses})
    table = Table(title=f"{sizes['training']} examples for training, {sizes['held-out']} held out")
    for name in (*rows[0], "held-out loss"):
        table.add_column(name, justify="left" if name == "source" else "right")
    for row in rows:
        loss = losses.get(row["source"], {}).get("loss")
        table.add_row(*map(str, row.values()), "" if loss is None else f"{loss:.3f}")
    console.print(table)
    console.print(
        f"The model is in {out / 'model'}; next: monge prove search --policy local --model {quote(str(out / 'model'))}"
    )


def dpo(
    runs: tyro.conf.Positional[tuple[Path, ...]] = (),
    recipe: Annotated[Prefer, tyro.conf.arg(name="")] = NO_PREFERENCE,
    *,
    model: str = "",
    out: Path = Path("runs/dpo"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train a tactic policy by direct preference optimisation: tactics of proofs over ones that failed on the same state.

    Args:
        runs: Run directories of `monge prove search`; with --resume, those of the run by default.
        model: Policy to start from: a directory such as runs/policy/model. It is also the reference model.
        out: Run directory; created if needed. The model is saved in OUT/model.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    recipe = replace(recipe, runs=tuple(map(str, runs)) or recipe.runs, model=model or recipe.model)
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if not is_first():
        return
    loaded = recipe.policy()
    best: Any = reopen(out, app=Prefer.app).weights(recipe.network(loaded.model), which="best")
    trained_model = merged(best)
    trained_model.save_pretrained(out / "model")
    loaded.tokenizer.save_pretrained(out / "model")
    console.print(
        f"The model is in {out / 'model'}; next: monge prove search --policy local --model {quote(str(out / 'model'))}"
    )


def embed(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    *,
    model: str,
    out: Path = Path("runs/states"),
    layer: int | None = None,
    pooling: Literal["mean", "last"] = "mean",
    max_length: int = 512,
    dtype: Dtype = "float16",
    workers: int = 1,
    ray: str | None = None,
) -> None:
    """Embed the distinct states of runs, for `monge prove energy`: a pooled hidden state for each.

    Args:
        runs: Run directories of `monge prove search` and `monge prove replay`.
        model: Language model: a directory, such as runs/policy/model, a packaged model, or a name on the hub.
        out: Directory to create. Parts are saved next to it, so an interrupted command can be run again to continue.
        layer: Number of transformer blocks after which hidden states are read; all by default.
        pooling: Vector of a state: the mean over its tokens, or that of the last token.
        max_length: Maximum length of a state in tokens; longer ones are cut at their start.
        dtype: Dtype of the stored vectors.
        workers: Number of worker processes.
        ray: Address of a Ray cluster to run on, instead of local processes.
    """
    ensure_new(out)
    states = states_of(runs)
    if not states:
        raise ValueError(f"{', '.join(map(str, runs))}: no states to embed; give runs that tried tactics")
    model = str(Path(model).resolve()) if Path(model).is_dir() else model
    embedding = Embedding(
        model, encoder(model).depth if layer is None else layer, max_length, dtype, pooling=pooling, keep="end"
    )
    dropped: list[Dropped] = []
    for done, count in write(out, states, embedding, of(workers, ray), dropped=dropped):
        console.print(f"states: {done} of {count} parts")
    console.print(f"{len(states) - len(dropped)} states embedded, {len(dropped)} rejected: {out}")
    for key, reason in dropped[:5]:
        console.print(f"  rejected: {states[key].splitlines()[-1]} ({reason})")


def serve_embeddings(
    embeddings: tyro.conf.Positional[Path] = Path("runs/states"),
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    token_variable: str = "",
    batch_size: int = 32,
    queue_size: int = 1024,
    linger: float = 0.005,
) -> None:
    """Serve embeddings of states over HTTP, with the model and settings of `monge prove embed`, until Ctrl-C.

    POST /encode takes {"text": TEXT or [TEXT, ...]}, POST /v1/embeddings has OpenAI's format; GET /health and /model_info.
    /model_info and every answer with vectors hold the fingerprint of the model and the settings.

    Args:
        embeddings: Directory of `monge prove embed`.
        host: Address to listen on. One that other machines can reach needs --token-variable.
        port: Port to listen on; 0 for any free one.
        token_variable: Name of the environment variable that holds the token that clients must send.
        batch_size: Maximum number of texts per batch.
        queue_size: Maximum number of texts that wait; more are answered with status 503.
        linger: Seconds for which a batch waits for further texts.
    """
    for name, value in (("batch_size", batch_size), ("queue_size", queue_size)):
        if value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    vectors = StateVectors(embeddings)
    check_same_model(vectors, vectors.embedding.fingerprint())
    limits = {"batch_size": batch_size, "queue_size": queue_size, "linger": linger}
    with EmbeddingServer(vectors.embedding, host=host, port=port, token=token_in(token_variable), **limits) as server:
        url = f"http://{host}:{server.server_port}/v1"
        token = f" --embeddings-token-variable {token_variable}" if token_variable else ""
        console.print(f"Listening; next: monge prove search --energy ENERGY --embeddings-url {url}{token}")
        server.serve_forever()


def energy(
    runs: tyro.conf.Positional[tuple[Path, ...]] = (),
    recipe: Annotated[StateEnergy, tyro.conf.arg(name="")] = NO_ENERGY,
    *,
    embeddings: Path | None = None,
    out: Path = Path("runs/energy"),
    resume: bool = False,
    tensorboard: bool = False,
) -> None:
    """Train an energy over proof states, low on the paths of proofs, for `monge prove search --energy`.

    Args:
        runs: Run directories of `monge prove search` and `monge prove replay`; with --resume, those of the run by default.
        embeddings: Directory of `monge prove embed` on the same runs.
        out: Run directory; created if needed.
        resume: Continue from the last checkpoint in the run directory.
        tensorboard: Also write TensorBoard event files (needs monge[tensorboard]).
    """
    given = tuple(map(str, runs)) or recipe.runs
    recipe = replace(recipe, runs=given, embeddings=recipe.embeddings if embeddings is None else str(embeddings))
    fit(recipe, out, resume=resume, tensorboard=tensorboard)
    if not is_first():
        return
    _, held_out, vectors, counts = recipe.data()
    model = reopen(out, app=StateEnergy.app).weights(recipe.network(vectors.width), which="best")
    sets = {
        "sampled": [held_out.batch(256, np.random.default_rng(k)) for k in range(8)],
        "true siblings": held_out.sibling_sets(np.random.default_rng(0)),
        f"{recipe.negatives} siblings": held_out.sibling_sets(np.random.default_rng(0), least=recipe.negatives),
    }
    measures = {name: quality(model, part) for name, part in sets.items() if part}
    sizes = {name: sum(map(len, part)) for name, part in sets.items()}
    rows = {split: asdict(count) for split, count in counts.items()}
    depths = calibration(model, sets["sampled"])
    write_json(out / "energy.json", {"states": rows, "quality": measures, "sets": sizes, "depths": depths})
    console.print(_columns("States", rows))
    console.print(_columns("Held-out theorems", measures))
    console.print(_columns("Remaining steps", {str(row["remaining"]): row for row in depths}))
    losses = [row["held-out loss"] for row in read_records(out / "metrics.jsonl") if "held-out loss" in row]
    for sentence in alarms(measures["sampled"], losses):
        console.print(sentence)
    console.print(f"The energy is in {out}; next: monge prove search --energy {quote(str(out))}")


def _columns(title: str, columns: Mapping[str, Mapping[str, float]]) -> Table:
    """A table with a column for each mapping, and a row for each key of the first."""
    table = Table("", title=title)
    for name in columns:
        table.add_column(name, justify="right")
    for key in next(iter(columns.values())):
        values = [column.get(key, "") for column in columns.values()]
        table.add_row(key, *(f"{value:.3f}" if isinstance(value, float) else str(value) for value in values))
    return table


def with_preset(arguments: Sequence[str]) -> Callable[..., None]:
    """`finetune` whose flags default to the settings of the run to resume, or to those of `--preset`."""
    words = [part for word in arguments for part in word.split("=", 1)]
    names = [name for word, name in zip(words, words[1:], strict=False) if word == "--preset"]
    preset = PRESETS.get(names[-1], {}) if names else {}
    stored = with_stored_recipe(finetune, arguments) if "--resume" in words else finetune
    chosen = stored if stored is not finetune else partial(finetune, recipe=replace(EMPTY, **preset))
    _, named = bind(chosen, arguments, "monge prove finetune")
    if named.get("resume") and any(word.partition("=")[0] == "--preset" for word in arguments):
        raise ValueError("--resume continues with the run's settings; omit --preset")
    return chosen
