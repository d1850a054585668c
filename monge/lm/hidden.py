"""Hidden states of a language model by token and layer: the outputs of its blocks, before any final norm."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from monge.lm.blocks import blocks_of
from monge.lm.load import Encoder


def hidden_at(
    model: nn.Module, ids: Int[Tensor, "B N"], layers: Sequence[int], *, mask: Bool[Tensor, "B N"] | None = None
) -> list[Float[Tensor, "B N D"]]:
    """Hidden states of token ids at each of `layers`, from one forward pass. Layer k is taken after k blocks (0: embeddings).

    States are taken before any final norm, and the pass stops at the last one requested. `mask` is False at padding, whose
    states are meaningless. Ids move to the model's device; gradients flow unless the caller disables them. ValueError if
    `layers` is empty or the model lacks one of them.
    """
    blocks = blocks_of(model)
    missing = [layer for layer in layers if not 0 <= layer <= len(blocks)]
    if missing or not layers:
        raise ValueError(
            f"hidden_at: layers {list(layers)}, but the model has {len(blocks)} blocks; give 0 to {len(blocks)}"
        )
    weights = next(model.parameters())
    if not ids.numel():  # transformers' own reshaping fails here
        width: int = model.config.hidden_size  # pyright: ignore[reportAssignmentType, reportAttributeAccessIssue]
        return [weights.new_empty((*ids.shape, width)) for _ in layers]
    device = weights.device
    with _captured(model, set(layers)) as states, suppress(_AllCaptured):
        model(input_ids=ids.to(device), attention_mask=None if mask is None else mask.to(device, ids.dtype))
    return [states[layer] for layer in layers]


def hidden_states(
    encoder: Encoder, texts: Sequence[str], *, layer: int, max_length: int, tokens: int = 4096
) -> list[Float[Tensor, "_ D"]]:
    """Hidden states of each text's tokens, without special tokens, after the first `layer` blocks (0: embeddings), on the CPU.

    Texts are truncated to `max_length` tokens, including special ones, and batched by length. A batch has at most `tokens`
    tokens including padding, unless it is a single longer text. ValueError as in `check_limits`.
    """
    check_limits(encoder, layer, max_length)
    rows = encoder.tokenizer(list(texts), truncation=True, max_length=max_length, return_special_tokens_mask=True)
    lengths = [len(row) for row in rows["input_ids"]]
    result: list[Tensor] = [torch.empty(0)] * len(texts)
    for batch in by_length(lengths, tokens):
        part = encoder.tokenizer.pad(
            {"input_ids": [rows["input_ids"][k] for k in batch]}, padding_side="right", return_tensors="pt"
        )
        with torch.no_grad():
            (states,) = hidden_at(encoder.model, part["input_ids"], [layer], mask=part["attention_mask"].bool())
        for k, state in zip(batch, states, strict=True):
            ordinary = torch.tensor(rows["special_tokens_mask"][k]) == 0
            result[k] = state[: lengths[k]][ordinary.to(state.device)].cpu()
    return result


def count_truncated(encoder: Encoder, texts: Sequence[str], max_length: int) -> int:
    """The number of texts with more than `max_length` tokens, including special ones."""
    rows = encoder.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    return sum(len(row) > max_length for row in rows)


def check_limits(encoder: Encoder, layer: int, max_length: int) -> None:
    """ValueError unless the model has at least `layer` blocks and takes texts of `max_length` tokens.

    Special tokens count towards `max_length`, which must leave room for at least one other token.
    """
    if not 0 <= layer <= encoder.depth:
        raise ValueError(f"layer {layer}: {encoder.name} has {encoder.depth} blocks; give 0 to {encoder.depth}")
    minimum, maximum = encoder.tokenizer.num_special_tokens_to_add() + 1, positions_of(encoder.model)
    if not minimum <= max_length <= (max_length if maximum is None else maximum):
        allowed = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
        raise ValueError(
            f"max_length {max_length}: {encoder.name} takes texts of {allowed} tokens; give a number in that range"
        )


def positions_of(model: nn.Module) -> int | None:
    """Number of positions in the model's position table; None if it has none, as with rotary or relative positions."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and ("position" in name.rpartition(".")[-1] or name.endswith("wpe")):
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa's first rows
            return module.num_embeddings - int(getattr(module, "offset", reserved))  # OPT's attribute
    return None


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Yields batches of indices of texts with similar lengths.

    The size of a batch times its longest length is at most `tokens`, unless it is a single text.
    """
    batch: list[int] = []
    for k in sorted(range(len(lengths)), key=lambda k: (-lengths[k], k)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(k)
    if batch:
        yield batch


class _AllCaptured(Exception):
    """Raised inside a forward pass whose remaining blocks are not needed."""


@contextmanager
def _captured(model: nn.Module, layers: set[int]) -> Iterator[dict[int, Tensor]]:
    """A dictionary that the next forward pass fills with the state after each of `layers` blocks."""
    states: dict[int, Tensor] = {}

    def capture(layer: int, state: Tensor) -> None:
        states[layer] = state
        if len(states) == len(layers):
            raise _AllCaptured

    def before(layer: int, _: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        capture(layer, arguments[0] if arguments else keywords["hidden_states"])

    def after(layer: int, _: nn.Module, __: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        capture(layer, output if isinstance(output, Tensor) else output[0])

    blocks, hooks = blocks_of(model), []
    for layer in layers:
        # the last of transformers' own hidden_states includes the final norm; the output of the block does not
        if layer < len(blocks):
            hooks.append(blocks[layer].register_forward_pre_hook(partial(before, layer), with_kwargs=True))
        else:
            hooks.append(blocks[-1].register_forward_hook(partial(after, layer)))
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()
