"""Named conditions: each has an effect, a missing one is a separate condition, an unknown one an error."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.math.coupling import MinibatchOT
from monge.math.types import Pair
from monge.nets.blocks import BlockShape
from monge.nets.condition import Categorical, ConditionEmbedding, Continuous
from monge.nets.dit import DiT, DiTShape, Patches
from monge.nets.mlp import MLP
from monge.objective.flow_matching import FlowMatching

SHAPE = DiTShape(BlockShape(16, 2), 2, positions=None)
CONDITIONS = {
    "type": Categorical(9, per_token=True),
    "charge": Continuous(1, per_token=True),
    "text": Continuous(4),
    "species": Categorical(3),
}


def described(draw, seed, samples=2, tokens=5):
    """A value of each condition."""
    return {
        "type": (9 * draw(seed, samples, tokens).sigmoid()).long(),
        "charge": draw(seed + 1, samples, tokens),
        "text": draw(seed + 2, samples, 4),
        "species": (3 * draw(seed + 3, samples).sigmoid()).long(),
    }


def test_no_label_is_the_class_after_the_last(draw):
    embed = ConditionEmbedding(8, classes=3).double()
    t = torch.tensor([0.2, 0.7], dtype=torch.float64)
    silent = embed(t, None)
    assert torch.equal(silent, embed(t, {"label": torch.tensor([3, 3])}))
    assert (silent - embed(t, {"label": torch.tensor([0, 3])})).abs().amax(1).gt(1e-3).tolist() == [True, False]


def test_different_times_are_distinguished():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    c = ConditionEmbedding(64).double()(t, None)
    assert torch.pdist(c).min() > 1e-3


def test_declared_classes_are_labels_by_another_name():
    """The same seed gives the same embedding of time, and classes add to it in the same way."""
    torch.manual_seed(0)
    short = ConditionEmbedding(8, classes=3)
    torch.manual_seed(0)
    long = ConditionEmbedding(8, conditions={"label": Categorical(3)})
    t, label = torch.rand(4), torch.tensor([0, 1, 2, 3])
    assert torch.equal(short(t, {"label": label}), long(t, {"label": label}))
    assert torch.equal(short(t, None), long(t, None))


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_has_an_effect_and_a_missing_one_is_a_separate_condition(draw, stir, name):
    net, x, t = stir(DiT(3, SHAPE, conditions=CONDITIONS)), draw(0, 2, 5, 3), draw(1, 2).sigmoid()
    first, second = described(draw, 2), described(draw, 20)
    outputs = [net(x, t, first), net(x, t, {**first, name: second[name]})]
    outputs.append(net(x, t, {k: v for k, v in first.items() if k != name}))
    assert torch.pdist(torch.stack(outputs).flatten(1)).min() > 1e-3


def test_the_null_condition_is_the_last_class_index_or_a_zero_vector(draw, stir):
    net, x, t = stir(DiT(3, SHAPE, conditions=CONDITIONS)), draw(0, 2, 5, 3), draw(1, 2).sigmoid()
    null = {
        "type": torch.full((2, 5), 9),
        "charge": torch.zeros(2, 5, 1),
        "text": torch.zeros(2, 4),
        "species": torch.full((2,), 3),
    }
    torch.testing.assert_close(net(x, t, null), net(x, t))


@given(seed=st.integers(0, 2**31))
def test_without_positions_tokens_are_a_set(draw, stir, seed):
    """Permuting the tokens, their conditions and their mask permutes the velocities."""
    net, x, t = stir(DiT(3, SHAPE, conditions=CONDITIONS), size=0.5), draw(seed, 2, 5, 3), draw(seed + 1, 2).sigmoid()
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    cond = {**described(draw, seed + 2), "mask": draw(seed + 9, 2, 5) > -1}
    permuted = {name: value[:, order] if name in ("type", "charge", "mask") else value for name, value in cond.items()}
    torch.testing.assert_close(net(x[:, order], t, permuted), net(x, t, cond)[:, order])
    if bool((order == torch.arange(5)).all()):
        return
    positional = stir(DiT(3, DiTShape(BlockShape(16, 2), 2), conditions=CONDITIONS), size=0.5)
    assert (positional(x[:, order], t, permuted) - positional(x, t, cond)[:, order]).abs().max() > 1e-5


def test_gradient_reaches_every_embedding(draw, stir):
    net = stir(DiT(3, SHAPE, conditions=CONDITIONS))
    net(draw(0, 2, 5, 3), draw(1, 2).sigmoid(), described(draw, 2)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


NETWORKS = {
    "MLP": (lambda **more: MLP((2,), 8, 1, **more), (2,)),
    "DiT": (lambda **more: DiT(3, SHAPE, **more), (4, 3)),
    "Patches": (lambda **more: Patches((1, 4, 4), 2, SHAPE, **more), (1, 4, 4)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_unknown_condition_is_rejected_with_the_known_names(name):
    make, shape = NETWORKS[name]
    pair = Pair(torch.zeros(6, *shape), torch.zeros(6, *shape), cond={"y": torch.arange(6) % 3})
    with pytest.raises(ValueError, match=r"unknown condition y; known: (label|label, mask)\."):
        FlowMatching()(make(classes=3), pair)
    with pytest.raises(ValueError, match=r"unknown condition label; known: (none|mask)\."):
        make()(pair.x_0, torch.zeros(6), {"label": torch.zeros(6)})


@pytest.mark.parametrize("name", NETWORKS)
def test_the_row_in_the_data_set_is_not_a_condition(name):
    make, shape = NETWORKS[name]
    pair = Pair(torch.randn(6, *shape), torch.randn(6, *shape), cond={"index": torch.arange(6)})
    FlowMatching(coupling=MinibatchOT())(make(), pair)


def test_positions_are_unknown_to_a_network_on_sets(draw):
    with pytest.raises(ValueError, match="unknown condition positions; known: mask"):
        DiT(3, SHAPE)(torch.zeros(1, 2, 3), torch.zeros(1), {"positions": torch.zeros(1, 2)})


@pytest.mark.parametrize(
    "label", [torch.arange(4).byte(), torch.arange(4.0), torch.arange(4)[:, None], torch.arange(4).to(torch.int16)]
)
def test_labels_may_be_bytes_whole_numbers_or_a_column(label):
    net = ConditionEmbedding(8, classes=3)
    t = torch.rand(4)
    assert torch.equal(net(t, {"label": label}), net(t, {"label": torch.arange(4)}))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([0.5, 1, 2, 2]), "holds fractions; give class indices from 0 to 3"),
        (torch.tensor([0, 1, 2, 4]), "ranges from 0 to 4; classes are 0 to 2, and 3 means no class"),
        (torch.tensor([0, -1, 2, 3]), "ranges from -1 to 3"),
        (torch.zeros(4, 2, dtype=torch.long), r"has shape \(4, 2\); give class indices of shape \(4,\)"),
        (torch.zeros((), dtype=torch.long), r"has shape \(\)"),
    ],
)
def test_invalid_labels_are_rejected(label, message):
    with pytest.raises(ValueError, match=message):
        ConditionEmbedding(8, classes=3)(torch.rand(4), {"label": label})


def test_a_vector_of_another_width_is_rejected():
    with pytest.raises(ValueError, match=r"cond\['text'\] has shape \(4, 5\); give \(4, 3\)"):
        ConditionEmbedding(8, conditions={"text": Continuous(3)})(torch.rand(4), {"text": torch.zeros(4, 5)})


def test_declarations_that_contradict_are_rejected():
    with pytest.raises(ValueError, match="'label' is declared twice"):
        ConditionEmbedding(8, classes=2, conditions={"label": Categorical(3)})
    with pytest.raises(ValueError, match="have a fixed meaning"):
        ConditionEmbedding(8, conditions={"mask": Categorical(2)})
    with pytest.raises(ValueError, match="per token, but an MLP has no tokens"):
        MLP((2,), 8, 1, conditions=CONDITIONS)
    with pytest.raises(ValueError, match="give 'rotary', 'additive' or None"):
        DiTShape(positions="learned")


def test_an_mlp_uses_per_sample_conditions(draw, stir):
    net = stir(MLP(2, 8, 1, conditions={"text": Continuous(4)}))
    x, t = draw(0, 3, 2), draw(1, 3).sigmoid()
    assert (net(x, t, {"text": draw(2, 3, 4)}) - net(x, t)).abs().max() > 1e-3


def test_states_of_another_shape_are_rejected_with_the_expected_shape():
    t = torch.zeros(4)
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\); this network takes events of shape \(2,\)"):
        MLP(2, 8, 1)(torch.zeros(4, 3), t)
    with pytest.raises(ValueError, match=r"x has shape \(4, 3\); this network takes tokens \(B, N, 3\)"):
        DiT(3, SHAPE)(torch.zeros(4, 3), t)
    with pytest.raises(ValueError, match=r"x has shape \(4, 5, 2\); this network takes tokens \(B, N, 3\)"):
        DiT(3, SHAPE)(torch.zeros(4, 5, 2), t)
    with pytest.raises(ValueError, match=r"takes images \(B, \*\(1, 4, 4\)\)"):
        Patches((1, 4, 4), 2, SHAPE)(torch.zeros(4, 1, 8, 8), t)


@pytest.mark.parametrize(
    ("network", "x"), [(MLP((3,), 8, 1), torch.zeros(2, 3)), (DiT(3, SHAPE), torch.zeros(2, 4, 3))]
)
def test_the_error_names_both_dtypes_if_states_and_weights_differ(network, x):
    t = torch.zeros(2)
    with pytest.raises(ValueError, match=r"x is torch.float64, the weights are torch.float32; convert x"):
        network(x.double(), t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(x, t).shape == x.shape
