"""A module that is used in a loss, and neither trained nor saved: a teacher, or the encoder of an alignment."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Frozen(nn.Module):
    """`module`, always in eval mode and without gradients, on its owner's device and in its owner's dtype.

    It is part of no state_dict, parameters(), optimizer, EMA or DDP bucket. `module` itself is held, not a copy, and its
    requires_grad flags stay as they are.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._held = (module.eval(),)  # a tuple hides it from nn.Module, which would register it

    @property
    def module(self) -> nn.Module:
        """The module that is held."""
        return self._held[0]

    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        """The module's output, detached."""
        if self.module.training:
            self.module.eval()
        return self.module(*args)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Frozen":  # .to, .cuda, .half, .double call it
        self.module._apply(fn, recurse)
        return super()._apply(fn, recurse)
