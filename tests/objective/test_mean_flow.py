"""MeanFlow: the true average velocity has no loss, other ones have, and a trained network generates in one step."""

import pytest
import torch
from torch.testing import assert_close

from monge import MLP, MeanFlow, MinibatchOT, Pair, average_velocity, integrate
from monge.math.random import seeded
from monge.math.types import pad_like
from monge.nets.condition import Continuous


def accelerating(x, t, cond):
    """The average velocity of the field dx/dt = 2t over [t, t + h]."""
    return pad_like(2 * t + cond["duration"][:, 0], x).expand_as(x)


class Accelerating:
    """The path of that field, as a stand-in for the straight one."""

    def __call__(self, x_0, x_1, t):
        return t, x_0 + pad_like(t, x_0) ** 2, pad_like(2 * t, x_0).expand_as(x_0)


@pytest.mark.parametrize("shape", [(64, 2), (64, 3, 2)], ids=str)
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_average_velocity_of_the_path_has_no_loss(draw, shape, power) -> None:
    def field(x, t, cond):  # x_t = (1 + t) x_0 + 3 t moves at x_0 + 3, whatever the duration
        return (x + 3) / (1 + pad_like(t, x))

    x_0 = draw(0, *shape)
    pair, objective = Pair(x_0, 2 * x_0 + 3), MeanFlow(power=power)
    assert float(objective(field, pair).value) < 1e-12
    assert float(objective(lambda x, t, cond: 1.1 * field(x, t, cond), pair).value) > 1e-3
    objective.path = Accelerating()
    assert float(objective(accelerating, pair).value) < 1e-12
    assert float(objective(lambda x, t, cond: pad_like(2 * t, x).expand_as(x), pair).value) > 1e-3


def test_the_logged_loss_is_without_the_weight_of_a_sample(draw) -> None:
    pair = Pair(draw(0, 64, 2), draw(1, 64, 2))
    losses = []
    for power in (0.0, 1.0):
        torch.manual_seed(0)
        losses.append(MeanFlow(power=power)(lambda x, t, cond: 0 * x, pair))
    assert losses[0].value == losses[0].metrics["loss"] == losses[1].metrics["loss"]
    assert float(losses[1].value) == pytest.approx(1, abs=0.05)


def test_durations_are_zero_as_often_as_requested(draw) -> None:
    seen = []

    def model(x, t, cond):
        h = cond["duration"][:, 0]
        seen.append((t + h, h))
        return 0 * x

    x = draw(0, 4000, 1)
    MeanFlow(instant=0.25)(model, Pair(x, x))
    end, h = seen[0]
    assert float((h == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(h.min()) >= 0
    assert float(end.max()) <= 1


def test_masked_tokens_do_not_count(draw) -> None:
    x_0, x_1 = draw(0, 8, 5, 2), draw(1, 8, 5, 2)
    mask = torch.arange(5) < 3
    spoilt = torch.where(mask[:, None], x_1, 1e6)
    values = []
    for end in (x_1, spoilt):
        torch.manual_seed(0)
        values.append(float(MeanFlow()(lambda x, t, cond: 0 * x, Pair(x_0, end, mask.expand(8, 5))).value))
    assert values[0] == values[1] > 0


@pytest.mark.parametrize("instant", [-0.1, 1.5])
def test_a_probability_outside_its_range_is_an_error(instant) -> None:
    with pytest.raises(ValueError, match="instant is a probability"):
        MeanFlow(instant=instant)


@pytest.mark.long
def test_a_trained_network_separates_two_clusters_in_one_step() -> None:
    torch.manual_seed(0)
    net = MLP((2,), 64, 2, conditions={"duration": Continuous(1)})
    optimizer, objective = torch.optim.Adam(net.parameters(), lr=2e-3), MeanFlow(coupling=MinibatchOT())
    for step in range(700):
        draws = seeded(0, step)
        sign = 2.0 * torch.randint(0, 2, (256, 1), generator=draws) - 1
        x_1 = torch.cat([3 * sign, 0 * sign], 1) + 0.3 * torch.randn(256, 2, generator=draws)
        loss = objective(net, Pair(torch.randn(256, 2, generator=draws), x_1)).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x_0 = torch.randn(2000, 2, generator=seeded(1))
    with torch.no_grad():
        x = integrate(average_velocity(net, {}, 1), x_0, steps=1, step="euler")
        assert_close(x, x_0 + net(x_0, torch.zeros(2000), {"duration": torch.ones(2000, 1)}))
    assert float(((x[:, 0].abs() - 3).abs() < 1).double().mean()) > 0.95
    assert float((x[:, 0] > 0).double().mean()) == pytest.approx(0.5, abs=0.05)
