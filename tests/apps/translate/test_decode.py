"""`monge translate decode`: the nearest known texts, their overlap with the true ones, and its errors."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from monge.apps.translate.data import Text, write_texts
from monge.apps.translate.decode import Bank, Candidate, overlap, report, token_f1
from monge.apps.translate.examples import verdict
from monge.apps.translate.field import FieldShape
from monge.apps.translate.output import EMPTY
from monge.apps.translate.pair import Pairs, pair
from monge.apps.translate.recipes import Translate
from monge.apps.translate.space import Packed
from monge.cli import main
from monge.run import fit
from monge.training.config import TrainConfig

TINY = TrainConfig(steps=1, warmup_steps=0, save_every=1, device="cpu", loader_threads=0)


@pytest.fixture(scope="module")
def folder(pairs: Pairs, files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, translations of all sources and of all targets, and the texts."""
    path = tmp_path_factory.mktemp("decode")
    write_texts(path / "texts.jsonl", [Text(key, key, f"english {key}", f"formal {key}") for key in pairs.ids])
    with (path / "texts.jsonl").open("a") as file:
        file.write('{"id": "unusable", "nl": " ", "formal": "y"}\n')
    fit(Translate(pairs=str(pairs.directory), shape=FieldShape(64, 1), batch_size=8, train=TINY), path / "run")
    for name, file, flags in (("forward", files[0], []), ("back", files[1], ["--reverse"])):
        words = ["translate", "run", str(path / "run"), str(file), "--out", str(path / f"{name}.parquet"), *flags]
        assert main(words) == 0
    return path


def decode(folder: Path, name: str, out: Path, *flags: str) -> int:
    words = ["translate", "decode", str(folder / "run"), str(folder / f"{name}.parquet")]
    return main([*words, "--texts", str(folder / "texts.jsonl"), "--out", str(out), *flags])


def test_an_empty_sequence_has_no_nearest_text(packed: Packed):
    bank = Bank.of(packed.pairs, packed.space, "source", [0, 1])
    with pytest.raises(ValueError, match="an empty sequence has no nearest text"):
        bank.nearest([packed.pairs.sequence("source", 0), packed.pairs.sequence("source", 0)[:0]], 1)


def test_the_true_sequence_is_its_own_nearest(packed: Packed):
    pairs = packed.pairs
    for end in ("source", "target"):
        bank = Bank.of(pairs, packed.space, end, range(len(pairs.ids)))
        found = bank.nearest([pairs.sequence(end, number) for number in range(20)], 3)
        assert [row[0][0] for row in found] == pairs.ids[:20]
        assert all(row[0][1] == pytest.approx(1, abs=1e-4) for row in found)
        assert all(a[1] >= b[1] for row in found for a, b in zip(row, row[1:], strict=False))


@pytest.mark.parametrize(("name", "kind"), [("forward", "formal"), ("back", "english")])
def test_texts_of_the_other_side_come_from_the_bank(name: str, kind: str, folder: Path, pairs: Pairs, tmp_path: Path):
    assert decode(folder, name, tmp_path / "out.jsonl", "--num-candidates", "2") == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    training, test = ({pairs.ids[number] for number in pairs.split(name)} for name in ("train", "test"))
    assert len(rows) > 200
    for row in rows:
        assert [one["text"] for one in row["candidates"]] == [f"{kind} {one['id']}" for one in row["candidates"]]
        assert row["text"] == row["candidates"][0]["text"]
        assert row["score"] == row["candidates"][0]["score"] >= row["candidates"][1]["score"]
        assert {one["id"] for one in row["candidates"]} <= training
        assert {one["exact"] for one in row["candidates"]} == ({False} if row["id"] in test else {None})
    assert decode(folder, name, tmp_path / "out.parquet", "--num-candidates", "2") == 0
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows


def test_overlap_is_reported_for_test_texts_outside_the_bank_only(folder: Path, pairs: Pairs, tmp_path: Path, capsys):
    assert decode(folder, "forward", tmp_path / "a.jsonl") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Scores of the {len(pairs.split('test'))} sequences whose texts are known" in shown
    assert "exact 0.000 (0.000), token F1 0.500 (0.500)" in shown
    assert decode(folder, "forward", tmp_path / "b.jsonl", "--bank", "all") == 0
    assert "Scores of" not in capsys.readouterr().out


