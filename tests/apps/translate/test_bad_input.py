"""What a user can get wrong in a verb of `monge translate` is one sentence and a code, and nothing half-written stays."""

import json
from collections.abc import Callable
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
from monge.fleet import here
from monge.lm.store import Vectors, write
from monge.run import fit
from monge.train.config import TrainConfig

TINY = TrainConfig(steps=1, warmup_steps=0, save_every=1, device="cpu", loader_threads=0)
LM = ["--vocabulary", 300, "--width", 16, "--depth", 1, "--heads", 2, "--length", 8, "--batch-size", 2]
LM += ["--steps", 1, "--warmup-steps", 0, "--save-every", 1, "--device", "cpu"]
Translated = Callable[..., tuple[int, str]]


@pytest.fixture
def translate(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Translated:
    """translate(*words): (exit code, the one line of the error or nothing)."""
    monkeypatch.delenv("MONGE_TRACE", raising=False)

    def call(*words: object) -> tuple[int, str]:
        code = main(["translate", *map(str, words)])
        said = capsys.readouterr().err
        assert code == 0 or said.count("\n") == 1
        return code, said

    return call


def everything(directory: Path) -> dict[Path, bytes]:
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
    ("sizes", "said"),
    [
        ({"width": 5}, "vectors of width 5, the run's have 16; embed by the same model and layer"),
        ({"length": 13}, "row group 0, id 'x': 13 vectors do not fit 12; give --on-long-rows drop or truncate"),
        ({"model": "b"}, "these are vectors of the target; give --reverse"),
        ({"model": "c"}, "not made as the run's source was; embed by the same model and layer, in the same way"),
    ],
)
def test_vectors_that_do_not_fit_a_run_are_refused(
    run: Path, tmp_path: Path, translate: Translated, sizes: dict[str, Any], said: str
) -> None:
    source = vectors(tmp_path / "x", **sizes)
    assert translate("run", run, source, "--out", tmp_path / "y") == (2, f"monge translate run: {source}: {said}\n")
    nowhere = tmp_path / "nowhere"
    assert translate("run", run, nowhere, "--out", tmp_path / "y") == (
        2,
        f"monge translate run: {nowhere}: no such file\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_translation_says_how_it_was_made_and_lies_on_nothing_else(
    run: Path, tmp_path: Path, translate: Translated
) -> None:
    source, out = vectors(tmp_path / "x"), tmp_path / "y"
    before = everything(tmp_path)
    (tmp_path / "directory").mkdir()
    for taken in (source, tmp_path / "directory"):
        code, said = translate("run", run, source, "--out", taken)
        assert (code, "there already; name another file" in said) == (2, True)
    assert everything(tmp_path) == before
    assert translate("run", run, source, "--out", out, "--solver-steps", 0)[1].endswith(
        "steps must be at least 1, got 0\n"
    )
    source = vectors(tmp_path / "b", model="b")
    words = ("run", run, source, "--out", out, "--solver-steps", 2, "--solver", "heun", "--reverse")
    assert translate(*words) == (0, "")
    found = Vectors(out).fingerprint
    assert (found["steps"], found["solver"], found["reverse"]) == (2, "heun", True)
    assert found["input"] == Vectors(source).fingerprint


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b""), "not a complete shard of 100 x 12"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "not a complete shard of 100 x 12"),
        (lambda path: np.save(path, np.load(path)[:-1]), "not a complete shard of 100 x 12"),
        (lambda path: np.save(path, np.load(path)[:, :-1]), "not a complete shard of 100 x 12"),
        (lambda path: np.save(path, np.load(path).astype(np.int64)), "not a complete shard of 100 x 12"),
        (lambda path: np.save(path, np.load(path) * 0), "the coupling of pair 100 is not a permutation"),
    ],
)
def test_a_damaged_shard_of_couplings_is_named(packed: Packed, tmp_path: Path, spoil, said: str) -> None:
    list(couple(packed, tmp_path, here, size=100))
    assert (Couplings.open(tmp_path, packed)([3, 239]).sort(1).values == torch.arange(12)).all()
    spoil(path := shard_path(tmp_path, 1))
    with pytest.raises(ValueError, match=said) as stopped:
        Couplings.open(tmp_path, packed)([0, 100])
    assert str(stopped.value).startswith(f"{path}: ")


