"""Checkpoints hold only trained weights: adapters on a frozen base, tied weights once, and a fingerprint of the base."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from monge.objective.next_token import NextToken, Tokens
from monge.run import fit
from monge.runs import reopen
from monge.training.config import TrainConfig
from monge.training.loop import Run
from monge.training.state import load_weights, weights_of

transformers = pytest.importorskip("transformers")
SMALL = {"vocab_size": 96, "tie_word_embeddings": True}
BASES = {
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=32, **SMALL)
    ),
    "llama": lambda: transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, **SMALL
        )
    ),
}


class LowRank(nn.Module):
    """A frozen layer plus a trained low-rank product. Hu et al. 2106.09685, eq. 3."""

    def __init__(self, base: nn.Module, rows: int, columns: int, rank: int = 4) -> None:
        super().__init__()
        self.base, self.a = base, nn.Parameter(torch.randn(rank, rows) / rows**0.5)
        self.b = nn.Parameter(torch.zeros(columns, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T


def adapted(kind: str, seed: int = 0) -> nn.Module:
    """A language model with tied embeddings whose feed-forward layers have low-rank adapters; the rest is frozen."""
    torch.manual_seed(seed)
    model = BASES[kind]().requires_grad_(False)
    for block in model.transformer.h if kind == "gpt2" else model.model.layers:
        if kind == "gpt2":
            block.mlp.c_fc = LowRank(block.mlp.c_fc, 64, 256)
        else:
            block.mlp.up_proj = LowRank(block.mlp.up_proj, 64, 128)
    return model


@dataclass(frozen=True)
class Adapt:
    """Next-token prediction on fixed random tokens."""

    app: ClassVar[str] = "adapt"
    kind: str = "gpt2"
    seed: int = 0
    frozen: bool = True
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=4, warmup_steps=0, save_every=2, device="cpu"))

    def model(self) -> nn.Module:
        return adapted(self.kind, self.seed) if self.frozen else BASES[self.kind]()

    def build(self) -> Run[Any]:
        def batches(number: int) -> Tokens:
            return Tokens(torch.randint(96, (4, 12), generator=torch.Generator().manual_seed(number)))

        return Run(self.model(), NextToken(), batches, self.train)


def size(path: Path) -> int:
    return sum(tensor.nbytes for tensor in load_file(path).values())


@pytest.mark.parametrize("kind", BASES)
def test_a_checkpoint_of_adapters_has_their_size_and_reopens(tmp_path: Path, kind: str) -> None:
    state = fit(Adapt(kind), tmp_path)
    adapters = {name: p for name, p in state.model.named_parameters() if p.requires_grad}
    bytes_of_adapters = sum(p.nbytes for p in adapters.values())
    last = tmp_path / "checkpoints" / "step-00000004"
    for name in ("model", "ema"):
        assert load_file(last / f"{name}.safetensors").keys() == adapters.keys()
        assert (last / f"{name}.safetensors").stat().st_size < 1.2 * bytes_of_adapters
    opened = reopen(tmp_path, app="adapt")
    model = opened.weights(adapted(kind), averaged=False)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert_close(model(input_ids=ids).logits, state.model.eval()(input_ids=ids).logits, rtol=0, atol=0)
    with pytest.raises(ValueError, match="the frozen weights differ from those that the run was trained on"):
        opened.weights(adapted(kind, seed=1))


@pytest.mark.parametrize("kind", BASES)
def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path, kind: str) -> None:
    state = fit(Adapt(kind, frozen=False), tmp_path)
    stored = load_file(tmp_path / "checkpoints" / "step-00000004" / "model.safetensors")
    expected = sum(p.nbytes for p in state.model.parameters())
    assert sum(value.nbytes for value in stored.values()) == expected
    model = reopen(tmp_path, app="adapt").weights(BASES[kind](), averaged=False)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert_close(model.state_dict(), state.model.state_dict(), rtol=0, atol=0)


def test_a_resumed_run_of_adapters_ends_in_the_same_weights(tmp_path: Path) -> None:
    short = TrainConfig(steps=2, warmup_steps=0, save_every=2, device="cpu", final_lr_fraction=1.0)
    full = TrainConfig(steps=4, warmup_steps=0, save_every=2, device="cpu", final_lr_fraction=1.0)
    uninterrupted = fit(Adapt(train=full), tmp_path / "constant")
    fit(Adapt(train=short), tmp_path / "short")
    resumed = fit(Adapt(train=full), tmp_path / "short", resume=True)
    assert_close(dict(resumed.model.state_dict()), dict(uninterrupted.model.state_dict()), rtol=0, atol=0)


def test_another_base_is_rejected_when_a_run_resumes(tmp_path: Path) -> None:
    fit(Adapt(), tmp_path)
    path = tmp_path / "recipe.json"
    path.write_text(path.read_text().replace('"seed": 0,\n    "frozen"', '"seed": 1,\n    "frozen"'))
    with pytest.raises(ValueError, match="load the same base model"):
        fit(Adapt(seed=1), tmp_path, resume=True)


class Sparse(nn.Module):
    """A network with a sparse buffer, which no safetensors file can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("graph", torch.eye(2).to_sparse())


class Extra(nn.Linear):
    """A layer with state that is not a tensor."""

    def get_extra_state(self) -> Any:
        return {"calls": 3}

    def set_extra_state(self, state: Any) -> None: ...


@pytest.mark.parametrize(
    ("module", "message"), [(Sparse(), "'graph' is of layout"), (Extra(2, 2), "'_extra_state' is a dict")]
)
def test_state_that_cannot_be_saved_is_reported_before_the_first_step(tmp_path: Path, module, message: str) -> None:
    @dataclass(frozen=True)
    class Unsaved(Adapt):
        def build(self) -> Run[Any]:
            def batches(number: int) -> Tokens:
                raise AssertionError("a step was started") if number else RuntimeError

            return Run(module, NextToken(), batches, self.train)

    with pytest.raises(ValueError, match=message):
        fit(Unsaved(), tmp_path)
    assert not (tmp_path / "recipe.json").exists()


def test_views_of_one_storage_are_saved_separately(tmp_path: Path) -> None:
    module = nn.Module()
    table = torch.arange(6.0)
    module.register_buffer("first", table[:3])
    module.register_buffer("second", table[3:])
    from monge.files import read_tensors, write_tensors

    write_tensors(tmp_path / "x.safetensors", weights_of(module))
    assert_close(read_tensors(tmp_path / "x.safetensors"), {"first": table[:3], "second": table[3:]})


def test_a_checkpoint_without_a_trained_weight_is_rejected() -> None:
    network = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="belong to another network: 1 names or shapes differ, the first is 'bias'"):
        load_weights(network, {"weight": torch.zeros(2, 2)})
