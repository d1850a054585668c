"""The residual perceptron."""

import pytest
import torch

from monge.nets.mlp import MLP


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_a_fresh_network_has_zero_velocity(draw, shape):
    x = draw(0, 3, *shape)
    assert torch.equal(MLP(shape, 16, 2).double()(x, torch.rand(3).double()), torch.zeros_like(x))


def test_samples_do_not_see_one_another(draw, stir):
    net, x, t = stir(MLP((2, 3), 16, 2)), draw(0, 4, 2, 3), draw(1, 4).sigmoid()
    together = net(x, t)
    for k in range(4):
        torch.testing.assert_close(together[k : k + 1], net(x[k : k + 1], t[k : k + 1]))


def test_time_and_class_matter(draw, stir):
    net, x, t = stir(MLP((2,), 16, 2, classes=3)), draw(0, 1, 2), torch.tensor([0.3]).double()
    outputs = [net(x, t, {"label": torch.tensor([c])}) for c in range(4)] + [net(x, t + 0.5)]
    assert torch.pdist(torch.cat(outputs)).min() > 1e-4
    assert torch.equal(net(x, t), outputs[3])


def test_gradient_reaches_every_parameter(draw, stir):
    net = stir(MLP((2,), 16, 2, classes=2))
    net(draw(0, 6, 2), draw(1, 6).sigmoid(), {"label": torch.tensor([0, 1, 2, 0, 1, 2])}).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_fresh_network_learns_from_its_first_step(draw):
    net = MLP((2,), 16, 2).double()
    (net(draw(0, 6, 2), draw(1, 6).sigmoid()) - 1).square().mean().backward()
    assert net.leave.weight.grad.abs().max() > 0


def test_octaves_distinguish_nearby_points(stir):
    x, t = torch.tensor([[0.0, 0.0], [0.05, 0.05]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)

    def gap(octaves: int) -> float:
        nets = [stir(MLP((2,), 32, 1, octaves=octaves), seed) for seed in range(20)]
        return sum(float((net(x, t)[0] - net(x, t)[1]).norm()) for net in nets)

    assert gap(6) > 2 * gap(0)


def test_octaves_are_not_weights():
    assert MLP((2,), 8, 1, octaves=3).state_dict().keys() == MLP((2,), 8, 1).state_dict().keys()