def test_a_damaged_description_of_couplings_is_named(packed: Packed, tmp_path: Path) -> None:
    list(couple(packed, tmp_path, here, size=100))
    path = tmp_path / "couplings.json"
    write_json(path, json.loads(path.read_text()) | {"shard": 0})
    with pytest.raises(ValueError, match=r"couplings\.json: made with shard = 0"):
        Couplings.open(tmp_path, packed)


def test_two_processes_do_not_couple_in_one_directory(packed: Packed, tmp_path: Path) -> None:
    first = couple(packed, tmp_path / "out", here, size=100)
    assert next(first) == (1, 3)
    with pytest.raises(ValueError, match="out: another process is at work here"):
        next(couple(packed, tmp_path / "out", here, size=100))
    assert list(first) == [(2, 3), (3, 3)]


def texts(path: Path, count: int = 200, formal: str = "A e. B") -> Path:
    write_texts(path, [Text(f"id-{k}", f"group-{k}", "words", f"{formal} {k}") for k in range(count)])
    return path


def test_a_model_is_not_pretrained_on_other_texts_than_it_began_with(tmp_path: Path, translate: Translated) -> None:
    out = tmp_path / "formal"
    few = texts(tmp_path / "few.jsonl", 2)
    code, said = translate("pretrain", few, "--out", out, *LM)
    assert (code, "give more text" in said) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]
    assert translate("pretrain", texts(tmp_path / "texts.jsonl"), "--out", out, *LM)[0] == 0
    before = everything(tmp_path)
    other = texts(tmp_path / "other.jsonl", formal="B e. A")
    code, said = translate("pretrain", other, "--out", out, *LM, "--resume")
    assert (code, f"{out}.texts.jsonl: not the formal texts of {other}" in said) == (2, True)
    assert everything(tmp_path).items() >= before.items()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data", "minif2f", "--input", "rows", "--limit", 0, "--out", "new"], "--limit 0: keep at least 1"),
        (["data", "minif2f", "--input", "blank", "--out", "new"], "blank: no pairs in it"),
        (["data", "minif2f", "--input", "rows", "--out", "taken"], "taken: there already; name another file"),
        (["embed", "rows", "--model", "m", "--layer", 1, "--out", "taken"], "taken: there already; name another file"),
        (["embed", "none", "--model", "m", "--layer", 1, "--out", "new"], "none: no rows"),
        (["embed", "rows", "--model", "./m", "--layer", 1, "--out", "new"], "./m: no whole Hugging Face model here"),
        (["calibrate", "nowhere"], "nowhere: no pairs here; make them with `monge translate pair`"),
        (["pretrain", "rows", "--width", 7], "width 7 is not 6 heads"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value)),
)
def test_a_mistake_is_one_sentence_and_makes_nothing(
    tmp_path: Path, translate: Translated, monkeypatch: pytest.MonkeyPatch, words: list[object], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"id": "a", "name": "a", "informal_prefix": "x", "formal_statement": "y", "nl": "x", "formal": "y"}
    Path("rows").write_text(json.dumps(row) + "\n")
    Path("blank").write_text(json.dumps(row | {"formal_statement": " "}) + "\n")
    Path("none").touch()
    Path("taken").write_text("mine")
    Path("m").mkdir()
    before = everything(tmp_path)
    code, shown = translate(*words)
    assert code == 2
    assert said in shown
    assert everything(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"rows", "blank", "none", "taken", "m"}


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match=r"x\.jsonl: could not be written .*No space left"):
            texts(tmp_path / "x.jsonl")
    assert not list(tmp_path.iterdir())


def test_a_directory_in_the_way_is_the_path_s_own_fault(tmp_path: Path, translate: Translated, packed: Packed) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "x.json", {})
    (tmp_path / "out" / "couplings.json").mkdir(parents=True)
    code, said = translate("couple", packed.pairs.directory, "--out", tmp_path / "out")
    assert (code, "couplings.json" in said) == (2, True)
    (tmp_path / "file").touch()
    code, said = translate("couple", packed.pairs.directory, "--out", tmp_path / "file")
    assert (code, "file: a file is in the way; name another directory" in said) == (2, True)
