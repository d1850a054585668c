"""Alignment of a hidden layer with a frozen encoder (REPA)."""

import pytest
import torch
from torch import nn

from monge.math.types import Pair
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiT, DiTShape
from monge.objective.alignment import Alignment, CachedTargets, GridProjector, Unconditional, spatially_normalised
from monge.objective.flow_matching import FlowMatching


class Shows:
    """A model with a given hidden state, which records the requested layer."""

    def __init__(self, hidden):
        self.hidden, self.layer = hidden, None

    def __call__(self, x_t, t, cond=None):
        return x_t

    def with_features(self, x_t, t, cond, layer):
        self.layer = layer
        return x_t, self.hidden


def direct(encoder, **options):
    """An alignment without a projector."""
    align = Alignment(encoder, layer=2, width=3, features=3, hidden=4, **options).double()
    align.projector = nn.Identity()
    return align


def loss(align, hidden, pair):
    return align(Shows(hidden), pair.x_0, torch.zeros(len(pair)).double(), pair)[1]


@pytest.mark.parametrize(("sign", "expected"), [(7.0, -1.0), (-2.0, 1.0)])
def test_the_loss_is_minus_the_cosine(draw, sign, expected):
    pair = Pair(draw(0, 2, 5, 3), draw(1, 2, 5, 3))
    assert float(loss(direct(lambda x, cond: x), sign * pair.x_1, pair)) == pytest.approx(expected)


def test_orthogonal_vectors_score_zero_and_tokens_are_averaged(draw):
    x_1 = torch.tensor([[[1.0, 0, 0], [1.0, 0, 0]]]).double()
    hidden = torch.tensor([[[0.0, 5, 0], [3.0, 0, 0]]]).double()
    assert float(loss(direct(lambda x, cond: x), hidden, Pair(x_1, x_1))) == pytest.approx(-0.5)


@pytest.mark.parametrize("masked", [False, True])
def test_spatial_normalisation_has_mean_0_and_variance_1_over_existing_tokens(draw, masked):
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]]) if masked else None
    shared = 100 * draw(3, 2, 1, 3)  # what all tokens of a sample have in common
    normalised = spatially_normalised(draw(1, 2, 4, 3) + shared, mask)
    for row, features in enumerate(normalised):
        part = features if mask is None else features[mask[row]]
        torch.testing.assert_close(part.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-12)
        torch.testing.assert_close(part.std(0, correction=0), torch.ones(3).double())
    if mask is not None:
        assert not normalised[~mask].any()


@pytest.mark.parametrize("tokens", [3, 7, 12])
@pytest.mark.parametrize("masked", [False, True])
def test_features_that_do_not_vary_are_normalised_to_zero(tokens, masked):
    """In float32, whose rounding error must not be taken for variation."""
    mask = torch.arange(tokens + 2)[None] < tokens if masked else None
    features = torch.tensor([3.7, 100.0, -1e-3]).expand(1, tokens + 2 * masked, 3)
    assert not spatially_normalised(features, mask).any()


def test_spatial_normalisation_needs_features_per_token(draw):
    pair = Pair(draw(0, 2, 5, 3), draw(1, 2, 5, 3))
    with pytest.raises(ValueError, match="spatial normalisation and kinds need features per token"):
        loss(direct(lambda x, cond: x.mean(1), spatial=True), pair.x_1, pair)


def test_each_kind_of_token_has_a_last_layer_of_its_own(draw):
    target, x = draw(0, 1, 3, 3), draw(1, 1, 3, 2)
    kind = torch.tensor([[0, 2, 2]])
    options: dict = {"layer": 2, "width": 3, "features": 3, "hidden": 4}
    align = Alignment(lambda x_1, cond: target, **options, kind=lambda pair: kind, kinds=3).double()
    hidden = draw(2, 1, 1, 3).expand(1, 3, 3)
    align(Shows(hidden), x, torch.zeros(1), Pair(x, x))[1].backward()
    last = align.projector[-1]
    assert [bool(part.any()) for part in last.weight.grad.split(3)] == [True, False, True]
    first = Alignment(lambda x_1, cond: target, **options).double()
    for layer, other in zip(first.projector, align.projector, strict=True):
        layer.load_state_dict(
            {name: value[: 3 if other is last else None] for name, value in other.state_dict().items()}
        )
    only_first = Pair(x, x, torch.tensor([[True, False, False]]))
    losses = [one(Shows(hidden), x, torch.zeros(1), only_first)[1] for one in (first, align)]
    torch.testing.assert_close(*losses)


