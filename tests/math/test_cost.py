"""Costs, units, and the augmented transport of the HERMES implementation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.math.cost import FourBlock, Units, Whitening, calibrate, cosine, inner_product, squared_euclidean, void_order
from monge.math.ot import assignment

seeds = st.integers(0, 2**31)


@given(seed=seeds, n=st.integers(1, 9), m=st.integers(1, 9))
def test_squared_euclidean_is_the_square_of_the_distance(draw, seed, n, m):
    x_0, x_1 = draw(seed, 2, n, 3), draw(seed + 1, 2, m, 3)
    torch.testing.assert_close(squared_euclidean(x_0, x_1), torch.cdist(x_0, x_1).square())


def test_squared_euclidean_keeps_its_precision_far_from_the_origin(draw):
    x_0, x_1 = draw(0, 100, 8) + 1000, draw(1, 100, 8) + 1000
    cost = squared_euclidean(x_0.float(), x_1.float())
    true = torch.cdist(x_0.float().double(), x_1.float().double()).square()
    torch.testing.assert_close(cost.double(), true, rtol=1e-4, atol=1e-4)
    assert cost.min() >= 0


def test_squared_euclidean_is_differentiable(draw):
    x_0, x_1 = draw(0, 4, 3).requires_grad_(), draw(1, 5, 3).requires_grad_()
    assert torch.autograd.gradcheck(squared_euclidean, (x_0, x_1))


@given(seed=seeds)
def test_inner_product_and_distance_have_the_same_optimal_permutation(draw, seed):
    x_0, x_1 = draw(seed, 12, 3), draw(seed + 1, 12, 3) + 5
    assert torch.equal(assignment(inner_product(x_0, x_1)), assignment(squared_euclidean(x_0, x_1)))


def test_cosine_of_parallel_orthogonal_opposite_and_zero_vectors():
    x = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    others = torch.tensor([[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert cosine(x, others).tolist() == [[0.0, 1.0, 2.0, 1.0]]


@given(seed=seeds, per_feature=st.booleans())
def test_units_centre_and_scale_and_undo_it(draw, seed, per_feature):
    x = draw(seed, 50, 4) * torch.tensor([1e-3, 1.0, 10.0, 1e3], dtype=torch.float64) + 7
    units = Units.measure(x, per_feature=per_feature)
    y = units.apply(x)
    torch.testing.assert_close(units.undo(y), x)
    torch.testing.assert_close(y.mean(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-8)
    spread = y.square().mean(0)
    torch.testing.assert_close(
        spread if per_feature else spread.mean(), torch.ones_like(spread if per_feature else spread[0])
    )


def test_a_constant_feature_keeps_its_scale():
    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 1234.567  # its mean is not this number, in float32
    units = Units.measure(x)
    assert float(units.scale[1]) == 1
    assert units.apply(x)[:, 1].abs().max() < 0.01


def tokens(draw, *, active, capacity=6, dimension=3, seed=0):
    x = draw(seed, 1, capacity, dimension)
    is_active = (torch.arange(capacity) < active)[None]
    position = (torch.arange(1, capacity + 1, dtype=torch.float64) / capacity)[None]
    return x, is_active, position


def test_each_of_the_four_blocks_has_its_price(draw):
    x_0, active_0, position_0 = tokens(draw, active=2, seed=0)
    x_1, active_1, position_1 = tokens(draw, active=3, seed=1)
    price = FourBlock(unit=2.0, position=0.0, delete=0.7, create=0.4)
    cost = price(x_0, x_1, active_0, active_1, position_0, position_1)[0]
    torch.testing.assert_close(cost[:2, :3], torch.cdist(x_0[0, :2], x_1[0, :3]).square() / 2)
    assert (cost[:2, 3:] == 0.7).all()
    assert (cost[2:, :3] == 0.4).all()
    assert (cost[2:, 3:] == 0).all()


def test_moving_costs_except_between_voids(draw):
    args = [*tokens(draw, active=2, seed=0), *tokens(draw, active=3, seed=1)]
    x_0, active_0, position_0, x_1, active_1, position_1 = args
    still, moving = (
        FourBlock(position=p)(x_0, x_1, active_0, active_1, position_0, position_1)[0] for p in (0.0, 36.0)
    )
    steps = (torch.arange(6)[:, None] - torch.arange(6)).square().double()
    assert (moving[2:, 3:] == 0).all()
    torch.testing.assert_close((moving - still)[:2], steps[:2])
    torch.testing.assert_close((moving - still)[:, :3], steps[:, :3])


def test_creating_a_longer_vector_can_cost_more(draw):
    x_0, nobody, position = tokens(draw, active=0)
    x_1 = torch.zeros_like(x_0)
    x_1[0, :2, 0] = torch.tensor([1.0, 2.0], dtype=torch.float64)
    cost = FourBlock(unit=2.0, create=0.5, create_norm=3.0, position=0.0)(
        x_0, x_1, nobody, torch.ones_like(nobody), position, position
    )
    assert cost[0, 0, :3].tolist() == [2.0, 6.5, 0.5]


def planted(draw, pairs=60, capacity=120, dimension=256):
    """Two sentences of 60 vectors with the scale of a language model's; row i of one side matches row i of the other."""
    centre, meaning = 5 * draw(0, dimension), 4 * draw(1, pairs, dimension)
    x_0, x_1 = (centre + meaning + draw(seed, pairs, dimension) for seed in (2, 3))
    active = (torch.arange(capacity) < pairs)[None]
    position = torch.cat([torch.arange(1, n + 1, dtype=torch.float64) / n for n in (pairs, capacity - pairs)])[None]
    return x_0, x_1, active, position


