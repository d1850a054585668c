"""Losses on hidden states that need no encoder: Dispersive and SelfAlignment."""

import copy
import math

import pytest
import torch
from torch import nn

from monge.math.types import Pair
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiT, DiTShape
from monge.objective.flow_matching import FlowMatching
from monge.objective.self_supervised import Dispersive, SelfAlignment
from monge.training.config import TrainConfig
from monge.training.distributed import ranks
from monge.training.loop import Run, prepare, train


class Shows:
    """A model with a given hidden state."""

    def __init__(self, hidden):
        self.hidden = hidden

    def __call__(self, x_t, t, cond=None):
        return x_t

    def with_features(self, x_t, t, cond, layer):
        return x_t, self.hidden


def pair_of(draw, *, mask=None):
    return Pair(draw(0, 4, 5, 3), draw(1, 4, 5, 3), mask)


def small(stir):
    return stir(DiT(3, DiTShape(BlockShape(16, 2), 2)))


def aligned(net, **options):
    return SelfAlignment(net, **{"layer": 1, "teacher_layer": 2, "width": 16, "hidden": 8, **options}).double()


def test_the_dispersive_loss_of_two_samples_follows_from_their_distance():
    """Half of the four pairs are equal, the others are 3 apart in each entry."""
    hidden = torch.tensor([[[0.0, 0.0]], [[3.0, 3.0]]]).double()
    pair = Pair(hidden, hidden)
    value = Dispersive(layer=1, temperature=2.0)(Shows(hidden), pair.x_0, torch.zeros(2).double(), pair)[1]
    assert float(value) == pytest.approx(math.log((2 + 2 * math.exp(-9 / 2)) / 4))


def test_the_dispersive_loss_pushes_samples_apart(draw):
    pair, hidden = pair_of(draw), draw(2, 4, 5, 3).requires_grad_()
    value = Dispersive(layer=1)(Shows(hidden), pair.x_0, torch.zeros(4).double(), pair)[1]
    (gradient,) = torch.autograd.grad(value, hidden)
    moved = hidden.detach() - 0.1 * gradient
    assert torch.pdist(moved.flatten(1)).mean() > torch.pdist(hidden.detach().flatten(1)).mean()


def test_padding_does_not_disperse(draw):
    mask = torch.tensor([[True, True, False, False, False]]).expand(4, 5)
    pair, hidden = pair_of(draw, mask=mask), draw(2, 4, 5, 3)
    other = torch.where(mask[..., None], hidden, 100.0)
    t = torch.zeros(4).double()
    values = [Dispersive(layer=1)(Shows(h), pair.x_0, t, pair)[1] for h in (hidden, other)]
    torch.testing.assert_close(values[0], values[1])


def test_the_loss_is_minus_the_cosine_with_a_later_layer_of_the_averaged_model(draw, stir):
    """The average of the weights before and after a change, in a model of its own, gives the targets."""
    net, pair = small(stir), pair_of(draw)
    align = aligned(net, decay=0.75, gap=0.0)
    align.projector = nn.Identity()
    other = copy.deepcopy(net)
    with torch.no_grad():
        for k, (parameter, average) in enumerate(zip(net.parameters(), other.parameters(), strict=True)):
            parameter.add_(draw(k, *parameter.shape))
            average.add_(0.25 * draw(k, *parameter.shape))
    t = torch.full((4,), 0.3).double()
    x_t = 0.7 * pair.x_0 + 0.3 * pair.x_1
    value = align(net, x_t, t, pair)[1].detach()
    student, teacher = net.with_features(x_t, t, {}, 1)[1], other.with_features(x_t, t, {}, 2)[1]
    expected = -(student * teacher).sum(-1) / (student.norm(dim=-1) * teacher.norm(dim=-1))
    torch.testing.assert_close(value, expected.mean().detach())


