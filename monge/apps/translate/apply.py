"""The verb `run`: translate a file of vectors."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import tyro

from monge.apps.translate.conditional import ConditionalMethod
from monge.apps.translate.direction import direction
from monge.apps.translate.output import EMPTY, console, listed, write_dropped
from monge.apps.translate.pair import OnLongRows
from monge.apps.translate.recipes import Translator, translator_of
from monge.files import ensure_new
from monge.lm.store import Dropped, Dtype, OnBadRows, Row, Vectors, usable, write
from monge.math.path import Affine
from monge.math.solvers import SOLVERS, SolverName
from monge.math.steps import Step
from monge.runs import reopen
from monge.training.distributed import device_named


@dataclass
class Stream:
    """Translations of a file of vectors, one portion at a time. ValueError at the end if no row was translated.

    During iteration `dropped` collects (id, reason) of unusable rows, and `long`, `empty` and `repeated` collect ids.
    """

    vectors: Vectors
    translator: Translator
    reverse: bool
    steps: int
    step: Step
    on_long_rows: OnLongRows
    on_bad_rows: OnBadRows
    dtype: str
    dropped: list[Dropped] = field(default_factory=list[Dropped])
    long: list[str] = field(default_factory=list[str])
    empty: list[str] = field(default_factory=list[str])
    repeated: list[str] = field(default_factory=list[str])

    def __iter__(self) -> Iterator[list[Row]]:
        seen, translated = set[str](), 0
        for number, portion in self.vectors.portions(self.dropped if self.on_bad_rows == "drop" else None):
            rows: list[Row] = []
            for key, row in portion:
                if key in seen:
                    self.repeated.append(key)
                    continue
                seen.add(key)
                rows.append((key, row))
            if rows := self._fitting(number, rows):
                translations = self._translate(rows)
                translated += len(translations)
                yield translations
        if not translated:
            raise ValueError(f"{self.vectors.path}: no row was translated{self.report}")

    def _fitting(self, number: int, rows: list[Row]) -> list[Row]:
        """The rows that fit into the container. `on_long_rows` truncates or drops longer ones, or raises ValueError."""
        capacity = self.translator.space.container.capacity
        for key, row in rows:
            if len(row) > capacity and self.on_long_rows == "error":
                raise ValueError(
                    f"{self.vectors.path}: row group {number}, id {key!r}: {len(row)} vectors do not fit into "
                    f"{capacity} slots; pass --on-long-rows drop or truncate"
                )
        self.long.extend(key for key, row in rows if len(row) > capacity)
        return [(key, row[:capacity]) for key, row in rows if len(row) <= capacity or self.on_long_rows == "truncate"]

    def _translate(self, rows: list[Row]) -> list[Row]:
        sequences = [row.float() for _, row in rows]
        translations = self.translator.translate(sequences, reverse=self.reverse, steps=self.steps, step=self.step)
        pairs = list(zip([key for key, _ in rows], translations, strict=True))
        self.empty.extend(key for key, row in pairs if not len(row))
        pairs = [(key, row) for key, row in pairs if len(row)]
        if self.on_bad_rows == "error":
            return pairs
        return usable(pairs, dtype=self.dtype, width=self.vectors.width, dropped=self.dropped)

    @property
    def left_out(self) -> list[Dropped]:
        """(id, reason) of every row without a translation, except for repeated ids."""
        long = [] if self.on_long_rows == "truncate" else [(key, "longer than the container") for key in self.long]
        return [*self.dropped, *long, *((key, EMPTY) for key in self.empty)]

    @property
    def report(self) -> str:
        """Counts and first ids of the rows that were dropped, truncated, empty or repeated."""
        parts = {
            f"were unusable ({self.on_bad_rows})": [key for key, _ in self.dropped],
            f"were too long ({self.on_long_rows})": self.long,
            "had an empty translation": self.empty,
            "repeated an id (first row used)": self.repeated,
        }
        return "".join(f"; {len(keys)} {problem}: {listed(keys)}" for problem, keys in parts.items() if keys)


def run(
    run: tyro.conf.Positional[Path],
    vectors: tyro.conf.Positional[Path],
    *,
    out: Path,
    reverse: bool = False,
    forward: bool = False,
    on_long_rows: OnLongRows = "error",
    on_bad_rows: OnBadRows = "error",
    solver_steps: int | None = None,
    solver: SolverName = "euler",
    seed: int = 0,
    dtype: Dtype = "float16",
    checkpoint: str = "last",
    device: str = "auto",
) -> None:
    """Translate a file of vectors.

    Args:
        run: Directory of a trained run.
        vectors: Parquet file of the vectors to translate, with columns id and hidden.
        out: Parquet file to write. Rows without a translation are listed in OUT.dropped.jsonl.
        reverse: Translate from the target side to the source side.
        forward: Translate from the source side to the target side; needed if both sides were embedded alike and the vectors'
            statistics do not show the side.
        on_long_rows: For sequences longer than the run's container: stop with an error, drop them, or truncate them.
        on_bad_rows: For unusable rows (no id, no vectors, or a zero or non-finite vector): stop with an error, or drop them.
        solver_steps: Number of solver steps (default: the number used in training; if it fixes none, 16 with
            `--method conditional`, else 8).
        solver: Numerical solver of the flow's ODE.
        seed: Random seed of the noise, for a run trained with `--method conditional`; other seeds give other translations.
        dtype: Dtype of the written vectors.
        checkpoint: Checkpoint to load: last, best, or a step number.
        device: Device: cpu, cuda, or auto for a GPU if there is one.
    """
    ensure_new(out)
    ensure_new(listing := out.with_name(f"{out.name}.dropped.jsonl"))
    file, opened = Vectors(vectors), reopen(run, app="translate")
    if file.width != (width := int(opened.constants["width"])):
        raise ValueError(
            f"{vectors}: vectors have width {file.width}, the run expects {width}; embed with the same model and layer"
        )
    reverse, note = direction(file, opened, reverse=reverse, forward=forward)
    if note:
        console.print(note)
    translator = replace(translator_of(opened, which=checkpoint, device=device_named(device)), seed=seed)
    if seed and not isinstance(translator.method, ConditionalMethod):
        raise ValueError(f"--seed {seed} has no effect: {run} does not start from noise; omit it")
    steps = translator.steps if solver_steps is None else solver_steps
    step, start = SOLVERS[solver][0](Affine()), perf_counter()
    stream = Stream(file, translator, reverse, steps, step, on_long_rows, on_bad_rows, dtype)
    settings = {"steps": steps, "solver": solver, "reverse": reverse, "seed": seed, "input": file.fingerprint}
    if "pairs" in opened.constants:
        settings["pairs"] = int(opened.constants["pairs"])
    count = write(out, stream, dtype=dtype, fingerprint={"run": str(run), "checkpoint": checkpoint, **settings})
    write_dropped(listing, ({"id": key, "reason": reason} for key, reason in stream.left_out))
    rate = (count + len(stream.empty)) / (perf_counter() - start)
    console.print(f"{count} translated, {rate:.0f} per second: {out}{stream.report}")
