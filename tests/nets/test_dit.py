"""Transformers for the velocity: symmetry, masks, features."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.math.types import FeatureModel, VelocityModel
from monge.nets.blocks import GELU, BlockShape, ParallelBlock, SequentialBlock, layer_norm
from monge.nets.dit import DiT, DiTShape, Patches

BLOCK = BlockShape(16, 2)
SHAPES = {
    "rotary": DiTShape(BLOCK, 2),
    "additive": DiTShape(BLOCK, 2, positions="additive"),
    "parallel, causal, low rank": DiTShape(
        BlockShape(16, 2, norm=layer_norm, feedforward=GELU, qk_norm=False, rank=3),
        2,
        wiring=ParallelBlock,
        causal=True,
    ),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
LOOSE = {"rtol": 0, "atol": 1e-5}  # angles are float32


@every_shape
def test_a_fresh_network_has_zero_velocity(draw, shape):
    x, t = draw(0, 2, 5, 3), draw(1, 2).sigmoid()
    net = DiT(3, shape).double()
    assert isinstance(net, VelocityModel)
    assert isinstance(net, FeatureModel)
    assert torch.equal(net(x, t), torch.zeros_like(x))


@pytest.mark.parametrize("shape", [SHAPES["rotary"], SHAPES["additive"]], ids=["rotary", "additive"])
@given(seed=st.integers(0, 2**31))
def test_tokens_that_swap_with_their_positions_swap_their_velocities(draw, stir, shape, seed):
    net, x, t = stir(DiT(3, shape)), draw(seed, 2, 6, 3), draw(seed + 1, 2).sigmoid()
    positions = 10 * draw(seed + 2, 2, 6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    original = net(x, t, {"positions": positions})
    swapped = net(x[:, order], t, {"positions": positions[:, order]})
    torch.testing.assert_close(swapped, original[:, order], **LOOSE)


@every_shape
def test_the_order_of_the_tokens_matters_unless_positions_are_given(draw, stir, shape):
    net, x, t = stir(DiT(3, shape), size=0.5), draw(0, 2, 6, 3), draw(1, 2).sigmoid()
    assert (net(x.flip(1), t) - net(x, t).flip(1)).abs().max() > 1e-3


@every_shape
def test_positions_count_from_zero_unless_they_are_given(draw, stir, shape):
    net, x, t = stir(DiT(3, shape)), draw(0, 2, 6, 3), draw(1, 2).sigmoid()
    torch.testing.assert_close(net(x, t, {"positions": torch.arange(6.0).expand(2, 6)}), net(x, t))


def test_rotary_positions_are_relative(draw, stir):
    net, x, t = stir(DiT(3, SHAPES["rotary"]), size=0.5), draw(0, 2, 6, 3), draw(1, 2).sigmoid()
    torch.testing.assert_close(net(x, t, {"positions": torch.arange(6.0).expand(2, 6) + 9}), net(x, t), **LOOSE)


@every_shape
@given(seed=st.integers(0, 2**31))
def test_padding_is_neither_seen_nor_moved(draw, stir, shape, seed):
    net, x, t = stir(DiT(3, shape)), draw(seed, 3, 7, 3), draw(seed + 1, 3).sigmoid()
    lengths = torch.tensor([4, 7, 0])
    mask = torch.arange(7) < lengths[:, None]
    v = net(x, t, {"mask": mask})
    noisy = net(torch.where(mask[..., None], x, 100 * draw(seed + 2, 3, 7, 3)), t, {"mask": mask})
    assert (v[~mask] == 0).all()
    torch.testing.assert_close(noisy, v)
    for k in (0, 1):
        n = int(lengths[k])
        torch.testing.assert_close(v[k : k + 1, :n], net(x[k : k + 1, :n], t[k : k + 1]))


@pytest.mark.parametrize("masked", [False, True])
def test_a_causal_network_does_not_see_the_future(draw, stir, masked):
    net, x, t = stir(DiT(3, DiTShape(BLOCK, 2, causal=True)), size=0.5), draw(0, 2, 6, 3), draw(1, 2).sigmoid()
    later = x.clone()
    later[:, 4:] += 1
    cond = {"mask": torch.ones(2, 6, dtype=torch.bool)} if masked else {}
    change = (net(later, t, cond) - net(x, t, cond)).abs().amax((0, 2))
    assert (change[:4] < 1e-12).all()
    assert (change[4:] > 1e-3).all()


@every_shape
def test_features_come_with_the_same_velocity(draw, stir, shape):
    net, x, t = stir(DiT(3, shape)), draw(0, 2, 6, 3), draw(1, 2).sigmoid()
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    hidden = []
    for layer in (1, 2):
        v, features = net.with_features(x, t, {"mask": mask}, layer)
        assert torch.equal(v, net(x, t, {"mask": mask}))
        hidden.append(features)
    assert hidden[0].shape == (2, 6, 16)
    assert (hidden[0] - hidden[1]).abs().max() > 1e-3
    for layer in (0, 3):
        with pytest.raises(ValueError, match=f"layer {layer} of 2; count blocks from 1"):
            net.with_features(x, t, None, layer)


def test_the_feature_after_a_block_does_not_depend_on_later_blocks(draw, stir):
    net, x, t = stir(DiT(3, SHAPES["rotary"])), draw(0, 2, 6, 3), draw(1, 2).sigmoid()
    before = net.with_features(x, t, None, 1)[1]
    with torch.no_grad():
        for parameter in net.blocks[1].parameters():
            parameter += 1
    assert torch.equal(net.with_features(x, t, None, 1)[1], before)


@every_shape
def test_gradient_reaches_every_parameter(draw, stir, shape):
    net = stir(DiT(3, shape, classes=2))
    cond = {"label": torch.tensor([0, 1, 2])}
    net(draw(0, 3, 6, 3), draw(1, 3).sigmoid(), cond).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_no_label_is_the_null_class(draw, stir):
    net, x, t = stir(DiT(3, SHAPES["rotary"], classes=2)), draw(0, 1, 4, 3), draw(1, 1).sigmoid()
    outputs = [net(x, t, {"label": torch.tensor([c])}) for c in range(3)]
    assert torch.equal(net(x, t), outputs[2])
    assert torch.pdist(torch.cat(outputs).flatten(1)).min() > 1e-4


def test_the_shape_carries_no_state_between_networks():
    first, second = DiT(3), DiT(3)
    assert first.shape == second.shape
    assert len(first.blocks) == 6
    assert all(isinstance(block, SequentialBlock) for block in first.blocks)


@given(seed=st.integers(0, 2**31))
def test_images_are_cut_into_patches_and_reassembled(draw, seed):
    patches, x = Patches((3, 8, 12), 4, SHAPES["rotary"]), draw(seed, 2, 3, 8, 12)
    tokens = patches._unfold(x)
    assert tokens.shape == (2, 6, 48)
    assert torch.equal(patches._fold(tokens, x), x)
    assert sorted(tokens[0, 4].tolist()) == sorted(x[0, :, 4:, 4:8].flatten().tolist())  # row 1, column 1 of three


def test_patches_have_the_positions_of_the_image():
    places = Patches((1, 4, 6), 2, SHAPES["rotary"]).dit.grid_positions
    assert places.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("shape", [SHAPES["rotary"], SHAPES["additive"]], ids=["rotary", "additive"])
def test_patches_distinguish_rows_from_columns(draw, stir, shape):
    net, x, t = stir(Patches((1, 4, 4), 2, shape), size=0.5), draw(0, 2, 1, 4, 4), draw(1, 2).sigmoid()
    x = torch.cat(
        [torch.cat([x[..., :2, :2], x[..., :2, 2:]], -1), torch.cat([x[..., :2, 2:], x[..., :2, :2]], -1)], -2
    )
    v = net(x, t)  # the patches right of and below the first are equal
    assert (v[..., :2, 2:] - v[..., 2:, :2]).abs().max() > 1e-4


def test_patches_return_features_and_reject_indivisible_images(draw, stir):
    net, x, t = stir(Patches((1, 4, 8), 2, SHAPES["rotary"])), draw(0, 2, 1, 4, 8), draw(1, 2).sigmoid()
    v, features = net.with_features(x, t, None, 1)
    assert torch.equal(v, net(x, t))
    assert features.shape == (2, 8, 16)
    with pytest.raises(ValueError, match="5 x 8 pixels do not divide into patches of 2"):
        Patches((1, 5, 8), 2)


def test_additive_positions_need_a_width_that_the_axes_can_share():
    net = DiT(4, DiTShape(BlockShape(18, 2), 1, positions="additive"), grid=(2, 2))
    with pytest.raises(ValueError, match="multiple of 4"):
        net(torch.zeros(1, 4, 4), torch.zeros(1))


def test_recomputed_blocks_give_the_same_gradient(draw, stir):
    networks = [DiT(3, DiTShape(BLOCK, 2, recompute=recompute)).double() for recompute in (False, True)]
    stir(networks[0])
    networks[1].load_state_dict(networks[0].state_dict())
    for network in networks:
        network(draw(0, 2, 5, 3), torch.tensor([0.2, 0.7], dtype=torch.float64)).square().sum().backward()
    for one, two in zip(*(network.parameters() for network in networks), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
