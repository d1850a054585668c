"""The EMA against the integral of its profile, the schedule, and the optimizer that each parameter gets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import nn
from torch.testing import assert_close

from monge.training.config import TrainConfig
from monge.training.optim import EMA, Optimizers, power_exponent, schedule

widths = st.floats(0.01, 0.28)


@given(widths)
def test_the_exponent_reproduces_the_width_of_the_profile(width: float) -> None:
    # the standard deviation of the density (gamma + 1) t^gamma on [0, 1], by direct integration
    gamma = power_exponent(width)
    mean = quad(lambda t: t * (gamma + 1) * t**gamma, 0, 1)[0]
    variance = quad(lambda t: (t - mean) ** 2 * (gamma + 1) * t**gamma, 0, 1)[0]
    assert_close(variance**0.5, width, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.1, 6.94)])  # 2312.02696, sec. 3.1
def test_the_exponents_of_the_paper(width: float, gamma: float) -> None:
    assert_close(power_exponent(width), gamma, rtol=0, atol=5e-3)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3, 1.0])
def test_a_width_without_profile_is_rejected(width: float) -> None:
    with pytest.raises(ValueError, match=r"width .* must lie in \(0, 0\.289\)"):
        power_exponent(width)


@given(st.integers(0, 2**31), widths, st.integers(1, 30))
def test_the_average_is_the_integral_of_the_weights_under_the_profile(seed: int, width: float, steps: int) -> None:
    weights = torch.randn(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start = torch.tensor([123.0], dtype=torch.float64)  # weights before the first step have no effect
    ema = EMA([("w", start)], width)
    for step in range(steps):
        ema.update([("w", weights[step : step + 1])], step + 1)
    gamma = power_exponent(width)
    parts = [
        float(weights[step]) * quad(lambda t: (gamma + 1) * t**gamma / steps ** (gamma + 1), step, step + 1)[0]
        for step in range(steps)
    ]
    assert_close(float(ema.weights["w"]), sum(parts), rtol=1e-6, atol=1e-9)


def test_a_constant_is_its_own_average_and_tensors_are_matched_by_name() -> None:
    named = {"a": torch.full((2,), 3.0), "b": torch.full((2,), 5.0)}
    ema = EMA(named.items(), 0.1)
    ema.weights = {name: ema.weights[name] for name in ("b", "a")}  # a file may hold them in another order
    for step in range(1, 20):
        ema.update(named.items(), step)
    assert_close(ema.weights, {"b": named["b"], "a": named["a"]})


@given(st.integers(1, 50), st.integers(60, 400), st.floats(0, 1))
def test_the_rate_rises_linearly_and_falls_as_a_cosine(warmup: int, steps: int, final: float) -> None:
    config = TrainConfig(steps=steps, warmup_steps=warmup, final_lr_fraction=final)
    rates = [schedule(step, config) for step in range(steps)]
    assert_close(rates[warmup - 1], 1.0)
    assert_close([b - a for a, b in zip(rates[:warmup], rates[1:warmup], strict=False)], [1 / warmup] * (warmup - 1))
    assert_close(rates[warmup], 1.0)
    assert all(a >= b - 1e-12 for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
    assert_close(rates[-1], final, rtol=0, atol=1e-9)
    # a cosine is odd about its middle
    half = [(a + b) / 2 for a, b in zip(rates[warmup:], reversed(rates[warmup:]), strict=True)]
    assert_close(half, [(1 + final) / 2] * len(half))


def test_no_warm_up_starts_at_the_peak() -> None:
    assert schedule(0, TrainConfig(warmup_steps=0)) == 1


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Linear(4, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 8), nn.Conv1d(1, 1, 3)])
        self.leave = nn.Linear(8, 2)


def stepped(model: nn.Module, scale: float, **settings) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(changes by name, gradient norm) of one step on gradients that are normal draws times `scale`."""
    optimizers = Optimizers({"model": model}, TrainConfig(warmup_steps=0, **settings))
    generator = torch.Generator().manual_seed(1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = scale * torch.randn(p.shape, generator=generator)
    norm = optimizers.step(0)
    assert all(p.grad is None for p in model.parameters())
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}, norm


def test_muon_updates_the_matrices_in_blocks_and_adamw_the_rest() -> None:
    adam, _ = stepped(Blocks(), 1.0, max_grad_norm=0.0)
    muon, _ = stepped(Blocks(), 1.0, max_grad_norm=0.0, optimizer="muon")
    changed = {name for name in adam if not torch.equal(adam[name], muon[name])}
    assert changed == {"blocks.0.weight"}
    # an orthogonalised step: similar singular values (Newton-Schulz brings them to 0.7 .. 1.2)
    values = torch.linalg.svdvals(muon["blocks.0.weight"].double())
    assert values.max() / values.min() < 2
    # the root mean square equals that of an AdamW step of 0.2 lr: Moonlight's scaling
    assert 0.1e-3 < float(muon["blocks.0.weight"].square().mean().sqrt()) < 0.3e-3


def test_muon_may_leave_nothing_to_adamw() -> None:
    model = torch.nn.Module()
    model.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 4, bias=False)])
    changes, _ = stepped(model, 1.0, optimizer="muon")
    assert changes["blocks.0.weight"].any()


def test_weight_decay_applies_to_matrices_and_not_to_vectors() -> None:
    plain, _ = stepped(Blocks(), 1.0)
    decayed, _ = stepped(Blocks(), 1.0, weight_decay=0.1)
    start = dict(Blocks().named_parameters())
    for name, p in start.items():
        expected = -1e-3 * 0.1 * p if p.ndim >= 2 else torch.zeros_like(p)
        assert_close(decayed[name] - plain[name], expected.detach(), rtol=1e-2, atol=2e-7)


def test_clipping_bounds_the_norm_and_reports_the_unclipped_one() -> None:
    class Plain(torch.optim.SGD):
        pass

    norms = {}
    for clip in (0.0, 0.5, 1e9):
        model = Blocks()
        optimizers = Optimizers({"model": model}, TrainConfig(warmup_steps=0, lr=1.0, max_grad_norm=clip))
        optimizers.all = [Plain(model.parameters(), lr=1.0)]  # its step is the clipped gradient
        before = [p.detach().clone() for p in model.parameters()]
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        count = sum(p.numel() for p in model.parameters())
        assert_close(float(optimizers.step(0)), count**0.5)
        squares = [(p.detach() - b).square().sum() for p, b in zip(model.parameters(), before, strict=True)]
        norms[clip] = float(sum(squares)) ** 0.5
    assert_close(norms, {0.0: count**0.5, 0.5: 0.5, 1e9: count**0.5}, rtol=1e-4, atol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_fresh_optimizer_resumes_from_a_saved_state(optimizer: str) -> None:
    one, two = Blocks(), Blocks()
    config = TrainConfig(optimizer=optimizer, warmup_steps=0)
    first, second = Optimizers({"model": one}, config), Optimizers({"model": two}, config)

    def take_steps(model: nn.Module, optimizers: Optimizers, steps: range) -> None:
        for step in steps:
            for p in model.parameters():
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            optimizers.step(step)

    take_steps(one, first, range(3))
    two.load_state_dict(one.state_dict())
    saved = {name: value.clone() for name, value in reversed(first.state().items())}
    second.load(saved)
    assert_close(second.state(), first.state(), rtol=0, atol=0)
    take_steps(one, first, range(3, 6))
    take_steps(two, second, range(3, 6))
    assert_close(dict(one.named_parameters()), dict(two.named_parameters()), rtol=0, atol=0)
