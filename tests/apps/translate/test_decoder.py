"""The decoder from vectors to text: it learns planted texts, and `monge translate decode --decoder` uses it."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("transformers")

from monge.apps.translate.data import Text, write_texts
from monge.apps.translate.decoder import Decoder, DecoderShape, NoisyPrompt, Prompted, token_losses
from monge.apps.translate.decoder_recipe import TrainDecoder, measured_noise, opened_decoder
from monge.apps.translate.field import FieldShape
from monge.apps.translate.pair import Pairs
from monge.apps.translate.recipes import Translate, translator_of
from monge.cli import main
from monge.run import fit
from monge.runs import reopen
from monge.training.config import TrainConfig

TINY = TrainConfig(steps=1, warmup_steps=0, save_every=1, device="cpu", loader_threads=0)
END = 9


def small() -> Decoder:
    torch.manual_seed(0)
    return Decoder(4, 10, DecoderShape(width=32, depth=1, heads=2, positions=32), END).eval()


def planted() -> tuple[list[torch.Tensor], list[list[int]]]:
    """Sequences of 2 to 5 vectors; the text has a token for each vector, the number of its largest entry."""
    draws = torch.Generator().manual_seed(0)
    sequences = [torch.randn(2 + k % 4, 4, generator=draws) for k in range(24)]
    return sequences, [x.argmax(1).tolist() for x in sequences]


def test_logits_do_not_depend_on_the_padding_of_the_batch():
    decoder, (sequences, texts) = small(), planted()
    batch = Prompted.of(sequences, texts, END)
    logits = decoder(batch)
    for row in (0, 5, 10):
        alone = decoder(Prompted.of(sequences[row : row + 1], texts[row : row + 1], END))[0]
        torch.testing.assert_close(logits[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)
    assert (token_losses(logits, batch)[~batch.known[:, 1:]] == 0).all()
    assert [int(row.sum()) for row in batch.known] == [len(text) + 2 for text in texts]


def test_the_decoder_learns_to_read_the_vectors():
    decoder, (sequences, texts) = small(), planted()
    batch, objective = Prompted.of(sequences, texts, END), NoisyPrompt(0.0)
    optimizer = torch.optim.Adam(decoder.parameters(), 3e-3)
    for _ in range(400):
        value = objective(decoder, batch).value
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    empty = Prompted.of(sequences, [[]] * len(sequences), END)
    assert decoder.generate(empty, length=8) == texts
    wrong = [text[::-1] for text in texts]
    likely, unlikely = (decoder.log_likelihood(Prompted.of(sequences, one, END)) for one in (texts, wrong))
    assert (likely > unlikely - 1e-6).all()
    assert likely.mean() > unlikely.mean() + 1
    torch.manual_seed(0)
    samples = decoder.generate(empty, length=8, samples=2, temperature=0.2)
    assert len(samples) == 2 * len(texts)
    assert sum(one == texts[k // 2] for k, one in enumerate(samples)) > 1.8 * len(texts)


@pytest.fixture(scope="module")
def folder(pairs: Pairs, files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder")
    write_texts(path / "texts.jsonl", [Text(key, key, f"english {key}", f"formal {key} end") for key in pairs.ids])
    fit(Translate(pairs=str(pairs.directory), shape=FieldShape(64, 1), batch_size=8, train=TINY), path / "run")
    words = ["translate", "run", str(path / "run"), str(files[0]), "--out", str(path / "translated.parquet")]
    assert main(words) == 0
    words = ["translate", "train-decoder", "--run", str(path / "run"), "--texts", str(path / "texts.jsonl")]
    small = "--width 32 --depth 1 --heads 2 --positions 48 --length 24 --vocabulary 300 --batch-size 8 --steps 4"
    assert main([*words, *small.split(), "--save-every", "2", "--threads", "1", "--out", str(path / "decoder")]) == 0
    return path


def decode(folder: Path, out: Path, *flags: str) -> int:
    words = ["translate", "decode", str(folder / "run"), str(folder / "translated.parquet")]
    return main([*words, "--texts", str(folder / "texts.jsonl"), "--out", str(out), *flags])


def test_generated_texts_are_written_with_their_likelihood(folder: Path, pairs: Pairs, tmp_path: Path, capsys):
    flags = ["--decoder", str(folder / "decoder"), "--num-candidates", "3", "--device", "cpu"]
    assert decode(folder, tmp_path / "a.jsonl", *flags) == 0
    assert f"Scores of the {len(pairs.split('test'))} sequences" in " ".join(capsys.readouterr().out.split())
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [len(row["candidates"]) for row in rows] == [3] * len(rows)
    assert all(one["id"] is None and one["score"] < 0 for row in rows for one in row["candidates"])
    assert decode(folder, tmp_path / "b.jsonl", *flags) == 0
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert decode(folder, tmp_path / "c.jsonl", *flags, "--seed", "1") == 0
    others = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [row["text"] for row in others] == [row["text"] for row in rows]
    assert others != rows
    flags[3] = "2"
    assert decode(folder, tmp_path / "d.parquet", *flags, "--temperature", "1e-5", "--decoder-checkpoint", "last") == 0
    assert all(
        len({one["text"] for one in row["candidates"]}) == 1
        for row in pq.read_table(tmp_path / "d.parquet").to_pylist()
    )
    opened, sequence = opened_decoder(folder / "decoder"), pairs.sequence("target", 0)
    full, cut = [5] * opened.recipe.length, [5] * (opened.recipe.length - 1)
    batch = opened._batch([sequence], [full])
    losses = token_losses(opened.model(batch), batch)[0]
    assert opened.scores([sequence], [full])[0] == pytest.approx(
        -float(losses[:-1].mean()), rel=1e-4
    )  # no end was drawn
    batch = opened._batch([sequence], [cut])
    losses = token_losses(opened.model(batch), batch)[0]
    assert opened.scores([sequence], [cut])[0] == pytest.approx(-float(losses.mean()), rel=1e-4)


def test_the_noise_is_the_error_of_the_translations(folder: Path, pairs: Pairs):
    """With the true sequences as translations the error is 0; shifted by 0.1, it is 0.1."""
    translator = translator_of(reopen(folder / "run", app="translate"))
    numbers = pairs.split("validation").tolist()

    class Shifted:
        space = translator.space

        def __init__(self, shift: float) -> None:
            self.shift = shift

        def carry(self, sequences, *, reverse: bool):
            end = "source" if reverse else "target"
            side = self.space.calibration.side(end)
            return [side.apply(pairs.sequence(end, n)) + self.shift for n in numbers]

    for shift in (0.0, 0.1):
        for reverse in (False, True):
            assert measured_noise(Shifted(shift), pairs, numbers, reverse) == pytest.approx(shift, abs=1e-3)
    with pytest.raises(ValueError, match="no validation pairs"):
        measured_noise(translator, pairs, [], False)

    class Empty(Shifted):
        def carry(self, sequences, *, reverse: bool):
            return [x[:0] for x in super().carry(sequences, reverse=reverse)]

    with pytest.raises(ValueError, match="all translations of validation pairs are empty"):
        measured_noise(Empty(0.0), pairs, numbers, False)


def test_noise_is_added_to_the_vectors_in_training():
    sequences, texts = planted()
    batch, seen = Prompted.of(sequences, texts, END), []

    def model(given: Prompted) -> torch.Tensor:
        seen.append((given.vectors - batch.vectors)[batch.exists].std())
        return torch.zeros(*batch.known[:, 1:].shape, 10)

    torch.manual_seed(0)
    NoisyPrompt(0.5)(model, batch)
    assert float(seen[0]) == pytest.approx(0.5, abs=0.05)


def test_a_decoder_of_source_texts_is_trained_on_source_vectors(folder: Path, pairs: Pairs):
    base = TrainDecoder(run=str(folder / "run"), texts=str(folder / "texts.jsonl"), noise=0.0)
    forward, reverse = (replace(base, reverse=reverse).build() for reverse in (False, True))
    assert [recipe.end for recipe in (base, replace(base, reverse=True))] == ["target", "source"]
    first = forward.batches(0).exists.sum(), reverse.batches(0).exists.sum()
    assert first[0] < first[1]  # targets lack every third vector
    assert int(forward.constants["texts"]) != int(reverse.constants["texts"])


def test_a_decoder_without_vectors_ignores_them(folder: Path, pairs: Pairs):
    recipe = TrainDecoder(run=str(folder / "run"), texts=str(folder / "texts.jsonl"), use_vectors=False)
    run = recipe.build()
    batch = run.batches(0)
    assert float(run.constants["noise"]) == 0
    assert not batch.vectors.any()
    assert batch.vectors.shape[1] == 1


def test_bad_input_gives_one_sentence(folder: Path, files: tuple[Path, Path], tmp_path: Path, capsys):
    back = tmp_path / "back.parquet"
    assert main(["translate", "run", str(folder / "run"), str(files[1]), "--reverse", "--out", str(back)]) == 0
    write_texts(tmp_path / "some.jsonl", [Text("row-0", "row-0", "x", "y")])
    capsys.readouterr()
    run, texts, out = folder / "run", folder / "texts.jsonl", tmp_path / "out.jsonl"
    base = ["decode", run, folder / "translated.parquet", "--texts", texts, "--out", out, "--decoder"]
    train = ["train-decoder", "--run", run, "--out", tmp_path / "out"]
    cases = [
        ([*base[:2], back, *base[3:], folder / "decoder"], "decodes target vectors"),
        ([*base, folder / "decoder", "--bank", "all"], "--bank has no effect on generated texts"),
        ([*base, run], "holds a run of translate"),
        ([*base, folder / "decoder", "--temperature", 0], "--temperature 0.0: give a positive number"),
        ([*train, "--texts", tmp_path / "some.jsonl"], "no text with id"),
        ([*train, "--texts", texts, "--positions", 20], "positions 20: 12 vectors and 128 tokens need 141"),
        ([*train, "--texts", texts, "--width", 30], "width 30 must be a multiple of 8"),
        ([*train, "--texts", texts, "--length", 1], "too few texts of at most 1 tokens"),
        ([*train, "--texts", texts, "--noise", "nan"], "noise must be finite"),
        ([*train, "--texts", texts, "--heads", 0], "heads must be at least 1"),
    ]
    for words, message in cases:
        assert main(["translate", *map(str, words)]) == 2
        shown = capsys.readouterr().err
        assert message in shown
        assert len(shown.strip().splitlines()) == 1
        assert not out.exists()


def test_a_decoder_of_a_run_with_other_units_is_refused(folder: Path, pairs: Pairs, files, tmp_path: Path, capsys):
    from monge.apps.translate.prices import Prices

    recipe = Translate(
        pairs=str(pairs.directory), prices=Prices(raw=True), shape=FieldShape(64, 1), batch_size=8, train=TINY
    )
    fit(recipe, tmp_path / "raw")
    words = ["translate", "run", str(tmp_path / "raw"), str(files[0]), "--out", str(tmp_path / "raw.parquet")]
    assert main(words) == 0
    words = [
        "translate",
        "decode",
        str(tmp_path / "raw"),
        str(tmp_path / "raw.parquet"),
        "--out",
        str(tmp_path / "o.jsonl"),
    ]
    assert main([*words, "--texts", str(folder / "texts.jsonl"), "--decoder", str(folder / "decoder")]) == 2
    assert "not these target vectors" in capsys.readouterr().err
