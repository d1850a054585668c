"""Transformer blocks: find them in any model, and replace them."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a Hugging Face model: its first list of `config.num_hidden_layers` modules.

    ValueError if the model has none. Works for GPT-NeoX, GPT-2, Llama, Qwen and BERT models, with or without their head.
    """
    depth = _depth(model)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ValueError(
        f"{type(model).__name__}: no list of config.num_hidden_layers blocks; give a Hugging Face transformer"
    )


def block_lists(model: nn.Module) -> list[nn.ModuleList]:
    """Every list of transformer blocks in `model`: lists named `blocks`, and those of the Hugging Face models it contains."""
    lists: dict[int, nn.ModuleList] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[-1] == "blocks":
            lists[id(module)] = module
        elif _depth(module):
            for part in module.modules():
                if isinstance(part, nn.ModuleList) and len(part) == _depth(module):
                    lists[id(part)] = part
                    break
    return list(lists.values())


def _depth(module: nn.Module) -> int | None:
    depth = getattr(getattr(module, "config", None), "num_hidden_layers", None)
    return depth if isinstance(depth, int) else None


def replace_blocks(model: nn.Module, start: int, end: int, *modules: nn.Module) -> nn.ModuleList:
    """Replace blocks [start, end) of a Hugging Face model with `modules`, in place; if none are given, remove the blocks.

    Each module maps hidden states (B, N, D) to hidden states, and receives those of the block's keyword arguments
    (attention_mask, position_embeddings, ...) that its forward accepts. The model's configuration and the cache indices of
    the remaining blocks are updated, so that generation with a key-value cache works. Returns the removed blocks.

    ValueError if the range is empty or exceeds the model, or if no block would remain.
    """
    blocks = blocks_of(model)
    if not 0 <= start < end <= len(blocks):
        raise ValueError(
            f"blocks [{start}, {end}): the model has {len(blocks)}; give 0 <= start < end <= {len(blocks)}"
        )
    removed = nn.ModuleList(list(blocks)[start:end])
    remaining = [*list(blocks)[:start], *(Graft(module, removed[0]) for module in modules), *list(blocks)[end:]]
    if not remaining:
        raise ValueError("replace_blocks: no block would remain; keep one, or give a module to replace them")
    _set_blocks(model, blocks, remaining)
    for config in _configs(model):
        types = getattr(config, "layer_types", None)
        if isinstance(types, Sequence) and len(types) == len(blocks):
            config.layer_types = [*types[:start], *(types[start] for _ in modules), *types[end:]]
        config.num_hidden_layers = len(remaining)
    for number, block in enumerate(remaining):
        for part in block.modules():
            if isinstance(getattr(part, "layer_idx", None), int):
                part.layer_idx = number  # pyright: ignore[reportAttributeAccessIssue]
    return removed


def shared_copy(model: M) -> M:
    """A copy of the model's modules that shares all parameters with it, so that blocks can be replaced in one of them."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


class Graft(nn.Module):
    """A module that replaces a transformer block, with the same arguments and return value."""

    def __init__(self, module: nn.Module, block: nn.Module) -> None:
        super().__init__()
        self.module = module
        for name in ("attention_type", "layer_type"):  # some models read these attributes of their blocks
            if isinstance(kind := getattr(block, name, None), str):
                setattr(self, name, kind)
        _, *self._names = inspect.signature(block.forward).parameters  # GPT-2 passes the mask and the cache by position
        parameters = inspect.signature(module.forward).parameters.values()
        self._accepts_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._accepted = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}

    def forward(self, hidden_states: Tensor, *positional: Any, **context: Any) -> Tensor:
        context |= dict(zip(self._names, positional, strict=False))
        return self.module(
            hidden_states, **{k: v for k, v in context.items() if self._accepts_all or k in self._accepted}
        )


def _set_blocks(model: nn.Module, old: nn.ModuleList, new: list[nn.Module]) -> None:
    """Replace the list of blocks `old` in every module that owns it."""
    replacement = nn.ModuleList(new)
    for owner in list(model.modules()):
        for name, child in list(owner.named_children()):
            if child is old:
                setattr(owner, name, replacement)


def _configs(model: nn.Module) -> list[Any]:
    """The configurations of the model and its parts, each once."""
    configs = [module.config for module in model.modules() if _depth(module)]
    return list({id(config): config for config in configs}.values())
