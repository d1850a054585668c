"""Losses on the states of a teacher: along its waypoints, and in scaled dimensions."""

import pytest
import torch
from teachers import IDS, teacher

from monge.apps.compress.affine import Moments
from monge.apps.compress.objectives import (
    EndpointError,
    LogitDivergence,
    OnTeacher,
    Sequences,
    WaypointMatching,
    divergence,
    head_divergence,
    scaled,
)
from monge.apps.compress.teacher import Teacher
from monge.lm.hidden import hidden_at
from monge.objective.frozen import Frozen

SCALE = torch.linspace(0.1, 3, 32)


@pytest.mark.parametrize("scale", [None, SCALE], ids=["unscaled", "scaled"])
def test_the_waypoint_loss_is_zero_for_the_velocity_between_the_teachers_states(scale):
    frozen = Teacher(teacher("llama"), 1, 4)
    with torch.no_grad():
        states = hidden_at(frozen.model, IDS, [1, 2, 3, 4])

    def velocity(x_t, t, cond):
        assert torch.equal(cond["start"], states[0])
        number = (3 * t).long()
        rows = range(len(t))
        step = torch.stack([states[n + 1][row] - states[n][row] for n, row in zip(number.tolist(), rows, strict=True)])
        before = torch.stack([states[n][row] for n, row in zip(number.tolist(), rows, strict=True)])
        torch.testing.assert_close(x_t, before + (3 * t - number)[:, None, None] * step)
        return 3 * step

    loss = WaypointMatching(Frozen(frozen), scale=scale)
    for seed in range(5):
        torch.manual_seed(seed)
        assert float(loss(velocity, Sequences(IDS)).value) < 1e-10
        assert float(loss(lambda x_t, t, cond: velocity(x_t, t, cond) + 1, Sequences(IDS)).value) > 1e-3


def test_scaling_weights_the_squared_error_of_each_dimension():
    frozen = Frozen(Teacher(teacher("llama"), 1, 4))
    pair = frozen.module.pair(IDS)
    loss = OnTeacher(frozen, EndpointError(), scale=SCALE)(lambda x, t, cond: 0 * x, Sequences(IDS)).value
    expected = ((SCALE * (pair.x_1 - pair.x_0))[pair.mask]).square().mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert scaled(lambda x, t, cond: x, pair, None)[1] is pair


def test_the_spread_is_the_root_mean_square_of_each_dimension(draw):
    d, moments = draw(0, 50, 3) + 1, Moments()
    for part in d.split(20):
        moments.add(torch.zeros_like(part), part)
    torch.testing.assert_close(moments.spread(), d.square().mean(0).sqrt().float())
    with pytest.raises(ValueError, match="no pairs"):
        Moments().spread()


def test_the_divergence_through_a_head_and_its_gradient_are_those_of_all_logits(draw):
    head = torch.nn.Linear(16, 50).requires_grad_(False)
    target, x = draw(0, 3, 100, 16).float(), draw(1, 3, 100, 16).float().requires_grad_(True)
    values, gradients = [], []
    for loss in (head_divergence(target, x, head), divergence(head(target), head(x)).mean()):
        values.append(loss.detach())
        gradients.append(torch.autograd.grad(3 * loss, x)[0])
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert float(head_divergence(target, target, head)) == pytest.approx(0, abs=1e-6)


def test_the_logit_loss_is_the_divergence_of_the_models_logits():
    frozen = Teacher(teacher("llama"), 1, 4)
    value = LogitDivergence(Frozen(frozen))(lambda x, t, cond: 0.1 * x, frozen.pair(IDS)).value
    pair = frozen.pair(IDS)
    expected = divergence(frozen.model(input_ids=IDS).logits, frozen.logits(1.1 * pair.x_0)).mean()
    assert float(value) == pytest.approx(float(expected), rel=1e-4)