def match(price, x_0, x_1, active, position):
    x_0, x_1 = (torch.nn.functional.pad(x, (0, 0, 0, active.shape[1] - len(x)))[None] for x in (x_0, x_1))
    return assignment(price(x_0, x_1, active, active, position, position))[0, :60]


def test_raw_prices_match_nothing_and_calibrated_prices_match_all(draw):
    """With content costs in the hundreds and a creation price of 1, all 60 true pairs are lost."""
    x_0, x_1, active, position = planted(draw)
    raw = match(FourBlock(unit=1.0, delete=1.0, create=1.0), x_0, x_1, active, position)
    assert (raw >= 60).all()

    units = Units.measure(torch.cat([x_0, x_1]))
    y_0, y_1 = (torch.nn.functional.normalize(units.apply(x), dim=-1) for x in (x_0, x_1))
    matched = (y_0 - y_1).square().sum(-1)
    unit, price = calibrate(matched, quantile=1.0)
    price *= 1 + 1e-6  # the most expensive pair costs as much as deletion and creation: rounding would decide
    assert match(FourBlock(unit, 1.0, price, price), y_0, y_1, active, position).tolist() == list(range(60))

    unit, price = calibrate(matched)
    result = match(FourBlock(unit, 1.0, price, price), y_0, y_1, active, position)
    paired = result < 60
    assert torch.equal(result[paired], torch.arange(60)[paired])  # no false pair
    assert paired.sum() >= 54  # nine in ten
    assert matched[~paired].min() > matched[paired].median()


def test_calibration_is_the_median_and_half_the_quantile():
    unit, price = calibrate(torch.arange(1.0, 12.0))
    assert (unit, price) == pytest.approx((6.0, 10 / 12))


def test_calibration_does_not_depend_on_the_units(draw):
    matched = draw(0, 100).square()
    unit, price = calibrate(matched)
    assert calibrate(1000 * matched) == pytest.approx((1000 * unit, price))


@pytest.mark.parametrize("matched", [torch.zeros(5), torch.full((5,), torch.nan)])
def test_equal_sides_cannot_be_calibrated(matched):
    with pytest.raises(ValueError, match="median matched cost"):
        calibrate(matched)


