"""Calibrated prices undo false matches and keep true ones, on data with planted matches."""

from pathlib import Path

import pytest
import torch

from monge.apps.translate.calibrate import Calibration, calibration, threshold
from monge.apps.translate.pair import Pairs, pair
from monge.apps.translate.prices import Prices
from monge.apps.translate.space import Packed, Space
from monge.cli import main
from monge.lm.store import Row, write
from monge.math.container import Container
from monge.math.cost import Whitening
from monge.math.types import Pair

WIDTH, TYPES, COUNT, MISSING = 32, 60, 160, 0.3
Links = list[list[int]]  # for each pair the source token of each target token, -1 for a created one


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pairs, Links]:
    """Sequences of 60 types: the target lacks 30 % of them and has equally many tokens of 60 other types."""
    path, draws = tmp_path_factory.mktemp("planted"), torch.Generator().manual_seed(0)
    shared, created = torch.randn(2, TYPES, WIDTH, generator=draws)
    q, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draws))
    deleted = torch.rand(TYPES, generator=draws) < MISSING
    sides, links = (list[Row](), list[Row]()), list[list[int]]()
    for number in range(COUNT):
        types = torch.randint(TYPES, (int(torch.randint(8, 25, (), generator=draws)),), generator=draws)
        x = shared[types] + 0.3 * torch.randn(len(types), WIDTH, generator=draws)
        rows, link = list[torch.Tensor](), list[int]()
        for token, kind in enumerate(types.tolist()):
            if not deleted[kind]:
                rows.append(x[token] @ q + 0.3 * torch.randn(WIDTH, generator=draws))
                link.append(token)
            if not rows or torch.rand((), generator=draws) < MISSING:
                kind = int(torch.randint(TYPES, (), generator=draws))
                rows.append(created[kind] + 0.3 * torch.randn(WIDTH, generator=draws))
                link.append(-1)
        for side, tokens in zip(sides, (x, torch.stack(rows)), strict=True):
            side.append((str(number), tokens))
        links.append(link)
    for name, side in zip("ab", sides, strict=True):
        write(path / name, [side], dtype="float32", fingerprint={})
    pair(path / "a", path / "b", path / "pairs")
    return Pairs(path / "pairs"), links


def shares(planted: tuple[Pairs, Links], prices: Prices) -> tuple[float, float]:
    """(share of the deleted tokens that are coupled with a token, share of the true matches that are recovered)."""
    pairs, links = planted
    space = Space.measured(pairs, prices)
    permutations = space.transport.permutation(Packed(pairs, space)(range(COUNT)))
    lengths, coupled, deleted, recovered, true = pairs.lengths("source"), 0, 0, 0, 0
    for row, length, link in zip(permutations.tolist(), lengths, links, strict=True):
        matched = {token: slot for slot, token in enumerate(link) if token >= 0}
        unmatched = set(range(length)) - matched.keys()
        coupled, deleted = coupled + sum(row[token] < len(link) for token in unmatched), deleted + len(unmatched)
        recovered, true = recovered + sum(row[token] == slot for token, slot in matched.items()), true + len(matched)
    return coupled / deleted, recovered / true


@pytest.mark.slow
def test_the_default_price_undoes_false_matches_and_keeps_true_ones(planted: tuple[Pairs, Links]) -> None:
    coupled, recovered = shares(planted, Prices())
    assert coupled < 0.03
    assert recovered > 0.95
    former = shares(planted, Prices(rule="quantile"))
    assert former[0] > 0.3  # 30 % of the matches are false, so the 90 % quantile is the cost of a false one


def test_the_threshold_does_not_depend_on_the_number_of_false_matches() -> None:
    draws = torch.Generator().manual_seed(0)
    true, false = 0.2 + 0.05 * torch.randn(4000, generator=draws), 0.8 + 0.05 * torch.randn(4000, generator=draws)
    thresholds = [threshold(torch.cat([true[: 4000 - k], false[4000 - k :]]), false) for k in (0, 1000, 2000)]
    assert all(0.4 < cost < 0.6 for cost in thresholds)
    assert threshold(false[:2000], false[2000:]) == 0
    assert threshold(torch.cat([true[:200], false[:3800]]), false) == 0


