"""Containers of fixed capacity."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monge.math.container import Additive, Container, Slots

CAPACITY = 8
lengths = st.lists(st.integers(0, CAPACITY), min_size=1, max_size=5)


@given(seed=st.integers(0, 2**31), lengths=lengths, aux_scale=st.sampled_from([0.1, 1.0, 7.0]))
def test_unpack_inverts_pack(draw, seed, lengths, aux_scale):
    sequences = [draw(seed + k, n, 3) for k, n in enumerate(lengths)]
    container = Container(CAPACITY, aux_scale)
    state = container.pack(sequences)
    assert state.shape == (len(lengths), CAPACITY, 6)
    for result, sequence in zip(container.unpack(state), sequences, strict=True):
        assert torch.equal(result, sequence)


@given(seed=st.integers(0, 2**31), n=st.integers(0, CAPACITY))
def test_unpacking_does_not_depend_on_the_order_of_the_slots(draw, seed, n):
    container, sequence = Container(CAPACITY), draw(seed, n, 3)
    order = torch.randperm(CAPACITY, generator=torch.Generator().manual_seed(seed))
    (result,) = container.unpack(container.pack([sequence])[:, order])
    assert torch.equal(result, sequence)


def test_tokens_and_voids_are_each_spread_over_the_full_sequence(draw):
    slots = Container(6).split(Container(6).pack([draw(0, 4, 2), draw(1, 0, 2), draw(2, 6, 2)]))
    expected = [[1 / 4, 2 / 4, 3 / 4, 1, 1 / 2, 1], [k / 6 for k in range(1, 7)], [k / 6 for k in range(1, 7)]]
    torch.testing.assert_close(slots.position, torch.tensor(expected, dtype=torch.float64))
    assert slots.existence.sum(1).tolist() == [4, 0, 6]
    assert (slots.content[0, 4:] == 0).all()


@given(seed=st.integers(0, 2**31), aux_scale=st.sampled_from([0.1, 1.0, 7.0]))
def test_split_and_join_are_inverse_at_any_time_along_a_flow(draw, seed, aux_scale):
    container, state = Container(4, aux_scale), draw(seed, 2, 4, 5)
    torch.testing.assert_close(container.join(container.split(state)), state)


def test_position_does_not_change_the_content(draw):
    """A position that is added into the content cannot be separated from it again."""
    slots = Slots(draw(0, 1, 3, 2), *torch.rand(2, 1, 3).double(), torch.ones(1, 3).double())
    moved = slots._replace(position=slots.position + 100)
    container = Container(3)
    assert torch.equal(container.split(container.join(slots)).content, container.split(container.join(moved)).content)


def test_a_slot_is_active_above_an_existence_of_one_half(draw):
    existence = torch.tensor([[0.49, 0.51, 1.2, -0.3]], dtype=torch.float64)
    container = Container(4, aux_scale=3.0)
    state = container.join(Slots(draw(0, 1, 4, 2), *torch.rand(2, 1, 4).double(), existence))
    assert container.active(state).tolist() == [[False, True, True, False]]


def test_too_long_a_sequence_is_rejected_with_its_length(draw):
    with pytest.raises(ValueError, match="sequence 1 has 9 tokens, capacity is 8"):
        Container(CAPACITY).pack([draw(0, 3, 2), draw(1, 9, 2)])


@given(seed=st.integers(0, 2**31), lengths=lengths, aux_scale=st.sampled_from([0.1, 1.0, 7.0]))
def test_undo_recovers_positions_that_were_added_into_the_content(draw, seed, lengths, aux_scale):
    """In any order of slots: the content of 64 channels is small compared with a sinusoid of norm 5.7."""
    container = Container(CAPACITY, aux_scale)
    sequences = [0.1 * draw(seed + k, n, 64) for k, n in enumerate(lengths)]
    order = torch.randperm(CAPACITY, generator=torch.Generator().manual_seed(seed))
    state = Additive(container).apply(container.pack(sequences))[:, order]
    assert state.shape == (len(lengths), CAPACITY, 65)
    for result, sequence in zip(container.unpack(Additive(container).undo(state)), sequences, strict=True):
        torch.testing.assert_close(result, sequence)
