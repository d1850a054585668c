"""Batches are functions of their number, and prefetching affects only timing."""

import threading
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from monge.math.random import seeded
from monge.training.batches import prefetched, shuffled

seeds = st.integers(0, 2**31)


@given(seeds, st.integers(0, 2**31), st.integers(0, 2**31))
def test_a_tuple_of_numbers_always_gives_the_same_draws(seed: int, a: int, b: int) -> None:
    first = torch.randn(4, generator=seeded(seed, a, b))
    assert torch.equal(first, torch.randn(4, generator=seeded(seed, a, b)))
    for other in ((seed, a, b + 1), (seed, a + 1, b), (seed + 1, a, b), (seed, a), (seed, a, b, 0)):
        assert not torch.equal(first, torch.randn(4, generator=seeded(*other)))


@given(seeds)
def test_the_order_of_the_numbers_matters(seed: int) -> None:
    a, b = torch.randn(4, generator=seeded(seed, 1, 2)), torch.randn(4, generator=seeded(seed, 2, 1))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("numbers", [lambda k: (0, 1, k), lambda k: (k, 1, 0), lambda k: (k,), lambda k: (k, k)])
def test_draws_of_neighbouring_numbers_are_uncorrelated(numbers) -> None:
    draws = torch.stack([torch.randn(4000, generator=seeded(*numbers(k)), dtype=torch.float64) for k in range(100)])
    correlation = torch.corrcoef(draws) - torch.eye(100)
    assert correlation.abs().max() < 6 / 4000**0.5
    # the first draw of each generator, as a sequence, is white Gaussian noise
    first = draws[:, 0]
    assert abs(float(first.mean())) < 5 / 10
    assert abs(float((first[1:] * first[:-1]).mean())) < 5 / 10


@given(seeds, st.integers(1, 40), st.integers(1, 60))
def test_every_item_occurs_once_per_epoch_across_batch_boundaries(seed: int, count: int, size: int) -> None:
    indices = torch.cat([shuffled(number, size, count, seed) for number in range(-(-3 * count // size))])
    for epoch in range(3):
        assert sorted(indices[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


@given(seeds)
def test_epochs_and_seeds_are_shuffled_differently(seed: int) -> None:
    orders = [shuffled(number, 50, 50, seed) for number in range(3)] + [shuffled(0, 50, 50, seed + 1)]
    for i, a in enumerate(orders):
        assert all(not torch.equal(a, b) for b in orders[:i])


@given(seeds, st.integers(0, 50), st.integers(1, 5))
def test_batches_of_n_k_are_k_batches_of_n(seed: int, number: int, parts: int) -> None:
    small = [shuffled(number * parts + part, 6, 17, seed) for part in range(parts)]
    assert_close(shuffled(number, 6 * parts, 17, seed), torch.cat(small))


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_prefetching_keeps_the_order(workers: int) -> None:
    second_started = threading.Event()

    def batches(number: int) -> int:
        if number == 0 and workers > 1:  # the first batch is ready last
            assert second_started.wait(10)
        if number == 1:
            second_started.set()
        return number * number

    assert list(prefetched(batches, iter(range(20)), workers=workers)) == [n * n for n in range(20)]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_is_raised_in_order_and_ends_the_threads(workers: int) -> None:
    def batches(number: int) -> int:
        if number == 4:
            raise ValueError("batch four")
        return number

    received = []
    with pytest.raises(ValueError, match="batch four"):
        received.extend(prefetched(batches, iter(range(10)), workers=workers))
    assert received == [0, 1, 2, 3]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_infinite_stream_is_prefetched_a_few_batches_ahead_and_can_be_abandoned(workers: int) -> None:
    requested: list[int] = []

    def batches(number: int) -> int:
        requested.append(number)
        return number

    def endless():
        number = 0
        while True:
            yield number
            number += 1

    stream = prefetched(batches, endless(), workers=workers)
    assert list(islice(stream, 5)) == [0, 1, 2, 3, 4]
    stream.close()
    assert max(requested) <= 4 + workers
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
