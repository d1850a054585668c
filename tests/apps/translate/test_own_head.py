"""Decoding by the model's own remaining blocks and head: on true hidden states it gives the model's own predictions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from monge.apps.translate.data import Text, read_texts, write_texts
from monge.apps.translate.own_head import OwnHead
from monge.cli import main
from monge.lm.hidden import hidden_states
from monge.lm.load import causal, encoder
from monge.lm.store import Vectors, write
from monge.math.cost import Whitening
from monge.pretrain import Pretrain
from monge.training.config import TrainConfig

WORDS = ("one", "two", "three", "four", "five", "six", "seven")
TINY = TrainConfig(steps=60, warmup_steps=5, save_every=60, device="cpu", threads=1, lr=3e-3, ema_width=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of counting, its vectors of both sides, and a run between them."""
    path = tmp_path_factory.mktemp("head")
    lines = [" ".join(WORDS[(k + j) % 7] for j in range(3 + k % 4)) for k in range(300)]
    (path / "lines.txt").write_text("\n".join(lines))
    shape = {"vocabulary": 300, "width": 32, "depth": 2, "heads": 2, "length": 32, "batch_size": 8}
    Pretrain(str(path / "lines.txt"), **shape, train=TINY).pretrain(path / "lm")
    texts = [Text(f"t{k}", f"t{k}", line, f"{line} end") for k, line in enumerate(lines[:80])]
    write_texts(path / "texts.jsonl", texts)
    words = ["translate", "embed", str(path / "texts.jsonl"), "--model", str(path / "lm/model"), "--layer", "1"]
    for field in ("nl", "formal"):
        assert main([*words, "--max-length", "32", "--field", field, "--out", str(path / f"{field}.parquet")]) == 0
    files = [str(path / f"{field}.parquet") for field in ("nl", "formal")]
    known = ["--texts", str(path / "texts.jsonl")]
    assert main(["translate", "pair", *files, *known, "--capacity", "32", "--out", str(path / "pairs")]) == 0
    train = [
        "--steps",
        "2",
        "--save-every",
        "2",
        "--width",
        "64",
        "--depth",
        "1",
        "--device",
        "cpu",
        "--loader-threads",
        "0",
        "--warmup-steps",
        "0",
    ]
    out = str(path / "run")
    assert main(["translate", "train", "--pairs", str(path / "pairs"), *train, "--out", out]) == 0
    words = ["translate", "run", out, files[0], "--forward", "--out", str(path / "translated.parquet")]
    assert main(words) == 0
    return path


def head_of(folder: Path, side: Whitening) -> tuple[OwnHead, list[str]]:
    lines = (folder / "lines.txt").read_text().splitlines()[:40]
    fingerprint = {**encoder(str(folder / "lm/model")).fingerprint(), "layer": "1"}
    return OwnHead.of(fingerprint, side, lines, device=torch.device("cpu")), lines


def test_true_states_give_the_predictions_of_the_model(folder: Path):
    draws = torch.Generator().manual_seed(0)
    matrix, _ = torch.linalg.qr(torch.randn(32, 32, generator=draws))
    side = Whitening(torch.randn(32, generator=draws), matrix)
    head, lines = head_of(folder, side)
    model = causal(str(folder / "lm/model"))
    states = hidden_states(encoder(str(folder / "lm/model")), lines, layer=1, max_length=32)
    found = head.texts([side.apply(x) for x in states])
    for line, (text, score) in zip(lines, found, strict=True):
        ids = torch.tensor(model.tokenizer(line)["input_ids"])[None]
        with torch.no_grad():
            odds = model.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        expected = [int(ids[0, 0]), *odds.argmax(-1).tolist()]
        assert text == model.tokenizer.decode(expected).strip()
        assert score == pytest.approx(float(odds.max(-1).values.mean()), abs=1e-3)
        assert text.split()[0] == line.split()[0]


def test_samples_at_a_low_temperature_are_greedy(folder: Path):
    side = Whitening(torch.zeros(32), torch.eye(32))
    head, lines = head_of(folder, side)
    states = hidden_states(encoder(str(folder / "lm/model")), lines[:5], layer=1, max_length=32)
    greedy = head.texts(states)
    assert head.texts(states, samples=2, temperature=1e-5) == [one for one in greedy for _ in range(2)]
    torch.manual_seed(0)
    assert {text for text, _ in head.texts(states, samples=4, temperature=5.0)} - {text for text, _ in greedy}
    (single,) = head.texts([states[0][:1]])
    assert single == (lines[0].split()[0], 0.0)


