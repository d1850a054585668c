"""Pretraining of a small GPT-NeoX on a file of texts: next-token prediction in the shared training loop."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import nn
from tyro.conf import OmitArgPrefixes, Suppress

from monge.objective.next_token import NextToken, Tokens
from monge.run import fingerprint, fit
from monge.runs import reopen
from monge.training.batches import shuffled
from monge.training.config import TrainConfig, check_at_least
from monge.training.distributed import is_first
from monge.training.loop import Run

END = "<|endoftext|>"


@dataclass(frozen=True)
class Pretrain:
    """A GPT-NeoX and its tokenizer, trained from scratch on texts. ValueError if a setting is out of range."""

    app: ClassVar[str] = "pretrain"
    relocatable: ClassVar[frozenset[str]] = frozenset({"texts"})

    texts: Annotated[str, Suppress] = ""
    """Path of a file with one text per line; in a .jsonl file, each line is a JSON string."""
    vocabulary: int = 2048
    """Maximum number of tokens in the vocabulary, which always includes the 256 bytes and the end-of-text token."""
    width: int = 384
    """Hidden size of the model, a multiple of twice the number of heads."""
    depth: int = 4
    """Number of transformer blocks."""
    heads: int = 6
    """Number of attention heads per block."""
    length: int = 128
    """Length of a training sequence in tokens; texts are concatenated before they are cut into sequences."""
    batch_size: int = 16
    """Number of sequences per batch."""
    train: OmitArgPrefixes[TrainConfig] = field(
        default_factory=lambda: TrainConfig(
            steps=600, warmup_steps=50, save_every=300, weight_decay=0.1, threads=0, ema_width=0.0
        )
    )

    def __post_init__(self) -> None:
        if self.texts:
            object.__setattr__(self, "texts", str(Path(self.texts).resolve()))
        check_at_least(self, vocabulary=1, width=1, depth=1, heads=1, length=2, batch_size=1)
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width {self.width} does not divide into {self.heads} heads of even width; use a multiple of {2 * self.heads}"
            )

    def build(self) -> Run[Any]:
        """Train the tokenizer, tokenize the texts, and assemble the run. ValueError if there are too few texts."""
        lines = read_lines(Path(self.texts))
        tokenizer = tokenizer_of(lines, self.vocabulary)
        end = tokenizer.token_to_id(END)
        stream = torch.tensor([token for row in tokenizer.encode_batch(lines) for token in [*row.ids, end]])
        blocks = stream[: len(stream) // self.length * self.length].reshape(-1, self.length)
        held_out_count = max(1, len(blocks) // 50)
        if len(blocks) < 2 * self.batch_size:
            raise ValueError(
                f"{self.texts}: {len(blocks)} sequences of {self.length} tokens, "
                f"but two batches of {self.batch_size} are needed; give more text"
            )
        training, held_out = blocks[held_out_count:], blocks[:held_out_count]
        model = neox(tokenizer.get_vocab_size(), self.width, self.depth, self.heads, self.length, end)

        def batches(number: int) -> Tokens:
            return Tokens(training[shuffled(number, self.batch_size, len(training), self.train.seed)])

        def evaluate(model: nn.Module) -> dict[str, float]:
            device = next(model.parameters()).device
            losses = [NextToken()(model, Tokens(part).to(device)).value for part in held_out.split(self.batch_size)]
            sizes = [len(part) for part in held_out.split(self.batch_size)]
            total = sum(float(loss) * size for loss, size in zip(losses, sizes, strict=True))
            return {"held-out loss": total / len(held_out)}

        return Run(model, NextToken(), batches, self.train, evaluate, {"texts": fingerprint(stream)})

    def pretrain(self, directory: Path, *, resume: bool = False) -> Path:
        """Train in `directory` and save the model to `directory/model` in the transformers format; return that path."""
        fit(self, directory, resume=resume)
        if not is_first():
            return directory / "model"
        lines = read_lines(Path(self.texts))
        tokenizer = tokenizer_of(lines, self.vocabulary)
        end = tokenizer.token_to_id(END)
        model = neox(tokenizer.get_vocab_size(), self.width, self.depth, self.heads, self.length, end)
        opened = reopen(directory, app=self.app)
        opened.weights(model, averaged=False)
        from transformers import PreTrainedTokenizerFast

        model.save_pretrained(directory / "model")
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=self.length
        )
        fast.save_pretrained(directory / "model")
        return directory / "model"


def neox(vocabulary: int, width: int, depth: int, heads: int, length: int, end: int) -> Any:
    """A GPT-NeoX with random weights for up to `length` tokens; `end` is the id of END. Black et al. 2204.06745."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=length,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
            use_cache=False,
        )
    )


def tokenizer_of(lines: Sequence[str], vocabulary: int) -> Any:
    """Byte-level BPE within words, with at most max(257, `vocabulary`) tokens. The same lines give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def read_lines(path: Path) -> list[str]:
    """The texts of a file, one per non-empty line; in a .jsonl file, each is a JSON string. ValueError if there are none."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; provide a file with one text per line")
    numbered = [(number, line) for number, line in enumerate(_stripped(path), 1) if line]
    quoted = path.suffix == ".jsonl"
    lines = [_string(path, number, line) if quoted else line for number, line in numbered]
    if not lines:
        raise ValueError(f"{path}: the file contains no text")
    return lines


def _string(path: Path, number: int, line: str) -> str:
    try:
        if isinstance(text := json.loads(line), str) and text.strip():
            return text.strip()
    except json.JSONDecodeError:
        pass
    raise ValueError(f"{path}: line {number} is not a JSON string with text")


def _stripped(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        yield from (line.strip() for line in lines)
