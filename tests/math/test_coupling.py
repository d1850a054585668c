"""Couplings: the quantities that they preserve, lower and leave unchanged."""

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st

from monge.math.container import Container
from monge.math.cost import FourBlock, cosine, inner_product, squared_euclidean
from monge.math.coupling import MinibatchOT, SemidiscreteOT, TokenOT, identity
from monge.math.ot import assignment
from monge.math.semidiscrete import semidiscrete
from monge.math.types import Pair

seeds = st.integers(0, 2**31)


def labelled(draw, seed, n=64, classes=3):
    """Noise, and data whose classes lie apart; row k's label and index are in cond."""
    label = torch.arange(n) % classes
    centre = 4 * draw(99, classes, 2)
    return Pair(
        draw(seed, n, 2), centre[label] + draw(seed + 1, n, 2), None, {"label": label, "index": torch.arange(n)}
    )


def distance(pair):
    return float((pair.x_0 - pair.x_1).flatten(1).square().sum(1).mean())


def rows(x):
    return sorted(map(tuple, x.flatten(1).tolist()))


def test_identity_leaves_pairs_unchanged(draw):
    pair = labelled(draw, 0)
    assert identity(pair) is pair


@drawn(seed=seeds, n=st.integers(1, 40))
def test_exact_coupling_keeps_every_row_once_and_labels_with_their_targets(draw, seed, n):
    """An argmax over the rows of the plan, unlike the exact permutation, re-uses rows."""
    pair = labelled(draw, seed, n)
    coupled = MinibatchOT()(pair)
    assert torch.equal(coupled.x_0, pair.x_0)
    assert sorted(coupled.cond["index"].tolist()) == list(range(n))
    assert torch.equal(coupled.x_1, pair.x_1[coupled.cond["index"]])
    assert torch.equal(coupled.cond["label"], pair.cond["label"][coupled.cond["index"]])
    assert distance(coupled) <= distance(pair) + 1e-12


@drawn(seed=seeds)
def test_no_swap_of_two_targets_shortens_an_exact_coupling(draw, seed):
    coupled = MinibatchOT()(labelled(draw, seed, 20))
    inner = coupled.x_0 @ coupled.x_1.T
    # the gain from swapping the targets of i and j
    gain = inner + inner.T - inner.diagonal()[:, None] - inner.diagonal()[None, :]
    assert gain.max() <= 1e-12


@drawn(seed=seeds)
def test_coupling_is_idempotent(draw, seed):
    once = MinibatchOT()(labelled(draw, seed, 30))
    assert torch.equal(MinibatchOT()(once).x_1, once.x_1)


def ragged(draw, seed, n=60, tokens=5, channels=2):
    """Sequences of 1 to `tokens` tokens, padded with numbers that would dominate the cost; cond holds row and length."""
    length = 1 + torch.arange(n) % tokens
    mask = torch.arange(tokens) < length[:, None]
    x_1 = torch.where(mask[..., None], draw(seed + 1, n, tokens, channels), 1e3 * draw(seed + 2, n, tokens, channels))
    cond = {"index": torch.arange(n), "length": length}
    return Pair(draw(seed, n, tokens, channels), x_1, mask, cond)


def length_of(pair):
    return pair.mask.sum(1)


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
@drawn(seed=seeds)
def test_noise_never_moves_to_a_sequence_of_another_length(draw, epsilon, seed):
    pair = ragged(draw, seed)
    coupled = MinibatchOT(epsilon)(pair, generator=torch.Generator().manual_seed(0))
    assert torch.equal(coupled.mask, pair.mask)
    assert torch.equal(coupled.x_1, pair.x_1[coupled.cond["index"]])
    assert not torch.equal(coupled.cond["index"], pair.cond["index"])


@drawn(seed=seeds)
def test_only_tokens_that_exist_count_in_the_cost(draw, seed):
    """For each length, the permutation is that of the sequences without padding."""
    pair = ragged(draw, seed)
    coupled = MinibatchOT()(pair)
    for n in range(1, 6):
        rows = (pair.cond["length"] == n).nonzero().squeeze(1)
        alone = MinibatchOT()(Pair(pair.x_0[rows, :n], pair.x_1[rows, :n], cond={"index": rows}))
        assert torch.equal(coupled.cond["index"][rows], alone.cond["index"])


