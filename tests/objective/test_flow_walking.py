"""Flow walking: the exact field has zero loss, and one step is a regression."""

import math

import pytest
import torch

from monge.math.steps import euler, midpoint, rk4
from monge.math.times import Times
from monge.math.types import Pair, pad_like
from monge.nets.mlp import MLP
from monge.objective.flow_matching import FlowMatching
from monge.objective.flow_walking import FlowWalking


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("step", [euler, midpoint, rk4])
@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_straight_field_has_zero_loss(draw, step, steps):
    x_0, way = draw(0, 8, 3), draw(1, 8, 3)
    value = FlowWalking(steps=steps, step=step)(lambda x, t, cond: way, Pair(x_0, x_0 + way)).value
    assert float(value) == pytest.approx(0, abs=1e-25)


def test_any_trajectory_of_a_field_of_time_alone_is_exact(draw):
    """The midpoint rule is exact for v = 2 t whatever the knots are, and Euler's is not."""
    x_0 = draw(0, 8, 3)
    losses = [
        float(FlowWalking(step=step)(lambda x, t, cond: pad_like(2 * t, x).expand_as(x), Pair(x_0, x_0 + 1)).value)
        for step in (midpoint, euler)
    ]
    assert losses[0] == pytest.approx(0, abs=1e-25)
    assert losses[1] > 0.01


def test_more_steps_lower_the_error_on_a_curved_field(draw):
    pair = Pair(draw(0, 500, 1), math.e * draw(0, 500, 1))
    losses = [float(FlowWalking(steps=n)(lambda x, t, cond: x, pair).value) for n in (1, 4, 16)]
    assert losses[0] > 3 * losses[1] > 9 * losses[2] > 0


def test_one_euler_step_has_the_loss_of_flow_matching_at_the_source(draw, stir):
    """On given pairs the two objectives coincide at t = 0."""
    net, pair = stir(MLP((3,), 16, 2)), Pair(draw(0, 8, 3), draw(1, 8, 3))
    walk = FlowWalking(steps=1, step=euler)(net, pair).value
    match = FlowMatching(times=Times(torch.zeros_like))(net, pair).value
    torch.testing.assert_close(walk, match)


def test_inner_knots_are_sorted_draws_of_each_sample(draw):
    seen = []

    def model(x, t, cond):
        seen.append(t)
        return torch.zeros_like(x)

    FlowWalking(steps=4, step=euler)(model, Pair(draw(0, 500, 2), draw(1, 500, 2)))
    knots = torch.stack(seen)
    assert knots.shape == (4, 500)
    assert (knots[0] == 0).all()
    assert (knots.diff(dim=0) > 0).all()
    assert len(knots[1].unique()) == 500
    torch.testing.assert_close(knots.mean(1), torch.tensor([0, 0.25, 0.5, 0.75]).double(), rtol=0, atol=0.04)


def test_tokens_outside_of_the_mask_do_not_count_and_the_model_gets_the_mask(draw):
    mask = torch.tensor([[True, True, False], [True, False, False]])
    x_0, x_1 = draw(0, 2, 3, 4), draw(1, 2, 3, 4)
    spoilt = torch.where(mask[..., None], x_1, torch.full_like(x_1, 1e6))

    def model(x, t, cond):
        assert cond["mask"] is mask
        assert set(cond) == {"mask", "label"}
        return torch.zeros_like(x)

    value = FlowWalking()(model, Pair(x_0, spoilt, mask, {"label": torch.tensor([0, 1])})).value
    torch.testing.assert_close(value, (x_1 - x_0)[mask].square().mean())


def test_gradient_flows_through_the_entire_trajectory(draw, stir):
    net = stir(MLP((2,), 8, 1))
    loss = FlowWalking()(net, Pair(draw(0, 8, 2), draw(1, 8, 2)))
    loss.value.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert not loss.metrics["loss"].requires_grad


def test_a_trajectory_has_at_least_one_step():
    with pytest.raises(ValueError, match="at least one step"):
        FlowWalking(steps=0)


def test_reverse_is_forward_with_ends_and_time_reversed(draw):
    """The field x + t from x_1 to x_0 is -(x + 1 - t) from x_0 to x_1; forward, the field has a different loss."""
    pair, swapped = Pair(draw(0, 8, 3), draw(1, 8, 3)), Pair(draw(1, 8, 3), draw(0, 8, 3))

    def field(x, t, cond):
        return x + pad_like(t, x)

    def loss(objective, v, batch):
        torch.manual_seed(3)
        return float(objective(v, batch).value)

    reverse = loss(FlowWalking(step=euler, reverse=True), field, pair)
    assert reverse == pytest.approx(loss(FlowWalking(step=euler), lambda x, t, c: -field(x, 1 - t, c), swapped))
    assert reverse != pytest.approx(loss(FlowWalking(step=euler), field, pair))


def test_the_endpoint_loss_is_added_and_logged(draw):
    pair = Pair(draw(0, 8, 3), draw(1, 8, 3))

    def still(x, t, cond):
        return torch.zeros_like(x)

    def endpoint_loss(end, x_1):
        torch.testing.assert_close(end, pair.x_0)
        assert x_1 is pair.x_1
        return end.new_tensor(2.0)

    loss, plain = FlowWalking(endpoint_loss=endpoint_loss)(still, pair), FlowWalking()(still, pair).value
    assert float(loss.value) == pytest.approx(float(plain) + 2)
    assert (float(loss.metrics["walk"]), float(loss.metrics["endpoint_loss"])) == pytest.approx((float(plain), 2))
