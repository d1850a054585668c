"""`monge translate run` and `pair` on realistic files: unusable rows, repeated ids, no fingerprint, odd paths."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monge.apps.translate.field import FieldShape
from monge.apps.translate.pair import pair
from monge.apps.translate.recipes import Translate
from monge.cli import main
from monge.lm.store import Vectors
from monge.run import fit
from monge.training.config import TrainConfig

TINY = TrainConfig(steps=1, warmup_steps=0, save_every=1, device="cpu", loader_threads=0)
WIDTH, COUNT = 8, 60
Verb = Callable[..., tuple[int, str]]
Numbers = list[list[list[float] | None] | None]


@pytest.fixture
def verb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Verb:
    """verb(*words): (exit code, everything printed, in one line)."""
    monkeypatch.delenv("MONGE_TRACE", raising=False)

    def call(*words: object) -> tuple[int, str]:
        code = main(["translate", *map(str, words)])
        printed = capsys.readouterr()
        return code, " ".join((printed.out + printed.err).split())

    return call


def plain(path: Path, rows: Numbers, ids: list | pa.Array | None = None) -> Path:
    """A file of doubles without a fingerprint."""
    keys = [f"t{k}" for k in range(len(rows))] if ids is None else ids
    kind = pa.list_(pa.list_(pa.float64()))
    pq.write_table(pa.table({"id": keys, "hidden": pa.array(rows, kind)}), path)
    return path


def drawn(centre: float, size: float, *, count: int = COUNT, seed: int = 0) -> Numbers:
    draws = torch.Generator().manual_seed(seed)
    return [(centre + size * torch.randn(3 + k % 4, WIDTH, generator=draws)).tolist() for k in range(count)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run between sides that are far apart and have no fingerprints."""
    path = tmp_path_factory.mktemp("apart")
    files = plain(path / "a", drawn(50, 1)), plain(path / "b", drawn(-400, 3, seed=1))
    pair(*files, path / "pairs", capacity=8)
    fit(Translate(pairs=str(path / "pairs"), shape=FieldShape(64, 1), batch_size=8, train=TINY), path / "run")
    return path / "run"


@pytest.mark.slow
def test_sides_are_detected_by_their_statistics(run: Path, tmp_path: Path, verb: Verb) -> None:
    source, target = plain(tmp_path / "s", drawn(50, 1, seed=2)), plain(tmp_path / "t", drawn(-400, 3, seed=3))
    assert verb("run", run, source, "--out", tmp_path / "1")[0] == 0
    code, message = verb("run", run, target, "--out", tmp_path / "2")
    assert (code, "t: these look like target vectors; pass --reverse" in message) == (2, True)
    assert not (tmp_path / "2").exists()
    assert verb("run", run, target, "--out", tmp_path / "2", "--reverse")[0] == 0
    code, message = verb("run", run, source, "--out", tmp_path / "3", "--reverse")
    assert (code, "note: these look like source vectors" in message) == (0, True)
    for centre, reason in ((1e4, "fit neither side"), (-100.0, "fit neither side")):
        far = plain(tmp_path / f"far{centre}", drawn(centre, 1))
        code, message = verb("run", run, far, "--out", tmp_path / "4")
        assert (code, reason in message, message.endswith("pass --forward or --reverse")) == (2, True, True)
    assert verb("run", run, far, "--out", tmp_path / "4", "--forward")[0] == 0
    code, message = verb("run", run, source, "--out", tmp_path / "5", "--forward", "--reverse")
    assert (code, "mutually exclusive" in message) == (2, True)


def test_indistinguishable_sides_need_a_flag(tmp_path: Path, verb: Verb) -> None:
    a, b = plain(tmp_path / "a", drawn(0, 1)), plain(tmp_path / "b", drawn(0, 1, seed=1))
    pair(a, b, tmp_path / "pairs", capacity=8)
    recipe = Translate(pairs=str(tmp_path / "pairs"), shape=FieldShape(64, 1), batch_size=8, train=TINY)
    fit(recipe, tmp_path / "run")
    code, message = verb("run", tmp_path / "run", a, "--out", tmp_path / "o")
    assert (code, "fit either side; pass --forward or --reverse" in message) == (2, True)
    assert verb("run", tmp_path / "run", a, "--out", tmp_path / "o", "--forward")[0] == 0


