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

from monge.files import read_json, read_tensors
from monge.train import checkpoint
from monge.train.state import load_weights

R = TypeVar("R")


def check_same(path: Path, stored: dict[str, Any], wanted: dict[str, Any], *, free: Collection[str] = ()) -> None:
    """Reject settings that differ from the stored ones, with a ValueError that names the first difference.

    Versions of monge may differ, and so may the settings in `free`, dotted names such as "recipe.train.steps".
    """
    was, want = _flat({**stored, "monge": ""}), _flat(json.loads(json.dumps({**wanted, "monge": ""})))
    for key in sorted(was.keys() | want.keys()):
        if was.get(key) != want.get(key) and key not in free:
            raise ValueError(
                f"{path}: made with {key} = {was.get(key)!r}, not {want.get(key)!r}; "
                "resume with the same settings, or name another directory"
            )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, inner in value.items() for k, v in _flat(inner, f"{prefix}.{name}".lstrip(".")).items()}


@dataclass(frozen=True)
class Opened:
    """What is on disk of a run: enough to build its network and give it weights, without its data."""

    directory: Path
    app: str
    recipe: dict[str, Any]
    constants: dict[str, Tensor]

    def weights(self, model: nn.Module, *, which: str = "last", averaged: bool = True) -> nn.Module:
        """`model` with the run's weights: `which` is last, best or a step; averaged are those of the EMA if there is one."""
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
        """The run's recipe, a dataclass of this kind. ValueError if the run is of another kind, or its file damaged."""
        if others := sorted(self.recipe.keys() - get_type_hints(kind)):
            raise ValueError(
                f"{self.directory}: not a run of {kind.__name__} (its recipe has {', '.join(others)}); "
                "use the command that began it"
            )
        try:
            return rebuild(kind, self.recipe)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.directory}: its recipe is damaged or of another version of monge ({error})"
            ) from error

    def checkpoint(self, which: str = "last") -> Path:
        """The directory of the checkpoint called last, best, or by its step."""
        found = checkpoint.steps(self.directory / "checkpoints")
        if not found:
            raise ValueError(f"{self.directory}: no checkpoint yet; train for longer")
        if which == "last":
            return found[-1]
        best = read_json(found[-1] / "state.json", "best")["best"]
        step = int(best["step"]) if which == "best" and best else which
        for path in found:
            if str(checkpoint.step_of(path)) == str(step):
                return path
        there = ", ".join(str(checkpoint.step_of(path)) for path in found)
        raise ValueError(f"{self.directory}: no checkpoint {which!r}; there are last, best and steps {there}")


def rebuild(kind: type[R], fields: dict[str, Any]) -> R:
    """A dataclass from the fields that asdict and JSON made of it: nested ones, tuples, paths and choices included."""
    found, hints = dict(fields), get_type_hints(kind)
    for name, value in fields.items():
        hint = hints.get(name)
        if is_dataclass(hint) and isinstance(hint, type):
            found[name] = rebuild(hint, value)
        elif get_origin(hint) is tuple:
            found[name] = tuple(value)
        elif isinstance(value, str) and Path in (hint, *get_args(hint)):
            found[name] = Path(value)
        elif get_origin(hint) is Literal and value not in get_args(hint):
            raise ValueError(f"{name} = {value!r}, none of {', '.join(map(repr, get_args(hint)))}")
    return kind(**found)


def reopen(directory: Path, *, app: str) -> Opened:
    """The run in `directory`. ValueError if there is none or if it is another application's."""
    path = directory / "recipe.json"
    if not path.exists():
        raise ValueError(f"{directory}: no run here (no recipe.json); name a directory that a train command made")
    found = read_json(path, "app", "recipe")
    if found["app"] != app:
        raise ValueError(f"{directory}: a run of {found['app']}, not of {app}")
    if not isinstance(found["recipe"], dict) or not isinstance(found["recipe"].get("train"), dict):
        raise ValueError(f"{path}: its recipe is damaged; restore the file or take another run")
    return Opened(directory, app, found["recipe"], read_tensors(directory / "constants.safetensors"))


def with_stored_recipe(verb: Callable[..., Any], arguments: Sequence[str]) -> Callable[..., Any]:
    """A training verb whose recipe defaults to that of the run in its --out directory, so that --resume needs no flags.

    The verb itself if it takes no recipe or if there is no run yet. Flags still override the recipe, and `fit` rejects
    those that a resumed run may not change.
    """
    parameters = inspect.signature(verb).parameters
    if not {"recipe", "out"} <= parameters.keys():
        return verb
    given = [after for word, after in pairwise(arguments) if word == "--out"]
    given += [word.removeprefix("--out=") for word in arguments if word.startswith("--out=")]
    out = Path(given[-1] if given else parameters["out"].default)
    kind = get_type_hints(verb)["recipe"]
    if not (out / "recipe.json").exists():
        return verb
    return partial(verb, recipe=reopen(out, app=kind.app).rebuilt(kind))
