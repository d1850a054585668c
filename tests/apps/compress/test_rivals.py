"""Other ways to shorten a model: layers that a criterion selects, and a map merged into a projection."""

from typing import Any

import pytest
import torch
from teachers import FAMILIES, IDS, teacher
from torch.testing import assert_close

from monge.apps.compress.evaluate import perplexity, quality, quality_of_model
from monge.apps.compress.layer import parts_of
from monge.apps.compress.rivals import greedily_removed, least_influential, replace_me, without
from monge.apps.compress.teacher import Teacher
from monge.lm.blocks import blocks_of
from monge.lm.hidden import hidden_at


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_model_without_layers_shares_the_weights_of_the_others(family: str) -> None:
    model = teacher(family)
    shorter = without(model, [1, 2, 4])
    assert [len(blocks_of(part)) for part in (model, shorter)] == [6, 3]
    owned = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in owned for parameter in shorter.parameters())
    (x,) = hidden_at(teacher(family), IDS, [1])
    assert_close(hidden_at(shorter, IDS, [1])[0], x)
    expected = quality(Teacher(teacher(family), 1, 3), IDS, lambda x_0: x_0).kl
    assert quality_of_model(model, IDS, without(model, [1, 2])).kl == pytest.approx(expected, rel=1e-4)


def test_the_least_influential_layers_are_the_smallest() -> None:
    assert least_influential(torch.tensor([0.3, 0.1, 0.5, 0.05, 0.4]), 2) == [1, 3]


def test_greedy_removal_takes_the_layer_without_which_perplexity_is_lowest_each_time() -> None:
    model = teacher("llama")
    (first,) = greedily_removed(model, IDS, 1)
    assert first == min(range(6), key=lambda layer: perplexity(without(model, [layer]), IDS))
    second = min(set(range(6)) - {first}, key=lambda layer: perplexity(without(model, [first, layer]), IDS))
    assert greedily_removed(model, IDS, 2) == [first, second]


def states(model: Any, start: int, end: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Feed-forward outputs of layer start - 1, and the states at both ends, without the first tokens."""
    outputs: list[torch.Tensor] = []
    handle = parts_of(blocks_of(model)[start - 1]).mlp.register_forward_hook(lambda _, __, y: outputs.append(y))
    x_0, x_1 = hidden_at(model, IDS, [start, end])
    handle.remove()
    m, x_0, x_1 = (part[:, 1:].flatten(0, 1) for part in (outputs[0], x_0, x_1))
    return m, x_0, x_1


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_merged_map_is_the_least_squares_map_of_the_feed_forward_output(family: str) -> None:
    model = teacher(family)
    shorter = replace_me(model, 2, 4, IDS, ridge=1e-9)
    assert len(blocks_of(shorter)) == 4
    m, x_0, x_1 = (part.double() for part in states(model, 2, 4))
    best = x_0 + m @ torch.linalg.lstsq(m, x_1 - x_0, driver="gelsd").solution
    (merged,) = hidden_at(shorter, IDS, [2])
    assert_close(merged[:, 1:].flatten(0, 1).double(), best, rtol=1e-3, atol=1e-4)
    assert_close(states(model, 2, 4)[1], x_0.float())  # the teacher is unchanged


@torch.no_grad()
def test_the_cosine_map_points_closer_to_the_state_after_the_removed_layers() -> None:
    model = teacher("llama")
    _, x_0, x_1 = states(model, 2, 5)
    (merged,) = hidden_at(replace_me(model, 2, 5, IDS, loss="cosine", epochs=50), IDS, [2])
    before, after = (torch.cosine_similarity(x, x_1, dim=-1).mean() for x in (x_0, merged[:, 1:].flatten(0, 1)))
    assert after > before


def test_no_layer_precedes_the_first() -> None:
    with pytest.raises(ValueError, match="give start >= 1"):
        replace_me(teacher("llama"), 0, 2, IDS)
