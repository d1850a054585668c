"""Blocks: counts, wirings, norms and masks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from monge.nets.blocks import (
    GELU,
    AdaLN,
    Attention,
    BlockShape,
    ParallelBlock,
    SequentialBlock,
    SwiGLU,
    attention_mask,
    layer_norm,
    rms_norm,
)

WIRINGS = pytest.mark.parametrize("wiring", [SequentialBlock, ParallelBlock])


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@WIRINGS
def test_the_parameter_count_of_the_flow_for_pythia_410m(wiring):
    """Attention 4.2 M, MLP 8.4 M, AdaLN 6.3 M."""
    with torch.device("meta"):
        block = wiring(BlockShape(1024, 16, feedforward=GELU, qk_norm=False))
    assert count(block.attention) == 4_198_400
    assert count(block.feedforward) == 8_393_728
    assert count(block.modulation) == 6_297_600


def test_low_rank_modulation_is_small():
    with torch.device("meta"):
        full, low = AdaLN(1024, 6, None), AdaLN(1024, 6, 32)
    assert count(full) == 6 * 1024 * 1024 + 6 * 1024
    assert count(low) == 32 * 1024 + 32 * 6 * 1024 + 6 * 1024


@pytest.mark.parametrize("width", [64, 256, 1024])
def test_a_gated_layer_has_the_parameters_of_a_plain_one(width):
    with torch.device("meta"):
        assert count(SwiGLU(width, 4 * width)) == pytest.approx(count(GELU(width, 4 * width)), rel=0.03)


@pytest.mark.parametrize("rank", [None, 4])
def test_fresh_modulation_is_zero_and_learns(draw, rank):
    modulation = AdaLN(8, 6, rank).double()
    vectors = modulation(draw(0, 3, 8))
    assert len(vectors) == 6
    assert all(vector.shape == (3, 1, 8) and (vector == 0).all() for vector in vectors)
    sum(vector.sum() for vector in vectors).backward()
    assert modulation.expand.weight.grad.abs().max() > 0


def test_norms_normalise(draw):
    x = 5 * draw(0, 4, 16) + 3
    torch.testing.assert_close(rms_norm(16)(x).square().mean(-1), torch.ones(4).double(), rtol=1e-5, atol=0)
    y = layer_norm(16)(x)
    torch.testing.assert_close(y.mean(-1), torch.zeros(4).double())
    torch.testing.assert_close(y.square().mean(-1), torch.ones(4).double(), rtol=1e-5, atol=0)
    assert not list(rms_norm(16).parameters()) + list(layer_norm(16).parameters())


def test_attention_equals_that_of_torch(draw, stir):
    ours = stir(Attention(BlockShape(12, 3, qk_norm=False)))
    theirs = nn.MultiheadAttention(12, 3, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = draw(0, 2, 5, 12)
    torch.testing.assert_close(ours(x, None, None, False), theirs(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("scale", [10.0, 1000.0])
def test_normed_queries_and_keys_do_not_grow(draw, stir, scale):
    normed, plain = (stir(Attention(BlockShape(12, 3, qk_norm=q))) for q in (True, False))
    x = draw(0, 2, 5, 12)
    changes = []
    for attention in (normed, plain):
        before = attention(x, None, None, False)
        with torch.no_grad():
            attention.qkv.weight[:24] *= scale
            attention.qkv.bias[:24] *= scale
        changes.append((attention(x, None, None, False) - before).abs().max())
    assert changes[0] < 1e-2 < changes[1]


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 does not divide into 4 heads"):
        Attention(BlockShape(10, 4))


@WIRINGS
def test_a_fresh_block_is_the_identity(draw, wiring):
    x = draw(0, 2, 5, 16)
    assert torch.equal(wiring(BlockShape(16, 2)).double()(x, draw(1, 2, 16), None, None, False), x)


def test_wirings_differ_only_in_what_the_feedforward_sees(draw, stir):
    """With the gate of attention closed, both are the same function of the same weights; with it open, they are not."""
    shape, x, c = BlockShape(16, 2), draw(0, 2, 5, 16), draw(1, 2, 16)
    sequential, parallel = stir(SequentialBlock(shape)), ParallelBlock(shape).double()
    parallel.load_state_dict(sequential.state_dict())
    apart = sequential(x, c, None, None, False) - parallel(x, c, None, None, False)
    assert apart.abs().max() > 1e-4
    for block in (sequential, parallel):
        with torch.no_grad():
            block.modulation.expand.weight[32:48] = 0
            block.modulation.expand.bias[32:48] = 0
    torch.testing.assert_close(sequential(x, c, None, None, False), parallel(x, c, None, None, False))


@given(seed=st.integers(0, 2**31), causal=st.booleans())
def test_each_token_attends_to_some_token_and_to_no_void_but_itself(seed, causal):
    mask = torch.rand(3, 6, generator=torch.Generator().manual_seed(seed)) < 0.4
    allowed, by_kernel = attention_mask(mask, 6, causal=causal)
    assert not by_kernel
    assert allowed.expand(3, 1, 6, 6).any(-1).all()
    i, j = torch.arange(6)[:, None], torch.arange(6)[None, :]
    strangers = allowed[:, 0] & (i != j)
    assert not (strangers & ~mask[:, None, :]).any()
    assert not (causal and (strangers & (j > i)).any())
    assert attention_mask(None, 6, causal=causal) == (None, causal)


@WIRINGS
def test_dropout_zeroes_outputs_of_a_block_in_training_only(wiring, draw, stir):
    plain, dropped = (stir(wiring(BlockShape(16, 2, dropout=p)).double()) for p in (0.0, 0.5))
    dropped.load_state_dict(plain.state_dict())
    inputs = draw(1, 2, 5, 16), draw(2, 2, 16), None, None, False
    assert torch.equal(dropped.eval()(*inputs), plain(*inputs))
    torch.manual_seed(0)
    outputs = torch.stack([dropped.train()(*inputs) for _ in range(4)])
    assert (outputs[0] != outputs[1]).any()
    for part in (
        dropped.attention,
        dropped.feedforward,
    ):  # each is dropped on its own: without the other, outputs still differ
        seen: list[torch.Tensor] = []
        handle = part.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
        seen += [dropped(*inputs) for _ in range(2)]
        handle.remove()
        assert (seen[0] != seen[1]).any()
    if wiring is ParallelBlock:  # attention and feed-forward see the same input, so the mean is that without dropout
        mean = torch.stack([dropped(*inputs) for _ in range(1000)]).mean(0)
        torch.testing.assert_close(mean, plain(*inputs), atol=0.3, rtol=0.1)
