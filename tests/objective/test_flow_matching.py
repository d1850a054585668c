"""Flow matching: its minimum, and the effect of couplings, masks and weights."""

import pickle

import pytest
import torch
from torch import nn

from monge.math.coupling import MinibatchOT, identity
from monge.math.path import Affine, conditional_ot, constant, decreasing, linear, trigonometric
from monge.math.times import Times, logit_normal, shifted
from monge.math.types import Pair, pad_like
from monge.nets.mlp import MLP
from monge.objective.alignment import Alignment
from monge.objective.flow_matching import FlowMatching, masked_mean


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_a_velocity_loss_is_added_and_sees_the_prediction(draw):
    pair = Pair(draw(0, 6, 2), draw(1, 6, 2))
    seen = []

    def term(v, x_t, t, given):
        seen.append((x_t + (1 - t)[:, None] * v - given.x_1).abs().max())
        return v.new_tensor(3.0)

    def exact(x_t, t, cond):
        return pair.x_1 - pair.x_0

    loss = FlowMatching(velocity_loss=term)(exact, pair)
    assert float(loss.value) == pytest.approx(3)
    assert float(loss.metrics["velocity_loss"]) == 3
    assert float(loss.metrics["velocity"]) == pytest.approx(0)
    assert seen[0] < 1e-6


def fixed_time(t):
    """A distribution whose only value is t."""
    return Times(lambda u: torch.full_like(u, t))


def two_points(draw, n=200_000):
    """Noise, and data that are +1 or -1."""
    return Pair(draw(0, n, 1), draw(1, n, 1).sign())


def expected_velocity(x_t, t, cond=None):
    """(E[x_1 | x_t] - x_t) / (1 - t): given x_t, x_1 is a sign whose log-odds are 2 t x_t / (1 - t)^2."""
    t = pad_like(t, x_t)
    return (torch.tanh(t * x_t / (1 - t) ** 2) - x_t) / (1 - t)


def test_the_conditional_expectation_is_the_minimum(draw):
    pair = two_points(draw)
    times = Times(lambda u: 0.9 * u, stratified=True)

    def loss(model):
        torch.manual_seed(0)
        return float(FlowMatching(times=times)(model, pair).value)

    least = loss(expected_velocity)
    assert loss(lambda x, t, cond: 1.1 * expected_velocity(x, t)) > least
    assert loss(lambda x, t, cond: 0.9 * expected_velocity(x, t)) > least
    for direction in (torch.sin, torch.ones_like, lambda x: x):
        gains = [
            loss(lambda x, t, cond, s=s, d=direction: expected_velocity(x, t) + s * d(x)) - least for s in (-0.1, 0.1)
        ]
        assert min(gains) > 0
        assert gains[0] == pytest.approx(gains[1], rel=0.5)  # the slope at the minimum is zero


def test_the_minimum_loss_at_the_source_is_the_variance_of_the_data(draw):
    """At t = 0, x_t holds no information about x_1: the remaining loss is Var(x_1) = 1."""
    value = FlowMatching(times=fixed_time(0.0))(expected_velocity, two_points(draw)).value
    assert float(value) == pytest.approx(1, abs=0.01)


def indexed(draw, n=64):
    return Pair(draw(0, n, 2), 3 * draw(1, n, 2), None, {"index": torch.arange(n)})


@pytest.mark.parametrize("coupling", [MinibatchOT(), MinibatchOT(0.05)], ids=["exact", "entropic"])
def test_x_t_and_u_t_come_from_the_same_pair(draw, coupling):
    """A network that is given the target of its row predicts the velocity of that pair without error."""
    pair = indexed(draw)
    calls = []

    def counted(batch):
        calls.append(batch)
        return coupling(batch)

    def oracle(x_t, t, cond):
        return Affine().velocity_from_target(pair.x_1[cond["index"]], x_t, t)

    loss = FlowMatching(coupling=counted, times=Times(lambda u: 0.9 * u))(oracle, pair)
    assert float(loss.value) == pytest.approx(0, abs=1e-20)
    assert len(calls) == 1