def test_the_verb_decodes_with_the_model_of_the_vectors(folder: Path, tmp_path: Path, capsys):
    words = ["translate", "decode", str(folder / "run"), str(folder / "translated.parquet"), "--device", "cpu"]
    words += ["--texts", str(folder / "texts.jsonl"), "--own-head", "--num-candidates", "2"]
    assert main([*words, "--out", str(tmp_path / "a.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert all(len(row["candidates"]) == 2 and row["candidates"][0]["id"] is None for row in rows)
    assert all(row["text"] and row["score"] <= 0 for row in rows)
    weights = folder / "lm/model/model.safetensors"
    from safetensors.torch import load_file, save_file

    before = weights.read_bytes()
    changed = {name: x + 1e-3 for name, x in load_file(weights).items()}
    try:
        save_file(changed, weights, metadata={"format": "pt"})
        assert main([*words, "--out", str(tmp_path / "b.jsonl")]) == 2
    finally:
        weights.write_bytes(before)
    assert "not the model that made the vectors" in capsys.readouterr().err


def test_sequences_longer_than_the_context_are_an_error(folder: Path, tmp_path: Path):
    head, _ = head_of(folder, Whitening(torch.zeros(32), torch.eye(32)))
    assert head.positions == 32
    most = 32 - len(head.prefix)
    for name, count in (("fits", most), ("long", most + 1)):
        write(
            tmp_path / name,
            iter([[("a", torch.ones(2, 32)), (name, torch.ones(count, 32))]]),
            dtype="float32",
            fingerprint={},
        )
    head.check_lengths(Vectors(tmp_path / "fits"))
    with pytest.raises(ValueError, match=f"'long' has more than {most} vectors, the context length of the model"):
        head.check_lengths(Vectors(tmp_path / "long"))


def test_other_texts_with_the_same_ids_are_an_error(folder: Path, tmp_path: Path, capsys):
    texts = read_texts(folder / "texts.jsonl")
    write_texts(tmp_path / "other.jsonl", [replace(text, formal=f"{text.formal} end") for text in texts])
    run, other = str(folder / "run"), str(tmp_path / "other.jsonl")
    vectors, out = str(folder / "translated.parquet"), str(tmp_path / "out")
    for words in (
        ["decode", run, vectors, "--texts", other, "--out", f"{out}.jsonl"],
        ["train-decoder", "--run", run, "--texts", other, "--out", out, "--device", "cpu"],
    ):
        assert main(["translate", *words]) == 2
        assert f"{other}: not the texts of {folder / 'pairs'}" in capsys.readouterr().err


def test_a_model_that_sees_the_future_is_refused():
    import transformers

    from monge.apps.translate.own_head import check_causal
    from monge.lm.tail import Tail

    shape = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    for kind, causal_model in (("BertConfig", False), ("LlamaConfig", True)):
        torch.manual_seed(0)
        config = getattr(transformers, kind)(**shape, initializer_range=0.3)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            if causal_model:
                check_causal(Tail(model, 1), torch.randn(2, 3, 32), "small")
            else:
                with pytest.raises(ValueError, match="small: not a causal language model"):
                    check_causal(Tail(model, 1), torch.randn(2, 3, 32), "small")


def test_special_tokens_before_a_text_are_its_prefix(folder: Path, tmp_path: Path):
    """With a tokenizer that starts every text with a special token, the predictions are still those of the model."""
    import shutil

    from tokenizers import processors
    from transformers import AutoTokenizer

    name = tmp_path / "model"
    shutil.copytree(folder / "lm/model", name)
    tokenizer = AutoTokenizer.from_pretrained(name)
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(name)
    lines = (folder / "lines.txt").read_text().splitlines()[:20]
    opened = encoder(str(name))
    side = Whitening(torch.zeros(32), torch.eye(32))
    head = OwnHead.of({**opened.fingerprint(), "layer": "1"}, side, lines, device=torch.device("cpu"))
    assert head.prefix.shape == (1, 32)
    states = hidden_states(opened, lines, layer=1, max_length=32)
    model = causal(str(name))
    for line, (text, _) in zip(lines, head.texts(states), strict=True):
        ids = torch.tensor(model.tokenizer(line)["input_ids"])[None]
        with torch.no_grad():
            following = model.model(input_ids=ids).logits[0, 1:-1].argmax(-1).tolist()
        assert text == model.tokenizer.decode([int(ids[0, 1]), *following]).strip()
