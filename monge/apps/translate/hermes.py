"""Configuration files of the original HERMES implementation: the section neural_ot of its project_config.yaml."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monge.apps.translate.pair import Pairs
from monge.apps.translate.pair import pair as join
from monge.apps.translate.recipes import HERMES, Translate

KINDS: dict[str, type | tuple[type, ...]] = {
    "hidden_dim": int,
    "num_layers": int,
    "max_len": int,
    "batch_size": int,
    "num_epochs": int,
    "learning_rate": (int, float),
    "ot_reg": (int, float),
    "nl_embeddings": str,
    "lean_embeddings": str,
    "output_dir": str,
}
"""The settings that have an equivalent, with their types."""
WITHOUT_EFFECT = {
    "time_embed_dim": "times have 256 features",
    "mlp_width": "feed-forward layers are four times as wide as the field",
}
"""The settings without an equivalent, with the value that is used."""
HEADS = 8
"""Number of attention heads of the original."""


@dataclass(frozen=True)
class Original:
    """The settings of a configuration file."""

    settings: Mapping[str, Any]

    @staticmethod
    def read(path: Path) -> "Original":
        """The section neural_ot. ValueError for an unreadable file, unknown settings, missing paths, and wrong types."""
        try:
            import yaml
        except ImportError as error:
            raise ValueError("PyYAML is not installed; pip install pyyaml") from error
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})") from error
        settings = content.get("neural_ot") if isinstance(content, dict) else None
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: no section neural_ot; pass the configuration file of HERMES")
        settings = {name: value if KINDS.get(name) is str else _number(value) for name, value in settings.items()}
        if unknown := sorted(map(str, settings.keys() - KINDS.keys() - WITHOUT_EFFECT.keys())):
            raise ValueError(f"{path}: unknown setting {unknown[0]!r}; use {', '.join((*KINDS, *WITHOUT_EFFECT))}")
        for name in ("nl_embeddings", "lean_embeddings"):
            if name not in settings:
                raise ValueError(f"{path}: {name} is missing; give the path of the parquet file")
        for name, kind in KINDS.items():
            if name in settings and (not isinstance(settings[name], kind) or isinstance(settings[name], bool)):
                raise ValueError(f"{path}: {name} is {settings[name]!r}; give a {'path' if kind is str else 'number'}")
        return Original(settings)

    @property
    def notes(self) -> list[str]:
        """A sentence for each setting of the file that has no effect."""
        return [f"{name} has no effect: {reason}" for name, reason in WITHOUT_EFFECT.items() if name in self.settings]

    def pairs(self, out: Path) -> Pairs:
        """The pairs of its two files, joined in the directory `out` unless it exists, without sequences longer than max_len."""
        if not (out / "pairs.json").exists():
            source, target = (Path(self.settings[f"{name}_embeddings"]) for name in ("nl", "lean"))
            join(source, target, out, capacity=self.settings.get("max_len", 256), on_long_rows="drop")
        return Pairs(out)

    def recipe(self, pairs: Pairs, flags: Translate) -> Translate:
        """The recipe with these settings; those of `flags` that differ from HERMES' defaults take precedence.

        ValueError if hidden_dim is not the width of the vectors.
        """
        width = self.settings.get("hidden_dim", pairs.width)
        if width != pairs.width:
            raise ValueError(
                f"hidden_dim is {width}, but the vectors have width {pairs.width}; fix the configuration file"
            )
        batch_size = self.settings.get("batch_size", HERMES.batch_size)
        if flags.batch_size != HERMES.batch_size:
            batch_size = flags.batch_size
        changes: dict[str, Any] = {"batch_size": batch_size}
        if flags.epsilon == HERMES.epsilon:
            changes["epsilon"] = float(self.settings.get("ot_reg", HERMES.epsilon))
        if flags.shape == HERMES.shape:
            depth = self.settings.get("num_layers", HERMES.shape.depth)
            changes["shape"] = replace(flags.shape, width=width, head_width=max(2, width // HEADS), depth=depth)
        train = flags.train
        if train.lr == HERMES.train.lr:
            train = replace(train, lr=float(self.settings.get("learning_rate", train.lr)))
        if train.steps == HERMES.train.steps and "num_epochs" in self.settings:
            per_epoch = math.ceil(len(pairs.split("train")) / batch_size)
            train = replace(train, steps=max(1, self.settings["num_epochs"] * per_epoch))
        return replace(flags, pairs=str(pairs.directory), train=train, **changes)


def _number(value: Any) -> Any:
    """The value, as a number if it is one that YAML 1.1 reads as text, such as 5e-4."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