def test_coupling_lowers_the_irreducible_loss(draw):
    pair = two_points(draw, 512)

    def loss(coupling):
        objective = FlowMatching(coupling=coupling, times=fixed_time(0.0))
        return float(objective(lambda x, t, cond: x.sign() - x, pair).value)

    assert loss(identity) > 1.5
    assert loss(MinibatchOT()) < 0.3


def test_tokens_outside_of_the_mask_do_not_count(draw):
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x_0, x_1 = draw(0, 2, 3, 4), draw(1, 2, 3, 4)
    spoilt = torch.where(mask[..., None], x_1, torch.full_like(x_1, 1e6))
    seen = []

    def model(x_t, t, cond):
        seen.append(cond["mask"])
        return torch.zeros_like(x_t)

    value = FlowMatching(times=fixed_time(0.5))(model, Pair(x_0, spoilt, mask)).value
    torch.testing.assert_close(value, (x_1 - x_0)[mask].square().mean())
    assert seen[0] is mask


def test_a_masked_mean_over_images_tokens_and_nothing(draw):
    error = draw(0, 2, 3, 4, 5)
    mask = torch.tensor([[True, False, False], [True, True, False]])
    torch.testing.assert_close(masked_mean(error, mask), error[mask].mean())
    torch.testing.assert_close(masked_mean(error, None), error.mean())
    assert float(masked_mean(error, torch.zeros_like(mask))) == 0


def test_the_weight_multiplies_each_squared_error(draw):
    pair = Pair(draw(0, 500, 2), draw(1, 500, 2))
    times = Times(lambda u: u.round())  # 0 or 1

    def model(x_t, t, cond):
        return torch.zeros_like(x_t)

    def loss(weight):
        torch.manual_seed(3)
        return float(FlowMatching(times=times, weight=weight)(model, pair).value)

    first, second = loss(lambda t: t), loss(lambda t: 1 - t)
    assert first + second == pytest.approx(loss(None))
    assert 0.3 < first / second < 3
    assert loss(lambda t: 7 * torch.ones_like(t)) == pytest.approx(7 * loss(None))


def test_contrast_rewards_distance_from_the_velocities_of_others(draw):
    pair = Pair(torch.zeros(2, 1).double(), torch.tensor([[1.0], [3.0]]).double())
    exact, mean = torch.tensor([[1.0], [3.0]]).double(), torch.full((2, 1), 2.0).double()

    def loss(v, contrast):
        return float(FlowMatching(contrast=contrast)(lambda x, t, cond: v, pair).value)

    assert loss(exact, 0.0) == 0
    assert loss(exact, 0.1) == pytest.approx(-0.4)
    assert loss(mean, 0.1) == pytest.approx(0.9)


@pytest.mark.parametrize("schedule", [linear, trigonometric])
def test_the_given_times_and_path_are_used(draw, schedule):
    pair, seen = Pair(draw(0, 4, 2), draw(1, 4, 2)), []

    def model(x_t, t, cond):
        seen.append((x_t, t))
        return torch.zeros_like(x_t)

    FlowMatching(path=Affine(schedule), times=Times(shifted(3.0, lambda u: torch.full_like(u, 0.5))))(model, pair)
    ((x_t, t),) = seen
    assert t.tolist() == [0.25] * 4
    torch.testing.assert_close(x_t, Affine(schedule)(pair.x_0, pair.x_1, t).x_t)


def test_each_row_has_its_own_time(draw):
    seen = []

    def model(x_t, t, cond):
        seen.append(t)
        return torch.zeros_like(x_t)

    FlowMatching()(model, Pair(draw(0, 50, 3, 4, 4), draw(1, 50, 3, 4, 4)))
    assert seen[0].shape == (50,)
    assert len(seen[0].unique()) == 50


