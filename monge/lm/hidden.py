"""Hidden states of a language model, per token, by layer: what leaves a block, before any final norm."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from monge.lm.load import Encoder


def hidden_states(
    encoder: Encoder, texts: Sequence[str], *, layer: int, max_length: int, tokens: int = 4096
) -> list[Float[Tensor, "_ D"]]:
    """The states of each text's tokens, without special ones, after the first `layer` blocks (0: the embeddings).

    Texts are batched by length, up to `tokens` with padding at a time; a text of more than `max_length` tokens is cut.
    """
    check(encoder, layer, max_length)
    rows = encoder.tokenizer(list(texts), truncation=True, max_length=max_length, return_special_tokens_mask=True)
    lengths = [len(row) for row in rows["input_ids"]]
    device = next(encoder.model.parameters()).device
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    for batch in by_length(lengths, tokens):
        part = encoder.tokenizer.pad(
            {"input_ids": [rows["input_ids"][k] for k in batch]}, padding_side="right", return_tensors="pt"
        ).to(device)
        with torch.no_grad(), _captured(encoder.model, layer) as captured:
            encoder.model(input_ids=part["input_ids"], attention_mask=part["attention_mask"])
        for k, states in zip(batch, captured[0], strict=True):
            ordinary = torch.tensor(rows["special_tokens_mask"][k]) == 0
            found[k] = states[: lengths[k]][ordinary.to(device)].cpu()
    return found


def longer(encoder: Encoder, texts: Sequence[str], max_length: int) -> int:
    """How many texts have more tokens than that, special ones included."""
    rows = encoder.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    return sum(len(row) > max_length for row in rows)


def check(encoder: Encoder, layer: int, max_length: int) -> None:
    """ValueError unless the model has so many blocks, and takes texts of so many tokens with at least one of their own."""
    if not 0 <= layer <= encoder.depth:
        raise ValueError(f"layer {layer}: {encoder.name} has {encoder.depth} blocks; give 0 to {encoder.depth}")
    least, most = encoder.tokenizer.num_special_tokens_to_add() + 1, positions_of(encoder.model)
    if not least <= max_length <= (max_length if most is None else most):
        fit = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"max_length {max_length}: {encoder.name} takes texts of {fit} tokens; give one of these")


def positions_of(model: nn.Module) -> int | None:
    """How many places the model's table of positions has; None without one: rotary or relative positions have no end."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and ("position" in name.rpartition(".")[-1] or name.endswith("wpe")):
            first = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa's
            return module.num_embeddings - int(getattr(module, "offset", first))  # OPT's
    return None


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar lengths: count times the longest is at most `tokens`, or the batch is a single one."""
    batch: list[int] = []
    for k in sorted(range(len(lengths)), key=lambda k: (-lengths[k], k)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(k)
    if batch:
        yield batch


@contextmanager
def _captured(model: nn.Module, layer: int) -> Iterator[list[Tensor]]:
    """A list that the next forward pass fills with the state after `layer` blocks."""
    blocks = blocks_of(model)
    states: list[Tensor] = []

    def before(_: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        states.append(arguments[0] if arguments else keywords["hidden_states"])

    def after(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        states.append(output if isinstance(output, Tensor) else output[0])

    # the last of transformers' own hidden_states has passed the final norm: the block's output has not
    if layer < len(blocks):
        hook = blocks[layer].register_forward_pre_hook(before, with_kwargs=True)
    else:
        hook = blocks[-1].register_forward_hook(after)
    try:
        yield states
    finally:
        hook.remove()


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The model's blocks: its longest list of modules as long as its configuration says. ValueError if it has none."""
    depth = model.config.num_hidden_layers  # pyright: ignore[reportAttributeAccessIssue]
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ValueError(f"{type(model).__name__}: no list of {depth} blocks in it; hidden states cannot be taken")
