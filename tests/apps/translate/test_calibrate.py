"""Calibration: units, rotation and prices of the transport, measured on training pairs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monge.apps.translate.calibrate import Calibration, calibration, measure, measured, token_cost
from monge.apps.translate.pair import Pairs, pair
from monge.apps.translate.prices import Prices
from monge.apps.translate.space import Packed
from monge.math.container import Container
from monge.math.cost import Whitening
from monge.math.ot import assignment
from monge.math.types import Pair


def test_units_and_prices_survive_a_round_trip(packed: Packed) -> None:
    original = packed.space.calibration
    restored = Calibration.of(original.tensors())
    assert torch.equal(restored.source.matrix, original.source.matrix)
    assert restored.unit == pytest.approx(original.unit)
    x = torch.randn(5, 16)
    for end in ("source", "target"):
        torch.testing.assert_close(original.side(end).undo(original.side(end).apply(x)), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prices", [Prices(delete=0.3, create=0.9), Prices(create_norm=0.5)])
def test_the_reverse_cost_is_the_transposed_forward_cost(packed: Packed, prices: Prices) -> None:
    """A creation in the forward direction is a deletion in reverse."""
    pair, space = packed(range(4)), replace(packed.space, prices=prices)
    forward, reverse = space.cost(pair), space.cost(Pair(pair.x_1, pair.x_0), reverse=True)
    torch.testing.assert_close(reverse, forward.mT, rtol=1e-3, atol=1e-3)  # the unit itself is close to rounding error


def planted(scale: float) -> tuple[Pair, torch.Tensor, Container]:
    """Sixty tokens of 2048 entries with norms like those of an LLM; the target is shuffled a little and noisy."""
    draws = torch.Generator().manual_seed(0)
    x = scale * torch.randn(60, 2048, generator=draws)
    order = torch.argsort(torch.arange(60) + 3 * torch.rand(60, generator=draws))
    y = x[order] + 0.3 * scale * torch.randn(60, 2048, generator=draws)
    container = Container(256)
    return Pair(container.pack([x]), container.pack([y])), order, container


def test_calibrated_prices_keep_planted_matches_and_raw_prices_delete_them() -> None:
    pair, order, container = planted(30 / 2048**0.5)
    slots = [container.split(state) for state in (pair.x_0, pair.x_1)]
    unit = float(
        1 - torch.nn.functional.cosine_similarity(slots[0].content[0][order], slots[1].content[0][:60]).median()
    )
    plain = Whitening(torch.zeros(2048), torch.eye(2048))
    calibrated = Calibration(plain, plain, torch.eye(2048), unit, 1.0)

    def recovered(prices: Prices) -> int:
        match = assignment(token_cost(container, calibrated.cost(prices), pair))[0]
        return int((match[order] == torch.arange(60)).sum())

    assert recovered(Prices()) >= 58
    assert recovered(Prices(raw=True)) == 0


@pytest.mark.slow
def test_a_rotation_is_found_only_where_there_is_one() -> None:
    draws = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(64, 64, generator=draws))

    def noisy(rows: list[torch.Tensor]) -> list[torch.Tensor]:
        return [x + 0.1 * torch.randn(x.shape, generator=draws) for x in rows]

    source = [torch.randn(6, 64, generator=draws) for _ in range(300)]
    assert calibration(source, noisy([x @ q for x in source])).unit < 0.05  # it is 1 for unrelated vectors
    few = source[:20]  # too few to fit a rotation
    assert calibration(few, noisy(few)).unit < 0.05


@pytest.mark.slow
def test_pairs_are_measured_once_and_later_processes_agree(files: tuple[Path, Path], tmp_path: Path) -> None:
    pair(*files, tmp_path / "pairs", capacity=12)
    pairs = Pairs(tmp_path / "pairs")
    first = measured(pairs, Prices())
    path = tmp_path / "pairs" / "calibration.safetensors"
    stored = path.read_bytes()
    assert torch.equal(measured(pairs, Prices()).rotation, first.rotation)
    torch.testing.assert_close(first.source.matrix, measure(pairs).source.matrix)
    assert path.read_bytes() == stored
    path.write_bytes(stored[:100])
    with pytest.raises(ValueError, match=r"not a valid calibration .*; remove the file"):
        measured(pairs, Prices())
    assert float(measured(pairs, Prices(raw=True)).unit) == 1


@pytest.mark.slow
def test_the_means_of_other_pairs_find_a_rotation_that_a_sample_cannot() -> None:
    """Forty noisy pairs of 64 entries hardly determine it; the means of almost 4,000 others do."""
    draws = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(64, 64, generator=draws))
    source = [torch.randn(6, 64, generator=draws) for _ in range(4000)]
    target = [x @ q + torch.randn(x.shape, generator=draws) for x in source]
    means = torch.stack([x.mean(0) for x in source[80:]]), torch.stack([x.mean(0) for x in target[80:]])

    def dissimilarity(fitted: Calibration) -> float:
        x, y = (side.apply(torch.cat(rows[40:80])) for side, rows in ((fitted.source, source), (fitted.target, target)))
        return float(1 - torch.nn.functional.cosine_similarity(x, y).mean())

    assert (
        dissimilarity(calibration(source[:40], target[:40], means))
        < 0.4
        < dissimilarity(calibration(source[:40], target[:40]))
    )


def test_creation_has_a_price_per_mean_square(packed: Packed) -> None:
    """A vector of unit variance costs `create_norm` times the calibrated price more, independently of its width."""
    prices = Prices(create=0.0, create_norm=2.0, priority=0.0, position=0.0, rule="quantile")
    cost = packed.space.calibration.cost(prices)
    x, active = torch.randn(1, 1, 16), torch.ones(1, 1, dtype=torch.bool)
    created = cost(x, x, ~active, active, torch.ones(1, 1), torch.ones(1, 1))
    assert float(created) == pytest.approx(2 * packed.space.calibration.price * float(x.square().mean()), rel=1e-4)
