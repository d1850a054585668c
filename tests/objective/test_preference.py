"""Direct preference optimisation of a small language model."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from monge.objective.frozen import Frozen
from monge.objective.next_token import Tokens
from monge.objective.preference import DPO, Preferences, log_probabilities


class Bigram(nn.Module):
    """A language model in which a token depends on the one before it."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, 5, generator=torch.Generator().manual_seed(seed)))

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table[input_ids])


def tokens(*rows: list[int], prompt: int = 2) -> Tokens:
    ids = torch.tensor(rows)
    return Tokens(ids, (torch.arange(ids.shape[1]) >= prompt).float().expand(ids.shape))


CHOSEN, REJECTED = tokens([0, 1, 2, 3], [1, 1, 4, 0]), tokens([0, 1, 3, 3], [1, 1, 0, 0])


def test_log_probabilities_sum_over_the_continuation() -> None:
    model = Bigram()
    table = model.table.log_softmax(1)
    expected = torch.stack([table[1, 2] + table[2, 3], table[1, 4] + table[4, 0]])
    torch.testing.assert_close(log_probabilities(model, CHOSEN), expected)


def test_the_loss_is_that_of_the_paper() -> None:
    model, reference = Bigram(0), Bigram(1)
    batch = Preferences(CHOSEN, REJECTED)
    p = [log_probabilities(m, part) for m in (model, reference) for part in (CHOSEN, REJECTED)]
    expected = -torch.log(torch.sigmoid(0.3 * ((p[0] - p[2]) - (p[1] - p[3])))).mean()
    loss = DPO(Frozen(reference), beta=0.3)(model, batch)
    torch.testing.assert_close(loss.value, expected)
    loss.value.backward()
    assert model.table.grad is not None
    assert reference.table.grad is None


def test_training_raises_the_chosen_and_lowers_the_rejected_continuation() -> None:
    model = Bigram()
    objective, batch = DPO(Frozen(copy.deepcopy(model))), Preferences(CHOSEN, REJECTED)
    before = [log_probabilities(model, part).detach() for part in (CHOSEN, REJECTED)]
    assert float(objective(model, batch).value.detach()) == pytest.approx(0.6931, abs=1e-3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(50):
        optimizer.zero_grad()
        objective(model, batch).value.backward()
        optimizer.step()
    assert objective(model, batch).metrics["accuracy"] == 1
    assert (log_probabilities(model, CHOSEN) > before[0]).all()
    assert (log_probabilities(model, REJECTED) < before[1]).all()


def test_invalid_arguments_are_rejected() -> None:
    with pytest.raises(ValueError, match="beta must be above 0, got 0"):
        DPO(Frozen(Bigram()), beta=0.0)
    with pytest.raises(ValueError, match="2 chosen and 1 rejected; give one of each per row"):
        Preferences(CHOSEN, tokens([0, 1, 2, 3]))
