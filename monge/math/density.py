"""Densities under a flow: divergence, log-likelihood, bits per dimension. Grathwohl et al. 2019 (1810.01367)."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from monge.math.solve import Counted, Knots, integrate, knots_of
from monge.math.steps import Step
from monge.math.types import Velocity


class Density(NamedTuple):
    """log p(x_1) in nats, its standard error (0 if the divergence is exact), the source point, and the velocity evaluations."""

    log_prob: Float[Tensor, "B"]
    standard_error: Float[Tensor, "B"]
    x_0: Float[Tensor, "B *s"]
    evaluations: int


def standard_normal(x: Float[Tensor, "B *s"]) -> Float[Tensor, "B"]:
    """log N(x; 0, I), summed over all axes but the first.

    >>> standard_normal(torch.zeros(1, 2))
    tensor([-1.8379])
    """
    flat = x.flatten(1)
    return -(flat.square().sum(1) + flat.shape[1] * math.log(2 * math.pi)) / 2


@contextmanager
def _differentiable(create_graph: bool) -> Generator[None]:
    """Context for differentiating a velocity: eager, since compiled code has no batched or second derivatives.

    With `create_graph`, attention runs on the math kernel, since the fused kernels have no second derivative.
    """
    with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        if not create_graph:
            yield
            return
        with sdpa_kernel(SDPBackend.MATH):
            yield


def divergence(
    v: Velocity, x: Float[Tensor, "B *s"], t: Float[Tensor, "B"], *, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """(v, its exact divergence (B,)) for any event shape, with `chunk` rows of the Jacobian at a time.

    Samples must not interact inside v (no batch statistics). Differentiable if gradients are enabled.

    >>> divergence(lambda x, t: 3 * x, torch.ones(1, 2), torch.zeros(1))[1].tolist()
    [6.0]
    """
    create_graph = torch.is_grad_enabled()
    dimension = x[0].numel()
    with _differentiable(create_graph):
        x = x if x.requires_grad else x.detach().requires_grad_()
        v_t = v(x, t)
        total = x.new_zeros(len(x))
        for start in range(0, dimension, chunk):
            rows = torch.arange(start, min(start + chunk, dimension), device=x.device)
            basis = torch.nn.functional.one_hot(rows, dimension).to(v_t.dtype)
            cotangents = basis[:, None].expand(-1, len(x), -1).reshape(len(rows), *x.shape)
            (gradient,) = torch.autograd.grad(
                v_t,
                x,
                cotangents,
                retain_graph=True,
                create_graph=create_graph,
                is_grads_batched=True,
                materialize_grads=True,
            )
            total = total + (gradient * cotangents).flatten(2).sum((0, 2))
    return (v_t, total) if create_graph else (v_t.detach(), total.detach())


def probed_divergence(
    v: Velocity, x: Float[Tensor, "B *s"], t: Float[Tensor, "B"], probes: Float[Tensor, "P B *s"]
) -> tuple[Tensor, Float[Tensor, "B P"]]:
    """(v, one unbiased estimate of the divergence per probe). Hutchinson 1990: the mean of z^T J z with E[z z^T] = I.

    >>> probes = torch.tensor([[[1.0, -1.0]]])
    >>> probed_divergence(lambda x, t: 3 * x, torch.ones(1, 2), torch.zeros(1), probes)[1].tolist()
    [[6.0]]
    """
    create_graph = torch.is_grad_enabled()
    with _differentiable(create_graph):
        x = x if x.requires_grad else x.detach().requires_grad_()
        v_t = v(x, t)
        (gradient,) = torch.autograd.grad(
            v_t, x, probes, create_graph=create_graph, is_grads_batched=True, materialize_grads=True
        )
        estimates = (gradient * probes).flatten(2).sum(2).T
    return (v_t, estimates) if create_graph else (v_t.detach(), estimates.detach())


def log_likelihood(
    v: Velocity,
    x_1: Float[Tensor, "B *s"],
    times: Knots,
    *,
    step: Step | str | None = None,
    probes: int | None = None,
    log_source: Callable[[Tensor], Tensor] = standard_normal,
    generator: torch.Generator | None = None,
) -> Density:
    """log p(x_1) under the flow from `log_source`, by integration from data to source. 1810.01367, eq. 4.

    `times` are descending knots from 1 to 0, in any form that `integrate` takes, or a number of equal steps. `probes=None`
    uses the exact divergence; an integer uses that number of Rademacher probes, fixed along the path, and reports their
    standard error (nan for a single probe). Differentiable if gradients are enabled. ValueError if the times ascend, if
    `probes` is below 1, or in inference mode.

    >>> density = log_likelihood(lambda x, t: 0 * x, torch.zeros(1, 2), 4)
    >>> [round(value, 4) for value in density.log_prob.tolist()], density.evaluations
    ([-1.8379], 8)
    """
    knots = knots_of(times, x_1, backward=True)
    if bool((knots[0] < knots[-1]).any()):
        raise ValueError(
            "log_likelihood integrates from data to source: times must descend, as in time_grid(n, x, start=1, end=0)"
        )
    if torch.is_inference_mode_enabled():
        raise ValueError(
            "log_likelihood differentiates the velocity with respect to x; call it under no_grad, not inference_mode"
        )
    if probes is not None and probes < 1:
        raise ValueError(f"log_likelihood: {probes} probes; give at least 1, or None for the exact divergence")
    shape, columns = x_1.shape, probes or 1
    z = None
    if probes is not None:
        device = x_1.device if generator is None else generator.device
        z = (2 * torch.randint(0, 2, (probes, *shape), generator=generator, device=device) - 1).to(x_1)

    def augmented(state: Tensor, t: Tensor) -> Tensor:
        x = state[:, :-columns].reshape(shape)
        v_t, change = divergence(v, x, t) if z is None else probed_divergence(v, x, t, z)
        return torch.cat([v_t.flatten(1), change.reshape(len(x), columns)], 1)

    counted = Counted(augmented)
    start = torch.cat([x_1.flatten(1), x_1.new_zeros(len(x_1), columns)], 1)
    end = integrate(counted, start, knots, step=step)
    x_0, integrals = end[:, :-columns].reshape(shape), end[:, -columns:]
    # d log p / dt = -div v; integrated from t = 1 to 0, the last columns already hold minus the integral from 0 to 1
    log_probs = log_source(x_0)[:, None] + integrals
    error = torch.zeros_like(log_probs[:, 0])
    if probes is not None:
        error = log_probs.std(1) / math.sqrt(columns) if columns > 1 else torch.full_like(error, math.nan)
    return Density(log_probs.mean(1), error, x_0, counted.evaluations)


def bits_per_dimension(log_prob: Float[Tensor, "*b"], dimension: int, *, log_scale: float = 0.0) -> Float[Tensor, "*b"]:
    """-log2 p per dimension; `log_scale` is the natural log of the width of one data bin in the units of the density.

    >>> bits_per_dimension(torch.tensor([-8.0]), 4)
    tensor([2.8854])
    """
    return -(log_prob / dimension + log_scale) / math.log(2)
