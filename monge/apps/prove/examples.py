"""The pairs of a tactic policy as tokenized examples, with the model that learns them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monge.apps.prove.copying import Copying
from monge.apps.prove.lm.prompt import completion, prompt
from monge.apps.prove.packing import Example, example
from monge.apps.prove.pairs import Counts, TacticPair, pairs_of
from monge.apps.prove.renaming import Renamer
from monge.apps.prove.scores import scores_of, weights_of
from monge.lm.load import causal
from monge.lm.store import DTYPES
from monge.math.random import seeded, split_of
from monge.pretrain import END, neox, tokenizer_of

if TYPE_CHECKING:
    from monge.apps.prove.finetune import FineTune


@dataclass
class Data:
    """The pairs of a recipe as examples, and the model that learns them."""

    recipe: "FineTune"
    _hints: dict[TacticPair, list[str]] = field(default_factory=dict[TacticPair, list[str]], init=False, repr=False)

    @cached_property
    def _read(self) -> tuple[list[TacticPair], dict[str, Counts]]:
        recipe = self.recipe
        return pairs_of([Path(run) for run in recipe.runs], [Path(file) for file in recipe.pairs])

    @property
    def counts(self) -> dict[str, Counts]:
        """The number of rows read, left out and kept, by source."""
        return self._read[1]

    @cached_property
    def split(self) -> dict[str, list[TacticPair]]:
        """The pairs for training and for validation, split by theorem. If there are runs too, those of --pairs are a
        sample (see pair_share).

        ValueError if a split is empty.
        """
        recipe, (pairs, _) = self.recipe, self._read
        shares = {"validation": recipe.validation_share, "training": 1 - recipe.validation_share}
        published = [pair for pair in pairs if pair.source in recipe.pairs]
        own = [pair for pair in pairs if pair.source not in recipe.pairs]
        if own and published:
            count = min(len(published), round(recipe.pair_share / (1 - recipe.pair_share) * len(own)))
            chosen = torch.randperm(len(published), generator=seeded(recipe.train.seed, 3))[:count]
            published = [published[k] for k in sorted(chosen.tolist())]
        parts: dict[str, list[TacticPair]] = {"training": [], "validation": []}
        for pair in [*own, *published]:
            parts[split_of(pair.theorem, shares)].append(pair)
        for name, part in parts.items():
            if not part:
                raise ValueError(
                    f"no pairs for {name} among {len(pairs)}; give more runs or another --validation-share"
                )
        return parts

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer: the base, or a new GPT-NeoX whose tokenizer is trained on the training pairs."""
        recipe = self.recipe
        if recipe.base:
            base = causal(recipe.base, dtype=DTYPES[recipe.dtype], quantize=recipe.quantize)
            if base.positions is not None and base.positions < recipe.length:
                raise ValueError(
                    f"--length {recipe.length}: {recipe.base} has {base.positions} positions; give at most that many"
                )
            recipe.style.record(base.model)
            return base.model, base.tokenizer
        from transformers import PreTrainedTokenizerFast

        style = recipe.style
        texts = [
            text
            for pair in self.split["training"]
            for text in (prompt(pair.state, style, self.hints(pair)), completion(style.tactic(pair.state, pair.tactic)))
        ]
        tokenizer = tokenizer_of(texts, recipe.vocabulary)
        end = tokenizer.token_to_id(END)
        model = neox(tokenizer.get_vocab_size(), recipe.width, recipe.depth, recipe.heads, recipe.length, end)
        recipe.style.record(model)
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=recipe.length
        )
        return model, fast

    @cached_property
    def _copying(self) -> Copying:
        return Copying(self.split["training"])

    def hints(self, pair: TacticPair) -> list[str]:
        """Tactics of training pairs of other theorems with similar states, most likely first."""
        if not self.recipe.retrieved:
            return []
        if pair not in self._hints:
            (found,) = self._copying.without(pair.theorem)([pair.state], self.recipe.retrieved)
            self._hints[pair] = [one.tactic for one in found]
        return self._hints[pair]

    @property
    def model(self) -> Any:
        """The model without adapters."""
        return self.loaded[0]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model."""
        return self.loaded[1]

    @property
    def pad(self) -> int:
        """The token id of padding."""
        return self.tokenizer.pad_token_id

    @cached_property
    def training(self) -> list[Example]:
        """The training examples, followed by their renamed copies. Pairs whose tactic alone is too long are left out."""
        pairs, recipe = self.split["training"], self.recipe
        rename, generator = Renamer(pair.state for pair in pairs), np.random.default_rng(recipe.train.seed)
        copies = [rename(pair, generator) for _ in range(recipe.renamed_copies) for pair in pairs]
        examples = [*self._examples("training"), *self._tokenized(copies)]
        if not recipe.scored_by:
            return [one for _, one in examples]
        scores = scores_of(pairs, causal(recipe.scored_by), recipe.length)
        weights = weights_of(scores, recipe.tails, recipe.tail_weight)
        by_pair = dict(zip([*pairs, *copies], weights * (1 + recipe.renamed_copies), strict=True))
        return [replace(one, weight=by_pair[pair]) for pair, one in examples]

    @cached_property
    def num_renamed(self) -> int:
        """Number of training examples that are renamed copies."""
        return len(self.training) - len(self._examples("training"))

    @cached_property
    def held_out(self) -> list[Example]:
        """The held-out examples."""
        return [one for _, one in self._examples("validation")]

    def held_out_by_source(self) -> dict[str, list[Example]]:
        """The held-out examples of each source."""
        parts: dict[str, list[Example]] = defaultdict(list)
        for pair, one in self._examples("validation"):
            parts[pair.source].append(one)
        return parts

    def _examples(self, split: str) -> list[tuple[TacticPair, Example]]:
        kept = self._tokenized(self.split[split])
        if not kept:
            raise ValueError(f"--length {self.recipe.length}: every tactic for {split} is longer; give more tokens")
        return kept

    def _tokenized(self, pairs: Sequence[TacticPair]) -> list[tuple[TacticPair, Example]]:
        """The pairs whose tactic is not too long, with their examples."""
        length, style = self.recipe.length, self.recipe.style
        tokenized = [
            (pair, example(self.tokenizer, pair.state, pair.tactic, length, style, self.hints(pair))) for pair in pairs
        ]
        return [(pair, one) for pair, one in tokenized if one is not None]
