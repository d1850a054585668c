"""Low-rank adapters of a language model's linear layers. Hu et al. 2106.09685."""

from collections.abc import Sequence
from typing import Any

from torch import nn

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a block of Llama and its relatives."""


def with_lora(
    model: nn.Module, rank: int | None, *, alpha: float = 64.0, dropout: float = 0.05, modules: Sequence[str] = MODULES
) -> nn.Module:
    """The model with new adapters, the only weights that are trained; without a rank, no adapters are added and all weights are
    trained.

    ValueError if peft is not installed, or the model has none of the `modules`.
    """
    if rank is None:
        return model.requires_grad_(True)
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ValueError("--rank: LoRA needs peft; pip install 'monge[lm]', or pass --rank None") from None
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=dropout,
        target_modules=list(modules),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model.requires_grad_(False), config)  # pyright: ignore[reportReturnType, reportArgumentType]
    except ValueError as error:
        raise ValueError(f"--modules: {error}") from None


def merged(model: Any) -> Any:
    """The model with its adapters merged into its weights; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