@given(seed=st.integers(0, 2**31), count=st.integers(1, 40))
def test_void_order_is_a_permutation_that_spreads_the_first_few_evenly(seed, count):
    draws = torch.Generator().manual_seed(seed)
    active = torch.rand(count, generator=draws) < 0.5
    for kind in (active, ~active):
        order = void_order(active)[kind].argsort()
        size = len(order)
        assert void_order(active)[kind].unique().numel() == size
        if size >= 8:
            for few in (2, 4, 8):
                assert torch.bincount(order[:few] * few // size, minlength=few).max() <= 2


def test_out_of_order_costs_more_and_in_order_never_less_than_the_plain_price(draw):
    args = [*tokens(draw, active=5, seed=0), *tokens(draw, active=3, seed=1)]
    x_0, active_0, position_0, x_1, active_1, position_1 = args
    prices = FourBlock(position=0.0, create=0.4, delete=0.7, priority=2.0)
    cost = prices(x_0, x_1, active_0, active_1, position_0, position_1)[0]
    assert (cost[:5, 3:] > 0.7).all()
    assert (cost[5:, :3] > 0.4).all()
    voids = [torch.zeros_like(active_0), position_0]
    created = prices(x_0, x_1, voids[0], active_1, voids[1], position_1)[0]
    assert torch.equal(created[:, 0].argsort(), void_order(voids[0])[0].argsort())
    priority = void_order(active_1)[0]
    # whichever token is deleted, voids are filled in order
    assert torch.equal(cost[0, 3:].argsort(), priority[3:].argsort())
    assert torch.equal(
        cost[:5, 3].argsort(), void_order(active_0)[0][:5].argsort(descending=True)
    )  # the last token is deleted first


def test_a_larger_change_of_length_uses_all_slots_of_a_smaller_one(draw):
    """The k-th slot is created or deleted exactly when at least k are needed, whatever the contents."""
    cost = FourBlock(priority=50.0, create=100.0, delete=100.0)
    few, many = tokens(draw, active=4, capacity=12), tokens(draw, active=12, capacity=12)
    created, deleted = [], []
    for number in range(4, 13):
        some = tokens(draw, active=number, capacity=12, seed=number)
        for (x_0, active_0, position_0), (x_1, active_1, position_1), changed in (
            (few, some, created),
            (many, some, deleted),
        ):
            match = assignment(cost(x_0, x_1, active_0, active_1, position_0, position_1))[0]
            changed.append(set((active_1[0][match] != active_0[0]).nonzero().flatten().tolist()))
    for changed in (created, deleted[::-1]):
        assert [len(slots) for slots in changed] == list(range(9))
        assert all(fewer <= more for fewer, more in zip(changed, changed[1:], strict=False))


@given(seed=st.integers(0, 2**31))
def test_whitening_gives_zero_mean_and_unit_covariance_and_is_invertible(draw, seed):
    rotation = torch.linalg.qr(draw(seed + 1, 5, 5))[0]  # a nearly singular mixture would lose precision
    x = draw(seed, 400, 5) * torch.arange(1, 6) @ rotation + 7
    result = Whitening.measure(x, floor=0.0)
    white = result.apply(x)
    torch.testing.assert_close(white.mean(0), torch.zeros(5).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(white.mT @ white / 400, torch.eye(5).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(result.undo(white), x, rtol=1e-6, atol=1e-6)


def test_a_stream_gives_the_whitening_of_its_vectors(draw):
    x = 50 + draw(0, 60, 4) * torch.tensor([1.0, 0.1, 10, 1])
    direct, stream = Whitening.measure(x), Whitening.measure(iter(x.split([7, 50, 3])))
    torch.testing.assert_close(stream.centre, direct.centre)
    torch.testing.assert_close(stream.matrix, direct.matrix)
    with pytest.raises(ValueError, match="no vectors"):
        Whitening.measure(iter([]))


def test_whitening_does_not_amplify_a_constant_feature(draw):
    x = draw(0, 400, 5)
    x[:, 2] = 3
    result = Whitening.measure(x)
    assert result.apply(x)[:, 2].abs().max() < 1e-6
    torch.testing.assert_close(result.undo(result.apply(x)), x)
    with pytest.raises(ValueError, match="all vectors are identical"):
        Whitening.measure(torch.ones(4, 3))


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e19, 1e37])
def test_the_cosine_does_not_depend_on_the_lengths(draw, scale):
    """A power of two changes no bit; other scales, whose squares over- or underflow float32, change the last one."""
    x, y = draw(0, 5, 3).float(), draw(1, 6, 3).float()
    assert torch.equal(cosine(2.0**100 * x, 2.0**-100 * y), cosine(x, y))
    torch.testing.assert_close(cosine(scale * x, y), cosine(x, y))
    torch.testing.assert_close(cosine(torch.zeros(1, 3), y), torch.ones(1, 6))


@pytest.mark.parametrize("exponent", [-1070, -1000, -600, 600, 1020])
def test_the_cosine_does_not_depend_on_the_lengths_in_float64(draw, exponent):
    x, y = draw(0, 5, 3), draw(1, 6, 3)
    tolerance = 0.2 if exponent == -1070 else 1e-14  # subnormal numbers have few digits
    torch.testing.assert_close(cosine(x * 2.0**exponent, y), cosine(x, y), rtol=0, atol=tolerance)