def test_gradient_reaches_the_network_and_no_metric_holds_it(draw, stir):
    net = stir(MLP((2,), 8, 1))
    loss = FlowMatching()(net, Pair(draw(0, 8, 2), draw(1, 8, 2)))
    loss.value.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert float(loss.metrics["loss"]) == float(loss.value.detach())
    assert not loss.metrics["loss"].requires_grad


@pytest.mark.slow
def test_a_table_trained_by_flow_matching_finds_the_expectation(draw):
    """At a fixed t, a table over bins of x_t is the complete model."""
    t, bins, pair = 0.6, 40, two_points(draw)
    table = nn.Parameter(torch.zeros(bins, dtype=torch.float64))

    def model(x_t, _, cond):
        return table[((x_t + 2) / 4 * bins).long().clamp(0, bins - 1)]

    optimizer = torch.optim.SGD([table], lr=5.0)
    objective = FlowMatching(times=fixed_time(t))
    for _ in range(300):
        optimizer.zero_grad()
        objective(model, pair).value.backward()
        optimizer.step()
    middle = ((torch.arange(bins, dtype=torch.float64) + 0.5) / bins * 4 - 2)[:, None]
    expected = expected_velocity(middle, torch.full((bins,), t, dtype=torch.float64))[:, 0]
    inner = middle[:, 0].abs() < 1
    torch.testing.assert_close(table.detach()[inner], expected[inner], rtol=0, atol=0.1)


class Linear(nn.Module):
    """A model with one block, whose hidden state is its velocity."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x_t, t, cond=None):
        return self.scale * x_t

    def with_features(self, x_t, t, cond, layer):
        return self.scale * x_t, self.scale * x_t


def test_alignment_is_added_with_its_weight(draw):
    align = Alignment(lambda x, cond: x, layer=1, width=3, features=3, weight=0.5, hidden=8).double()
    pair = Pair(draw(0, 4, 5, 3), draw(1, 4, 5, 3))
    torch.manual_seed(1)
    aligned = FlowMatching(align=align)(Linear(), pair)
    torch.manual_seed(1)
    plain = FlowMatching()(Linear(), pair)
    assert set(aligned.metrics) == {"loss", "velocity", "alignment"}
    torch.testing.assert_close(aligned.metrics["velocity"], plain.value.detach())
    torch.testing.assert_close(aligned.value.detach() - plain.value.detach(), 0.5 * aligned.metrics["alignment"])
    assert any("projector" in name for name, _ in FlowMatching(align=align).named_parameters())


def test_arguments_are_keyword_only():
    with pytest.raises(TypeError, match=r"use keywords, for example FlowMatching\(path=Affine\(\), coupling="):
        FlowMatching(MinibatchOT())


def test_two_tensors_in_place_of_a_pair_are_rejected(draw):
    net, x = MLP((2,), 8, 1).double(), draw(0, 4, 2)
    with pytest.raises(TypeError, match=r"call FlowMatching\(\)\(model, batch\), with a batch such as Pair"):
        FlowMatching()(net, x, x)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 2), (2,)])
def test_a_velocity_of_another_shape_does_not_train(draw, shape):
    with pytest.raises(ValueError, match=r"returned shape .* for states of shape \(4, 2\)"):
        FlowMatching()(lambda x, t, cond: torch.zeros(shape), Pair(draw(0, 4, 2), draw(1, 4, 2)))


@pytest.mark.parametrize("spread", [constant(0.3), decreasing(0.3)])
@pytest.mark.parametrize("quantile", [logit_normal(), shifted(3.0), shifted(2.0, logit_normal(0.5))])
def test_an_objective_can_be_pickled(draw, spread, quantile):
    """The schedule, spread and distribution of t are pickled too, and the velocities stay the same."""
    objective = FlowMatching(path=Affine(conditional_ot(0.1), spread), times=Times(quantile), coupling=MinibatchOT(0.1))
    pair, losses = Pair(draw(0, 8, 2), draw(1, 8, 2)), []
    for each in (objective, pickle.loads(pickle.dumps(objective))):
        torch.manual_seed(0)
        losses.append(each(lambda x, t, cond: x, pair).value)
    assert torch.equal(*losses)
