"""Settings of a search run: everything that decides its results."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from monge.apps.prove.lean.setup import command_of, embedded_lean, native_lean
from monge.apps.prove.lean.toolchain import Toolchain
from monge.apps.prove.lm.causal import Sampling
from monge.apps.prove.lm.endpoint import Endpoint
from monge.apps.prove.policy import PROBES
from monge.apps.prove.state import Budget, Limits
from monge.apps.prove.tree import Search


@dataclass(frozen=True)
class Local:
    """A Hugging Face model on this machine, loaded by each worker."""

    name: str = ""
    """Directory of the model, or its name on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of its weights."""
    device: str = "cpu"
    """Device that it runs on."""
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True)
class SearchConfig:
    """All settings that decide the results of a run."""

    search: Search = field(default_factory=Search)
    budget: Budget = field(default_factory=Budget)
    policy: Literal["template", "probes", "server", "local"] = "template"
    tactics: tuple[str, ...] = PROBES
    """The probe tactics that Lean knows."""
    server: Endpoint = field(default_factory=Endpoint)
    local: Local = field(default_factory=Local)
    lean: str = ""
    """Command of an installed Lean; the WebAssembly build if empty."""
    limits: Limits = field(default_factory=Limits)
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    """Prefix of its states' ids, different for each run."""

    def toolchain(self) -> Toolchain:
        """The Lean that it runs on. FileNotFoundError if there is none."""
        return native_lean(command_of(self.lean)) if self.lean else embedded_lean()


@dataclass(frozen=True)
class Source:
    """The place that a run's theorems were read from, so that `--resume` can read them again."""

    path: Path = Path()
    split: str = "all"
    most: int | None = None
    """Number of theorems read from its beginning; all if None."""
