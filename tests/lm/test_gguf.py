"""A GGUF file is converted once, loads with the weights that it holds, and is rejected in one sentence if it is damaged."""

from pathlib import Path

import numpy as np
import pytest
import torch

from monge.lm import gguf as module
from monge.lm.load import causal

gguf = pytest.importorskip("gguf")
WIDTH, HIDDEN, HEADS, DEPTH = 8, 16, 2, 2
TOKENS = ["<s>", "</s>", *"abcdefgh", "ab"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for number in range(DEPTH):
        block = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH, WIDTH),
            "attn_v": (WIDTH, WIDTH),
            "attn_output": (WIDTH, WIDTH),
        }
        block |= {"ffn_gate": (HIDDEN, WIDTH), "ffn_up": (HIDDEN, WIDTH), "ffn_down": (WIDTH, HIDDEN)}
        block |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
        shapes |= {f"blk.{number}.{name}": shape for name, shape in block.items()}
    draws = np.random.default_rng(0)
    return {f"{name}.weight": draws.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def file(tmp_path: Path, weights: dict[str, np.ndarray]) -> Path:
    return write(tmp_path / "tiny.gguf", weights)


def write(path: Path, weights: dict[str, np.ndarray]) -> Path:
    """A Llama of two blocks with eleven tokens."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(DEPTH)
    writer.add_context_length(32)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, value in weights.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.slow
def test_a_file_is_converted_once_with_its_weights(file: Path, weights, monkeypatch: pytest.MonkeyPatch) -> None:
    first = causal(str(file))
    assert torch.equal(first.model.get_input_embeddings().weight, torch.from_numpy(weights["token_embd.weight"]))
    for number, block in enumerate(first.model.model.layers):
        for ours, theirs in ((block.mlp.down_proj, "ffn_down"), (block.self_attn.v_proj, "attn_v")):
            assert torch.equal(ours.weight, torch.from_numpy(weights[f"blk.{number}.{theirs}.weight"]))
    assert first.tokenizer("abc")["input_ids"][-2:] == [10, 4]
    monkeypatch.setattr(module, "_convert", lambda *_: pytest.fail("converted again"))
    assert causal(str(file)).fingerprint() == first.fingerprint()


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 100, -200])
def test_a_damaged_file_is_rejected_in_one_sentence_and_leaves_nothing(file: Path, tmp_path: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"tiny\.gguf: transformers cannot read this GGUF file \(.+\); if damaged, download it again"
    ) as error:
        causal(str(file))
    assert len(str(error.value).splitlines()) == 1
    assert not list((tmp_path / "cache/monge").iterdir())


def test_an_unknown_quantisation_is_named(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    weights["blk.0.ffn_up.weight"] = weights["blk.0.ffn_up.weight"].astype(np.int8)
    with pytest.raises(ValueError, match=r"odd\.gguf: transformers cannot read this GGUF file \(.*I8"):
        causal(str(write(tmp_path / "odd.gguf", weights)))


def test_a_missing_package_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name))
    with pytest.raises(ValueError, match=r"needs the package gguf; pip install 'monge\[lm\]'"):
        causal(str(file))
