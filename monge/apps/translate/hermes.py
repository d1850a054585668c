"""Configuration files of the original HERMES implementation: the section neural_ot of its project_config.yaml."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from monge.apps.translate.pair import Pairs
from monge.apps.translate.pair import pair as join
from monge.apps.translate.recipes import HERMES, Translate
from monge.files import locked, read_json, write_json

PRICES = {
    "lambda_pos": "position",
    "alpha_delete": "delete",
    "alpha_create": "create",
    "beta_create": "create_norm",
}
"""The prices by their names in HERMES."""
KINDS: dict[str, type | tuple[type, ...]] = {
    "hidden_dim": int,
    "num_layers": int,
    "max_len": int,
    "batch_size": int,
    "num_epochs": int,
    "learning_rate": (int, float),
    "ot_reg": (int, float),
    **dict.fromkeys(PRICES, (int, float)),
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
            value = settings.get(name, 1)
            if kind is str:
                if name in settings and not isinstance(value, str):
                    raise ValueError(f"{path}: {name} is {value!r}; give a path")
            elif isinstance(value, bool) or not isinstance(value, kind) or not value >= (1 if kind is int else 0):
                wanted = "a positive whole number" if kind is int else "a number that is not negative"
                raise ValueError(f"{path}: {name} is {value!r}; give {wanted}")
        return Original(settings)

    @property
    def notes(self) -> list[str]:
        """A sentence for each setting of the file that has no effect."""
        return [f"{name} has no effect: {reason}" for name, reason in WITHOUT_EFFECT.items() if name in self.settings]

    def pairs(self, out: Path) -> Pairs:
        """The pairs of its two files, joined in the directory `out` unless it exists, without sequences longer than max_len.

        ValueError if `out` holds pairs of other files or of another max_len.
        """
        files = [Path(self.settings[f"{name}_embeddings"]).resolve() for name in ("nl", "lean")]
        capacity, record = self.settings.get("max_len", 256), out.with_name(f"{out.name}.json")
        stats = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.exists()]
        made = {"files": stats, "capacity": capacity}
        with locked(out.with_name(f".joining-{out.name}"), wait=True):  # a second rank uses the first one's pairs
            if not (out / "pairs.json").exists():
                join(files[0], files[1], out, capacity=capacity, on_long_rows="drop")
                write_json(record, made)
            elif not record.exists() or read_json(record) != made:
                raise ValueError(
                    f"{out}: holds pairs of other files or of another max_len; remove it or choose another --out"
                )
        return Pairs(out)

    def recipe(self, pairs: Pairs, flags: Translate) -> Translate:
        """The recipe with these settings; each flag that differs from HERMES' default takes precedence.

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
        depth = self.settings.get("num_layers", HERMES.shape.depth)
        heads = HEADS if width % (2 * HEADS) == 0 else 1
        shape = {"width": width, "depth": depth, "head_width": width // heads}
        default = {name: getattr(HERMES.shape, name) for name in shape}
        given = {name: getattr(flags.shape, name) for name in shape if getattr(flags.shape, name) != default[name]}
        changes["shape"] = replace(flags.shape, **(shape | given))
        if flags.prices == HERMES.prices:
            named = {name: float(self.settings[key]) for key, name in PRICES.items() if key in self.settings}
            changes["prices"] = replace(flags.prices, **named)
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