def test_classes_and_lengths_are_kept_together(draw):
    pair = ragged(draw, 0)
    label = torch.arange(60) % 2
    coupled = MinibatchOT(condition="label")(Pair(pair.x_0, pair.x_1, pair.mask, {**pair.cond, "label": label}))
    assert torch.equal(coupled.cond["label"], label)
    assert torch.equal(coupled.mask, pair.mask)


def test_a_mask_that_all_rows_share_does_not_split_the_batch(draw):
    mask = torch.tensor([[True, False]]).expand(3, 2)
    x_0 = draw(0, 3, 2, 4)
    coupled = MinibatchOT()(Pair(x_0, x_0[[2, 0, 1]], mask))
    assert torch.equal(coupled.x_1, x_0)


@pytest.mark.parametrize("label", [torch.arange(12).byte() % 3, torch.arange(12.0) % 3, torch.arange(12)[:, None] % 3])
def test_classes_may_be_bytes_whole_numbers_or_a_column(draw, label):
    pair = Pair(draw(0, 12, 2), draw(1, 12, 2), cond={"label": label})
    plain = Pair(pair.x_0, pair.x_1, cond={"label": torch.arange(12) % 3})
    coupled = MinibatchOT(condition="label")
    assert torch.equal(coupled(pair).x_1, coupled(plain).x_1)
    assert coupled(pair).cond["label"].dtype == label.dtype


