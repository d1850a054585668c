"""A module that a loss uses but that is neither trained nor saved, such as a teacher or the encoder of Alignment."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Frozen(nn.Module):
    """`module` in eval mode and without gradients, on the device and in the dtype of its owner.

    It does not appear in any state_dict, parameters(), optimizer, EMA or DDP bucket. `module` is held by reference, not
    copied, and its requires_grad flags are left unchanged.

    >>> frozen = Frozen(nn.Linear(2, 2))
    >>> len(list(frozen.parameters())), frozen(torch.zeros(1, 2)).requires_grad
    (0, False)
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._held = (module.eval(),)  # a tuple hides it from nn.Module, which would register it

    @property
    def module(self) -> nn.Module:
        """The wrapped module."""
        return self._held[0]

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output, detached."""
        if self.module.training:
            self.module.eval()
        return self.module(*args, **kwargs)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Frozen":  # called by .to, .cuda, .half, .double
        self.module._apply(fn, recurse)
        return super()._apply(fn, recurse)