def test_kinds_need_features_per_token(draw):
    align = Alignment(
        lambda x_1, cond: draw(0, 2, 3), layer=2, width=3, features=3, kind=lambda pair: pair.x_1, kinds=2
    )
    x = torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match="spatial normalisation and kinds need features per token"):
        align(Shows(x), x, torch.zeros(2), Pair(x, x))


def test_spatial_normalisation_applies_to_the_targets(draw):
    pair = Pair(draw(0, 2, 5, 3), draw(1, 2, 5, 3))
    hidden = spatially_normalised(pair.x_1)
    assert float(loss(direct(lambda x, cond: x, spatial=True), hidden, pair)) == pytest.approx(-1)
    assert float(loss(direct(lambda x, cond: x), hidden, pair)) > -0.999


def test_the_encoder_sees_the_clean_target(draw):
    """The encoder is called with x_1, not with x_t."""
    seen = []

    def encoder(x, cond):
        seen.append(x)
        return x

    pair = Pair(draw(0, 2, 5, 3), draw(1, 2, 5, 3))
    loss(direct(encoder), draw(2, 2, 5, 3), pair)
    assert seen[0] is pair.x_1


def test_the_target_follows_the_coupling(draw):
    """The encoder must see the re-paired targets: here it does, and the alignment is perfect."""
    pair = Pair(draw(0, 4, 5, 3), draw(1, 4, 5, 3))

    def backward(batch, *, generator=None):
        return batch.take(torch.arange(4), torch.arange(3, -1, -1))

    objective = FlowMatching(coupling=backward, align=direct(lambda x, cond: x))
    assert float(objective(Shows(pair.x_1.flip(0)), pair).metrics["alignment"]) == pytest.approx(-1)


def test_masked_tokens_do_not_count(draw):
    mask = torch.tensor([[True, True, False], [True, False, False]])
    pair = Pair(draw(0, 2, 3, 3), draw(1, 2, 3, 3), mask)
    hidden = torch.where(mask[..., None], pair.x_1, -pair.x_1)
    assert float(loss(direct(lambda x, cond: x), hidden, pair)) == pytest.approx(-1)


def test_the_configured_layer_is_the_requested_one(draw):
    model, pair = Shows(draw(0, 2, 5, 3)), Pair(draw(1, 2, 5, 3), draw(2, 2, 5, 3))
    direct(lambda x, cond: x)(model, pair.x_0, torch.zeros(2).double(), pair)
    assert model.layer == 2


def test_the_encoder_is_neither_trained_nor_saved(draw, stir):
    encoder = nn.Linear(3, 6).double()
    align = Alignment(Unconditional(encoder), layer=1, width=16, features=6, hidden=8).double()
    assert not {id(p) for p in align.parameters()} & {id(p) for p in encoder.parameters()}
    assert all(name.startswith("projector.") for name in align.state_dict())

    net = stir(DiT(3, DiTShape(BlockShape(16, 2), 2)))
    pair = Pair(draw(0, 2, 5, 3), draw(1, 2, 5, 3))
    v, value = align(net, pair.x_0, torch.tensor([0.2, 0.5]).double(), pair)
    value.backward()
    assert -1 <= float(value.detach()) <= 1
    assert torch.equal(v, net(pair.x_0, torch.tensor([0.2, 0.5]).double()))
    assert all(p.grad is None for p in encoder.parameters())
    assert all(p.grad is not None for p in align.parameters())
    assert all(p.grad is not None for p in net.blocks[0].parameters())
    assert all(p.grad is None for p in net.blocks[1].parameters())  # after the layer that is aligned


def test_the_projector_has_the_layers_of_repa():
    """Linear, SiLU, Linear, SiLU, Linear."""
    align = Alignment(lambda x, cond: x, layer=1, width=5, features=7)
    kinds = [type(layer).__name__ for layer in align.projector]
    assert kinds == ["Linear", "SiLU", "Linear", "SiLU", "Linear"]
    assert (align.projector[0].in_features, align.projector[-1].out_features, align.weight) == (5, 7, 0.5)


def test_a_different_number_of_tokens_is_an_error_with_both_numbers(draw):
    pair = Pair(draw(0, 2, 5, 3), draw(1, 2, 5, 3))
    with pytest.raises(ValueError, match=r"features of shape \(2, 4, 3\), the model has \(2, 5\) tokens"):
        loss(direct(lambda x, cond: x[:, 1:]), draw(2, 2, 5, 3), pair)


