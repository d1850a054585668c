"""Divergence and likelihood against closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.math.density import bits_per_dimension, divergence, log_likelihood, probed_divergence, standard_normal
from monge.math.dopri5 import dopri5
from monge.math.solve import time_grid
from monge.math.steps import euler, rk4
from monge.math.types import pad_like
from monge.nets.blocks import BlockShape
from monge.nets.dit import DiT, DiTShape
from monge.nets.mlp import MLP

seeds = st.integers(0, 2**31)


def backward(steps, x):
    return time_grid(steps, x, start=1, end=0)


@given(seed=seeds, shape=st.sampled_from([(5,), (2, 3), (2, 2, 3)]), chunk=st.sampled_from([1, 4, 64]))
def test_the_divergence_of_a_linear_field_is_its_trace(draw, seed, shape, chunk):
    size = math.prod(shape)
    a, x, t = draw(seed, size, size), draw(seed + 1, 4, *shape), draw(seed + 2, 4)

    def v(x, t):
        return pad_like(t, x) * (x.flatten(1) @ a.T).reshape(x.shape)

    v_t, result = divergence(v, x, t, chunk=chunk)
    torch.testing.assert_close(result, t * a.trace())
    torch.testing.assert_close(v_t, v(x, t))


@given(seed=seeds)
def test_the_divergence_of_a_curved_field(draw, seed):
    x, t = draw(seed, 3, 2, 4), draw(seed + 1, 3)
    _, result = divergence(lambda x, t: torch.sin(x) + x.flip(1), x, t, chunk=3)
    torch.testing.assert_close(result, torch.cos(x).sum((1, 2)))


def test_a_rotation_has_no_divergence(draw):
    x = draw(0, 4, 2)
    _, result = divergence(lambda x, t: torch.stack([-x[:, 1], x[:, 0]], 1), x, torch.zeros(4).double())
    assert (result == 0).all()


def test_probes_estimate_the_divergence_without_bias(draw):
    a, x = draw(0, 6, 6), draw(1, 2, 6)
    bits = torch.randint(0, 2, (20_000, 2, 6), generator=torch.Generator().manual_seed(0))
    _, estimates = probed_divergence(lambda x, t: x @ a.T, x, torch.zeros(2).double(), (2 * bits - 1).double())
    error = estimates.std(1) / 20_000**0.5
    assert (error > 0.01).all()
    assert ((estimates.mean(1) - a.trace()).abs() < 4 * error).all()


@pytest.mark.parametrize("grad", [True, False])
def test_the_caller_decides_whether_gradients_flow(draw, grad):
    a = torch.eye(2, dtype=torch.float64, requires_grad=True)
    with torch.set_grad_enabled(grad):
        v_t, result = divergence(lambda x, t: x @ a, draw(0, 3, 2), torch.zeros(3).double())
        density = log_likelihood(lambda x, t: x @ a, draw(0, 3, 2), backward(2, a), probes=2)
    assert v_t.requires_grad == result.requires_grad == density.log_prob.requires_grad == grad


def affine_flow(draw, size=3):
    a, b = 0.5 * draw(0, size, size), draw(1, size)
    block = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    block[:size, :size], block[:size, size] = a, b
    exponential = torch.linalg.matrix_exp(block)  # x_1 = m x_0 + c
    m, c = exponential[:size, :size], exponential[:size, size]
    return (lambda x, t: (x.flatten(1) @ a.T + b).reshape(x.shape)), torch.distributions.MultivariateNormal(c, m @ m.T)


@pytest.mark.parametrize("step", [rk4, dopri5(rtol=1e-9, atol=1e-9)], ids=["rk4", "dopri5"])
def test_the_likelihood_of_an_affine_flow_is_that_of_a_normal(draw, step):
    v, distribution = affine_flow(draw)
    x_1 = draw(2, 10, 3)
    density = log_likelihood(v, x_1, backward(50, x_1), step=step)
    torch.testing.assert_close(density.log_prob, distribution.log_prob(x_1), rtol=0, atol=1e-6)
    assert (density.standard_error == 0).all()
    assert density.evaluations >= 200


def test_the_likelihood_of_images_is_that_of_their_pixels(draw):
    v, distribution = affine_flow(draw, 4)
    x_1 = draw(2, 5, 1, 2, 2)
    density = log_likelihood(v, x_1, backward(30, x_1), step=rk4)
    torch.testing.assert_close(density.log_prob, distribution.log_prob(x_1.flatten(1)), rtol=0, atol=1e-5)
    assert density.x_0.shape == x_1.shape


def test_a_flow_in_one_dimension_has_mass_one():
    x_1 = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    density = log_likelihood(lambda x, t: torch.sin(2 * x) * pad_like(1 + t, x), x_1, backward(60, x_1), step=rk4)
    mass = torch.trapezoid(density.log_prob.exp(), x_1[:, 0])
    assert float(mass.detach()) == pytest.approx(1, abs=1e-4)


def test_the_standard_error_covers_the_exact_value(draw):
    a, x_1 = draw(0, 8, 8) / 3, draw(1, 400, 8)

    def v(x, t):
        return torch.tanh(x @ a.T)

    exact = log_likelihood(v, x_1, backward(10, x_1))
    generator = torch.Generator().manual_seed(0)
    probed = log_likelihood(v, x_1, backward(10, x_1), probes=32, generator=generator)
    torch.testing.assert_close(probed.x_0, exact.x_0)
    off = ((probed.log_prob - exact.log_prob) / probed.standard_error).detach()
    assert abs(float(off.mean())) < 4 / 400**0.5
    assert 0.92 < float((off.abs() < 2).double().mean()) < 0.98


def test_the_gradient_of_the_likelihood_matches_finite_differences(draw):
    x_1 = draw(0, 2, 2)

    def log_prob(rate):
        return log_likelihood(lambda x, t: torch.tanh(rate * x.flip(1)) + rate * x, x_1, backward(3, x_1)).log_prob

    rate = torch.tensor([0.4, -0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_prob, (rate,))


def test_the_source_may_have_another_distribution(draw):
    x_1 = draw(0, 4, 2)

    def wide(x):
        return torch.distributions.Normal(0.0, 3.0).log_prob(x).sum(1)

    density = log_likelihood(lambda x, t: x.new_ones(()) * 1 + 0 * x, x_1, backward(4, x_1), log_source=wide)
    torch.testing.assert_close(density.log_prob, wide(x_1 - 1))


@given(seed=seeds)
def test_the_standard_normal_over_all_axes(draw, seed):
    x = draw(seed, 3, 2, 4)
    torch.testing.assert_close(standard_normal(x), torch.distributions.Normal(0.0, 1.0).log_prob(x).sum((1, 2)))


def test_times_must_descend(draw):
    with pytest.raises(ValueError, match="times must descend"):
        log_likelihood(lambda x, t: x, draw(0, 2, 2), time_grid(3, draw(0, 1)))


def test_a_uniform_byte_has_eight_bits():
    in_bytes = torch.tensor(-7 * math.log(256), dtype=torch.float64)  # uniform on [0, 256)^7
    assert float(bits_per_dimension(in_bytes, 7)) == pytest.approx(8)
    in_units = torch.zeros((), dtype=torch.float64)  # uniform on [0, 1)^7, in 256 bins
    assert float(bits_per_dimension(in_units, 7, log_scale=-math.log(256))) == pytest.approx(8)


def test_inference_mode_is_rejected(draw):
    x = draw(0, 3, 2)
    with torch.inference_mode(), pytest.raises(ValueError, match="no_grad, not inference_mode"):
        log_likelihood(lambda x, t: -x, x, time_grid(4, x, start=1.0, end=0.0))


@pytest.mark.parametrize("probes", [None, 2])
def test_the_likelihood_of_a_transformer_is_differentiable(draw, stir, probes):
    """The gradient equals finite differences, although the fused kernels of attention have no second derivative."""
    net, x = stir(DiT(2, DiTShape(BlockShape(8, 2), 1))), draw(0, 2, 3, 2)
    weight, direction = net.leave.weight, draw(1, *net.leave.weight.shape)

    def mean():
        generator = torch.Generator().manual_seed(0)
        return log_likelihood(net, x, 2, probes=probes, generator=generator).log_prob.mean()

    (gradient,) = torch.autograd.grad(mean(), weight)
    values = []
    with torch.no_grad():
        for shift in (1e-5, -2e-5):
            weight += shift * direction
            values.append(float(mean()))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_a_number_of_steps_and_knots_per_sample_are_accepted(draw):
    x = draw(0, 4, 2)

    def v(x, t):
        return pad_like(t, x) * torch.sin(x)

    knots = backward(4, x)
    expected = log_likelihood(v, x, knots).log_prob
    for times in (4, np.int64(4), knots.numpy(), knots[:, None].expand(-1, 4).contiguous()):
        torch.testing.assert_close(log_likelihood(v, x, times).log_prob, expected)
    assert torch.equal(log_likelihood(v, x, knots, step="euler").log_prob, log_likelihood(v, x, 4, step=euler).log_prob)
    with pytest.raises(ValueError, match="times must descend"):
        log_likelihood(v, x, time_grid(4, x)[:, None].expand(-1, 4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_likelihood_of_a_compiled_network_is_that_of_the_network(draw):
    net, x = MLP((2,), 8, 1).double(), draw(0, 4, 2)
    compiled = torch.compile(net, backend="eager")
    assert torch.equal(log_likelihood(compiled, x, 2).log_prob, log_likelihood(net, x, 2).log_prob)
