"""Calibration: units, rotation and prices of the transport, measured on training pairs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monge.apps.translate.calibrate import Calibration, Prices, calibration, measure, measured, token_cost
from monge.apps.translate.pair import Pairs, pair
from monge.apps.translate.space import Packed
from monge.math.container import Container
from monge.math.cost import Whitening
from monge.math.ot import assignment
from monge.math.types import Pair


def test_units_and_prices_come_back(packed: Packed) -> None:
    found = packed.space.calibration
    again = Calibration.of(found.tensors())
    assert torch.equal(again.source.matrix, found.source.matrix)
    assert again.unit == pytest.approx(found.unit)
    x = torch.randn(5, 16)
    for end in ("source", "target"):
        torch.testing.assert_close(found.side(end).undo(found.side(end).apply(x)), x, rtol=1e-4, atol=1e-5)


def test_the_way_back_costs_what_the_way_there_does(packed: Packed) -> None:
    """What is created there is deleted on the way back."""
    pair, space = packed(range(4)), replace(packed.space, prices=Prices(delete=0.3, create=0.9))
    forward, reverse = space.cost(pair), space.cost(Pair(pair.x_1, pair.x_0), reverse=True)
    torch.testing.assert_close(reverse, forward.mT, rtol=1e-3, atol=1e-3)  # in units of a cost near rounding


def planted(scale: float) -> tuple[Pair, torch.Tensor, Container]:
    """Sixty of sixty tokens of 2048 entries with LLM-sized norms, shuffled a little, with noise."""
    draws = torch.Generator().manual_seed(0)
    x = scale * torch.randn(60, 2048, generator=draws)
    order = torch.argsort(torch.arange(60) + 3 * torch.rand(60, generator=draws))
    y = x[order] + 0.3 * scale * torch.randn(60, 2048, generator=draws)
    container = Container(256)
    return Pair(container.pack([x]), container.pack([y])), order, container


def test_calibrated_prices_keep_planted_pairs_and_raw_ones_delete_them() -> None:
    pair, order, container = planted(30 / 2048**0.5)
    slots = [container.split(state) for state in (pair.x_0, pair.x_1)]
    unit = float(
        1 - torch.nn.functional.cosine_similarity(slots[0].content[0][order], slots[1].content[0][:60]).median()
    )
    plain = Whitening(torch.zeros(2048), torch.eye(2048))
    calibrated = Calibration(plain, plain, torch.eye(2048), unit, 1.0)

    def kept(prices: Prices) -> int:
        match = assignment(token_cost(container, calibrated.cost(prices), pair))[0]
        return int((match[order] == torch.arange(60)).sum())

    assert kept(Prices()) >= 58
    assert kept(Prices(raw=True)) == 0


@pytest.mark.slow
def test_a_rotation_is_found_and_what_has_none_is_left_alone() -> None:
    draws = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(64, 64, generator=draws))

    def noisy(rows: list[torch.Tensor]) -> list[torch.Tensor]:
        return [x + 0.1 * torch.randn(x.shape, generator=draws) for x in rows]

    own = [torch.randn(6, 64, generator=draws) for _ in range(300)]
    assert calibration(own, noisy([x @ q for x in own])).unit < 0.05  # of strangers it is 1
    few = own[:20]  # less than what a rotation takes
    assert calibration(few, noisy(few)).unit < 0.05


@pytest.mark.slow
def test_pairs_are_measured_once_and_whoever_comes_later_agrees(files: tuple[Path, Path], tmp_path: Path) -> None:
    pair(*files, tmp_path / "pairs", capacity=12)
    pairs = Pairs(tmp_path / "pairs")
    first = measured(pairs, Prices())
    path = tmp_path / "pairs" / "calibration.safetensors"
    kept = path.read_bytes()
    assert torch.equal(measured(pairs, Prices()).rotation, first.rotation)
    torch.testing.assert_close(first.source.matrix, measure(pairs).source.matrix)
    assert path.read_bytes() == kept
    path.write_bytes(kept[:100])
    with pytest.raises(ValueError, match=r"no calibration .*; remove it"):
        measured(pairs, Prices())
    assert float(measured(pairs, Prices(raw=True)).unit) == 1


@pytest.mark.slow
def test_the_means_of_other_pairs_find_a_rotation_that_a_sample_cannot() -> None:
    """Forty noisy pairs of 64 entries say little, the means of 4,000 others nearly all."""
    draws = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(64, 64, generator=draws))
    own = [torch.randn(6, 64, generator=draws) for _ in range(4000)]
    other = [x @ q + torch.randn(x.shape, generator=draws) for x in own]
    means = torch.stack([x.mean(0) for x in own[80:]]), torch.stack([x.mean(0) for x in other[80:]])

    def strangeness(found: Calibration) -> float:
        x, y = (side.apply(torch.cat(rows[40:80])) for side, rows in ((found.source, own), (found.target, other)))
        return float(1 - torch.nn.functional.cosine_similarity(x, y).mean())

    assert strangeness(calibration(own[:40], other[:40], means)) < 0.4 < strangeness(calibration(own[:40], other[:40]))


def test_what_is_created_costs_by_its_mean_square(packed: Packed) -> None:
    """In calibrated units: a vector of unit variance costs as much more as `create_norm` says, whatever its width."""
    prices = Prices(create=0.0, create_norm=2.0, priority=0.0, position=0.0, rule="quantile")
    cost = packed.space.calibration.cost(prices)
    x, active = torch.randn(1, 1, 16), torch.ones(1, 1, dtype=torch.bool)
    created = cost(x, x, ~active, active, torch.ones(1, 1), torch.ones(1, 1))
    assert float(created) == pytest.approx(2 * packed.space.calibration.price * float(x.square().mean()), rel=1e-4)