def test_texts_without_a_pair_count_only_if_their_group_is_a_test_group(
    folder: Path, pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """`pair` leaves out long rows, whose texts the model of the formal side may have seen in training."""
    table = pq.read_table(folder / "forward.parquet")
    ids = [f"new-{key}" for key in table.column("id").to_pylist()]
    column = pa.array(ids, table.schema.field("id").type)
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(table.set_column(table.schema.get_field_index("id"), "id", column), other / "forward.parquet")
    texts = [Text(key, key, f"english {key}", f"formal {key}") for key in (*pairs.ids, *ids)]
    write_texts(other / "texts.jsonl", texts)
    words = ["translate", "decode", str(folder / "run"), str(other / "forward.parquet")]
    assert main([*words, "--texts", str(other / "texts.jsonl"), "--out", str(tmp_path / "out.jsonl")]) == 0
    expected = sum(text.split == "test" for text in texts if text.id in ids)
    assert 0 < expected < len(ids) / 2
    assert f"Scores of the {expected} sequences whose texts are known" in " ".join(capsys.readouterr().out.split())


def test_the_floor_does_not_depend_on_neighbours_in_the_file(tmp_path: Path, capsys):
    known = {f"{k:03}": f"a{k // 2}" for k in range(100)}  # each text is equal to one of its neighbours
    decoded = {key: [Candidate(None, text, 1.0)] for key, text in known.items()}
    report(decoded, known, tmp_path / "out.jsonl", scored=set(known))
    floor = float(capsys.readouterr().out.split("exact 1.000 (")[1].split(")")[0])
    assert floor < 0.1


def test_overlap_of_texts_and_of_shuffled_ones():
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert token_f1("a", "b") == 0
    scores = overlap(["a b", "c d"], ["a b", "c e"])
    assert scores["exact"] == 0.5
    assert scores["token F1"] == 0.75
    assert scores["token F1, against another row"] == 0
    assert math.isnan(overlap(["a"], ["a"])["exact, against another row"])


def test_bad_input_gives_one_sentence(folder: Path, pairs: Pairs, files: tuple[Path, Path], tmp_path: Path, capsys):
    other = tmp_path / "pairs"
    pair(*files, other, capacity=11, on_long_rows="drop")
    write_texts(tmp_path / "some.jsonl", [Text("other", "other", "x", "y")])
    (tmp_path / "exists.jsonl").write_text("")
    out = str(tmp_path / "out.jsonl")
    run, translated, texts = folder / "run", folder / "forward.parquet", folder / "texts.jsonl"
    cases = [
        ([run, files[0], "--texts", texts, "--out", out], "not translations by a run on these pairs"),
        ([run, translated, "--texts", tmp_path / "some.jsonl", "--out", out], "no usable text of"),
        ([run, translated, "--texts", texts, "--out", out, "--pairs", other], "not the pairs that"),
        ([run, translated, "--texts", texts, "--out", tmp_path / "exists.jsonl"], "exists"),
        ([run, translated, "--texts", texts, "--out", tmp_path / "out.txt"], "give a .jsonl or .parquet file"),
        ([run, translated, "--texts", texts, "--out", out, "--num-candidates", 0], "--num-candidates 0: give at least"),
        (
            [run, translated, "--texts", texts, "--out", out, "--seed", 1],
            "--seed has no effect without --decoder or --own-head",
        ),
        ([run, translated, "--texts", texts, "--out", out, "--own-head"], "the vectors do not record the model"),
        ([run, translated, "--texts", texts, "--out", out, "--own-head", "--decoder", run], "exclude each other"),
        ([tmp_path, translated, "--texts", texts, "--out", out], "no run here"),
    ]
    for words, message in cases:
        assert main(["translate", "decode", *map(str, words)]) == 2
        shown = capsys.readouterr().err
        assert message in shown
        assert len(shown.strip().splitlines()) == 1
        assert not (tmp_path / "out.jsonl").exists()


def test_pairs_with_some_of_the_texts_are_decoded(folder: Path, pairs: Pairs, tmp_path: Path, capsys):
    texts = [Text(key, key, f"english {key}", f"formal {key}") for key in pairs.ids]
    write_texts(tmp_path / "some.jsonl", texts[:150])
    words = ["translate", "decode", str(folder / "run"), str(folder / "forward.parquet"), "--out"]
    assert main([*words, str(tmp_path / "out.jsonl"), "--texts", str(tmp_path / "some.jsonl")]) == 0
    known = {text.id for text in texts[:150]}
    training, test = ({pairs.ids[number] for number in pairs.split(name)} for name in ("train", "test"))
    shown = " ".join(capsys.readouterr().out.split())
    assert f"has no text for {len(training - known)} of {len(training)} known sequences" in shown
    assert f"Scores of the {len(test & known)} sequences whose texts are known" in shown
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {one["id"] for row in rows for one in row["candidates"]} <= training & known


def test_an_empty_translation_has_an_empty_text_which_is_wrong(folder: Path, pairs: Pairs, tmp_path: Path, capsys):
    empty = pairs.ids[int(pairs.split("test")[0])]
    table = pq.read_table(folder / "forward.parquet")
    translated = tmp_path / "translated.parquet"
    pq.write_table(table.filter([key != empty for key in table.column("id").to_pylist()]), translated)
    listing = [{"id": empty, "reason": EMPTY}, {"id": "long", "reason": "longer than the container"}]
    (tmp_path / "translated.parquet.dropped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listing))
    words = ["translate", "decode", str(folder / "run"), str(translated), "--texts", str(folder / "texts.jsonl")]
    assert main([*words, "--out", str(tmp_path / "out.jsonl")]) == 0
    rows = {row["id"]: row for row in map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())}
    assert (rows[empty]["text"], rows[empty]["score"], rows[empty]["candidates"][0]["exact"]) == ("", None, False)
    assert "long" not in rows
    (tmp_path / "translated.parquet.dropped.jsonl").write_text('{"id": "a"}\n')
    assert main([*words, "--out", str(tmp_path / "other.jsonl")]) == 2
    assert "translated.parquet.dropped.jsonl: not a list of dropped rows" in capsys.readouterr().err
    (tmp_path / "translated.parquet.dropped.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listing))
    assert main([*words, "--out", str(tmp_path / "third.jsonl")]) == 0
    assert f"Scores of the {len(pairs.split('test'))} sequences" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_moved_decodes_with_its_pairs(folder: Path, pairs: Pairs, tmp_path: Path):
    moved = tmp_path / "moved"
    pairs.directory.rename(moved)
    try:
        assert decode(folder, "forward", tmp_path / "out.jsonl", "--pairs", str(moved)) == 0
    finally:
        moved.rename(pairs.directory)


def test_the_bank_of_a_float16_file_has_float32_means(packed: Packed):
    bank = Bank.of(packed.pairs, packed.space, "source", [0, 1, 2])
    assert bank.means.dtype == torch.float32
    assert replace(bank, ids=["a", "b", "c"]).nearest([packed.pairs.sequence("source", 2)], 9)[0][0][0] == "c"


def test_formal_texts_are_checked_by_a_grammar(folder: Path, pairs: Pairs, tmp_path: Path, capsys):
    (tmp_path / "small.mm").write_text("$c wff formal $. $v ph $. wph $f wff ph $. wf $a wff formal ph $.")
    texts = [Text(key, key, "english", "formal ph" if k % 2 else "ph formal") for k, key in enumerate(pairs.ids)]
    write_texts(tmp_path / "texts.jsonl", texts)
    words = ["translate", "decode", str(folder / "run"), "--texts", str(tmp_path / "texts.jsonl")]
    words += ["--grammar", str(tmp_path / "small.mm")]
    assert main([*words, str(folder / "forward.parquet"), "--out", str(tmp_path / "out.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(one["well_formed"] == (one["text"] == "formal ph") for row in rows for one in row["candidates"])
    test, known = {pairs.ids[number] for number in pairs.split("test")}, {text.id: text.formal for text in texts}
    exact = [
        (one["exact"], one["text"] == known[row["id"]])
        for row in rows
        if row["id"] in test
        for one in row["candidates"]
    ]
    assert all(one is equal for one, equal in exact)
    assert len(set(exact)) == 2
    count = sum(row["text"] == "formal ph" for row in rows)
    assert 0 < count < len(rows)
    assert f"First text is well-formed: {count} of {len(rows)}" in capsys.readouterr().out
    assert main([*words, str(folder / "back.parquet"), "--out", str(tmp_path / "back.jsonl")]) == 2
    assert "holds translations to English, which no grammar describes" in capsys.readouterr().err


def test_the_verdict_names_the_closer_texts_or_neither():
    true = [f"a{k} b c d" for k in range(40)]
    worse = [f"a{k} b x y" for k in range(40)]
    text = verdict({"nearest": worse, "decoded": true}, true)
    assert text == (
        "Closer to the true statements: decoded. Its token F1 is 1.000, that of nearest 0.500; the difference is 0.500 (95 % "
        "interval 0.500 to 0.500, 40 test theorems)."
    )
    three = {"other": ["z"] * 40, "nearest": worse, "decoded": true}
    assert verdict(three, true) == text  # compared with the second best
    mixed = [one if k % 2 else other for k, (one, other) in enumerate(zip(true, worse, strict=True))]
    swapped = [other if k % 2 else one for k, (one, other) in enumerate(zip(true, worse, strict=True))]
    assert verdict({"nearest": mixed, "decoded": swapped}, true).startswith("No significant difference")
    few = slice(0, 3)
    assert verdict({"nearest": worse[few], "decoded": true[few]}, true[few]).startswith("No significant difference")
