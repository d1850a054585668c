"""GGUF files as Hugging Face models: dequantised once, and stored as safetensors in the cache directory."""

import copy
import importlib.util
from hashlib import blake2b
from pathlib import Path
from typing import Any

from monge.files import atomic_directory, cache_directory, locked
from monge.math.random import forked_rng


def from_gguf(path: Path, transformers: Any) -> Path:
    """The folder with the converted model and tokenizer of a GGUF file; the first call takes a minute to write it.

    transformers reads the file with the packages gguf and accelerate. ValueError if they are missing, if the file is damaged,
    or if its architecture or quantisation is unknown.
    """
    with path.open("rb") as file:
        digest = blake2b(file.read(), digest_size=8).hexdigest()
    folder = cache_directory() / f"{path.stem}-{digest}"
    with locked(folder.with_name(f".converting-{folder.name}"), wait=True):
        if not folder.exists():
            _convert(path, folder, transformers)
    return folder


def _convert(path: Path, folder: Path, transformers: Any) -> None:
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"{path}: reading GGUF files needs the package {package}; pip install 'monge[lm]'")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        quantised = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    except MemoryError:
        raise
    except Exception as error:  # depends on the damage: struct.error, KeyError, ValueError, NotImplementedError, ...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path}: transformers cannot read this GGUF file ({reason}); if damaged, download it again"
        ) from error
    config = copy.deepcopy(quantised.config)
    del config.quantization_config  # transformers would refuse to save the model
    with forked_rng():  # the first weights are random, and replaced; later draws must not depend on the conversion
        model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    with atomic_directory(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
