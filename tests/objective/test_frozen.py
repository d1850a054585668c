"""Frozen: moved with its owner, never trained and never saved."""

import copy
import pickle

import pytest
import torch
from torch import nn

from monge.objective.frozen import Frozen


class Owner(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.teacher = Frozen(module)


def test_it_is_neither_trained_nor_saved():
    owner = Owner(nn.BatchNorm1d(3))
    names = {"head.weight", "head.bias"}
    assert set(owner.state_dict()) == names
    assert {name for name, _ in owner.named_parameters()} == names
    assert not list(owner.buffers())
    assert not any(isinstance(module, nn.BatchNorm1d) for module in owner.modules())


@pytest.mark.parametrize("move", [lambda m: m.double(), lambda m: m.to("meta"), lambda m: m.to(torch.bfloat16)])
def test_it_follows_its_owner(move):
    owner = Owner(nn.Linear(3, 2))
    move(owner)
    held = owner.teacher.module.weight
    assert (held.device, held.dtype) == (owner.head.weight.device, owner.head.weight.dtype)


def test_it_stays_in_eval_mode():
    dropout = nn.Dropout(0.5)
    owner, x = Owner(dropout), torch.randn(64, 3)
    owner.train()
    assert torch.equal(owner.teacher(x), x)
    dropout.train()
    assert torch.equal(owner.teacher(x), x)


def test_no_gradient_passes_and_requires_grad_flags_are_unchanged():
    linear, x = nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    out = Owner(linear).teacher(x)
    assert not out.requires_grad
    assert all(p.requires_grad for p in linear.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_has_a_separate_teacher(copied):
    owner, x = Owner(nn.Linear(3, 2)), torch.randn(4, 3)
    other = copied(owner)
    assert torch.equal(other.teacher(x), owner.teacher(x))
    other.double()
    assert owner.teacher.module.weight.dtype == torch.float32
    assert other.teacher.module.weight.dtype == torch.float64
