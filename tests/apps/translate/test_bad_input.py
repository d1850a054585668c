"""Invalid input to a verb of `monge translate` gives a one-line message and exit code 2, and leaves no partial files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monge.apps.translate.couple import Couplings, couple, shard_path
from monge.apps.translate.data import Text, write_texts
from monge.apps.translate.field import FieldShape
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translate
from monge.apps.translate.space import Packed
from monge.cli import main
from monge.files import write_json
from monge.fleet import sequential
from monge.lm.store import Vectors, write
from monge.run import fit
from monge.training.config import TrainConfig

TINY = TrainConfig(steps=1, warmup_steps=0, save_every=1, device="cpu", loader_threads=0)
LM = ["--vocabulary", 300, "--width", 16, "--depth", 1, "--heads", 2, "--length", 8, "--batch-size", 2]
LM += ["--steps", 1, "--warmup-steps", 0, "--save-every", 1, "--device", "cpu"]
Translated = Callable[..., tuple[int, str]]


@pytest.fixture
def translate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Translated:
    """translate(*words): (exit code, the one-line error message or "")."""
    monkeypatch.delenv("MONGE_TRACE", raising=False)

    def call(*words: object) -> tuple[int, str]:
        code = main(["translate", *map(str, words)])
        message = capsys.readouterr().err
        assert code == 0 or message.count("\n") == 1
        return code, message

    return call


def all_files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "run"
    fit(
        Translate(pairs=str(pairs.directory), shape=FieldShape(64, 1), walking_steps=2, batch_size=8, train=TINY),
        directory,
    )
    return directory


def vectors(path: Path, *, length: int = 3, width: int = 16, model: str = "a") -> Path:
    write(path, [[("x", torch.ones(length, width))]], dtype="float16", fingerprint={"model": model})
    return path


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 5}, "vectors have width 5, the run expects 16; embed with the same model and layer"),
        (
            {"length": 13},
            "row group 0, id 'x': 13 vectors do not fit into 12 slots; pass --on-long-rows drop or truncate",
        ),
        ({"model": "b"}, "these are target vectors; pass --reverse"),
        ({"model": "c"}, "not embedded like the run's source; use the same model, layer and settings"),
    ],
)
def test_vectors_that_do_not_fit_a_run_are_rejected(
    run: Path, tmp_path: Path, translate: Translated, sizes: dict[str, Any], message: str
) -> None:
    source = vectors(tmp_path / "x", **sizes)
    assert translate("run", run, source, "--out", tmp_path / "y") == (2, f"monge translate run: {source}: {message}\n")
    nowhere = tmp_path / "nowhere"
    assert translate("run", run, nowhere, "--out", tmp_path / "y") == (
        2,
        f"monge translate run: {nowhere}: no such file\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_translation_records_its_settings_and_overwrites_nothing(
    run: Path, tmp_path: Path, translate: Translated
) -> None:
    source, out = vectors(tmp_path / "x"), tmp_path / "y"
    before = all_files(tmp_path)
    (tmp_path / "directory").mkdir()
    for taken in (source, tmp_path / "directory"):
        code, message = translate("run", run, source, "--out", taken)
        assert (code, "already exists; choose another path" in message) == (2, True)
    assert all_files(tmp_path) == before
    assert translate("run", run, source, "--out", out, "--solver-steps", 0)[1].endswith(
        "steps must be at least 1, got 0\n"
    )
    source = vectors(tmp_path / "b", model="b")
    words = ("run", run, source, "--out", out, "--solver-steps", 2, "--solver", "heun", "--reverse")
    assert translate(*words) == (0, "")
    fingerprint = Vectors(out).fingerprint
    assert (fingerprint["steps"], fingerprint["solver"], fingerprint["reverse"]) == (2, "heun", True)
    assert fingerprint["input"] == Vectors(source).fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b""), "not a complete shard of 100 x 12"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "not a complete shard of 100 x 12"),
        (lambda path: np.save(path, np.load(path)[:-1]), "not a complete shard of 100 x 12"),
        (lambda path: np.save(path, np.load(path)[:, :-1]), "not a complete shard of 100 x 12"),
        (lambda path: np.save(path, np.load(path).astype(np.int64)), "not a complete shard of 100 x 12"),
        (lambda path: np.save(path, np.load(path) * 0), "the coupling of pair 100 is not a permutation"),
    ],
)
def test_a_damaged_shard_of_couplings_is_named_in_the_error(
    packed: Packed, tmp_path: Path, damage, message: str
) -> None:
    list(couple(packed, tmp_path, sequential, size=100))
    assert (Couplings.open(tmp_path, packed)([3, 239]).sort(1).values == torch.arange(12)).all()
    damage(path := shard_path(tmp_path, 1))
    with pytest.raises(ValueError, match=message) as stopped:
        Couplings.open(tmp_path, packed)([0, 100])
    assert str(stopped.value).startswith(f"{path}: ")


def test_a_damaged_description_of_couplings_is_named_in_the_error(packed: Packed, tmp_path: Path) -> None:
    list(couple(packed, tmp_path, sequential, size=100))
    path = tmp_path / "couplings.json"
    write_json(path, json.loads(path.read_text()) | {"shard": 0})
    with pytest.raises(ValueError, match=r"couplings\.json: made with shard = 0"):
        Couplings.open(tmp_path, packed)


def test_couplings_of_another_calibration_are_rejected(packed: Packed, tmp_path: Path) -> None:
    list(couple(packed, tmp_path, sequential, size=100))
    calibration = replace(packed.space.calibration, unit=2 * packed.space.calibration.unit)
    other = Packed(packed.pairs, replace(packed.space, calibration=calibration))
    with pytest.raises(ValueError, match=r"couplings\.json: made with calibration = "):
        Couplings.open(tmp_path, other)


def test_two_processes_do_not_couple_in_one_directory(packed: Packed, tmp_path: Path) -> None:
    first = couple(packed, tmp_path / "out", sequential, size=100)
    assert next(first) == (1, 3)
    with pytest.raises(ValueError, match="out: another process is using it"):
        next(couple(packed, tmp_path / "out", sequential, size=100))
    assert list(first) == [(2, 3), (3, 3)]


def texts(path: Path, count: int = 200, formal: str = "A e. B") -> Path:
    write_texts(path, [Text(f"id-{k}", f"group-{k}", "words", f"{formal} {k}") for k in range(count)])
    return path


def test_pretraining_does_not_resume_on_other_texts(
    tmp_path: Path, translate: Translated, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "formal"
    few = texts(tmp_path / "few.jsonl", 2)
    code, message = translate("pretrain", few, "--out", out, *LM)
    assert (code, "give more text" in message) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]
    given = texts(tmp_path / "texts.jsonl")
    with given.open("a") as file:
        file.write('{"id": "unusable", "nl": "x", "formal": ""}\n')
    assert main(["translate", "pretrain", *map(str, (given, "--out", out, *LM))]) == 0
    assert "1 dropped: unusable (formal is '')" in " ".join(capsys.readouterr().out.split())
    before = all_files(tmp_path)
    other = texts(tmp_path / "other.jsonl", formal="B e. A")
    code, message = translate("pretrain", other, "--out", out, *LM, "--resume")
    assert (code, f"{out}.texts.jsonl: differs from the formal texts of {other}" in message) == (2, True)
    assert all_files(tmp_path).items() >= before.items()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data", "minif2f", "--input", "rows", "--limit", 0, "--out", "new"], "--limit must be at least 1, got 0"),
        (["data", "minif2f", "--input", "blank", "--out", "new"], "blank: no pairs; check that this is minif2f"),
        (["data", "minif2f", "--input", "rows", "--out", "taken"], "taken already exists; choose another path"),
        (
            ["embed", "rows", "--model", "m", "--layer", 1, "--out", "taken"],
            "taken already exists; choose another path",
        ),
        (["embed", "none", "--model", "m", "--layer", 1, "--out", "new"], "none: no rows"),
        (["embed", "rows", "--model", "./m", "--layer", 1, "--out", "new"], "./m: no complete Hugging Face model here"),
        (["calibrate", "nowhere"], "nowhere: no pairs here; create them with `monge translate pair`"),
        (["pretrain", "rows", "--width", 7], "width 7 does not divide into 6 heads"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value)),
)
def test_a_mistake_gives_a_one_line_message_and_writes_nothing(
    tmp_path: Path, translate: Translated, monkeypatch: pytest.MonkeyPatch, words: list[object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"id": "a", "name": "a", "informal_prefix": "x", "formal_statement": "y", "nl": "x", "formal": "y"}
    Path("rows").write_text(json.dumps(row) + "\n")
    Path("blank").write_text(json.dumps(row | {"formal_statement": " "}) + "\n")
    Path("none").touch()
    Path("taken").write_text("mine")
    Path("m").mkdir()
    before = all_files(tmp_path)
    code, shown = translate(*words)
    assert code == 2
    assert message in shown
    assert all_files(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"rows", "blank", "none", "taken", "m"}


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match=r"x\.jsonl: could not be written .*No space left"):
            texts(tmp_path / "x.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_directory_in_place_of_a_file_is_an_error_that_names_it(
    tmp_path: Path, translate: Translated, packed: Packed
) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "x.json", {})
    (tmp_path / "out" / "couplings.json").mkdir(parents=True)
    code, message = translate("couple", packed.pairs.directory, "--out", tmp_path / "out")
    assert (code, "couplings.json" in message) == (2, True)
    (tmp_path / "file").touch()
    code, message = translate("couple", packed.pairs.directory, "--out", tmp_path / "file")
    assert (code, "file: a file is in the way; choose another directory" in message) == (2, True)