@pytest.mark.parametrize("coupling", ["identity", "exact", "entropic", "semidiscrete", "token"])
def test_the_caller_controls_the_draws_of_a_coupling(draw, coupling):
    """The same generator state gives the same pair, and torch's global generator is not used."""
    data = Pair(draw(1, 12, 3, 2), draw(1, 12, 3, 2))
    couplings = {
        "identity": identity,
        "exact": MinibatchOT(),
        "entropic": MinibatchOT(0.1),
        "semidiscrete": SemidiscreteOT(data, torch.zeros(12).double()),
        "token": TokenOT(between_tokens),
    }
    pair, state = Pair(draw(0, 12, 3, 2), data.x_1), torch.get_rng_state()
    first, second = (couplings[coupling](pair, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.x_1, second.x_1)
    assert torch.equal(state, torch.get_rng_state())


def test_other_draws_give_another_entropic_coupling(draw):
    pair = labelled(draw, 0)
    first, second = (MinibatchOT(0.5)(pair, generator=torch.Generator().manual_seed(k)).x_1 for k in range(2))
    assert not torch.equal(first, second)


def test_the_given_cost_is_used(draw):
    x_1 = torch.tensor([[0.1, 0.0], [0.0, 9.0]], dtype=torch.float64)
    pair = Pair(torch.tensor([[0.0, 0.2], [8.0, 0.0]], dtype=torch.float64), x_1)
    assert torch.equal(MinibatchOT(cost=cosine)(pair).x_1, x_1.flip(0))
    far = Pair(torch.tensor([[0.0, 0.2], [0.0, 8.0]], dtype=torch.float64), x_1)
    assert torch.equal(MinibatchOT()(far).x_1, x_1)


def test_new_data_at_an_old_address_are_coupled_again(draw):
    """Guards against a cache keyed by the address of the data."""
    coupling, x_0, x_1 = MinibatchOT(), draw(0, 16, 2), draw(1, 16, 2)
    first = coupling(Pair(x_0, x_1)).x_1
    x_1.copy_(draw(2, 16, 2))
    second = coupling(Pair(x_0, x_1)).x_1
    assert rows(second) == rows(draw(2, 16, 2))
    assert rows(first) == rows(draw(1, 16, 2))


def class_means(pair):
    return torch.stack([pair.x_0[pair.cond["label"] == c].mean(0) for c in pair.cond["label"].unique()])


@drawn(seed=seeds)
def test_class_aware_coupling_never_moves_noise_to_another_class(draw, seed):
    pair = labelled(draw, seed, 60)
    coupled = MinibatchOT(condition="label")(pair)
    assert torch.equal(coupled.cond["label"], pair.cond["label"])
    for c in range(3):
        of_class = pair.cond["label"] == c
        assert rows(coupled.x_1[of_class]) == rows(pair.x_1[of_class])
    assert distance(coupled) <= distance(pair) + 1e-12


def test_class_aware_coupling_keeps_the_noise_independent_of_the_class(draw):
    """OT across classes gives each class the noise nearest to it, but sampling draws noise from all classes (2503.10636)."""
    pair = labelled(draw, 0, 600)
    chance = 4 / 200**0.5
    assert class_means(MinibatchOT(condition="label")(pair)).abs().max() < chance
    assert class_means(MinibatchOT()(pair)).abs().max() > 3 * chance


@pytest.mark.parametrize("condition", ["label", "vector"])
def test_a_finite_weight_lies_between_no_and_full_separation(draw, condition):
    """The higher the price of a mismatch, the less noise moves to another class and the longer the transport."""
    pair = labelled(draw, 0, 90)
    vector = torch.nn.functional.one_hot(pair.cond["label"], 3).double()
    pair = Pair(pair.x_0, pair.x_1, None, {**pair.cond, "vector": vector})

    def moved(weight):
        coupled = MinibatchOT(condition=condition, weight=weight)(pair)
        return float((coupled.cond["label"] != pair.cond["label"]).double().mean()), distance(coupled)

    (free, shortest), (some, longer), (none, longest) = moved(0.0), moved(0.3), moved(1e6)
    assert free > some > none == 0
    assert shortest < longer < longest


def test_the_error_names_a_condition_missing_from_the_batch(draw):
    with pytest.raises(ValueError, match=r"no cond\['species'\], only \['index', 'label'\]"):
        MinibatchOT(condition="species")(labelled(draw, 0))


def test_entropic_coupling_lies_between_exact_and_given(draw):
    pair = labelled(draw, 0, 200)

    def mean_distance(epsilon):
        return distance(MinibatchOT(epsilon)(pair, generator=torch.Generator().manual_seed(0)))

    exact, sharp, blurred = distance(MinibatchOT()(pair)), mean_distance(0.003), mean_distance(0.1)
    assert sharp == pytest.approx(exact, rel=0.02)
    assert sharp < blurred < distance(pair)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_epsilon_is_in_units_of_the_mean_cost(draw, scale):
    pair = labelled(draw, 0, 50)
    scaled = Pair(scale * pair.x_0, scale * pair.x_1, None, pair.cond)
    drawn_targets = [
        MinibatchOT(0.05)(p, generator=torch.Generator().manual_seed(0)).cond["index"] for p in (pair, scaled)
    ]
    assert (drawn_targets[0] == drawn_targets[1]).double().mean() > 0.95


def test_entropic_coupling_keeps_labels_with_targets(draw):
    pair = labelled(draw, 0)
    coupled = MinibatchOT(0.05)(pair, generator=torch.Generator().manual_seed(1))
    assert torch.equal(coupled.x_0, pair.x_0)
    assert torch.equal(coupled.x_1, pair.x_1[coupled.cond["index"]])
    assert torch.equal(coupled.cond["label"], pair.cond["label"][coupled.cond["index"]])


@pytest.mark.parametrize("condition", [None, "label"])
@drawn(seed=seeds)
def test_a_warm_start_gives_the_same_optimum(draw, condition, seed):
    pair = labelled(draw, seed, 50)
    warm = MinibatchOT(condition=condition, potentials=draw(seed + 3, 50))(pair)
    assert distance(warm) == pytest.approx(distance(MinibatchOT(condition=condition)(pair)), rel=1e-12)


def data_set(draw, n=24):
    return Pair(
        draw(1, n, 2), draw(0, n, 2), draw(2, n, 2) > 0, {"label": torch.arange(n) % 2, "index": torch.arange(n)}
    )


def test_semidiscrete_coupling_pairs_noise_with_the_full_data_set(draw):
    data = data_set(draw)
    generator = torch.Generator().manual_seed(0)
    potentials, _ = semidiscrete(lambda n: torch.randn(n, 2, generator=generator).double(), data.x_1, steps=600)
    few = data.rows(slice(0, 5))
    batch = Pair(draw(3, 2400, 2), few.x_1.repeat(480, 1), None, {"label": torch.zeros(2400, dtype=torch.long)})
    coupled = SemidiscreteOT(data, potentials)(batch)
    index = coupled.cond["index"]
    assert torch.equal(coupled.x_0, batch.x_0)
    assert torch.equal(coupled.x_1, data.x_1[index])
    assert torch.equal(coupled.mask, data.mask[index])
    assert torch.equal(coupled.cond["label"], data.cond["label"][index])
    assert torch.bincount(index, minlength=24).min() > 50  # of 100


def test_semidiscrete_coupling_can_stay_within_the_class(draw):
    data = data_set(draw)
    batch = Pair(draw(3, 50, 2), draw(4, 50, 2), None, {"label": torch.arange(50) % 2})
    coupled = SemidiscreteOT(data, torch.zeros(24, dtype=torch.float64), condition="label")(batch)
    assert torch.equal(coupled.cond["label"], batch.cond["label"])
    assert torch.equal(coupled.x_1, data.x_1[coupled.cond["index"]])


def between_tokens(pair):
    return squared_euclidean(pair.x_0, pair.x_1)


@drawn(seed=seeds)
def test_exact_token_coupling_permutes_the_tokens_of_each_sample(draw, seed):
    mask = draw(seed + 2, 3, 7) > 0
    marked = torch.cat([draw(seed + 1, 3, 7, 2), mask[..., None].double()], -1)  # the mask, also as a channel
    pair = Pair(draw(seed, 3, 7, 3), marked, mask)
    coupled = TokenOT(between_tokens)(pair)
    assert torch.equal(coupled.x_0, pair.x_0)
    assert torch.equal(coupled.x_1[..., 2] > 0.5, coupled.mask)
    for k in range(3):
        assert rows(coupled.x_1[k]) == rows(pair.x_1[k])
        match = assignment(between_tokens(pair)[k])
        assert torch.equal(coupled.x_1[k], pair.x_1[k][match])


@drawn(seed=seeds)
def test_a_token_coupling_is_its_permutation_applied(draw, seed):
    pair = Pair(draw(seed, 3, 7, 2), draw(seed + 1, 3, 7, 2), draw(seed + 2, 3, 7) > 0)
    coupling = TokenOT(between_tokens)
    permutation = coupling.permutation(pair)
    assert torch.equal(permutation.sort(1).values, torch.arange(7).expand(3, 7))
    applied, coupled = coupling.apply(pair, permutation), coupling(pair)
    assert torch.equal(applied.x_1, coupled.x_1)
    assert torch.equal(applied.mask, coupled.mask)
    undone = coupling.apply(applied, permutation.argsort(1))
    assert torch.equal(undone.x_1, pair.x_1)
    assert torch.equal(undone.mask, pair.mask)


def test_a_plan_between_tokens_has_no_permutation(draw):
    with pytest.raises(ValueError, match=r"epsilon is 0\.1; only the exact coupling"):
        TokenOT(between_tokens, epsilon=0.1).permutation(Pair(draw(0, 1, 3, 2), draw(1, 1, 3, 2)))


def test_barycentres_never_include_padding(draw):
    mask = torch.tensor([[True, True, False]])
    with pytest.raises(ValueError, match="barycentres would include padding"):
        TokenOT(between_tokens, epsilon=0.1)(Pair(draw(0, 1, 3, 2), draw(1, 1, 3, 2), mask))


def test_barycentric_tokens_keep_the_mean_and_blur_existence(draw):
    """This is why the exact coupling is the default."""
    container = Container(12)
    x_0 = container.pack([draw(0, 8, 4), draw(1, 5, 4)])
    x_1 = container.pack([draw(2, 6, 4), draw(3, 7, 4)])
    pair = Pair(x_0, x_1)

    def cost(pair):
        a, b = container.split(pair.x_0), container.split(pair.x_1)
        return FourBlock(unit=8.0)(a.content, b.content, a.existence > 0.5, b.existence > 0.5, a.position, b.position)

    blurred = container.split(TokenOT(cost, epsilon=0.1)(pair).x_1).existence
    sharp = container.split(TokenOT(cost)(pair).x_1).existence
    torch.testing.assert_close(blurred.mean(1), container.split(x_1).existence.mean(1), rtol=0, atol=1e-3)
    assert ((blurred > 0.05) & (blurred < 0.95)).double().mean() > 0.2
    assert set(sharp.flatten().tolist()) == {0.0, 1.0}
    assert sharp.sum(1).tolist() == [6, 7]


def test_a_weight_in_units_of_a_cost_with_zero_mean_is_rejected(draw):
    pair = Pair(draw(0, 8, 2), draw(1, 8, 2), cond={"label": torch.arange(8) % 2})
    with pytest.raises(ValueError, match="weight is in units of the mean cost"):
        MinibatchOT(condition="label", cost=inner_product, weight=2.0)(pair)


def test_vectors_as_classes_are_rejected(draw):
    pair = Pair(draw(0, 8, 2), draw(1, 8, 2), cond={"text": draw(2, 8, 3)})
    with pytest.raises(ValueError, match="give a finite weight"):
        MinibatchOT(condition="text")(pair)


def test_an_entropic_plan_that_did_not_converge_is_an_error(draw):
    pair = Pair(draw(0, 64, 2), draw(1, 64, 2))
    with pytest.raises(ArithmeticError, match=r"marginal error is .* after 10 iterations"):
        MinibatchOT(epsilon=1e-3, max_iterations=10)(pair)
    tokens = Pair(draw(0, 2, 64, 2), draw(1, 2, 64, 2))
    with pytest.raises(ArithmeticError, match=r"marginal error is .* after 10 iterations"):
        TokenOT(lambda p: squared_euclidean(p.x_0, p.x_1), epsilon=1e-3, max_iterations=10)(tokens)


@pytest.mark.parametrize("scale", [1e-25, 1e-19, 1e20])
@pytest.mark.parametrize("coupling", [MinibatchOT(), MinibatchOT(cost=squared_euclidean), MinibatchOT(0.05)])
def test_the_coupling_does_not_depend_on_the_size_of_the_points(draw, coupling, scale):
    pair = Pair(draw(0, 60, 3).float(), draw(1, 60, 3).float(), cond={"index": torch.arange(60)})
    scaled = Pair(scale * pair.x_0, scale * pair.x_1, cond=pair.cond)
    first, second = (coupling(p, generator=torch.Generator().manual_seed(0)).cond["index"] for p in (pair, scaled))
    assert (first == second).double().mean() > 0.95


def test_points_too_large_for_a_custom_cost_are_rejected(draw):
    pair = Pair(1e20 * draw(0, 6, 3).float(), draw(1, 6, 3).float())
    with pytest.raises(ValueError, match=r"cost of points of size .* overflows or vanishes; rescale the points"):
        MinibatchOT(cost=lambda x, y: torch.cdist(x, y).square())(pair)


@pytest.mark.parametrize("epsilon", [0.0, 0.05])
@pytest.mark.parametrize("weight", [2.0, float("inf")])
def test_equal_points_and_single_rows_may_be_coupled_in_any_way(draw, epsilon, weight):
    label = {"label": torch.tensor([0, 1, 0, 1])}
    for pair in (Pair(torch.ones(4, 2), torch.ones(4, 2), cond=label), Pair(draw(0, 1, 2), draw(1, 1, 2))):
        assert len(MinibatchOT(epsilon)(pair)) == len(pair)
    equal = Pair(torch.ones(4, 2), torch.ones(4, 2), cond=label)
    assert len(MinibatchOT(epsilon, condition="label", weight=weight)(equal)) == 4
    empty = Pair(torch.ones(0, 2), torch.ones(0, 2))
    assert len(MinibatchOT(epsilon)(empty)) == 0


def test_a_row_alone_in_its_class_draws_one_random_number_too(draw):
    """The draws of a seeded run do not depend on the number of rows in a class: each row takes one."""
    pair = Pair(draw(0, 3, 2), draw(1, 3, 2), cond={"label": torch.arange(3)})
    used, expected = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    MinibatchOT(0.1, condition="label")(pair, generator=used)
    for _ in range(3):
        torch.multinomial(torch.ones(1, 1), 1, generator=expected)
    assert torch.equal(used.get_state(), expected.get_state())
