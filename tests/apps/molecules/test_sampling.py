"""Fresh noise in the steps of a molecular flow."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from monge.apps.molecules.measuring import evaluate, sample
from monge.apps.molecules.network import Prediction, centred
from monge.apps.molecules.objective import noise
from monge.apps.molecules.sampling import FreshNoise, fresh_share, states, times
from monge.math.rotation import kabsch


def rows(count: int, atoms: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(noise of molecules of `atoms` atoms and two missing ones, mask)."""
    mask = torch.arange(atoms + 2).expand(count, -1) < atoms
    return noise(mask, 4, generator=torch.Generator().manual_seed(0)), mask


def known_end(mask: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """(a network that knows the molecule, the molecule)."""
    end = torch.randn(*mask.shape, 7, generator=torch.Generator().manual_seed(1)) * mask[..., None]
    end[..., :3] = centred(end[..., :3], mask)
    return (lambda x_t, t, cond: end), end


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 5.0])
def test_each_step_replaces_its_share_of_the_noise(eta: float) -> None:
    x_0, mask = rows(4000, 5)
    network, end = known_end(mask)
    steps, before, earlier = 8, 0.0, x_0[..., :3][mask]
    size = earlier.square().mean()
    for number, x in enumerate(states(network, x_0, mask, steps=steps, eta=eta, rotation=False), 1):
        if number == steps:
            break
        t = float(times(steps)[number])
        left = (x - t * end)[..., :3][mask] / (1 - t)
        kept = math.sqrt(1 - fresh_share(before, t, eta) ** 2)
        assert left.square().mean() == pytest.approx(float(size), rel=0.03)
        assert (left * earlier).mean() / size == pytest.approx(kept, abs=0.02)
        assert (x[~mask] == 0).all()
        torch.testing.assert_close(x[..., :3].sum(1), torch.zeros(4000, 3), atol=1e-4, rtol=0)
        before, earlier = t, left


def test_the_noise_is_rotated_onto_the_prediction() -> None:
    x_0, mask = rows(50, 5)
    network, end = known_end(mask)
    first, *_ = states(network, x_0, mask, steps=8, eta=1.0)
    t = float(times(8)[1])
    turn = kabsch((first - t * end)[..., :3], end[..., :3], mask)
    torch.testing.assert_close(turn, torch.eye(3).expand(50, 3, 3), atol=1e-3, rtol=0)
    first, *_ = states(network, x_0, mask, steps=8, eta=1.0, rotation=False)
    turn = kabsch((first - t * end)[..., :3], end[..., :3], mask)
    assert (turn - torch.eye(3)).abs().max() > 0.5


def test_a_sample_with_a_pooled_token_ends_at_the_prediction() -> None:
    x_0, mask = rows(3, 4)
    _, end = known_end(mask)

    def predict(x_t: torch.Tensor, t: torch.Tensor, cond: Any, layer: int) -> Prediction:
        return Prediction(end, torch.ones(3, 2), x_t)

    *_, x = states(SimpleNamespace(predict=predict), x_0, mask, steps=4, eta=2.0, cond={"pooled": torch.zeros(3, 2)})
    torch.testing.assert_close(x[..., :3], end[..., :3])


def test_ancestral_sampling_has_the_posterior_of_the_forward_process() -> None:
    """Given x_t and x_1, the state at t' has the variance of a Gaussian chain with the marginals t x_1 + (1 - t) z."""
    t, later = 0.3, 0.45
    forward = t / later
    added = (1 - t) ** 2 - (forward * (1 - later)) ** 2  # noise of the chain from t' to t
    posterior = 1 / (1 / (1 - later) ** 2 + forward**2 / added)
    assert ((1 - later) * fresh_share(t, later, 1.0)) ** 2 == pytest.approx(posterior)
    assert fresh_share(0.0, 0.1, 1.0) == fresh_share(0.9, 1.0, 1.0) == 1.0


def test_fresh_noise_depends_on_the_row_but_not_on_the_batch() -> None:
    x_0, mask = rows(6, 4)
    fresh = FreshNoise(x_0, mask)
    first, second = fresh(), fresh()
    alone = FreshNoise(x_0[2:3, :4], mask[2:3, :4])
    torch.testing.assert_close(alone(), first[2:3, :4])
    torch.testing.assert_close(alone(), second[2:3, :4])
    assert (first - second).abs()[mask].max() > 0.1
    assert (first[0] - first[1]).abs().max() > 0.1
    assert (first[~mask] == 0).all()


@pytest.mark.parametrize("eta", [-0.1, float("nan"), float("inf")])
def test_an_eta_out_of_range_is_an_error(eta: float) -> None:
    x_0, mask = rows(2, 3)
    with pytest.raises(ValueError, match="eta must be finite and not negative"):
        next(states(known_end(mask)[0], x_0, mask, steps=2, eta=eta))
    with pytest.raises(ValueError, match=r"--eta .*: give a finite number that is not negative"):
        sample(Path("missing"), eta=eta)
    with pytest.raises(ValueError, match=r"--eta .*: give a finite number that is not negative"):
        evaluate(Path("missing"), eta=eta)
