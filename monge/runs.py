"""Run directories on disk: reopening one, rebuilding its recipe, and comparing settings with those of an earlier run."""

import inspect
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from monge.files import read_json, read_tensors, write_json
from monge.training import checkpoint
from monge.training.state import load_weights

R = TypeVar("R")


def check_same(path: Path, stored: dict[str, Any], wanted: dict[str, Any], *, free: Collection[str] = ()) -> None:
    """Reject settings that differ from the stored ones, with a ValueError that names the first difference.

    The version of monge and the settings in `free`, dotted names such as "recipe.train.steps", may differ.
    """
    was, want = _flatten({**stored, "monge": ""}), _flatten(json.loads(json.dumps({**wanted, "monge": ""})))
    for key in sorted(was.keys() | want.keys()):
        if was.get(key) != want.get(key) and key not in free:
            raise ValueError(
                f"{path}: made with {key} = {was.get(key)!r}, not {want.get(key)!r}; "
                "resume with the same settings or choose another directory"
            )


def record_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write settings to a new file `path`, or compare them with those in it (see check_same)."""
    if path.exists():
        check_same(path, read_json(path), settings)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, inner in value.items() for k, v in _flatten(inner, f"{prefix}.{name}".lstrip(".")).items()}


@dataclass(frozen=True)
class Opened:
    """A run read from disk: enough to rebuild its network and load its weights, without its data."""

    directory: Path
    app: str
    recipe: dict[str, Any]
    constants: dict[str, Tensor]

    def weights(self, model: nn.Module, *, which: str = "last", averaged: bool = True) -> nn.Module:
        """`model` in evaluation mode, with the weights of checkpoint `which` (last, best or a step), or with their EMA.

        The EMA is taken if `averaged` and the run has one. ValueError if there is no such checkpoint or the weights do not fit.
        """
        path = self.checkpoint(which)
        tensors, frozen = read_tensors(path / "model.safetensors"), read_json(path / "state.json").get("frozen")
        if averaged and self.recipe["train"].get("ema_width"):
            tensors |= read_tensors(path / "ema.safetensors")
        try:
            load_weights(model, tensors, frozen=frozen[0] if frozen else None)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return model.eval()

    def rebuilt(self, kind: type[R]) -> R:
        """The run's recipe as an instance of `kind`. ValueError if it is of another kind or damaged."""
        if others := sorted(self.recipe.keys() - get_type_hints(kind)):
            raise ValueError(
                f"{self.directory}: not a run of {kind.__name__} (its recipe has {', '.join(others)}); "
                "use the command that created it"
            )
        try:
            return rebuild(kind, self.recipe)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.directory}: its recipe is damaged or from another version of monge ({error})"
            ) from error

    def checkpoint(self, which: str = "last") -> Path:
        """The directory of a checkpoint: last, best or a step number. ValueError if there is none."""
        checkpoints = checkpoint.steps(self.directory / "checkpoints")
        if not checkpoints:
            raise ValueError(f"{self.directory}: no checkpoint yet; train longer")
        if which == "last":
            return checkpoints[-1]
        best = read_json(checkpoints[-1] / "state.json", "best")["best"]
        step = int(best["step"]) if which == "best" and best else which
        for path in checkpoints:
            if str(checkpoint.step_of(path)) == str(step):
                return path
        steps = ", ".join(str(checkpoint.step_of(path)) for path in checkpoints)
        names = "last, best" if best else "last"
        raise ValueError(f"{self.directory}: no checkpoint {which!r}; available: {names} and steps {steps}")


def rebuild(kind: type[R], fields: dict[str, Any]) -> R:
    """A dataclass rebuilt from its `asdict` after a round trip through JSON, including nested dataclasses, tuples, paths
    and literals.

    TypeError or ValueError if a field is unknown, missing or invalid.
    """
    values, hints = dict(fields), get_type_hints(kind)
    for name, value in fields.items():
        hint = hints.get(name)
        nested = next((part for part in (hint, *get_args(hint)) if is_dataclass(part) and isinstance(part, type)), None)
        if nested is not None and (nested is hint or isinstance(value, dict)):
            values[name] = rebuild(nested, value)  # pyright: ignore[reportUnknownArgumentType]
        elif get_origin(hint) is tuple:
            values[name] = tuple(value)
        elif isinstance(value, str) and Path in (hint, *get_args(hint)):
            values[name] = Path(value)
        elif get_origin(hint) is Literal and value not in get_args(hint):
            raise ValueError(f"{name} = {value!r} is not one of {', '.join(map(repr, get_args(hint)))}")
    return kind(**values)


def reopen(directory: Path, *, app: str) -> Opened:
    """The run in `directory`. ValueError if there is none, or one of another `app`."""
    path = directory / "recipe.json"
    if not path.exists():
        raise ValueError(f"{directory}: no run here (no recipe.json); give a directory created by a train command")
    stored = read_json(path, "app", "recipe")
    if stored["app"] != app:
        raise ValueError(f"{directory} holds a run of {stored['app']}, not of {app}; use the command that created it")
    if not isinstance(stored["recipe"], dict) or not isinstance(stored["recipe"].get("train"), dict):
        raise ValueError(f"{path}: its recipe is damaged; restore the file or use another run")
    return Opened(directory, app, stored["recipe"], read_tensors(directory / "constants.safetensors"))


def with_stored_recipe(verb: Callable[..., Any], arguments: Sequence[str]) -> Callable[..., Any]:
    """A training verb whose recipe defaults to that of the run in its --out directory, so that --resume needs no flags.

    Returns `verb` unchanged if it takes no recipe or there is no run yet. Flags still override the stored recipe; `fit`
    rejects those that a resumed run may not change.
    """
    parameters = inspect.signature(verb).parameters
    if not {"recipe", "out"} <= parameters.keys():
        return verb
    directories = [after for word, after in pairwise(arguments) if word == "--out"]
    directories += [word.removeprefix("--out=") for word in arguments if word.startswith("--out=")]
    out = Path(directories[-1] if directories else parameters["out"].default)
    kind = get_type_hints(verb)["recipe"]
    if not (out / "recipe.json").exists():
        return verb
    return partial(verb, recipe=reopen(out, app=kind.app).rebuilt(kind))