def test_prices_average_half_of_the_threshold_and_fall_back_to_the_quantile(planted: tuple[Pairs, Links]) -> None:
    units = Space.measured(planted[0], Prices()).calibration
    for priority in (0.0, 0.01, 1.0):
        cost = units.cost(Prices(priority=priority))
        assert cost.delete + cost.priority == pytest.approx(units.threshold / 2)
        assert 0 <= cost.priority <= units.threshold / 8
    tensors = units.tensors()
    del tensors["threshold"]  # as in runs of earlier versions
    earlier = Calibration.of(tensors)
    assert earlier.cost(Prices()) == units.cost(Prices(rule="quantile"))
    assert earlier.cost(Prices()).delete == pytest.approx(units.price)


def test_unrelated_tokens_are_coupled_by_position(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draws = torch.Generator().manual_seed(0)
    for name, least in (("a", 4), ("b", 6)):
        counts = torch.randint(least, least + 8, (400,), generator=draws).tolist()
        rows = [(str(k), torch.randn(n, 8, generator=draws)) for k, n in enumerate(counts)]
        write(tmp_path / name, [rows], dtype="float32", fingerprint={})
    pair(tmp_path / "a", tmp_path / "b", tmp_path / "pairs")
    pairs = Pairs(tmp_path / "pairs")
    space = Space.measured(pairs, Prices())
    permutations = space.transport.permutation(Packed(pairs, space)(range(64)))
    counts = zip(permutations.tolist(), pairs.lengths("source"), pairs.lengths("target"), strict=False)
    for row, n, m in counts:
        matched = [slot for slot in row[:n] if slot < m]
        assert matched == sorted(matched)
        assert len(matched) == min(n, m)
    assert main(["translate", "couple", str(tmp_path / "pairs"), "--out", str(tmp_path / "couplings")]) == 0
    assert "tokens are coupled by position" in capsys.readouterr().out
    assert not Space.measured(pairs, Prices(rule="quantile")).note
    small = ["--steps", "1", "--save-every", "1", "--width", "64", "--depth", "1"]
    train = ["translate", "train", "--out", str(tmp_path / "run")]
    for words in ([*train, "--pairs", str(tmp_path / "pairs"), *small], [*train, "--resume"]):
        assert main(words) == 0
        assert "tokens are coupled by position" in capsys.readouterr().out
    assert main(["translate", "calibrate", str(tmp_path / "pairs")]) == 0
    assert "tokens are coupled by position" in capsys.readouterr().out


def test_related_tokens_are_coupled_by_content(planted: tuple[Pairs, Links]) -> None:
    space = Space.measured(planted[0], Prices())
    assert space.calibration.separation > 0.3
    assert space.note == ""


@pytest.mark.parametrize("position", [0.0, 1.0, 10.0])
def test_coupling_by_position_deletes_no_more_than_the_lengths_require(position: float) -> None:
    draws = torch.Generator().manual_seed(0)
    unrelated = Calibration(*unit_maps(4), torch.eye(4), 1.0, 1.0, separation=0.0)
    space = Space(unrelated, Container(16), Prices(position=position))
    x, y = ([torch.randn(n, 4, generator=draws) for n in counts] for counts in ((5, 9, 7), (8, 4, 7)))
    permutation = space.transport.permutation(Pair(space.container.pack(x), space.container.pack(y)))
    for row, a, b in zip(permutation.tolist(), x, y, strict=True):
        matched = [slot for slot in row[: len(a)] if slot < len(b)]
        assert matched == sorted(matched)
        assert len(matched) == min(len(a), len(b))


@pytest.mark.parametrize("count", [2, 4, 7, 12, 60])
def test_few_pairs_are_coupled_by_content(count: int) -> None:
    draws = torch.Generator().manual_seed(0)
    x = [torch.randn(6, 8, generator=draws) for _ in range(count)]
    found = calibration(x, [one + 0.01 * torch.randn(6, 8, generator=draws) for one in x])
    assert found.separation == 1.0
    assert not found.positional(Prices())


def test_the_separation_is_stored_if_it_was_measured() -> None:
    measured = Calibration(*unit_maps(4), torch.eye(4), 1.0, 1.0, separation=0.25)
    assert Calibration.of(measured.tensors()).separation == 0.25
    old = {name: value for name, value in measured.tensors().items() if name != "separation"}
    assert Calibration.of(old).separation == 1.0
    with pytest.raises(KeyError):
        Calibration.of({name: value for name, value in old.items() if name != "unit"})


def unit_maps(width: int) -> tuple[Whitening, Whitening]:
    same = Whitening(torch.zeros(width), torch.eye(width))
    return same, same