def test_the_first_row_of_a_repeated_id_is_used(run: Path, tmp_path: Path, verb: Verb) -> None:
    rows = drawn(50, 1, count=3)
    repeated = plain(tmp_path / "x", [*rows, rows[1]], pa.array([7, 8, 9, 7]))
    code, message = verb("run", run, repeated, "--out", tmp_path / "y")
    assert (code, "1 repeated an id (first row used): 7" in message) == (0, True)
    plain(tmp_path / "once", rows, ["7", "8", "9"])
    assert verb("run", run, tmp_path / "once", "--out", tmp_path / "z")[0] == 0
    translated, expected = (
        {key: x for _, portion in Vectors(tmp_path / name).portions() for key, x in portion} for name in ("y", "z")
    )
    assert list(translated) == ["7", "8", "9"]
    assert torch.equal(translated["7"], expected["7"])


def test_pairs_are_found_from_any_working_directory_and_after_a_move(
    run: Path, tmp_path: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = run.parent / "pairs"
    monkeypatch.chdir(run.parent)
    relative = Translate(pairs="pairs", shape=FieldShape(64, 1), batch_size=8, train=TINY)
    assert relative.pairs == str(pairs)
    moved = shutil.copytree(pairs, tmp_path / "moved")
    other = shutil.copytree(run, tmp_path / "run")
    stored = json.loads((other / "recipe.json").read_text())
    stored["recipe"]["pairs"] = str(tmp_path / "gone")
    (other / "recipe.json").write_text(json.dumps(stored))
    code, message = verb("evaluate", other)
    assert (code, "gone: no pairs here" in message) == (2, True)
    assert verb("evaluate", other, "--pairs", moved)[0] == 0
    json.loads((other / "evaluation.json").read_text(), parse_constant=pytest.fail)


NAN = float("nan")
BAD: Numbers = [[[0.0] * WIDTH], [[NAN] * WIDTH], [], None, [[1.0] * 7 + [float("inf")]], [None]]


def test_unusable_rows_are_rejected_or_dropped_and_listed(run: Path, tmp_path: Path, verb: Verb) -> None:
    source = plain(tmp_path / "x", [*drawn(50, 1, count=4), *BAD])
    code, message = verb("run", run, source, "--out", tmp_path / "y")
    assert (code, "id 't4': vector 0 is zero; leave the row out, as --on-bad-rows drop does" in message) == (2, True)
    assert not (tmp_path / "y").exists()
    code, message = verb("run", run, source, "--out", tmp_path / "y", "--on-bad-rows", "drop")
    assert (code, "4 translated" in message, "6 were unusable (drop): t4, t5, t6, t7, t8 and 1 more" in message) == (
        0,
        True,
        True,
    )
    listed = [json.loads(line) for line in (tmp_path / "y.dropped.jsonl").read_text().splitlines()]
    assert [row["id"] for row in listed] == [f"t{k}" for k in range(4, 10)]
    assert Vectors(tmp_path / "y").ids() == [f"t{k}" for k in range(4)]


def test_a_file_without_usable_rows_is_named_in_the_error(run: Path, tmp_path: Path, verb: Verb) -> None:
    source = plain(tmp_path / "x", [sequence * 4 for sequence in drawn(50, 1, count=3)])
    code, message = verb("run", run, source, "--out", tmp_path / "y", "--on-long-rows", "drop")
    assert (code, "x: no row was translated; 3 were too long (drop): t0, t1, t2" in message) == (2, True)
    assert list(tmp_path.iterdir()) == [source]


def test_pairs_of_unusable_rows_are_left_out_and_listed(tmp_path: Path, verb: Verb) -> None:
    rows = drawn(50, 1, count=20)
    a, b = (
        plain(tmp_path / "a", [*rows[:14], *BAD]),
        plain(tmp_path / "b", rows, pa.array([f"t{k}" for k in range(20)])),
    )
    code, message = verb("pair", a, b, "--out", tmp_path / "p")
    assert (code, "id 't14': vector 0 is zero" in message, "bfloat16" in message) == (2, True, False)
    code, message = verb("pair", a, b, "--out", tmp_path / "p", "--on-bad-rows", "drop")
    assert (code, "14 pairs of width 8" in message, "6 source and 0 target rows are unusable" in message) == (
        0,
        True,
        True,
    )
    listed = [json.loads(line) for line in (tmp_path / "p" / "dropped.jsonl").read_text().splitlines()]
    assert [(row["end"], row["id"]) for row in listed] == [("source", f"t{k}") for k in range(14, 20)]


def test_unusable_rows_of_the_texts_are_reported(tmp_path: Path, verb: Verb) -> None:
    a, b = plain(tmp_path / "a", drawn(0, 1)), plain(tmp_path / "b", drawn(0, 1, seed=1))
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"id": "t0", "group": "g", "nl": "a", "formal": "b"}\n{"id": "t1"}\n')
    code, message = verb("pair", a, b, "--out", tmp_path / "p", "--texts", texts, "--on-bad-rows", "drop")
    assert code == 0
    assert "texts.jsonl; 1 dropped: " in message