def test_the_teacher_sees_later_times_of_the_same_pair(draw, stir):
    net, pair, seen = small(stir), pair_of(draw), []

    def later(same, time):
        assert same is pair
        seen.append(time)
        return pair.x_1, pair.condition

    align, t = aligned(net, later=later, gap=0.2), torch.tensor([0.1, 0.5, 0.7, 0.95]).double()
    for _ in range(50):
        align(net, pair.x_0, t, pair)
    steps = torch.stack(seen) - t
    assert float(steps.min()) >= 0
    assert 0.15 < float(steps[:, :3].max()) <= 0.2 + 1e-12
    assert float(steps[:, :3].min()) < 0.05
    assert float(torch.stack(seen).max()) == 1


def test_padding_does_not_change_the_self_alignment(draw, stir):
    mask = torch.tensor([True, True, False, False, False]).expand(4, 5)
    net, pair, t = small(stir), pair_of(draw, mask=mask), torch.full((4,), 0.3).double()
    align = aligned(net, gap=0.0).eval()
    short = Pair(pair.x_0[:, :2], pair.x_1[:, :2])
    whole = align(net, pair.x_0, t, pair)[1]
    torch.testing.assert_close(whole, align(net, short.x_0, t, short)[1])


def test_the_teacher_is_the_average_of_the_weights_in_training(draw, stir):
    net, pair = small(stir), pair_of(draw)
    align = aligned(net, decay=0.75)
    name, parameter = next(iter(net.named_parameters()))
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.add_(4.0)
    t = torch.full((4,), 0.3).double()
    align(net, pair.x_0, t, pair)
    average = align.get_buffer("average/" + name.replace(".", "/"))
    torch.testing.assert_close(average, before + 1.0)
    align.eval()(net, pair.x_0, t, pair)
    with torch.no_grad():
        align.train()(net, pair.x_0, t, pair)
    torch.testing.assert_close(average, before + 1.0)


def test_the_teacher_has_no_gradient(draw, stir):
    net, pair = small(stir), pair_of(draw)
    align = aligned(net)
    align(net, pair.x_0, torch.full((4,), 0.3).double(), pair)[1].backward()
    assert all(parameter.grad is not None for parameter in align.projector.parameters())
    assert {name.split(".")[0] for name, _ in align.named_parameters()} == {"projector"}
    assert all(parameter.grad is None for parameter in net.blocks[1].parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, "decay 1.0 must lie in"),
        ({"gap": -0.1}, "gap -0.1 in"),
        ({"gap": 1.1}, "gap 1.1 in"),
        ({"layer": 2}, "layer 2 must come before teacher_layer 2"),
    ],
)
def test_settings_of_self_alignment_are_checked(stir, settings, message):
    with pytest.raises(ValueError, match=message):
        aligned(small(stir), **settings)


def test_a_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature must be positive"):
        Dispersive(layer=1, temperature=0.0)


def test_a_resumed_run_continues_with_the_same_teacher(draw, stir):
    """State after 4 steps equals that after 2 steps, saving, loading and 2 more."""

    first = small(stir)

    def run(steps):
        torch.manual_seed(0)
        net = copy.deepcopy(first)
        objective = FlowMatching(align=aligned(net, decay=0.5))
        config = TrainConfig(steps=steps, warmup_steps=0, threads=1, device="cpu")
        return Run(net, objective, lambda number: Pair(draw(number, 4, 5, 3), draw(99 + number, 4, 5, 3)), config)

    with ranks("cpu") as where:
        whole, step = prepare(experiment := run(4), where)
        list(train(experiment, whole, step, where))
        half, step = prepare(experiment := run(4), where)
        for number, _ in train(experiment, half, step, where):
            if number == 2:
                files, scalars = half.tensors(where), half.scalars(where)
                break
        again, step = prepare(experiment := run(4), where)
        again.load(files, scalars, where)
        list(train(experiment, again, step, where))
    assert again.tensors(where)["resume"].keys() == whole.tensors(where)["resume"].keys()
    assert any(name.startswith("objective/align.average/") for name in whole.tensors(where)["resume"])
    for name, value in whole.tensors(where)["resume"].items():
        torch.testing.assert_close(again.tensors(where)["resume"][name], value, rtol=0, atol=0, msg=name)
