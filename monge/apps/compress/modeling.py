"""The grafted language model in transformers' own form: saved, loaded and generated from like any causal model."""

from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from monge.apps.compress.estimator import estimator_of
from monge.apps.compress.graft import FlowLayer, graft
from monge.apps.compress.layer import Constant, Modulation
from monge.lm.blocks import blocks_of


class FlowConfig(PreTrainedConfig):
    """The configurations of the remaining model and of its generation, the index of its flow layer, and the flow's settings."""

    model_type = "monge_flow"

    def __init__(
        self,
        base: dict[str, Any] | None = None,
        start: int = 0,
        removed: int = 0,
        steps: int = 1,
        solver: str = "euler",
        layers: int = 1,
        affine: bool = True,
        rank: int | None = None,
        parallel: bool | None = None,
        merged: bool = False,
        durations: bool = False,
        generation: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.base, self.start, self.removed = base or {}, start, removed
        self.steps, self.solver, self.layers, self.affine = steps, solver, layers, affine
        self.rank, self.parallel, self.merged, self.durations = rank, parallel, merged, durations
        self.generation = generation or {}
        super().__init__(**options)

    def base_config(self) -> Any:
        """The configuration of the remaining model, as transformers' own class."""
        return transformers.CONFIG_MAPPING[self.base["model_type"]].from_dict(self.base)


class FlowForCausalLM(PreTrainedModel):
    """A causal language model whose layers [start, start + removed) are one flow layer."""

    config_class = FlowConfig
    base_model_prefix = "base"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    base: Any

    def __init__(self, config: FlowConfig, base: nn.Module | None = None) -> None:
        super().__init__(config)
        model: Any = base
        if model is None:
            model = AutoModelForCausalLM.from_config(config.base_config())
            first, options = config.start, {"rank": config.rank, "parallel": config.parallel}
            options["durations"] = config.durations
            layers = [first] * config.layers
            estimator = estimator_of(model, first, first + 1, layers=layers, affine=config.affine, **options)
            if config.merged:
                estimator.merge()
            graft(model, estimator, first, first + 1, steps=config.steps, solver=config.solver)
            model.generation_config = transformers.GenerationConfig.from_dict(config.generation)
        for module in model.modules() if base is not None else ():
            module._is_hf_initialized = True  # or post_init would draw the flow's weights at random
        self.base = model
        self._tied_weights_keys = {f"base.{k}": f"base.{v}" for k, v in (model._tied_weights_keys or {}).items()}
        self.post_init()

    @property
    def flow(self) -> FlowLayer:
        """The flow layer; its `steps` and `solver` may be changed at inference."""
        return blocks_of(self.base)[self.config.start].module  # pyright: ignore

    def _init_weights(self, module: nn.Module) -> None:
        """Keep the weights of the model that was grafted."""

    def get_input_embeddings(self) -> nn.Module:
        return self.base.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.base.get_output_embeddings()

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        return self.base(*arguments, **keywords)

    def generate(self, *arguments: Any, **keywords: Any) -> Any:
        """transformers' generate; with a key-value cache unless the model's configuration disables it."""
        return self.base.generate(*arguments, **keywords)


AutoConfig.register(FlowConfig.model_type, FlowConfig)
AutoModelForCausalLM.register(FlowConfig, FlowForCausalLM)


def wrapped(base: Any, start: int, removed: int) -> FlowForCausalLM:
    """A model that `graft` changed in place, ready for `save_pretrained`."""
    layer: FlowLayer = blocks_of(base)[start].module  # pyright: ignore
    blocks: Any = layer.estimator.blocks
    modulation = blocks[0].modulation if blocks else None
    reduce = modulation.vectors.reduce if isinstance(modulation, Modulation) else None
    config = FlowConfig(
        base.config.to_dict(),
        start,
        removed,
        layer.steps,
        layer.solver,
        len(blocks),
        layer.estimator.map is not None,
        reduce.out_features if isinstance(reduce, nn.Linear) else None,
        blocks[0].parallel if blocks else None,
        isinstance(modulation, Constant),
        isinstance(modulation, Modulation) and modulation.durations,
        base.generation_config.to_dict(),
        tie_word_embeddings=base.config.tie_word_embeddings,
    )
    return FlowForCausalLM(config, base)


def load(folder: Path | str, **options: Any) -> FlowForCausalLM:
    """The model in a folder that `save_pretrained` wrote. Options are those of transformers' from_pretrained."""
    return FlowForCausalLM.from_pretrained(folder, **options)