@pytest.mark.parametrize(("dtype", "size"), [(None, 4), ("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_pairs_are_stored_in_the_requested_dtype(tmp_path: Path, verb: Verb, dtype: str | None, size: int) -> None:
    a, b = plain(tmp_path / "a", drawn(0, 1)), plain(tmp_path / "b", drawn(0, 1, seed=1))
    words = [] if dtype is None else ["--dtype", dtype]
    assert verb("pair", a, b, "--out", tmp_path / "p", *words)[0] == 0
    vectors = sum(len(row or ()) for row in drawn(0, 1))
    assert (tmp_path / "p" / "source" / "vectors.bin").stat().st_size == vectors * WIDTH * size
    assert json.loads((tmp_path / "p" / "pairs.json").read_text())["dtype"]["target"] == (dtype or "float32")


def test_values_that_a_dtype_cannot_hold_are_rejected_or_dropped(tmp_path: Path, verb: Verb) -> None:
    rows = drawn(0, 1, count=4)
    a, b = plain(tmp_path / "a", [*rows[:3], [[1e5] * WIDTH]]), plain(tmp_path / "b", rows)
    code, message = verb("pair", a, b, "--out", tmp_path / "p", "--dtype", "float16")
    assert (code, "a: row group 0, id 't3': vector 0 is infinite" in message, "store bfloat16" in message) == (
        2,
        True,
        True,
    )
    assert verb("pair", a, b, "--out", tmp_path / "q", "--dtype", "float16", "--on-bad-rows", "drop")[0] == 0
    assert verb("pair", a, b, "--out", tmp_path / "r", "--dtype", "bfloat16")[0] == 0


def test_a_path_with_brackets_is_printed_verbatim(run: Path, tmp_path: Path, verb: Verb) -> None:
    source, out = plain(tmp_path / "x", drawn(50, 1, count=3)), tmp_path / "lr[bold][/2]:smile:"
    code, message = verb("run", run, source, "--out", out)
    assert (code, str(out) in message, out.exists()) == (0, True, True)


@pytest.mark.parametrize("out", ["/proc/z.parquet", "taken/y.parquet"])
def test_an_unwritable_output_is_reported_before_the_work(
    run: Path, tmp_path: Path, verb: Verb, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file")
    source = plain(tmp_path / "x", drawn(50, 1, count=3))
    monkeypatch.setattr("monge.apps.translate.apply.reopen", pytest.fail)
    code, message = verb("run", run, source, "--out", out)
    assert (code, message.startswith(f"monge translate run: {out}: cannot be written (")) == (2, True)
    assert message.endswith("choose another path")
