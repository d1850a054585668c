"""Blocks of a transformer: found in every family, captured in one pass, replaced so that the model still runs."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from monge.lm.blocks import block_lists, blocks_of, replace_blocks
from monge.lm.hidden import hidden_at
from monge.training.config import TrainConfig
from monge.training.optim import Optimizers

transformers = pytest.importorskip("transformers")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 32,
}
FAMILIES = {
    "gpt_neox": ("GPTNeoXConfig", "AutoModelForCausalLM"),
    "gpt2": ("GPT2Config", "AutoModelForCausalLM"),
    "llama": ("LlamaConfig", "AutoModelForCausalLM"),
    "qwen2": ("Qwen2Config", "AutoModelForCausalLM"),
    "qwen3": ("Qwen3Config", "AutoModelForCausalLM"),
    "bert": ("BertConfig", "AutoModel"),
}
DECODERS = [family for family in FAMILIES if family != "bert"]
IDS = torch.arange(10).reshape(2, 5) % 50


def model_of(family: str) -> nn.Module:
    config, auto = FAMILIES[family]
    torch.manual_seed(0)
    sizes = {**SIZES, "head_dim": 16, "num_key_value_heads": 2} if family in ("llama", "qwen2", "qwen3") else SIZES
    return getattr(transformers, auto).from_config(getattr(transformers, config)(**sizes)).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_states_of_several_layers_come_from_one_pass(family: str) -> None:
    model = model_of(family)
    calls = []
    hooks = [block.register_forward_hook(lambda *_: calls.append(1)) for block in blocks_of(model)]
    with torch.no_grad():
        states = hidden_at(model, IDS, [3, 0, 1])
        assert len(calls) == 3  # the pass stops before the last block
        for hook in hooks:
            hook.remove()
        expected = model(input_ids=IDS, output_hidden_states=True).hidden_states
    for layer, state in zip([3, 0, 1], states, strict=True):
        assert_close(state, expected[layer], rtol=0, atol=0)


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_the_state_after_the_last_block_is_taken_before_the_final_norm(family: str) -> None:
    model = model_of(family)
    with torch.no_grad():
        (state,) = hidden_at(model, IDS, [4])
        body = model.gpt_neox if family == "gpt_neox" else model.model
        norm = body.final_layer_norm if family == "gpt_neox" else body.norm
        assert_close(norm(state), model(input_ids=IDS, output_hidden_states=True).hidden_states[-1])


def test_padding_does_not_change_the_states_of_tokens_and_gradients_flow() -> None:
    model = model_of("llama")
    padded = torch.nn.functional.pad(IDS, (0, 3))
    mask = torch.arange(8) < 5
    (state,) = hidden_at(model, padded, [2], mask=mask.expand(2, -1))
    assert_close(state[:, :5], hidden_at(model, IDS, [2])[0])
    state.sum().backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_without_tokens_has_states_without_rows(family: str) -> None:
    states = hidden_at(model_of(family), IDS[:, :0], [0, 4])
    assert [state.shape for state in states] == [(2, 0, 32)] * 2


@pytest.mark.parametrize("layers", [[], [5], [-1, 2]])
def test_layers_outside_of_the_model_are_rejected(layers: list[int]) -> None:
    with pytest.raises(ValueError, match="but the model has 4 blocks; give 0 to 4"):
        hidden_at(model_of("gpt2"), IDS, layers)


class InSequence(nn.Module):
    """Blocks called in sequence, each with the arguments that a single block receives."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, h: Tensor, **context) -> Tensor:
        for block in self.blocks:
            out = block(h, **context)
            h = out if isinstance(out, Tensor) else out[0]
        return h


class Identity(nn.Module):
    """A block that returns its input and takes no other arguments."""

    def forward(self, h: Tensor) -> Tensor:
        return h


def outputs(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_replaced_by_themselves_change_nothing(family: str) -> None:
    model = model_of(family)
    before = outputs(model)
    copies = copy.deepcopy(blocks_of(model)[1:3])
    assert len(replace_blocks(model, 1, 3, InSequence(copies))) == 2
    assert len(blocks_of(model)) == model.config.num_hidden_layers == 3
    model.config.use_cache = False
    assert_close(outputs(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("modules", [(), (Identity(),)], ids=["removed", "identity"])
def test_removed_blocks_are_not_computed(family: str, modules: tuple[nn.Module, ...]) -> None:
    model = model_of(family)
    full = copy.deepcopy(model)
    removed = replace_blocks(model, 1, 3, *modules)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in full.parameters()) - sum(
        p.numel() for p in removed.parameters()
    )
    for block in blocks_of(full)[1:3]:  # removing a block is the same as making it the identity
        block.forward = lambda hidden_states, *_, **__: hidden_states
    assert_close(outputs(model), outputs(full), rtol=0, atol=0)


@pytest.mark.parametrize("family", DECODERS)
def test_a_model_without_some_blocks_generates_as_it_does_without_a_cache(family: str) -> None:
    model = model_of(family)
    replace_blocks(model, 0, 2)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    cached, plain = (model.generate(IDS[:1], use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, plain)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 5), (3, 1)])
def test_a_range_outside_of_the_model_is_rejected(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="the model has 4; give 0 <= start < end <= 4"):
        replace_blocks(model_of("gpt2"), start, end)


@pytest.mark.parametrize("family", FAMILIES)
def test_muon_takes_the_matrices_inside_the_blocks_of_any_model(family: str) -> None:
    model = model_of(family)
    (blocks,) = block_lists(model)
    assert blocks is blocks_of(model)
    optimizers = Optimizers({"model": model}, TrainConfig(optimizer="muon"))
    adamw, muon = ({id(p) for group in o.param_groups for p in group["params"]} for o in optimizers.all)
    assert muon == {id(p) for p in blocks.parameters() if p.ndim == 2}
    assert id(model.get_input_embeddings().weight) in adamw


def test_a_model_without_blocks_is_named() -> None:
    with pytest.raises(ValueError, match=r"Linear: no list of config\.num_hidden_layers blocks"):
        blocks_of(nn.Linear(2, 2))
    assert block_lists(nn.Linear(2, 2)) == []
