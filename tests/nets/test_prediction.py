"""Networks that predict an end of the path."""

import pytest
import torch
from torch import nn

from monge.math.path import Affine, conditional_ot, linear, trigonometric
from monge.math.types import VelocityModel
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiT, DiTShape
from monge.nets.mlp import MLP
from monge.nets.prediction import PredictsSource, PredictsTarget

PATHS = {
    "linear": Affine(linear),
    "trigonometric": Affine(trigonometric),
    "conditional_ot": Affine(conditional_ot(0.1)),
}


class Oracle(nn.Module):
    """Predicts the exact end of the path."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t, cond=None):
        return self.answer if cond is None else cond["answer"]


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_a_network_that_knows_an_end_has_the_velocity_of_the_path(draw, path, mode):
    x_0, x_1, t = draw(0, 4, 2, 3), draw(1, 4, 2, 3), torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)
    _, x_t, u_t = path(x_0, x_1, t)
    with mode():
        torch.testing.assert_close(PredictsTarget(Oracle(x_1), path)(x_t, t), u_t)
        torch.testing.assert_close(PredictsSource(Oracle(x_0), path)(x_t, t), u_t)


@pytest.mark.parametrize("wrapper", [PredictsTarget, PredictsSource])
def test_the_condition_reaches_the_network(draw, wrapper):
    x, t = draw(0, 2, 3), torch.tensor([0.3, 0.6], dtype=torch.float64)
    conditioned = wrapper(Oracle(draw(1, 2, 3)))(x, t, {"answer": draw(2, 2, 3)})
    torch.testing.assert_close(conditioned, wrapper(Oracle(draw(2, 2, 3)))(x, t))


@pytest.mark.parametrize(("wrapper", "t"), [(PredictsTarget, 1.0), (PredictsSource, 0.0)])
def test_the_velocity_is_finite_where_the_path_is_singular(draw, wrapper, t):
    v = wrapper(Oracle(draw(0, 2, 3)))(draw(1, 2, 3), torch.full((2,), t, dtype=torch.float64))
    assert v.isfinite().all()
    assert v.abs().max() < 21 * 8


@pytest.mark.parametrize("wrapper", [PredictsTarget, PredictsSource])
def test_a_wrapped_network_is_trained_through(draw, stir, wrapper):
    model = wrapper(stir(MLP((3,), 8, 1)))
    assert isinstance(model, VelocityModel)
    model(draw(0, 4, 3), draw(1, 4).sigmoid()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_features_pass_through_a_prediction():
    net = PredictsTarget(DiT(2, DiTShape(BlockShape(16, 2), 2)))
    x_t, t = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(0)), torch.full((3,), 0.5)
    v, hidden = net.with_features(x_t, t, None, 1)
    assert torch.equal(v, net(x_t, t))
    assert torch.equal(hidden, net.network.with_features(x_t, t, None, 1)[1])