def test_the_encoder_is_given_the_mask_and_the_conditions(draw):
    seen = {}

    def encoder(x, cond):
        seen.update(cond)
        return x

    mask = torch.tensor([[True, True, False], [True, False, False]])
    pair = Pair(draw(0, 2, 3, 3), draw(1, 2, 3, 3), mask, {"label": torch.tensor([3, 4])})
    loss(direct(encoder), draw(2, 2, 3, 3), pair)
    assert torch.equal(seen["mask"], mask)
    assert seen["label"].tolist() == [3, 4]


def test_padding_does_not_move_the_features_of_real_tokens(draw, stir):
    """An encoder with attention gets the mask, so that the loss equals that of the sequences without padding."""
    encoder = Attends(stir(DiT(3, DiTShape(BlockShape(16, 2), 1))))
    mask = torch.tensor([True, True, False]).expand(2, 3)
    pair, hidden = Pair(draw(0, 2, 3, 3), draw(1, 2, 3, 3), mask), draw(2, 2, 3, 3)
    short = Pair(pair.x_0[:, :2], pair.x_1[:, :2])
    torch.testing.assert_close(loss(direct(encoder), hidden, pair), loss(direct(encoder), hidden[:, :2], short))


class Attends(nn.Module):
    """A DiT at t = 1 as an encoder."""

    def __init__(self, dit):
        super().__init__()
        self.dit = dit

    def forward(self, x, cond):
        return self.dit(x, torch.ones(len(x)).double(), cond)


def test_an_encoder_of_one_argument_is_rejected_and_can_be_wrapped(draw):
    for encoder in (lambda x: x, nn.Linear(3, 3)):
        with pytest.raises(ValueError, match=r"if it takes only x_1, pass Unconditional\(encoder\)"):
            Alignment(encoder, layer=1, width=3, features=3)
    pair = Pair(draw(0, 2, 5, 3), draw(1, 2, 5, 3))
    assert float(loss(direct(Unconditional(lambda x: x)), pair.x_1, pair)) == pytest.approx(-1)


def test_a_pooled_target_is_compared_with_the_mean_of_existing_tokens(draw):
    mask = torch.tensor([[True, True, False], [True, False, False]])
    pair, hidden = Pair(draw(0, 2, 3, 3), draw(1, 2, 3, 3), mask), draw(2, 2, 3, 3)
    means = torch.stack([hidden[0, :2].mean(0), hidden[1, 0]])
    assert float(loss(direct(lambda x, cond: 3 * means), hidden, pair)) == pytest.approx(-1)
    assert float(loss(direct(lambda x, cond: -means), hidden, pair)) == pytest.approx(1)
    without = Pair(pair.x_0, pair.x_1)
    assert float(loss(direct(lambda x, cond: hidden.mean(1)), hidden, without)) == pytest.approx(-1)


def test_cached_targets_are_those_of_the_encoder(draw):
    features, index = draw(3, 9, 5, 3), torch.tensor([7, 2])
    pair = Pair(draw(0, 2, 5, 3), draw(1, 2, 5, 3), cond={"index": index, "target": features[index]})
    hidden = draw(2, 2, 5, 3)
    expected = loss(direct(lambda x, cond: features[index]), hidden, pair)
    for cached in (
        CachedTargets(features),
        CachedTargets(lambda ids: features[ids]),
        CachedTargets(lambda x: x, key="target"),
    ):
        assert torch.equal(loss(direct(cached), hidden, pair), expected)
    with pytest.raises(ValueError, match=r"no cond\['id'\], only \['index', 'target'\]"):
        loss(direct(CachedTargets(features, key="id")), hidden, pair)


def test_a_grid_projector_mixes_the_neighbours_of_a_token_only():
    """With all weights 1, the projection of a token is the number of its neighbours, itself included, that are 1."""
    project = GridProjector(1, 1, (3, 4))
    torch.nn.init.ones_(project.convolution.weight)
    torch.nn.init.zeros_(project.convolution.bias)
    tokens = torch.zeros(1, 12, 1)
    tokens[0, 6] = 1.0  # row 1, column 2
    expected = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]])
    assert torch.equal(project(tokens).reshape(3, 4), expected.float())


def test_an_alignment_with_a_grid_learns_a_shift_over_it(draw):
    torch.manual_seed(0)
    pair = Pair(draw(1, 4, 6, 3).float(), draw(2, 4, 6, 3).float())

    def right(x, cond):
        return x.unflatten(1, (2, 3)).roll(1, 2).flatten(1, 2)

    align = Alignment(right, layer=1, width=3, features=3, grid=(2, 3))
    optimizer = torch.optim.Adam(align.parameters(), 0.05)
    values = []
    for _ in range(150):
        value = align(Shows(pair.x_1), pair.x_0, torch.zeros(4), pair)[1]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < -0.5 < values[0]
