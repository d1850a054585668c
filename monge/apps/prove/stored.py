"""Flags of `monge prove` that default to stored settings: those of the run to resume, or those in a file."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from monge.apps.prove.campaign import stored_settings
from monge.apps.prove.config import read_config
from monge.flags import bind


def with_stored_settings(verb: Callable[..., None], arguments: Sequence[str]) -> Callable[..., None]:
    """A verb whose flags default to stored settings: with `--resume` those of the run in `--out`, with `--config` those in the
    file."""
    values, named = bind(verb, arguments, f"monge prove {verb.__name__}")
    parameters = inspect.signature(verb).parameters
    flags = inspect.signature(verb).bind(*values, **named).arguments
    defaults: dict[str, Any] = {}
    if flags.get("resume"):
        config, source = stored_settings(flags.get("out", parameters["out"].default))
        defaults = {"theorems": source.path, "split": source.split, "limit": source.limit}
    elif flags.get("config"):
        config = read_config(flags["config"])
    else:
        return verb
    defaults |= {name: getattr(config.search, name) for name in SEARCH_FLAGS}
    defaults |= {"tactic_seconds": config.budget.seconds, "policy": config.policy, "url": config.server.url}
    defaults |= {"device": config.local.device, "lean": config.lean, "base": config}
    return partial(verb, **{name: value for name, value in defaults.items() if name in parameters})


SEARCH_FLAGS = ("order", "max_states", "max_seconds", "num_tactics", "batch_size", "seed")
"""Fields of Search that have a flag; the others are set in a file, with --config."""
